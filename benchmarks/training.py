"""Tokens per second of the training loop, beside bare steps of transformers and litgpt, and the Trainer, in one run.

    python benchmarks/training.py [SIZE ...]

One thread, fp32, the same model, batch size and sequence. Blocks of steps alternate between the three, so that other
work on the machine slows all of them; ratios are medians over rounds. The bare step has one batch, resident, and
AdamW with clipping; the loop draws its batches from a mixture, follows the schedule, judges each step, logs, and splits
a step into passes that stay in caches, as the second bare step does. litgpt's model takes the same step where it is
installed, beside mixlaw or in a folder on PYTHONPATH, plain and compiled as its `pretrain` has it. The peak is that of
a square matrix multiplication of 1,024 on the same thread.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from mixlaw.machine import keep_freed_memory
from mixlaw.numbers import percent
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.train.log import Meter
from mixlaw.runner.train.parallel import ALONE, shard_model
from mixlaw.runner.train.spikes import Watch
from mixlaw.runner.train.step import CPU_TOKENS, rate, train_step

VOCABULARY, SEQUENCE, ROWS = 1024, 128, 64
ROUNDS, STEPS = 7, {"0.1M": 6, "1M": 3, "5M": 1}
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm"),
    "attention": ("scaled_dot_product",),
    "AdamW": ("fused_adamw",),
}


def peak() -> float:
    """FLOPs per second of a large matrix product on one thread."""
    one, other = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(8):
        began = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - began)
    return float(2 * 1024**3 / min(times))


def bare(size: str) -> Callable[[int], None]:
    """A step as one writes it with transformers: forward, cross-entropy of all logits, backward, clip, AdamW."""
    model = initialise(shape(size), VOCABULARY, SEQUENCE, seed=0)
    adamw = optimizer(model, 1e-3, 0.95)
    tokens = torch.randint(VOCABULARY, (ROWS, SEQUENCE + 1))

    def steps(count: int) -> None:
        """Steps on the same rows, over and over."""
        for _ in range(count):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
            adamw.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()

    return steps


def litgpt(size: str, compiled: bool) -> Callable[[int], None]:
    """The bare step with the model, the loss and the optimizer of `litgpt pretrain`, of the same shape."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    of = shape(size)
    model = GPT(Config(
        block_size=SEQUENCE, padded_vocab_size=VOCABULARY, n_layer=of.depth, n_head=of.heads, n_embd=of.width,
        intermediate_size=of.inner, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", bias=False,
        parallel_residual=False, rotary_percentage=1.0,
    ))  # fmt: skip
    model.lm_head.weight = model.transformer.wte.weight  # tied, as mixlaw's are
    step = torch.compile(model) if compiled else model
    adamw = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(VOCABULARY, (ROWS, SEQUENCE + 1))

    def steps(count: int) -> None:
        """Steps on the same rows, over and over."""
        for _ in range(count):
            chunked_cross_entropy(step(tokens[:, :-1]), tokens[:, 1:], chunk_size=0).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()
            adamw.zero_grad()

    return steps


