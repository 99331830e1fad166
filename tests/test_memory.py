"""The estimate of memory against every byte that torch allocates in a step."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mixlaw.errors import InputError
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.memory import devices_needed, largest_micro_batch, training_bytes
from mixlaw.runner.train.parallel import ALONE, shard_model
from mixlaw.runner.train.step import train_step


def measured(size: str, vocabulary: int, sequence: int, sequences: int, micro_batch: int, recompute: bool) -> int:
    """Peak bytes of tensors in one step: those there before it, and the highest sum of what it allocates and frees."""
    model = initialise(shape(size), vocabulary, sequence, seed=0)
    losses, adamw = shard_model(model, ALONE, recompute=recompute), optimizer(model, 1e-3, 0.95)
    tokens = torch.zeros(sequences, sequence + 1, dtype=torch.long)
    train_step(losses, adamw, tokens, 1e-3, micro_batch=micro_batch)
    moments = [value for state in adamw.state.values() for value in state.values()]
    before = sum(tensor.nbytes for tensor in (*model.parameters(), *moments))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        train_step(losses, adamw, tokens, 1e-3, micro_batch=micro_batch)
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += int(event.nbytes())
        peak = max(peak, live)
    return int(before + peak)


@pytest.mark.parametrize(
    ("size", "vocabulary", "sequence", "sequences", "micro_batch", "recompute"),
    [
        ("0.1M", 1024, 128, 8, 8, False),
        ("1M", 4096, 128, 8, 8, False),
        ("1M", 4096, 128, 8, 2, False),
        ("1M", 4096, 128, 8, 8, True),
        ("5M", 4096, 128, 8, 8, False),
        ("5M", 32_768, 64, 4, 4, False),
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_is_allocated(
    size: str, vocabulary: int, sequence: int, sequences: int, micro_batch: int, recompute: bool
) -> None:
    accumulate = micro_batch < sequences
    estimate = training_bytes(
        shape(size), vocabulary, sequence, micro_batch, recompute=recompute, accumulate=accumulate
    )
    assert estimate == pytest.approx(measured(size, vocabulary, sequence, sequences, micro_batch, recompute), rel=0.1)


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
    with pytest.raises(InputError, match=r"use devices with more memory or lower training\.sequence"):
        devices_needed(size, 32_768, 2048, 1e9)
