"""The order of domains in a phase, and the shuffling inside a domain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixlaw.runner.batches import order
from mixlaw.runner.batches.order import BLOCK, Order, _scramble, shuffled

weights = st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(weights, st.integers(1, 3000))
def test_every_prefix_is_within_one_sequence_of_its_share(raw: list[float], length: int) -> None:
    shares = {f"d{i:02}": w / sum(raw) for i, w in enumerate(raw)}
    phase = Order(shares, length)
    drawn = np.cumsum(phase.codes(0, length)[:, None] == np.arange(len(phase.names)), axis=0)
    exact = np.arange(1, length + 1)[:, None] * np.array([shares[name] for name in phase.names])
    assert np.abs(drawn - exact).max() < 1 + 1e-9


@given(weights, st.integers(2, 500), st.integers(1, 500))
def test_a_longer_phase_begins_with_the_shorter_one(raw: list[float], length: int, more: int) -> None:
    shares = {f"d{i}": w / sum(raw) for i, w in enumerate(raw)}
    assert np.array_equal(Order(shares, length + more).codes(0, length), Order(shares, length).codes(0, length))


def test_counts_and_occurrences_agree_with_counting_one_by_one() -> None:
    phase = Order({"code": 0.37, "text": 0.6, "rare": 0.03}, 2 * BLOCK + 777)
    seen = np.zeros(3, int)
    earlier = np.empty(len(phase), int)
    for i, code in enumerate(phase.codes(0, len(phase))):
        earlier[i] = seen[code]
        seen[code] += 1
    for start, stop in [(0, 10), (BLOCK - 3, BLOCK + 5), (2 * BLOCK, len(phase)), (5000, 5001)]:
        assert np.array_equal(phase.occurrences(start, stop), earlier[start:stop])
        assert np.array_equal(phase.counts(start), np.bincount(phase.codes(0, start), minlength=3))
    assert np.array_equal(phase.counts(len(phase)), seen)


@settings(max_examples=30, deadline=None)
@given(weights, st.integers(0, 700))
@example([2.0, 3.0, 5.0], 7)  # some deadlines are whole slots
def test_many_stretches_at_once_are_the_order_slot_by_slot(raw: list[float], before: int) -> None:
    steps = sum(raw) / np.array(raw)
    slow = order._one_by_one(steps, np.zeros(len(raw), np.int64), before + 5000)
    done = np.bincount(slow[:before], minlength=len(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "LANES", 64)
        patch.setattr(order, "WARM_UP", 1)  # some stretches then begin from wrong counts, and are done again
        assert np.array_equal(order._in_lanes(steps, done, 5000), slow[before:])


def test_the_order_is_that_of_studies_that_were_trained_before() -> None:
    # By hand, deadlines ceil(m / s): 5 and 10 for .2; 4, 7, 10 for .3; 2, 4, 6, 8, 10 for .5; of two at once the first.
    assert Order({"a": 0.2, "b": 0.3, "c": 0.5}, 10).codes(0, 10).tolist() == [2, 1, 2, 0, 2, 1, 2, 0, 1, 2]


def test_the_end_of_a_long_phase_is_not_worked_out_slot_by_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, length = {"code": 0.37, "text": 0.6, "rare": 0.03}, 400 * BLOCK
    monkeypatch.setattr(order, "_one_by_one", None)
    counts = Order(shares, length).counts(length)
    assert np.abs(counts - np.array([shares[name] for name in sorted(shares)]) * length).max() < 1


def test_shares_that_sum_to_a_hair_below_one_never_run_dry() -> None:
    third = 0.333333  # a Mixture allows three of them; at sequence 1,000,000 no domain is due
    phase = Order({"a": third, "b": third, "c": third}, 1_000_010)
    assert np.abs(phase.counts(1_000_010) - 1_000_010 / 3).max() < 2


def test_where_no_domain_is_due_the_next_in_line_comes() -> None:
    steps, none = 1 / np.array([0.4, 0.2, 0.3]), np.zeros(3, np.int64)  # a tenth of the slots has no domain
    codes = order._one_by_one(steps, none, 90)
    assert np.abs(np.bincount(codes) - [40, 20, 30]).max() <= 1
    for begin in range(3, 90, 7):  # counts say all of the past
        assert np.array_equal(
            order._one_by_one(steps, np.bincount(codes[:begin], minlength=3), 90 - begin), codes[begin:]
        )
    together, counts = order._lockstep(steps, np.stack([none, none]), np.array([90, 90]))
    assert np.array_equal(together, np.stack([codes, codes], 1))
    assert np.array_equal(counts[0], np.bincount(codes))


def test_domains_without_a_share_are_never_drawn() -> None:
    phase = Order({"code": 0.0, "text": 1.0}, 50)
    assert phase.names == ("text",)
    assert set(phase.codes(0, 50)) == {0}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 4097])
def test_shuffling_is_a_permutation_that_depends_on_the_key(size: int) -> None:
    index = np.arange(size)
    image = shuffled(index, size, key=11)
    assert np.array_equal(np.sort(image), index)
    assert np.array_equal(shuffled(index[::-1], size, key=11), image[::-1])
    if size >= 64:
        assert not np.array_equal(image, shuffled(index, size, key=12))


def test_shuffled_positions_look_uniform() -> None:
    # 400 keys, where does element 0 of 100 go: chi-square with 9 degrees of freedom stays under its 99.9 % point.
    places = [int(shuffled(np.array([0]), 100, key)[0]) for key in range(400)]
    observed = np.bincount(np.array(places) // 10, minlength=10)
    assert ((observed - 40) ** 2 / 40).sum() < 27.9


def test_bits_are_scrambled_as_in_splitmix64() -> None:
    # The first five numbers of SplitMix64 from the seed 1234567, as published with it.
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + golden * np.arange(1, 6, dtype=np.uint64)
    assert _scramble(states).tolist() == [
        *(6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)
    ]
