"""Mixtures within bounds: uniform without distortion, and any weights read as shares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mixlaw.errors import InputError
from mixlaw.optimizer.optuna.simplex import Floats, Simplex

LETTERS = tuple("abcdef")


def simplex(count: int, floors: dict[str, float] | None = None, caps: dict[str, float] | None = None) -> Simplex:
    return Simplex.of(LETTERS[:count], floors or {}, caps or {})


def p_value(values: Floats, distribution: stats.rv_continuous, *shape: float) -> float:
    return float(stats.kstest(values, distribution(*shape).cdf).pvalue)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_without_bounds_each_share_is_beta_and_any_two_have_the_covariance_of_a_flat_dirichlet(count: int) -> None:
    drawn = simplex(count).uniform(4000, np.random.default_rng(1))
    assert min(p_value(column, stats.beta, 1, count - 1) for column in drawn.T) > 0.01
    flat = (np.eye(count) * count - 1) / (count**2 * (count + 1))  # Dirichlet(1, ..., 1)
    assert np.allclose(np.cov(drawn.T), flat, atol=0.08 * flat.max())


def test_the_test_can_tell_that_normalised_uniform_weights_are_not_uniform() -> None:
    weights = np.random.default_rng(1).random((4000, 3))
    assert p_value((weights / weights.sum(1, keepdims=True))[:, 0], stats.beta, 1, 2) < 1e-20


def test_floors_move_and_scale_the_simplex() -> None:
    drawn = simplex(4, floors={"a": 0.3, "b": 0.2}).uniform(4000, np.random.default_rng(2))
    above = (drawn - [0.3, 0.2, 0.0, 0.0]) / 0.5
    assert min(p_value(column, stats.beta, 1, 3) for column in above.T) > 0.01


@pytest.mark.parametrize("cap", [0.45, 0.34])  # by rejection; by walks, as 1 draw of 2500 would be inside
def test_caps_below_one_half_leave_an_inverted_triangle_evenly_filled(cap: float) -> None:
    drawn = simplex(3, caps=dict.fromkeys("abc", cap)).uniform(600, np.random.default_rng(3))
    below = (cap - drawn) / (3 * cap - 1)  # what is missing to the caps is on a simplex again
    assert (drawn <= cap + 1e-12).all()
    assert min(p_value(column, stats.beta, 1, 2) for column in below.T) > 0.01


def test_a_capped_share_of_two_is_uniform_up_to_its_cap() -> None:
    drawn = simplex(2, floors={"a": 0.1}, caps={"a": 0.3}).uniform(3000, np.random.default_rng(4))
    assert p_value(drawn[:, 0], stats.uniform, 0.1, 0.2) > 0.01


def test_reading_weights_without_bounds_divides_by_their_sum() -> None:
    assert np.allclose(simplex(3).read(np.array([1.0, 0.5, 0.5])), [0.5, 0.25, 0.25], atol=1e-15)
    assert np.allclose(simplex(4).read(np.zeros(4)), 0.25)  # weights that say nothing


def test_reading_a_mixture_within_its_bounds_gives_it_back() -> None:
    bounded = simplex(5, floors={"a": 0.1}, caps={"b": 0.3, "c": 0.25})
    drawn = bounded.uniform(200, np.random.default_rng(5))
    assert np.allclose(bounded.read(drawn), drawn, atol=1e-12)


def test_what_a_cap_cuts_off_goes_to_the_others_in_proportion() -> None:
    # Weights 6 : 3 : 1, a at its cap of 0.4: the other 0.6 go 3 : 1.
    assert np.allclose(simplex(3, caps={"a": 0.4}).read(np.array([0.6, 0.3, 0.1])), [0.4, 0.45, 0.15])


def test_whatever_the_weights_shares_sum_to_one_within_the_bounds() -> None:
    rng = np.random.default_rng(6)
    for _ in range(50):
        low, high = 0.15 * rng.random(6), rng.uniform(0.15, 1.0, 6)
        if high.sum() < 1:
            continue
        weights = rng.random((40, 6)) * (rng.random((40, 6)) < 0.6)  # some are nothing
        bounded = Simplex(LETTERS, low, high)
        for shares in (bounded.read(weights), bounded.near(bounded.read(weights), 0.5, rng), bounded.uniform(9, rng)):
            assert np.abs(shares.sum(1) - 1).max() < 1e-12
            assert (shares >= low - 1e-12).all()
            assert (shares <= high + 1e-12).all()


def test_pinned_shares_stay_and_the_rest_is_uniform_on_what_is_left() -> None:
    drawn = simplex(4).pinned({"b": 0.4}).uniform(3000, np.random.default_rng(7))
    assert np.allclose(drawn[:, 1], 0.4, atol=1e-15)
    assert p_value(drawn[:, 0] / 0.6, stats.beta, 1, 2) > 0.01
    assert simplex(3).pinned({"a": 0.8, "b": 0.7}).high.tolist() == [
        1,
        1,
        1,
    ]  # weights, no shares: nothing to hold on to


@pytest.mark.parametrize(
    ("floors", "caps", "words"),
    [
        ({"a": 0.7, "b": 0.6}, {}, "floors must sum to 1 at most, got 1.3"),
        ({}, {"a": 0.2, "b": 0.2, "c": 0.2}, "caps must sum to 1 at least, got 0.6"),
        ({"a": 0.5}, {"a": 0.4}, r"floor <= cap <= 1, got {'a': \(0.5, 0.4\)}"),
        ({"a": -0.1}, {}, "got {'a'"),
        ({}, {"a": float("nan")}, "got {'a'"),
        ({"maths": 0.1}, {}, "'maths', the domains are a, b, c"),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(floors: dict[str, float], caps: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        simplex(3, floors, caps)


def test_domains_must_be_there_and_differ() -> None:
    for names in ((), ("web", "web")):
        with pytest.raises(InputError, match="different names"):
            Simplex.of(names, {}, {})
