"""Training speed of a size on this machine: a few micro-batches, timed on request and stored in the study."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.files import write_json
from mixlaw.machine import available_memory, device_name
from mixlaw.runner.models.memory import USABLE, training_bytes
from mixlaw.runner.plan.price import assumed_speed, duration
from mixlaw.runner.plan.setup import Setup

if TYPE_CHECKING:
    from mixlaw.runner.train.parallel import Ranks

WARM, TIMED = 2, 5  # micro-batches
PATIENCE = 60.0  # seconds, after which those that were timed have to suffice
LONGEST = 600.0  # seconds of one sequence that is timed


def not_timed(params: int, setup: Setup) -> str | None:
    """Why a size cannot be timed on this machine, by arithmetic; None if it can."""
    import torch

    gpu, size = torch.cuda.is_available(), setup.built(params)
    needed = training_bytes(size, size.embedded, setup.sequence, 1, bf16=gpu, recompute=gpu, untied=size.untied)
    memory = torch.cuda.mem_get_info()[0] if gpu else available_memory()
    if memory is not None and needed > USABLE * memory:
        return f"not timed: it takes {needed / 1e9:.0f} GB, {memory / 1e9:.0f} are free here"
    seconds = setup.sequence / assumed_speed(setup, params, device_name())[0]
    if seconds > LONGEST:
        return f"not timed: one sequence takes about {duration(seconds)} here"
    return None


def tokens_per_second(params: int, setup: Setup) -> float:
    """Training speed of one worker, on a GPU or one thread: from the median of a few micro-batches of random tokens."""
    import torch

    from mixlaw.runner.train.parallel import joined

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with joined() as ranks:
            tokens, seconds = _seconds(params, setup, ranks)
            return tokens / statistics.median(seconds[WARM:] or seconds)
    finally:
        torch.set_num_threads(threads)


def _seconds(params: int, setup: Setup, ranks: Ranks) -> tuple[int, list[float]]:
    """Tokens of a micro-batch, and the seconds of each, warm-up included."""
    import torch

    from mixlaw.runner.models.llama import optimizer_of
    from mixlaw.runner.models.load import load_model
    from mixlaw.runner.train.parallel import shard_model
    from mixlaw.runner.train.step import fresh_model, step_plan, train_step

    steps, rules, seconds = step_plan(setup, params, ranks), setup.hyperparameters(params), list[float]()
    model = load_model(Path(setup.start.path)) if setup.start else fresh_model(setup, params, seed=0)
    losses = shard_model(model, ranks, recompute=steps.recompute, compiled=steps.compiled, z_loss=rules.z_loss)
    adamw = optimizer_of(model, rules, setup.muon, setup.architecture)
    noise = torch.Generator().manual_seed(0)
    while len(seconds) < WARM + TIMED and sum(seconds) < PATIENCE:
        tokens = torch.randint(setup.vocabulary, (steps.micro_batch, setup.sequence + 1), generator=noise)
        began = time.perf_counter()
        train_step(losses, adamw, tokens, rules.learning_rate, ranks=ranks)
        seconds.append(time.perf_counter() - began)
    return steps.micro_batch * setup.sequence, seconds


def measure_speeds(sizes: list[int], setup: Setup, memory: Path) -> dict[int, float]:
    """Tokens per second for each size; measured and added to `memory` if missing for this machine and setup."""
    known = known_speeds(sizes, setup, memory)
    missing = {size: tokens_per_second(size, setup) for size in sizes if size not in known}
    if missing:
        speeds = _read(memory) | {_key(size, setup): speed for size, speed in missing.items()}
        write_json(memory, speeds)
    return {size: (known | missing)[size] for size in sizes}


def known_speeds(sizes: list[int], setup: Setup, memory: Path) -> dict[int, float]:
    """Tokens per second for those sizes that were timed on this machine with this setup."""
    known = _read(memory)
    return {size: known[_key(size, setup)] for size in sizes if _key(size, setup) in known}


def _read(memory: Path) -> dict[str, float]:
    """What is in the file; nothing if it is damaged: speeds can be measured again."""
    try:
        return {str(key): float(speed) for key, speed in json.loads(memory.read_bytes()).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _key(size: int, setup: Setup) -> str:
    how = f"{setup.compile} {setup.micro_batch} {setup.recompute}"
    return f"{os.uname().nodename} {device_name()} {size} {setup.identity_of(size)} {how}"
