"""Tokens per second of the training loop, beside a bare step of transformers and its Trainer, in one run.

    python benchmarks/training.py [SIZE ...]

One thread, fp32, the same model, batch size and sequence. Blocks of steps alternate between the three, so that other
work on the machine slows all of them; the ratio is the median over rounds. The bare step has one batch, resident, and
AdamW with clipping; the loop draws its batches from memory-mapped shards, follows the schedule and splits a step into
passes. The peak is that of a square matrix multiplication of 1,024 on the same thread.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.head import Losses
from mixlaw.runner.ladder import shape
from mixlaw.runner.loader import Batches
from mixlaw.runner.model import initialise, optimizer
from mixlaw.runner.schedule import rate
from mixlaw.runner.step import CPU_TOKENS, train_step

VOCABULARY, SEQUENCE, ROWS = 1024, 128, 64
ROUNDS, STEPS = 7, {"0.1M": 6, "1M": 3, "5M": 1}


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
        for _ in range(count):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
            adamw.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()

    return steps


def passes(size: str) -> Callable[[int], None]:
    """The bare step in passes that stay in caches, as the loop makes them: what the loop is left to cost."""
    model = initialise(shape(size), VOCABULARY, SEQUENCE, seed=0)
    adamw, losses = optimizer(model, 1e-3, 0.95), Losses(model)
    tokens = torch.randint(VOCABULARY, (ROWS, SEQUENCE + 1))

    def steps(count: int) -> None:
        for _ in range(count):
            train_step(losses, adamw, tokens, 1e-3, at_once=CPU_TOKENS // SEQUENCE)

    return steps


def loop(size: str) -> Callable[[int], None]:
    """Steps as a segment makes them: batches of a mixture, schedule, passes."""
    model = initialise(shape(size), VOCABULARY, SEQUENCE, seed=0)
    adamw, losses = optimizer(model, 1e-3, 0.95), Losses(model)
    phase = Phase("init", 10_000 * ROWS * SEQUENCE, Mixture({"code": 0.3, "text": 0.7}))
    recipe = Recipe(shape(size).params, (phase,))
    streams = {
        name: np.random.default_rng(0).integers(VOCABULARY, size=4_000_000, dtype=np.uint16) for name in recipe.domains
    }
    batches, done = Batches(recipe, streams, SEQUENCE, ROWS), [0]

    def steps(count: int) -> None:
        for _ in range(count):
            step = done[0]
            factor = rate(recipe, step * ROWS * SEQUENCE, 1_000_000)
            tokens = torch.from_numpy(batches.at(step))
            train_step(losses, adamw, tokens, 1e-3 * factor, at_once=CPU_TOKENS // SEQUENCE)
            done[0] += 1

    return steps


def trainer(size: str, folder: Path) -> Callable[[int], None]:
    """`transformers.Trainer` on the same model and resident data."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    tokens = torch.randint(VOCABULARY, (ROWS * 4, SEQUENCE))
    rows = [{"input_ids": row, "labels": row} for row in tokens]

    def steps(count: int) -> None:
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
    """Tokens per second of so many steps; a Trainer is timed without what it builds before."""
    began = time.perf_counter()
    steps(count)
    seconds = time.perf_counter() - began
    inside = getattr(steps, "spent", None)
    return count * ROWS * SEQUENCE / (inside[-1] if inside else seconds)


def main(sizes: list[str]) -> None:
    """Print tokens/s and ratios per size."""
    torch.set_num_threads(1)
    print(
        f"{'size':>6} {'bare':>9} {'in passes':>10} {'loop':>9} {'Trainer':>9}  loop over bare, Trainer; share of peak"
    )
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            ways = {
                "bare": bare(size),
                "passes": passes(size),
                "loop": loop(size),
                "trainer": trainer(size, Path(folder)),
            }
            for steps in ways.values():
                timed(steps, 1)
            seen: dict[str, list[float]] = {name: [] for name in ways}
            peaks = []
            for _ in range(ROUNDS):
                peaks.append(peak())
                for name, steps in ways.items():
                    seen[name].append(timed(steps, STEPS.get(size, 2)))
        middle = {name: statistics.median(values) for name, values in seen.items()}
        over = [
            statistics.median(a / b for a, b in zip(seen["loop"], seen[n], strict=True)) for n in ("bare", "trainer")
        ]
        flops = shape(size).flops_per_token(VOCABULARY, SEQUENCE)
        used = statistics.median(flops * a / b for a, b in zip(seen["loop"], peaks, strict=True))
        row = f"{size:>6} " + " ".join(f"{middle[name]:>10,.0f}" for name in ways)
        print(
            f"{row}  {over[0]:.3f}, {over[1]:.3f}; {used:.2f} of {statistics.median(peaks) / 1e9:.0f} GFLOP/s",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["0.1M", "1M", "5M"])
