"""Plots of worth show the numbers they are given: heat map, flat ranges, sizes, suggested runs, loss curves."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from mixlaw.optimizer.answers.sensitivity import Flat, Step
from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.optimizer.goal.values import Interval
from mixlaw.optimizer.next_runs.suggestion import Job
from mixlaw.plots import Curve, flat_directions, losses, over_sizes, value_of_runs, worth
from mixlaw.plots.worth import width_of
from mixlaw.recipe import Mixture, Phase, Recipe

RECIPE = Recipe(1000, (Phase("init", 600, Mixture({"web": 1.0})), Phase("cooldown", 200, Mixture({"web": 1.0}), 0.0)))


def test_worth_is_a_row_per_domain_and_phase_and_brackets_what_is_within_noise() -> None:
    points = [
        Worthwhile("init", "web", "facts", Interval(0.5, 0.2, 0.8)),
        Worthwhile("init", "web", "code", Interval(-0.1, -0.3, 0.1)),
        Worthwhile("cooldown", "python", "facts", Interval(0.0, -0.2, 0.2)),
        Worthwhile("cooldown", "python", "code", Interval(0.7, 0.6, 0.8)),
    ]
    (cells,) = worth(points).data
    assert (tuple(cells.y), tuple(cells.x)) == (("web, init", "python, cooldown"), ("facts", "code"))
    assert [list(row) for row in cells.z] == [[0.5, 0.0], [0.0, 0.7]]
    assert [list(row) for row in cells.text] == [["+0.50", "(-0.10)"], ["", "+0.70"]]
    assert (cells.zmin, cells.zmax) == (-0.7, 0.7), "white is nothing"
    noise = Worthwhile("init", "python", "facts", Interval(9.0, -1, 19))
    other = Worthwhile("init", "python", "code", Interval(0.0, -1, 1))
    assert len(worth([*points, noise, other]).data[0].y) == 2, "rows that show nothing are left out"


def test_long_names_of_tasks_are_broken_or_slanted_and_a_page_has_room_for_them() -> None:
    def heat(count: int) -> tuple[go.Figure, int]:
        tasks = [f"pubmed_abstracts_{i}" for i in range(count)]
        return worth([Worthwhile("init", "web", task, Interval(1.0, 0.5, 1.5)) for task in tasks]), width_of(tasks)

    figure, width = heat(3)
    assert figure.data[0].x[0] == "pubmed_<br>abstracts_0"
    assert (figure.layout.xaxis.tickangle, width) == (0, 240 + 3 * (12 + 7 * 11))
    assert figure.data[0].showscale is False, "a bar of colours has no room in one row"
    figure, width = heat(14)
    assert figure.data[0].x[0] == "pubmed_abstracts_0"
    assert (figure.layout.xaxis.tickangle, width) == (-40, 240 + 14 * 56)
    assert width <= 1040, "that of the report"


def test_flat_directions_reach_from_end_to_end_around_the_proposal() -> None:
    bar, dots = flat_directions(
        [Flat("init", "code", 0.18, 0.31, 0.2), Flat("cooldown", "length", 0.1, 0.2, 0.15)]
    ).data
    assert tuple(bar.y) == ("all code in init", "length of cooldown")
    assert tuple(bar.base) == (0.18, 0.1)
    assert tuple(bar.x) == pytest.approx((0.13, 0.1))
    assert tuple(dots.x) == (0.2, 0.15)


def test_a_domain_called_code_is_distinct_from_all_code_together() -> None:
    ranges = [Flat("init", "code", 0, 1, 0.5), Flat("end", "code", 0, 1, 0.4), Flat("init", "prose", 0, 1, 0.3)]
    bar, _ = flat_directions([*ranges, Flat("init", "code", 0, 1, 0.2)]).data
    assert tuple(bar.y) == ("all code in init", "all code in end", "prose in init", "code in init")


def test_shares_over_sizes_have_a_panel_per_phase_and_a_line_per_kind() -> None:
    steps = [
        Step(470_000_000, 10, {"init": {"text": 0.7, "code": 0.3}, "cooldown": {"text": 1.0}}),
        Step(2_800_000_000, 60, {"init": {"text": 0.6, "code": 0.4}, "cooldown": {"text": 0.5, "code": 0.5}}),
    ]
    lines = {(trace.name, trace.xaxis): (tuple(trace.x), tuple(trace.y)) for trace in over_sizes(steps).data}
    sizes = (470_000_000, 2_800_000_000)
    assert lines["code", "x"] == (sizes, (0.3, 0.4))
    assert lines["code", "x2"] == (sizes, (0.0, 0.5)), "a kind that a size does not use has no share there"


def test_the_value_of_runs_adds_up_costs_and_gains() -> None:
    jobs = [Job(RECIPE, "first", 2e15, 0, brings=0.12), Job(RECIPE, "second", 3e15, 0, brings=0.05)]
    figure = value_of_runs(jobs, 0.4)
    assert tuple(figure.data[0].x) == (0, 2e15, 5e15)
    assert tuple(figure.data[0].y) == pytest.approx((0, 0.12, 0.17))
    assert figure.layout.shapes[0].y0 == 0.4


def test_losses_go_on_where_the_parents_end_in_the_colour_of_their_phase_with_a_panel_for_each_size() -> None:
    trunk = Curve("t", None, 24_000, "init", "web 100%", ("a", "b"), (100, 400), (5.0, 3.0))
    leaves = [
        Curve(name, "t", 24_000, "cooldown", "web 100%", (name,), (500, 600), (2.9, end))
        for name, end in (("a", 2.5), ("b", 2.7))
    ]
    figure = losses([trunk, *leaves, Curve("c", None, 94_000, "init", "web 100%", ("c",), (100, 800), (5.0, 2.0))])
    lines = [(tuple(trace.x), tuple(trace.y)) for trace in figure.data]
    assert lines[:2] == [((100, 400), (5.0, 3.0)), ((400, 500, 600), (3.0, 2.9, 2.5))]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["init", "cooldown"]
    assert [trace.xaxis for trace in figure.data] == ["x", "x", "x", "x2"]
    assert figure.data[0].line.color == figure.data[3].line.color != figure.data[1].line.color
    assert [note.text for note in figure.layout.annotations] == ["24K params", "94K params"]
    grey = losses([trunk, *leaves], chosen=["b"])
    assert [trace.name for trace in grey.data] == ["other runs", "init", "cooldown"]
    assert "shared by 2 recipes" in figure.data[0].hovertemplate
    assert "run b" in figure.data[2].hovertemplate
