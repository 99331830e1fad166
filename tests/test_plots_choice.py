"""Plots of fronts and spreads show the numbers they are given."""

from __future__ import annotations

import pytest

from mixlaw.optimizer.answers.sensitivity import Flat
from mixlaw.optimizer.goal.values import Interval
from mixlaw.plots import front, spread
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe

DOMAINS = (Domain("web", Kind.TEXT, 9), Domain("python", Kind.CODE, 9))
GAINS = [
    {"language": Interval(2.0, 1.5, 2.5), "code": Interval(-1.0, -1.4, -0.6), "knowledge": Interval(0.5, 0.1, 0.9)},
    {"language": Interval(0.5, 0.1, 0.9), "code": Interval(3.0, 2.0, 4.0), "knowledge": Interval(0.2, 0.0, 0.4)},
]


def test_a_front_has_intervals_a_baseline_at_zero_and_a_third_group_as_colour() -> None:
    figure = front(GAINS, "uniform", ["first", "second"], {"proposal": {"language": 1.0, "code": 1.0}})
    points, marked, zero = figure.data
    assert (tuple(points.x), tuple(points.y)) == ((2.0, 0.5), (-1.0, 3.0))
    assert tuple(points.error_y.array) == pytest.approx((0.4, 1.0))
    assert tuple(points.error_x.arrayminus) == pytest.approx((0.5, 0.4))
    assert tuple(points.marker.color) == (0.5, 0.2)
    assert (tuple(marked.x), tuple(zero.x), zero.name) == ((1.0,), (0.0,), "uniform")
    assert figure.layout.xaxis.title.text == "language: gain over uniform, %"
    assert "lines" in front([{k: g[k] for k in ("language", "code")} for g in GAINS], "uniform").data[0].mode


def test_a_spread_has_a_bar_from_end_to_end_and_dots_at_both_recipes() -> None:
    def recipe(share: float) -> Recipe:
        return Recipe(1, (Phase("init", 9, Mixture({"web": 1.0})), _last(share)))

    ends = {"cooldown": {"web": (0.2, 0.5), "python": (0.5, 0.8)}}
    figure = spread(recipe(0.4), ends, DOMAINS, recipe(0.9))
    bar, dots, rings = (trace for trace in figure.data if trace.x[0] is not None)
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        "90 % of posterior samples",
        "proposal",
        "without limits",
    ]
    assert tuple(bar.y) == ("python", "web")
    assert tuple(bar.base) == (0.5, 0.2)
    assert tuple(bar.x) == pytest.approx((0.3, 0.3))
    assert tuple(dots.x) == pytest.approx((0.6, 0.4))
    assert tuple(rings.x) == pytest.approx((0.1, 0.9))

    wide, *_ = spread(recipe(0.4), ends, DOMAINS, flat=[Flat("cooldown", "web", 0.1, 0.6, 0.4)]).data
    assert (tuple(wide.y), tuple(wide.base), tuple(wide.x)) == (("web",), (0.1,), (0.5,)), "equivalent shares"


def test_small_shares_have_an_axis_that_shows_them() -> None:
    recipe = Recipe(1, (_last(0.1),))
    narrow = spread(recipe, {"cooldown": {"web": (0.05, 0.12), "python": (0.1, 0.2)}}, DOMAINS[:1])
    assert narrow.layout.xaxis.range == pytest.approx((-0.0075, 0.2575))
    assert spread(recipe, {"cooldown": {"web": (0.05, 0.4)}}, DOMAINS[:1]).layout.xaxis.tickvals == (0, 0.25, 0.5)
    assert spread(recipe, {"cooldown": {"web": (0.05, 1.0)}}, DOMAINS[:1]).layout.xaxis.tickvals == (0, 0.5, 1)


def _last(share: float) -> Phase:
    return Phase("cooldown", 9, Mixture({"web": share, "python": 1 - share}), 0.0)
