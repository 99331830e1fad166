"""The middle of what a target allows: closed forms, an independent search, and limits that leave nothing to choose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from mixlaw.optimizer.search.climb import random_starts
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.limits import Rule, bounds_of
from mixlaw.optimizer.target.polytope import Polytope, centre_of
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind

DOMAINS = (
    Domain("web", Kind.TEXT, 90_000_000),
    Domain("books", Kind.TEXT, 90_000_000),
    Domain("python", Kind.CODE, 90_000_000),
    Domain("readme", Kind.MARKUP, 90_000_000),
)
TARGET = Target(330_000, 6_600_000)
Floats = NDArray[np.float64]


def shares(target: Target, domains: tuple[Domain, ...] = DOMAINS) -> Floats:
    """Shares by phase and domain of the centre, (P, K)."""
    x = feasible(target, domains).centre[0]
    return np.asarray(x / x.sum(1, keepdims=True))


def test_without_limits_the_centre_is_even() -> None:
    assert np.allclose(shares(TARGET), 0.25, atol=1e-6)


def test_one_cap_pulls_the_centre_to_where_the_product_of_distances_is_greatest() -> None:
    # Three free shares are alike, (1 - x) / 3 each; d/dx of log x + log(0.1 - x) + 3 log((1 - x) / 3) is zero.
    cut = TARGET.changed(phases=("init",), caps={"init": {"web": 0.1}})
    best = brentq(lambda x: 1 / x - 1 / (0.1 - x) - 3 / (1 - x), 1e-6, 0.0999)
    assert shares(cut)[0] == pytest.approx([best, *[(1 - best) / 3] * 3], rel=1e-5)


def test_repetition_of_one_domain_leaves_the_others_even() -> None:
    # Of books there are 2 % of the tokens: a tiny domain must not push the others into a corner.
    few = (DOMAINS[0], replace(DOMAINS[1], unique_tokens=33_000), *DOMAINS[2:])
    found = shares(TARGET, few)
    assert np.allclose(found[:, [0, 2, 3]], found[:, [0]], atol=1e-6)
    assert 0.1 * 0.02 < (feasible(TARGET, few).centre[0][:, 1]).sum() < 0.02


@pytest.mark.parametrize("limits", [{"max_epochs": 1}, {"phase_epochs": {"init": 1}}])
def test_a_domain_of_more_tokens_than_are_trained_is_not_limited(limits: dict[str, Any]) -> None:
    for unique, limited in ((0.9, True), (1.5, False)):
        domains = (replace(DOMAINS[0], unique_tokens=round(unique * TARGET.tokens)), *DOMAINS[1:])
        rules = [limit.rule for limit in feasible(TARGET.changed(**limits), domains).limits]
        assert (Rule.EPOCHS in rules) is limited


def test_no_point_nearby_is_further_from_all_faces() -> None:
    target = Target(
        330_000,
        6_600_000,
        lengths={"continue": (0.2, 0.6)},
        floors={"init": {"web": 0.2}},
        caps={"recipe": {"all:code": 0.3}, "cooldown": {"books": 0.5}},
    )
    few = (DOMAINS[0], replace(DOMAINS[1], unique_tokens=500_000), *DOMAINS[2:])
    allowed = feasible(target, few)
    x, g = allowed.centre
    rows = np.stack([limit.row for limit in allowed.limits])
    bounds = np.array([limit.most(target.rest) for limit in allowed.limits])

    def room(x: Floats) -> float:
        """Sum of log distances of shares to 0 or their floor, and to the limits but those of lengths alone."""
        slack = bounds - rows @ np.append(x, g)
        size = [np.abs(row[: x.size]).sum() for row in rows]
        held = [
            s for s, n, limit in zip(slack, size, allowed.limits, strict=True) if n and "at least" not in limit.words
        ]
        above = x - np.array([[0.2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]) * x.sum(1, keepdims=True)
        return float(np.log(np.maximum([*above.ravel(), *held], 1e-300)).sum())

    here, rng = room(x), np.random.default_rng(0)
    for _ in range(400):
        move = rng.normal(size=x.shape)
        move -= move.mean(1, keepdims=True)
        assert room(x + 1e-3 * move) < here


def test_what_may_not_be_at_all_leaves_the_rest_free() -> None:
    # A group without a share, in one phase or in all: the other domains must still be free to move.
    for caps, phases in (({"init": {"all:code": 0.0}}, [0]), ({"recipe": {"all:code": 0.0}}, [0, 1, 2])):
        target = TARGET.changed(caps=caps)
        found = shares(target)
        assert np.allclose(found[phases], [0.5, 0.5, 0, 0], atol=1e-6)
        points = random_starts(feasible(target, DOMAINS), 200, seed=0)
        assert float(points.shares[:, phases, 2:].abs().max()) == 0
        assert float(points.shares[:, :, 0].std(0).min()) > 0.15
    only = TARGET.changed(floors={"cooldown": {"all:text": 1.0}})
    assert np.allclose(shares(only)[2], [0.5, 0.5, 0, 0], atol=1e-6)
    assert bounds_of(only, DOMAINS)[1].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert np.allclose(shares(TARGET.changed(caps={"init": {"web": 0.0}}))[0], [0, 1 / 3, 1 / 3, 1 / 3], atol=1e-6)


def test_faces_that_all_points_lie_on_are_told_from_faces_with_room() -> None:
    # a + b = 1, a <= 0.5 and b <= 0.5 leave a = b = 0.5; c is free between 0 and 2.
    rows = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, -1.0], [-1.0, 0, 0]])
    bounds = np.array([0.5, 0.5, 2.0, 0.0, 0.0])
    sums, totals = np.array([[1.0, 1.0, 0.0]]), np.array([1.0])
    assert centre_of(Polytope(rows, bounds, sums, totals)) == pytest.approx([0.5, 0.5, 1.0], abs=1e-6)
    assert centre_of(Polytope(rows, np.array([0.4, 0.5, 2.0, 0.0, 0.0]), sums, totals)) is None


@pytest.mark.parametrize(("count", "far"), [(3, 2.0), (8, 2.6), (20, 8.0)])
def test_crowded_faces_push_the_centre_by_their_number(count: int, far: float) -> None:
    # Most of log(1 - x) + log(1 + x) + n log(s + x): (n + 2) x**2 + 2 s x = n. In the last two a whole step is too far.
    rows = np.array([[1.0], [-1.0], *[[-1.0]] * count])
    bounds = np.array([1.0, 1.0, *[far] * count])
    truth = (np.sqrt(far**2 + count * (count + 2)) - far) / (count + 2)
    found = centre_of(Polytope(rows, bounds, np.zeros((0, 1)), np.zeros(0)))
    assert found == pytest.approx([truth], abs=1e-6)


@pytest.mark.parametrize("floors", [{"web": 1.0}, {"web": 0.5, "books": 0.5}])
def test_where_every_share_is_given_there_is_one_recipe(floors: dict[str, float]) -> None:
    only = Target(330_000, 6_600_000, phases=("init",), floors={"init": floors})
    assert feasible(only, DOMAINS[: len(floors)]).centre[0].tolist() == [[*floors.values()]]
