"""Training: the same weights bit for bit, in one go or in pieces, alone or in a tree."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe, Schedule
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise
from mixlaw.runner.plan.devices import Machine
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, Tree, plan
from mixlaw.runner.train import loop
from mixlaw.runner.train.loop import Diverged, Stopped, Trained, train_segment
from mixlaw.runner.train.store import origin, partial_name, verify

SETUP = Setup(data="no data folder", data_hash="", vocabulary=300, sequence=32, tasks=(), batch=4, warmup_tokens=1000)
STEP = SETUP.step_tokens(shape("0.025M").params)
RNG = np.random.default_rng(0)
STREAMS = {
    # Text repeats a pattern, code counts up: something to learn, and not the same in both.
    "text": np.tile(RNG.integers(300, size=97), 60).astype(np.uint16),
    "code": (np.arange(6000) * 7 % 300).astype(np.uint16),
}
TEXT, CODE, HALF = Mixture({"text": 1.0}), Mixture({"code": 1.0}), Mixture({"text": 0.5, "code": 0.5})


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def recipe(*phases: tuple[str, int, Mixture, float], seed: int = 0, schedule: Schedule = Schedule.WSD) -> Recipe:
    named = tuple(Phase(name, steps * STEP, mixture, end) for name, steps, mixture, end in phases)
    return SETUP.adopt(Recipe(shape("0.025M").params, named, seed=seed, schedule=schedule))


LONG = recipe(("init", 12, HALF, 1.0), ("continue", 5, CODE, 1.0), ("cooldown", 6, TEXT, 0.0))


def train_all(tree: Tree, runs: Path, segments: Iterable[Segment] | None = None) -> None:
    for segment in tree.segments if segments is None else segments:
        train_segment(segment, SETUP, STREAMS, runs)


def weights(runs: Path, of: Recipe) -> dict[str, torch.Tensor]:
    folder = runs / of.lineage / "checkpoint"
    verify(folder)
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights and moments of LONG, trained alone and undisturbed."""
    runs = tmp_path_factory.mktemp("alone")
    train_all(plan([LONG]), runs)
    return weights(runs, LONG)


