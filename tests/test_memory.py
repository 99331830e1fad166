"""The estimate of memory against every byte that torch allocates in a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mixlaw.errors import InputError
from mixlaw.runner.models import loss
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.memory import HEAD_ROWS, devices_needed, largest_micro_batch, training_bytes
from mixlaw.runner.train.parallel import ALONE, Ranks, shard_model
from mixlaw.runner.train.step import train_step
from ranks import together

Case = tuple[str, int, int, int, int, bool]  # size, vocabulary, sequence, sequences, micro-batch, recompute


def measured(case: Case, ranks: Ranks = ALONE) -> int:
    """Peak bytes of tensors in one step: those there before it, and the highest sum of what it allocates and frees."""
    size, vocabulary, sequence, sequences, micro_batch, recompute = case
    model = initialise(shape(size), vocabulary, sequence, seed=0)
    losses, adamw = shard_model(model, ranks, recompute=recompute), optimizer(model, 1e-3, 0.95)
    tokens = torch.zeros(sequences, sequence + 1, dtype=torch.long)
    how: dict[str, Any] = {"sequences": sequences * ranks.world, "micro_batch": micro_batch, "ranks": ranks}
    train_step(losses, adamw, tokens, 1e-3, **how)
    held: list[Any] = [*model.parameters(), *(value for state in adamw.state.values() for value in state.values())]
    before = sum((tensor.to_local() if ranks.shards and tensor.ndim else tensor).nbytes for tensor in held)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        train_step(losses, adamw, tokens, 1e-3, **how)
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += int(event.nbytes())
        peak = max(peak, live)
    return int(before + peak)


@pytest.mark.parametrize(
    "case",
    [
        ("0.1M", 1024, 128, 8, 8, False),
        ("1M", 4096, 128, 8, 8, False),
        ("1M", 4096, 128, 8, 2, False),
        ("1M", 4096, 128, 8, 8, True),
        ("5M", 4096, 128, 8, 8, False),
        ("5M", 32_768, 64, 4, 4, False),
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_is_allocated(case: Case) -> None:
    assert estimated(case) == pytest.approx(measured(case), rel=0.1)


def estimated(case: Case, ranks: int = 1, bf16: bool = False) -> int:
    size, vocabulary, sequence, sequences, micro_batch, recompute = case
    how = {"recompute": recompute, "accumulate": micro_batch < sequences, "bf16": bf16}
    return training_bytes(shape(size), vocabulary, sequence, micro_batch, ranks=ranks, **how)


def _measured(ranks: Ranks, case: Case, out: Path) -> None:
    loss.HEAD_ROWS = {False: HEAD_ROWS[True]}  # type: ignore[attr-defined]  # as on a GPU
    found = measured(case, replace(ranks, bf16=True))
    if ranks.first:
        out.write_text(str(found))


@pytest.mark.parametrize(
    ("ranks", "case"),
    [
        (1, ("5M", 32_768, 64, 4, 4, False)),
        (2, ("1M", 4096, 128, 8, 8, False)),
        (2, ("1M", 4096, 128, 8, 2, False)),
        (2, ("1M", 4096, 128, 8, 8, True)),
    ],
)
def test_in_bf16_and_sharded_it_is_too(ranks: int, case: Case, tmp_path: Path) -> None:
    """What ranks of CPUs allocate when they compute as GPUs do, FSDP2's buffers among it."""
    together(ranks, _measured, case, tmp_path / "bytes")
    assert estimated(case, ranks, True) == pytest.approx(int((tmp_path / "bytes").read_text()), rel=0.1)


def test_what_is_said_to_fit_fits_and_one_more_would_not() -> None:
    size, memory = shape("470M"), 40e9
    fit = largest_micro_batch(size, 32_768, 2048, 64, memory)
    needed = [training_bytes(size, 32_768, 2048, n, bf16=True, accumulate=True) for n in (fit, fit + 1)]
    assert needed[0] <= 0.9 * memory < needed[1]


def test_devices_are_the_fewest_that_hold_a_size() -> None:
    size = shape("2.8B")
    count = devices_needed(size, 32_768, 2048, 24e9)
    needed = [training_bytes(size, 32_768, 2048, 1, ranks=n, bf16=True, recompute=True) for n in (count // 2, count)]
    assert needed[1] <= 0.9 * 24e9 < needed[0]
    assert count == 4, "16 bytes each of 2.86 billion weights are 45.8 GB, and two devices have 43.2"
    with pytest.raises(InputError, match=r"use devices with more memory or lower training\.sequence"):
        devices_needed(size, 32_768, 2048, 1e9)
