"""Batches: from the recipe and the step alone, nothing replayed, nothing skipped."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.batches.loader import Batches, Prefetcher
from mixlaw.runner.batches.order import BLOCK, Order

SEQUENCE, BATCH = 8, 4
STEP = SEQUENCE * BATCH
# Every token tells its domain (the thousands) and its place in the stream, so every row tells its window.
STREAMS = {
    "text": np.arange(1_000_000, 1_000_000 + 61 * SEQUENCE + 1, dtype=np.uint32),
    "code": np.arange(2_000_000, 2_000_000 + 23 * SEQUENCE + 5, dtype=np.uint32),
    "rare": np.arange(3_000_000, 3_000_000 + 3 * SEQUENCE + 1, dtype=np.uint32),
}
DOMAIN = {1: "text", 2: "code", 3: "rare"}
WINDOWS = {"text": 61, "code": 23, "rare": 3}

Rows = NDArray[np.int64]


def recipe(*phases: tuple[int, dict[str, float]], seed: int = 0, unique: dict[str, int] | None = None) -> Recipe:
    named = (Phase(f"p{i}", steps * STEP, Mixture(shares)) for i, (steps, shares) in enumerate(phases))
    return Recipe(1000, tuple(named), seed=seed, unique=unique or {})


def batches(of: Recipe) -> Batches:
    return Batches(of, STREAMS, SEQUENCE, BATCH)


def all_rows(of: Recipe) -> Rows:
    found = batches(of)
    return np.concatenate([found.at(step) for step in range(len(found))])


def drawn(rows: Rows) -> dict[str, list[int]]:
    """Windows of each domain in the order in which rows show them."""
    order: dict[str, list[int]] = {name: [] for name in STREAMS}
    for row in rows:
        domain = DOMAIN[int(row[0]) // 1_000_000]
        start = int(row[0]) % 1_000_000
        assert np.array_equal(row, np.arange(row[0], row[0] + SEQUENCE + 1)), "a row is one stretch of one stream"
        assert start % SEQUENCE == 0
        order[domain].append(start // SEQUENCE)
    return order


mixes = st.dictionaries(st.sampled_from(sorted(STREAMS)), st.floats(0.01, 1), min_size=1).map(
    lambda raw: {name: weight / sum(raw.values()) for name, weight in raw.items()}
)
recipes = st.builds(
    lambda phases, seed: recipe(*phases, seed=seed),
    st.lists(st.tuples(st.integers(1, 40), mixes), min_size=1, max_size=3),
    st.integers(0, 5),
)


@settings(max_examples=30, deadline=None)
@given(recipes)
def test_within_an_epoch_every_window_is_seen_once_across_phases_and_changed_mixtures(of: Recipe) -> None:
    for domain, windows in drawn(all_rows(of)).items():
        size = WINDOWS[domain]
        epochs = [windows[i : i + size] for i in range(0, len(windows), size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs[:-1])
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs[-1:])


@settings(max_examples=30, deadline=None)
@given(recipes, st.data())
def test_a_step_read_alone_is_the_step_read_in_sequence(of: Recipe, data: st.DataObject) -> None:
    rows = all_rows(of)
    step = data.draw(st.integers(0, len(batches(of)) - 1))
    assert np.array_equal(batches(of).at(step), rows[step * BATCH : (step + 1) * BATCH])


@settings(max_examples=30, deadline=None)
@given(recipes)
def test_what_is_drawn_is_within_one_sequence_of_the_shares_and_counted(of: Recipe) -> None:
    found = batches(of)
    achieved = found.achieved()
    begin = 0
    for phase in of.phases:
        end = begin + phase.tokens // STEP
        rows = np.concatenate([found.at(step) for step in range(begin, end)])
        counted = {name: len(windows) * SEQUENCE for name, windows in drawn(rows).items() if windows}
        assert {name: tokens for name, tokens in achieved[phase.name].items() if tokens} == counted
        for name, share in phase.mixture.items():
            assert abs(achieved[phase.name][name] - share * phase.tokens) < SEQUENCE * (1 + 1e-6)
        begin = end
    seen = drawn(all_rows(of))
    assert found.epochs() == {name: len(seen[name]) / WINDOWS[name] for name in of.domains}


@settings(max_examples=20, deadline=None)
@given(mixes, mixes, st.integers(0, 5))
def test_recipes_of_one_seed_see_every_domain_in_the_same_order(
    one: dict[str, float], other: dict[str, float], seed: int
) -> None:
    first = drawn(all_rows(recipe((20, one), (10, other), seed=seed)))
    second = drawn(all_rows(recipe((30, other), seed=seed)))
    for domain in STREAMS:
        shared = min(len(first[domain]), len(second[domain]))
        assert first[domain][:shared] == second[domain][:shared]


def test_seeds_epochs_and_domains_are_shuffled_apart() -> None:
    half = {"text": 0.5, "code": 0.5}
    windows = drawn(all_rows(recipe((60, half))))["text"]
    assert windows[:40] != windows[61:101]
    assert windows[:30] != drawn(all_rows(recipe((60, half), seed=1)))["text"][:30]
    assert windows[:20] != sorted(windows[:20])
    twins = Batches(recipe((5, half)), dict.fromkeys(half, STREAMS["text"]), SEQUENCE, BATCH)
    assert not np.array_equal(twins.positions("text", np.arange(20)), twins.positions("code", np.arange(20)))


def test_a_longer_phase_begins_with_the_shorter_one() -> None:
    shares = {"text": 0.61, "code": 0.39}
    assert np.array_equal(all_rows(recipe((30, shares)))[: 11 * BATCH], all_rows(recipe((11, shares))))


def test_simulated_epoching_repeats_a_prefix_of_the_stream() -> None:
    # 5 windows of text instead of 61: 12 steps of 4 sequences are 9.6 epochs of it.
    small = recipe((12, {"text": 1.0}), unique={"text": 5 * SEQUENCE + 3})
    windows = drawn(all_rows(small))["text"]
    assert sorted(set(windows)) == [0, 1, 2, 3, 4]
    assert sorted(Counter(windows).values()) == [9, 9, 10, 10, 10]
    assert batches(small).epochs() == {"text": 48 / 5}


def test_more_unique_tokens_than_there_are_change_nothing() -> None:
    shares = {"rare": 1.0}
    assert np.array_equal(all_rows(recipe((4, shares), unique={"rare": 10**6})), all_rows(recipe((4, shares))))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_read_their_own_rows_and_together_the_whole_batch(world: int) -> None:
    found = batches(recipe((6, {"text": 0.7, "code": 0.3}), (3, {"code": 1.0})))
    for step in range(len(found)):
        whole = found.at(step)
        assert whole.shape == (BATCH, SEQUENCE + 1)
        for rank in range(world):
            assert np.array_equal(found.at(step, rank, world), whole[rank::world])


def test_a_domain_without_shards_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'prose' has no token shards; there are \['code', 'rare', 'text'\]"):
        batches(recipe((1, {"prose": 1.0})))


def test_a_domain_shorter_than_a_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="'text' has 7 tokens, fewer than one sequence of 8"):
        batches(recipe((1, {"text": 1.0}), unique={"text": 7}))


def test_a_phase_that_is_no_whole_number_of_batches_is_refused_with_the_nearest_that_is() -> None:
    odd = Recipe(1000, (Phase("init", 3 * STEP + 1, Mixture({"text": 1.0})),))
    with pytest.raises(InputError, match=r"'init' has 97 tokens, not a multiple of the batch of 32; make it 96"):
        batches(odd)


@pytest.mark.parametrize("batch", [3, BLOCK - 1, 2 * BLOCK + 7])
def test_steps_over_the_edges_of_blocks_are_what_counting_sequence_by_sequence_gives(batch: int) -> None:
    shares = {"text": 0.6, "code": 0.4}
    steps = -(-2 * BLOCK // batch) + 1
    phases = (
        Phase("a", steps * batch * SEQUENCE, Mixture(shares)),
        Phase("b", batch * SEQUENCE, Mixture({"code": 1.0})),
    )
    found = Batches(Recipe(1000, phases, seed=3), STREAMS, SEQUENCE, batch)
    windows = {name: found.positions(name, np.arange(len(found) * batch)).tolist() for name in shares}
    wanted, count = [], Counter[str]()
    for phase, mixture in zip(phases, (shares, {"code": 1.0}), strict=True):
        order = Order(mixture, phase.tokens // SEQUENCE)
        for code in order.codes(0, len(order)):
            name = order.names[code]
            wanted.append(int(STREAMS[name][windows[name][count[name]] * SEQUENCE]))
            count[name] += 1
    for step in reversed(range(len(found))):
        for rank in range(2):
            rows = found.at(step, rank, 2)
            assert rows[:, 0].tolist() == wanted[step * batch : (step + 1) * batch][rank::2]


def test_batches_read_ahead_are_those_that_are_asked_for_also_after_a_rollback() -> None:
    batches = Batches(recipe((5, {"text": 1.0}), (6, {"text": 0.5, "code": 0.5})), STREAMS, SEQUENCE, BATCH)
    ahead = Prefetcher(batches, len(batches), rank=1, world=2)
    for step in (0, 1, 2, 5, 6, 3, 3, 4, len(batches) - 1):  # steps are skipped, repeated, and end
        rows, domains = ahead.at(step)
        assert np.array_equal(rows, batches.at(step, 1, 2))
        names = [batches.recipe.domains[code] for code in domains]
        assert names == [DOMAIN[row] for row in (rows[:, 0] // 1_000_000).tolist()]
    ahead.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
