"""Bad batches are skipped, divergence is rolled back, in the same way however often a run is killed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.loop import Stopped, train_segment
from mixlaw.runner.train.spikes import BEFORE, IN_A_ROW, Diverging, Watch
from mixlaw.runner.train.store import expendable

SETUP = Setup(data="no data", data_hash="", vocabulary=300, sequence=32, tasks=(), batch=4, warmup_tokens=1000)
STEP = SETUP.step_tokens(shape("0.025M").params)
PHASE = Phase("init", 260 * STEP, Mixture({"text": 1.0}))
RECIPE = SETUP.adopt(Recipe(shape("0.025M").params, (PHASE,)))
(SEGMENT,) = plan([RECIPE]).segments


def damaged(first: int, last: int) -> dict[str, np.ndarray]:
    """A pattern to learn, but random tokens wherever the batches of steps first..last-1 read."""
    rng = np.random.default_rng(0)
    text = np.tile(rng.integers(300, size=97), 800).astype(np.uint16)
    places = Batches(RECIPE, {"text": np.arange(len(text), dtype=np.uint32)}, SETUP.sequence, 4)
    for row in np.concatenate([places.at(step) for step in range(first, last)]):
        text[row[0] : row[0] + SETUP.sequence] = rng.integers(300, size=SETUP.sequence)
    return {"text": text}


def entries(runs: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (runs / f"{SEGMENT.lineage}.training.jsonl").read_text().splitlines()]


def test_a_stretch_of_bad_batches_is_rolled_back_and_skipped(tmp_path: Path) -> None:
    streams = damaged(190, 205)
    whole = train_segment(SEGMENT, SETUP, streams, tmp_path / "whole" / "runs")
    # Eight in a row from 190 on: those and the eight before are marked; the rest are skipped one by one.
    assert whole.skipped == tuple(range(190 - BEFORE, 205))
    assert whole.loss < 0.1, "it has learned the pattern all the same"
    told = entries(tmp_path / "whole" / "runs")
    assert [entry["event"] for entry in told if entry.get("event") == "rolled back"] == ["rolled back"]
    assert told[-1]["step"] == 260

    runs = tmp_path / "pieces" / "runs"
    for after in (160, 28, 20, 10**6):  # stopped before, and after the rollback
        asked = iter(range(10**6))
        try:
            pieces = train_segment(SEGMENT, SETUP, streams, runs, stop=lambda asked=asked, n=after: next(asked) >= n)  # type: ignore[misc]
        except Stopped:
            continue
    assert pieces.skipped == whole.skipped
    one, other = (
        load_file(t / SEGMENT.lineage / "checkpoint" / "model.safetensors") for t in (runs, tmp_path / "whole" / "runs")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_rollback_goes_to_the_last_checkpoint_before_the_bad_steps_and_speeds_stay_positive(tmp_path: Path) -> None:
    streams, runs = damaged(190, 205), tmp_path / "runs"
    for after in (100, 75, 10):  # checkpoints at 101, 177 and 188: the damage is found at 197, and is from 182 on
        asked = iter(range(10**6))
        with pytest.raises(Stopped):
            train_segment(SEGMENT, SETUP, streams, runs, stop=lambda asked=asked, n=after: next(asked) >= n)  # type: ignore[misc]
    train_segment(SEGMENT, SETUP, streams, runs)
    logged = entries(runs)
    assert [entry["to"] for entry in logged if entry.get("event") == "rolled back"] == [177]
    speeds = [entry for entry in logged if "tokens_per_second" in entry]
    assert all(e["tokens_per_second"] > 0 and e["eta_seconds"] >= 0 and e["mfu"] > 0 for e in speeds)  # type: ignore[operator]


@pytest.mark.parametrize("period", [1, 3, 7, 16, 100])
def test_three_checkpoints_suffice_for_a_rollback_at_any_step(period: int) -> None:
    steps: list[int] = []
    for step in range(period, 1000, period):
        steps = [s for s in [*steps, step] if s not in expendable([*steps, step])]
        assert len(steps) <= 3
        assert steps[-1] == step
        # Damage is noticed at this step at the earliest; what is before it is at most two saves and 32 steps away.
        usable = [s for s in steps if s <= step - IN_A_ROW - BEFORE]
        assert step < 2 * (IN_A_ROW + BEFORE + period) or step - usable[-1] <= 2 * (IN_A_ROW + BEFORE + period)


def usual(steps: int) -> Watch:
    """A watch that has seen losses of 2 and 4 in turn: mean 3, standard deviation 1."""
    watch = Watch()
    assert all(watch.accepts(step, 2.0 + 2.0 * (step % 2), 1.0) for step in range(steps))
    return watch


@pytest.mark.parametrize(("loss", "accepted"), [(8.99, True), (9.01, False), (-5.0, True), (math.nan, False)])
def test_six_deviations_above_the_mean_are_too_many(loss: float, accepted: bool) -> None:
    assert usual(128).accepts(128, loss, 1.0) is accepted


def test_before_much_was_seen_and_at_a_new_phase_only_what_is_no_number_is_bad() -> None:
    assert usual(62).accepts(62, 1e6, 1.0)
    watch = usual(128)
    watch.resume(watch.as_json(), same_phase=False)
    assert watch.accepts(128, 1e6, 1.0)
    assert not watch.accepts(129, 1.0, math.inf)
    assert watch.skipped == [129]


def test_eight_bad_steps_in_a_row_are_marked_with_the_eight_before_but_not_beyond_the_segment() -> None:
    for begin, first in ((0, 128 - BEFORE), (125, 125)):
        watch = usual(128)
        watch.begin = begin
        assert not any(watch.accepts(step, math.nan, 1.0) for step in range(128, 128 + IN_A_ROW - 1))
        with pytest.raises(Diverging) as caught:
            watch.accepts(128 + IN_A_ROW - 1, math.nan, 1.0)
        assert caught.value.step == first
        assert [step for step in range(200) if watch.skips(step)] == [*range(first, 128 + IN_A_ROW)]