def passes(size: str) -> Callable[[int], None]:
    """The bare step in passes that stay in caches, as the loop makes them: what the loop is left to cost."""
    model = initialise(shape(size), VOCABULARY, SEQUENCE, seed=0)
    adamw, losses = optimizer(model, 1e-3, 0.95), LossModule(model)
    tokens = torch.randint(VOCABULARY, (ROWS, SEQUENCE + 1))

    def steps(count: int) -> None:
        """Steps on the same rows, over and over."""
        for _ in range(count):
            train_step(losses, adamw, tokens, 1e-3, micro_batch=CPU_TOKENS // SEQUENCE)

    return steps


def loop(size: str, compiled: bool = False) -> Callable[[int], None]:
    """Steps as a segment makes them: batches of a mixture, schedule, passes, log."""
    model = initialise(shape(size), VOCABULARY, SEQUENCE, seed=0)
    losses = shard_model(model, ALONE, compiled=compiled)
    adamw = optimizer(model, 1e-3, 0.95)
    phase = Phase("init", 10_000 * ROWS * SEQUENCE, Mixture({"code": 0.3, "text": 0.7}))
    recipe = Recipe(shape(size).params, (phase,))
    rng = np.random.default_rng(0)
    streams = {name: rng.integers(VOCABULARY, size=4_000_000, dtype=np.uint16) for name in recipe.domains}
    batches, done, watch = Batches(recipe, streams, SEQUENCE, ROWS), [0], Watch(begin=0)
    flops = shape(size).flops_per_token(VOCABULARY, SEQUENCE)
    meter = Meter(ALONE, [lambda entry: None], flops, ROWS * SEQUENCE, (0, 10_000))

    def steps(count: int) -> None:
        """Steps of the loop, from where the last call ended."""
        for _ in range(count):
            step = done[0]
            factor = rate(recipe, step * ROWS * SEQUENCE, 1_000_000)
            tokens = torch.from_numpy(batches.at(step))
            micro_batch = CPU_TOKENS // SEQUENCE
            accept = partial(watch.accepts, step)
            result = train_step(losses, adamw, tokens, 1e-3 * factor, micro_batch=micro_batch, accept=accept)
            meter.tick(step, result, 1e-3 * factor)
            done[0] += 1

    return steps


def trainer(size: str, folder: Path) -> Callable[[int], None]:
    """`transformers.Trainer` on the same model and resident data."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    tokens = torch.randint(VOCABULARY, (ROWS * 4, SEQUENCE))
    rows = [{"input_ids": row, "labels": row} for row in tokens]

    def steps(count: int) -> None:
        """Steps of a new trainer; the seconds of `train` alone go to `spent`."""
        arguments = TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=ROWS, max_steps=count, report_to=[], save_strategy="no",
            logging_strategy="no", use_cpu=True, disable_tqdm=True, optim="adamw_torch_fused",
        )  # fmt: skip
        model = initialise(shape(size), VOCABULARY, SEQUENCE, seed=0)
        one = Trainer(model=model, args=arguments, train_dataset=rows)
        one.remove_callback(PrinterCallback)
        began = time.perf_counter()
        one.train()
        spent.append(time.perf_counter() - began)

    spent: list[float] = []
    steps.spent = spent  # type: ignore[attr-defined]
    return steps


def timed(steps: Callable[[int], None], count: int) -> float:
    """Tokens per second of `count` steps; a Trainer is timed without what it builds before."""
    began = time.perf_counter()
    steps(count)
    seconds = time.perf_counter() - began
    inside = getattr(steps, "spent", None)
    return count * ROWS * SEQUENCE / (inside[-1] if inside else seconds)


def kinds(size: str) -> dict[str, float]:
    """Share of a step's own time by kind of operation, from torch's profiler."""
    steps = passes(size)
    steps(1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        steps(1)
    found = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key in names or names[0] in event.key), "the rest")
        found[kind] += event.self_cpu_time_total
    return {kind: spent / sum(found.values()) for kind, spent in found.items()}


def thin(size: str) -> float:
    """FLOPs per second of the products of one layer alone, with the tokens of a pass: outputs and both gradients."""
    width, inner = shape(size).width, shape(size).inner
    spent, flops = 0.0, 0
    for rows, columns, count in ((width, width, 4), (width, inner, 2), (inner, width, 1)):
        given, weight, slope = (torch.randn(*n) for n in ((CPU_TOKENS, rows), (columns, rows), (CPU_TOKENS, columns)))
        products = [
            lambda x=given, w=weight: x @ w.t(),
            lambda s=slope, w=weight: s @ w,
            lambda s=slope, x=given: s.t() @ x,
        ]
        for product in products:
            spent += count * min(_seconds(product) for _ in range(8))
            flops += count * 2 * CPU_TOKENS * rows * columns
    return flops / spent


def _seconds(product: Callable[[], torch.Tensor]) -> float:
    began = time.perf_counter()
    product()
    return time.perf_counter() - began


def measured(ways: dict[str, Callable[[int], None]], count: int) -> tuple[dict[str, list[float]], list[float]]:
    """Tokens per second of each way, and the peak, round by round."""
    for steps in ways.values():
        timed(steps, 1)
    seen: dict[str, list[float]] = {name: [] for name in ways}
    peaks = []
    for _ in range(ROUNDS):
        peaks.append(peak())
        for name, steps in ways.items():
            seen[name].append(timed(steps, count))
    return seen, peaks


def main(sizes: list[str]) -> None:
    """Print tokens/s, ratios and where the time goes, per size."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        for size in sizes:
            ways = {
                "bare step": bare(size),
                "bare step in passes": passes(size),
                "Trainer": trainer(size, Path(folder)),
                "loop": loop(size),
                "loop, compiled": loop(size, compiled=True),
            }
            if find_spec("litgpt"):
                ways |= {"litgpt's step": litgpt(size, False), "litgpt's, compiled": litgpt(size, True)}
            seen, peaks = measured(ways, STEPS.get(size, 2))
            flops, highest = shape(size).flops_per_token(VOCABULARY, SEQUENCE), statistics.median(peaks)
            print(f"{size}: {'tokens/s':>26} {'loop over it':>14} {'of the peak':>14}")
            for name, rates in seen.items():
                over = statistics.median(a / b for a, b in zip(seen["loop"], rates, strict=True))
                used = statistics.median(flops * a / b for a, b in zip(rates, peaks, strict=True))
                print(f"  {name:20} {statistics.median(rates):10,.0f} {over:14.3f} {used:14.2f}")
            reach = thin(size) / highest
            print(f"  peak {highest / 1e9:.0f} GFLOP/s; the products of a layer of this size reach {reach:.2f} of it")
            where = ", ".join(f"{kind} {percent(share)}" for kind, share in kinds(size).items())
            print(f"  a step's time: {where}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["0.1M", "1M", "5M"])
