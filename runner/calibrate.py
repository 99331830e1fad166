"""How fast this machine trains a size: a few real steps, timed, and remembered in the study."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import torch

from mixlaw.files import write_json
from mixlaw.runner.ladder import shape
from mixlaw.runner.model import initialise, optimizer
from mixlaw.runner.setup import Setup
from mixlaw.runner.train import train_step

WARM, TIMED = 2, 5  # steps


def tokens_per_second(params: int, setup: Setup) -> float:
    """Training speed of one worker with one thread: the median of a few timed steps on random tokens."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rules = setup.hyperparameters(params)
        model = initialise(shape(params), setup.vocabulary, setup.sequence, seed=0)
        adamw = optimizer(model, rules.learning_rate, rules.beta2)
        noise = torch.Generator().manual_seed(0)
        size = (setup.sequences(params), setup.sequence + 1)
        seconds = []
        for _ in range(WARM + TIMED):
            tokens = torch.randint(setup.vocabulary, size, generator=noise)
            began = time.perf_counter()
            train_step(model, adamw, tokens, rules.learning_rate)
            seconds.append(time.perf_counter() - began)
        return setup.step_tokens(params) / statistics.median(seconds[WARM:])
    finally:
        torch.set_num_threads(threads)


def calibrated(sizes: list[int], setup: Setup, memory: Path) -> dict[int, float]:
    """Tokens per second for each size; measured where `memory` does not hold this machine and setting yet."""
    known = remembered(sizes, setup, memory)
    missing = {size: tokens_per_second(size, setup) for size in sizes if size not in known}
    if missing:
        written = _read(memory) | {_key(size, setup): speed for size, speed in missing.items()}
        write_json(memory, written)
    return {size: (known | missing)[size] for size in sizes}


def remembered(sizes: list[int], setup: Setup, memory: Path) -> dict[int, float]:
    """Tokens per second for the sizes that were timed on this machine with this setting."""
    known = _read(memory)
    return {size: known[_key(size, setup)] for size in sizes if _key(size, setup) in known}


def _read(memory: Path) -> dict[str, float]:
    known: dict[str, float] = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    return known


def _key(size: int, setup: Setup) -> str:
    return f"{os.uname().nodename} {size} {setup.identity}"
