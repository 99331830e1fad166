"""What this machine's GPU does with the training loop: one table to send along with a report.

    python benchmarks/gpu.py [SIZE ...] [--no-tests]

On a GPU: the tests of tests/test_gpu.py; then for 30M, 470M and 2.8B a step's speed, MFU, and its memory beside the
estimate, a checkpoint written and read, evaluation; and two segments of the smallest size side by side on one GPU. On a
CPU the same code runs at 0.1M. `python benchmarks/gpu.py SIZE --alone` prints the tokens per second of a size.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from mixlaw.machine import device_name
from mixlaw.numbers import percent
from mixlaw.runner.evaluate.measure import Subject
from mixlaw.runner.evaluate.scoring import Window, score
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import optimizer_of
from mixlaw.runner.models.memory import training_bytes
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.log import peak
from mixlaw.runner.train.parallel import Ranks, joined, release_memory, shard_model
from mixlaw.runner.train.step import StepPlan, fresh_model, step_plan, train_step

ROOT = Path(__file__).parents[1]
GPU_SIZES, CPU_SIZES = ("30M", "470M", "2.8B"), ("0.1M",)
WARM, TIMED, PASSES = 2, 4, 2  # steps, and micro-batches of each
WINDOWS = 64  # of evaluation


def setup_of(gpu: bool) -> Setup:
    """32,768 tokens and sequences of 2,048 on a GPU; 1,024 and 128 on a CPU."""
    vocabulary, sequence = (32_768, 2048) if gpu else (1024, 128)
    return Setup(data="", data_hash="", vocabulary=vocabulary, sequence=sequence, tasks=())


class Trainee:
    """A model of a size with its optimizer, and steps of random tokens."""

    def __init__(self, size: str, ranks: Ranks) -> None:
        self.params, self.ranks, self.setup = shape(size).params, ranks, setup_of(ranks.device.type == "cuda")
        self.plan: StepPlan = step_plan(self.setup, self.params, ranks)
        self.rules = self.setup.hyperparameters(self.params)
        model = fresh_model(self.setup, self.params, seed=0)
        self.losses = shard_model(model, ranks, recompute=self.plan.recompute, compiled=self.plan.compiled)
        self.optimizer = optimizer_of(model, self.rules)
        self.noise = torch.Generator().manual_seed(0)
        self.rows = PASSES * self.plan.micro_batch

    def step(self) -> None:
        """One step of PASSES micro-batches; waits for the device."""
        tokens = torch.randint(self.setup.vocabulary, (self.rows, self.setup.sequence + 1), generator=self.noise)
        train_step(
            self.losses,
            self.optimizer,
            tokens,
            self.rules.learning_rate,
            micro_batch=self.plan.micro_batch,
            ranks=self.ranks,
        )
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()

    def tokens_per_second(self, steps: int = TIMED) -> float:
        """Speed of the fastest of some steps."""
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - began)
        return self.rows * self.setup.sequence / min(seconds)

    def memory(self) -> int:
        """Peak bytes of tensors in a step."""
        if self.ranks.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.step()
            return int(torch.cuda.max_memory_allocated())
        state = [value for each in self.optimizer.state.values() for value in each.values()]
        before = sum(tensor.nbytes for tensor in (*self.losses.parameters(), *state))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            self.step()
        profiler: Any = seen.profiler
        results = profiler.kineto_results
        events = [event for event in results.events() if event.name() == "[memory]"]
        changes = [int(event.nbytes()) for event in sorted(events, key=lambda event: event.start_ns())]
        return int(before + np.cumsum(changes).max())

    def estimate(self) -> int:
        """What the step is estimated to take."""
        return training_bytes(
            shape(self.params),
            self.setup.embedded,
            self.setup.sequence,
            self.plan.micro_batch,
            bf16=self.ranks.bf16,
            recompute=self.plan.recompute,
            accumulate=PASSES > 1,
        )


Row = tuple[str, str, str]


def rows_of(size: str, ranks: Ranks, folder: Path) -> Iterator[Row]:
    """What a size does."""
    trainee = Trainee(size, ranks)
    for _ in range(WARM):
        trainee.step()
    speed = trainee.tokens_per_second()
    flops = trainee.setup.flops(trainee.params, 1)
    plan = trainee.plan
    kind = f"{plan.micro_batch} x {trainee.setup.sequence:,} tokens" + (", recomputed" if plan.recompute else "")
    yield size, "step", f"{speed:,.0f} tokens/s, {percent(speed * flops / peak(ranks.device))} of the peak ({kind})"
    found, estimate = trainee.memory(), trainee.estimate()
    verdict = "within 10 %" if abs(estimate / found - 1) <= 0.1 else "OFF"
    yield size, "memory", f"{found / 1e9:.3g} GB, estimated {estimate / 1e9:.3g} GB: {verdict}"
    began = time.perf_counter()
    checkpoint.save(folder / size, trainee.losses.model, trainee.optimizer, 1, folder, ranks=ranks)
    saved = time.perf_counter()
    loaded = checkpoint.load(folder / size, ranks)
    read = time.perf_counter()
    count = sum(path.stat().st_size for path in (folder / size).iterdir())
    same = _same(trainee, loaded)
    times = f"written in {saved - began:.1f} s, read in {read - saved:.1f} s"
    yield size, "checkpoint", f"{count / 1e9:.3g} GB {times}: {same}"
    del trainee
    release_memory()
    model: Any = loaded.model
    subject = Subject(model.to(ranks.device), folder, model.config.max_position_embeddings, folder, ranks=ranks)
    length = model.config.max_position_embeddings
    tokens = np.random.default_rng(0).integers(model.config.vocab_size, size=(WINDOWS, length + 1))
    windows = [Window(each, 1, length, number) for number, each in enumerate(tokens)]
    began = time.perf_counter()
    nats = score(subject, windows)
    seconds = time.perf_counter() - began
    mean = nats.sum() / (WINDOWS * length)
    yield size, "evaluation", f"{WINDOWS * length / seconds:,.0f} tokens/s, {mean:.2f} nats a token of noise"
    del model, subject, loaded
    release_memory()


def _same(trainee: Trainee, loaded: checkpoint.Checkpoint) -> str:
    """Whether what was read is what was written."""
    mine = dict(trainee.losses.model.named_parameters())
    for name, weight in loaded.model.named_parameters():
        here: Any = mine[name].detach()
        whole = here.full_tensor() if hasattr(here, "full_tensor") else here
        if not torch.equal(weight, whole.cpu()):
            return f"DIFFERENT at {name}"
    return "the same"


def side_by_side(size: str) -> Row:
    """Two processes that train a size at once on the first GPU, beside one alone."""
    command = [sys.executable, __file__, size, "--alone"]

    def speeds(count: int) -> list[float]:
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return [float(process.communicate()[0].split()[-1]) for process in processes]

    (one,), two = speeds(1), speeds(2)
    return size, "two at once", f"{sum(two):,.0f} tokens/s together, {sum(two) / one:.2f} times one alone"


def tests() -> Row:
    """The tests for a GPU, those of a CPU aside."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    return "", "tests", lines[-1].strip("= ")


@contextmanager
def ranks_here() -> Iterator[Ranks]:
    """This process on the first GPU, or on one thread."""
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    with joined() as ranks:
        yield ranks


def main(words: list[str]) -> None:
    """Print the table, a row as soon as it is known."""
    sizes = [word for word in words if not word.startswith("--")]
    if "--alone" in words:
        with ranks_here() as ranks:
            trainee = Trainee(sizes[0], ranks)
            trainee.step()
            print(trainee.tokens_per_second(4 * TIMED))
        return
    print(f"{device_name()}, torch {torch.__version__}", flush=True)
    if "--no-tests" not in words:
        show(tests())
    with ranks_here() as ranks, tempfile.TemporaryDirectory(prefix="mixlaw-") as folder:
        sizes = sizes or list(GPU_SIZES if ranks.device.type == "cuda" else CPU_SIZES)
        for size in sizes:
            for row in rows_of(size, ranks, Path(folder)):
                show(row)
    show(side_by_side(sizes[0]))


def show(row: Row) -> None:
    """Print a row of the table."""
    print("{:>6}  {:<13}{}".format(*row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