def stops(after: int) -> Callable[[], bool]:
    """Says stop once asked more than `after` times."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= after


@pytest.mark.parametrize("pieces", [(0,), (2, 0, 3), (1,) * 30])
def test_a_segment_in_pieces_ends_with_the_same_bits(
    pieces: tuple[int, ...], alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tree, stopped = plan([LONG]), 0
    for segment in tree.segments:
        for after in (*pieces, 10**6):
            try:
                train_segment(segment, SETUP, STREAMS, tmp_path, stop=stops(after))
                break
            except Stopped:
                stopped += 1
                partial = sorted((tmp_path / segment.lineage).glob("partial-*"))
                assert 1 <= len(partial) <= 3
                verify(partial[-1])
        assert [path.name for path in (tmp_path / segment.lineage).iterdir()] == ["checkpoint"]
    assert stopped >= len(pieces[:4])
    assert same(weights(tmp_path, LONG), alone)


def test_a_recipe_in_a_tree_ends_with_the_same_bits_as_alone(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    others = [
        recipe(("init", 5, HALF, 1.0), ("cooldown", 4, CODE, 0.0)),
        recipe(("init", 9, HALF, 1.0)),
        recipe(("init", 20, HALF, 1.0)),
        recipe(("init", 12, HALF, 1.0), ("continue", 2, CODE, 1.0), ("cooldown", 3, TEXT, 0.1)),
    ]
    tree = plan([*others, LONG])
    assert sum(LONG.lineage in segment.runs for segment in tree.segments) == 6, "cut at 5, 9, 12, 12 + 2, 12 + 5"
    train_all(tree, tmp_path)
    assert same(weights(tmp_path, LONG), alone)


def test_a_plan_with_other_cuts_takes_up_what_an_older_one_left(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    first = plan([LONG]).segments[0]  # init in one piece, stopped after 4 of 12 steps
    with pytest.raises(Stopped):
        train_segment(first, SETUP, STREAMS, tmp_path, stop=stops(3))
    cut = recipe(("init", 8, HALF, 1.0))
    tree = plan([cut, LONG])
    train_all(tree, tmp_path, tree.segments[:1])
    later = tree.by_lineage[first.lineage]
    assert later.start == 8 * STEP
    assert origin(later, SETUP, tmp_path) == tmp_path / cut.lineage / "checkpoint", "8 steps are further than 4"
    train_all(tree, tmp_path, tree.segments[1:])
    assert same(weights(tmp_path, LONG), alone)


def test_periodic_checkpoints_change_nothing(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    often = replace(SETUP, checkpoint_seconds=1e-6)
    for segment in plan([LONG]).segments:
        train_segment(segment, often, STREAMS, tmp_path)
    assert same(weights(tmp_path, LONG), alone)


def test_a_checkpoint_slower_than_its_period_leaves_as_much_time_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, steps, begun, saves = [0.0], list[float](), list[float](), list[float]()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def step() -> bool:  # asked once a step, of a second
        clock[0] += 1
        steps.append(clock[0])
        return False

    def save(_: Path) -> None:
        clock[0] += 10
        saves.append(clock[0])

    def begin(step: int) -> str:  # of a save
        begun.append(clock[0])
        return partial_name(step)

    monkeypatch.setattr(loop, "partial_name", begin)
    (segment,) = plan([recipe(("init", 80, HALF, 1.0))]).segments
    train_segment(segment, replace(SETUP, checkpoint_seconds=4), STREAMS, tmp_path, stop=step, saved=save)
    between = [sum(before < s <= after for s in steps) for before, after in pairwise([0.0, *saves])]
    assert begun[0] == 5, "the first step after four seconds"
    assert all(seconds >= 10 for seconds in between[1:-1]), "ten seconds of steps after each ten of saving"


def test_cosine_in_pieces_ends_with_the_same_bits(tmp_path: Path) -> None:
    wave = recipe(("init", 6, HALF, 1.0), ("late", 4, CODE, 1.0), schedule=Schedule.COSINE)
    train_all(plan([wave]), tmp_path / "whole")
    for segment in plan([wave]).segments:
        with pytest.raises(Stopped):
            train_segment(segment, SETUP, STREAMS, tmp_path / "pieces", stop=stops(1))
        train_segment(segment, SETUP, STREAMS, tmp_path / "pieces")
    assert same(weights(tmp_path / "whole", wave), weights(tmp_path / "pieces", wave))


def test_a_finished_segment_is_loaded_not_trained_again(tmp_path: Path) -> None:
    (segment,) = plan([recipe(("init", 3, HALF, 1.0))]).segments
    first = train_segment(segment, SETUP, STREAMS, tmp_path)
    before = (tmp_path / segment.lineage / "checkpoint" / "model.safetensors").stat()
    again = train_segment(segment, SETUP, STREAMS, tmp_path)
    after = (tmp_path / segment.lineage / "checkpoint" / "model.safetensors").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    pairs = zip(first.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def first_step(mixture: Mixture, seed: int, runs: Path) -> Trained:
    (segment,) = plan([recipe(("init", 1, mixture, 1.0), seed=seed)]).segments
    return train_segment(segment, SETUP, STREAMS, runs)


def test_mixtures_of_one_seed_start_from_the_same_weights(tmp_path: Path) -> None:
    # After one step of warm-up every weight is within one learning rate of where it began (Adam's first step is a
    # step of that size at most), and weight decay takes less than that.
    start = initialise(shape("0.025M"), 300, 32, seed=0)
    rate = SETUP.hyperparameters(shape("0.025M").params).learning_rate
    for mixture in (TEXT, CODE):
        after = first_step(mixture, 0, tmp_path).model
        pairs = zip(start.state_dict().values(), after.state_dict().values(), strict=True)
        assert 0 < max(float((a - b).abs().max()) for a, b in pairs) < rate
    other = first_step(TEXT, 1, tmp_path).model.state_dict()["lm_head.weight"]
    assert float((other - start.state_dict()["lm_head.weight"]).abs().max()) > 10 * rate


def test_training_learns_the_pattern_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_SECONDS", -1.0)  # whenever there is something to report
    # Text repeats 97 tokens: from log 300 = 5.7 nats per token at the start.
    (segment,) = plan([recipe(("init", 150, TEXT, 1.0))]).segments
    told: list[int] = []
    found = train_segment(segment, SETUP, STREAMS, tmp_path, report=told.append)
    assert found.loss < 4.0
    assert found.tokens_per_second > 0
    assert told == sorted(told)
    assert sorted(set(told)) == list(range(0, segment.tokens + 1, STEP)), "every step"


def test_a_loss_that_is_no_number_ends_the_segment_without_a_checkpoint(tmp_path: Path) -> None:
    (segment,) = plan([recipe(("init", 30, HALF, 1.0))]).segments
    wild = replace(SETUP, learning_rate=1e30, warmup_tokens=0)
    with pytest.raises(Diverged, match=r"lower training\.learning_rate"):
        train_segment(segment, wild, STREAMS, tmp_path)
    assert not (tmp_path / segment.lineage / "checkpoint").exists()


def test_a_damaged_parent_stops_a_segment(tmp_path: Path) -> None:
    tree = plan([recipe(("init", 2, HALF, 1.0), ("cooldown", 2, TEXT, 0.0))])
    train_all(tree, tmp_path, tree.segments[:1])
    path = tmp_path / tree.segments[0].lineage / "checkpoint" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"optimizer\.safetensors differs"):
        train_all(tree, tmp_path, tree.segments[1:])
    assert not (tmp_path / tree.segments[1].lineage / "checkpoint").exists()


def test_a_domain_without_tokens_stops_a_segment(tmp_path: Path) -> None:
    (segment,) = plan([recipe(("init", 2, Mixture({"prose": 1.0}), 1.0))]).segments
    with pytest.raises(InputError, match="'prose' has no token shards"):
        train_segment(segment, SETUP, STREAMS, tmp_path)


def test_ends_of_recipes_keep_no_optimizer_where_the_study_says_so(tmp_path: Path) -> None:
    lean, tree = replace(SETUP, keep_optimizer=False), plan([LONG])
    for segment in tree.segments:
        train_segment(segment, lean, STREAMS, tmp_path)
    kept = [(tmp_path / s.lineage / "checkpoint" / "optimizer.safetensors").exists() for s in tree.segments]
    assert kept == [True, True, False]
    train_all(tree, tmp_path / "whole")
    lean_weights = load_file(tmp_path / LONG.lineage / "checkpoint" / "model.safetensors")
    for name, weight in lean_weights.items():
        assert torch.equal(weight, weights(tmp_path / "whole", LONG)[name])
    again = train_segment(tree.segments[-1], lean, STREAMS, tmp_path)  # nothing is left to train
    assert torch.equal(again.model.state_dict()["model.norm.weight"], lean_weights["model.norm.weight"])


def test_a_recipe_that_resumes_from_such_an_end_is_refused_until_it_is_trained_again(tmp_path: Path) -> None:
    lean, short = replace(SETUP, keep_optimizer=False), recipe(("init", 12, HALF, 1.0))
    for segment in plan([short]).segments:
        train_segment(segment, lean, STREAMS, tmp_path)
    tree = plan([short, LONG])
    with pytest.raises(InputError, match=r"has no optimizer state, as training\.keep_optimizer = false dropped it"):
        train_segment(tree.segments[1], lean, STREAMS, tmp_path)
    with pytest.raises(InputError, match="delete that folder and run again"):
        LocalExecutor(lean, tmp_path, Machine("here", 1)).check(tree.segments[1:2])
    shutil.rmtree(tmp_path / short.lineage / "checkpoint")
    for segment in tree.segments:
        train_segment(segment, lean, STREAMS, tmp_path)
    assert (tmp_path / short.lineage / "checkpoint" / "optimizer.safetensors").exists()
