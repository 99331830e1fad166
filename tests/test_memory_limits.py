"""Memory that does not suffice: the batch is computed in smaller passes, here and by ranks that begin again."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.models.memory import USABLE, training_bytes
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.loop import OutOfMemory, train_segment
from mixlaw.runner.train.parallel import Ranks, free_memory, limit_memory
from mixlaw.runner.train.step import StepPlan, step_plan

SETUP = Setup("", "", vocabulary=300, sequence=32, tasks=(), batch=8, warmup_tokens=0, micro_batch=8)
STEP = SETUP.step_tokens(shape("0.025M").params)
RECIPE = SETUP.adopt(Recipe(shape("0.025M").params, (Phase("init", 6 * STEP, Mixture({"text": 1.0})),)))
(SEGMENT,) = plan([RECIPE]).segments
STREAMS = {"text": (torch.arange(6000) * 7 % 300).numpy().astype("uint16")}
GPU = Ranks(device=torch.device("cuda"), bf16=True)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A device on which passes of at most so many sequences fit, whatever the estimate says."""
    room, forward = {"sequences": 8, "passes": 0}, LossModule.forward

    def limited(self: LossModule, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        room["passes"] += 1
        if len(tokens) > room["sequences"] or room["passes"] == room.get("fails"):
            raise torch.OutOfMemoryError("no room")
        return forward(self, tokens, labels)

    monkeypatch.setattr(LossModule, "forward", limited)
    return room


def test_a_step_that_does_not_fit_goes_on_in_halves_and_trains_the_same(room: dict[str, int], tmp_path: Path) -> None:
    whole = train_segment(SEGMENT, SETUP, STREAMS, tmp_path / "whole" / "runs")
    room["sequences"] = 2
    halves = train_segment(SEGMENT, SETUP, STREAMS, tmp_path / "halves" / "runs")
    assert halves.loss == pytest.approx(whole.loss, rel=1e-3), "the order of sums alone differs"
    lines = (tmp_path / "halves" / "runs" / f"{SEGMENT.lineage}.training.jsonl").read_text().splitlines()
    events = [entry for entry in map(json.loads, lines) if entry.get("event") == "out of memory"]
    assert [entry["micro_batch"] for entry in events] == [4, 2]


def test_memory_that_ends_in_mid_segment_costs_the_steps_since_the_last_checkpoint(
    room: dict[str, int], tmp_path: Path
) -> None:
    room["fails"] = 5
    trained = train_segment(SEGMENT, SETUP, STREAMS, tmp_path / "runs")
    assert trained.skipped == ()
    assert room["passes"] == 5 + 6 * 2, "from the beginning, in passes of half the size"


def test_memory_that_ends_while_scoring_halves_as_well(room: dict[str, int], tmp_path: Path) -> None:
    class Half:
        """Scores after three steps, in passes as large as those of training."""

        steps = frozenset({3})
        sizes: ClassVar[list[int]] = []

        def measure(self, step: int, losses: LossModule, micro_batch: int, beat: Callable[[], None]) -> None:
            self.sizes.append(micro_batch)
            tokens = torch.zeros(micro_batch, 32, dtype=torch.int64)
            losses(tokens, tokens)

    room["fails"] = 4
    train_segment(SEGMENT, SETUP, STREAMS, tmp_path / "runs", moments=Half())
    assert Half.sizes == [8, 4]
    assert room["passes"] == 4 + 6 * 2 + 1


def test_where_one_sequence_is_too_much_activations_are_recomputed_before_it_is_given_up(
    room: dict[str, int], tmp_path: Path
) -> None:
    room["sequences"] = 0
    with pytest.raises(InputError, match=r"one sequence of 32 .* does not fit .* lower training\.sequence"):
        train_segment(SEGMENT, SETUP, STREAMS, tmp_path / "runs")
    assert room["passes"] == 5, "8, 4, 2, 1, and 1 with recomputation"


def test_a_rank_of_several_hands_the_smaller_plan_to_all(room: dict[str, int], tmp_path: Path) -> None:
    room["sequences"] = 2
    alone = replace_world(2)
    with pytest.raises(OutOfMemory) as caught:
        train_segment(SEGMENT, SETUP, STREAMS, tmp_path / "runs", ranks=alone)
    assert caught.value.plan == StepPlan(2)


def replace_world(world: int) -> Ranks:
    """One of several ranks, whose talk with the others stays here: nothing is summed before the first pass."""

    class Deaf(Ranks):
        shards = False

        def broadcast(self, value: Any = None) -> Any:
            return value

        def agreed(self, *answers: bool) -> tuple[bool, ...]:
            return answers

    return Deaf(0, world)


@pytest.mark.parametrize("recompute", [None, False, True])
def test_a_fixed_micro_batch_recomputes_where_its_activations_do_not_fit(
    recompute: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup("", "", vocabulary=32_768, sequence=2048, tasks=(), recompute=recompute)
    size = shape("1B")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (24 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    own, fixed = step_plan(setup, size.params, GPU), step_plan(replace(setup, micro_batch=1), size.params, GPU)
    for found in (own, fixed):
        assert found.recompute is (True if recompute is None else recompute)
    assert fixed.micro_batch == 1
    needed = training_bytes(size, 32_768, 2048, own.micro_batch, bf16=True, recompute=own.recompute, accumulate=True)
    assert recompute is False or needed <= USABLE * 24e9, "of what is free, not of what the device has"


def test_the_rank_with_the_least_memory_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup("", "", vocabulary=32_768, sequence=2048, tasks=())
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)

    def planned(mine: int, theirs: int) -> StepPlan:
        """One of two ranks, with this much memory free on either."""
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (mine * 10**9, 80 * 10**9))
        monkeypatch.setattr(Ranks, "least", lambda self, value: min(value, theirs * 10**9))
        return step_plan(setup, shape("470M").params, replace(GPU, world=2))

    assert planned(80, 16) == planned(16, 80)
    assert planned(80, 80).micro_batch > planned(80, 16).micro_batch


def test_processes_that_share_a_gpu_leave_each_other_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 80 GB of which 70 are free; four workers may hold 20 each, contexts of 1 among them."""
    parts: list[float] = [1.0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: parts.append(part))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: parts[-1])
    limit_memory(GPU.device, 1)
    assert free_memory(GPU.device) == 70 * 10**9
    limit_memory(GPU.device, 4)
    assert free_memory(GPU.device) == pytest.approx(19e9 - 3e9)


def test_what_a_segment_held_is_free_when_the_next_one_begins(tmp_path: Path) -> None:
    gc.disable()
    try:
        trained = train_segment(SEGMENT, replace(SETUP, recompute=True), STREAMS, tmp_path / "one" / "runs")
        model = weakref.ref(trained.model)
        del trained
        (tmp_path / "two").mkdir()
        train_segment(SEGMENT, replace(SETUP, recompute=True), STREAMS, tmp_path / "two" / "runs")
        assert model() is None
    finally:
        gc.enable()
