"""Plots say what the results say: values are read back out of the figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from mixlaw.analysis.data.code_share import code_share, code_shares, with_code_share
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.model import Prediction
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.answers.pairs import Pair, PairedGain
from mixlaw.optimizer.goal.values import Interval
from mixlaw.plots import (
    calibration,
    checked,
    comparison,
    extrapolation,
    fitted,
    flat_directions,
    held_out,
    paired,
    parity,
    residuals,
    response,
    schedule,
    segment_tree,
)
from mixlaw.plots.style import CODE_SHADES, CYCLE, TEMPLATES, TEXT_SHADES, count, count_ticks, domain_colours, size_axis
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from studies import DOMAINS, NODES, Study, audited, study

UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}


@pytest.fixture(scope="module")
def small() -> Study:
    return study()


def _named(figure: go.Figure, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.name == name]


def test_the_response_curve_is_the_prediction_with_that_code_share(small: Study) -> None:
    recipe, task = small.proposal.recipe, small.surfaces.tasks[0]
    figure = response(small.surfaces, task, recipe, DOMAINS, points=11)
    line = _named(figure, "continue")[0]
    moved = with_code_share(recipe, "continue", 0.3, DOMAINS)
    design = design_of([moved], small.surfaces.phases, small.surfaces.domains, UNIQUE)
    assert line.x[3] == pytest.approx(0.3)
    assert line.y[3] == pytest.approx(float(small.surfaces.mean(design)[0, 0]))


def test_plots_of_all_tasks_predict_every_recipe_once_and_no_measured_run(
    small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    surfaces, recipe = replace(small.surfaces), small.proposal.recipe
    predict, rows = Surfaces.predict, list[int]()

    def counting(model: Surfaces, design: Design) -> Prediction:
        rows.append(len(design))
        return predict(model, design)

    monkeypatch.setattr(Surfaces, "predict", counting)
    for task in surfaces.tasks:
        response(surfaces, task, recipe, DOMAINS, points=5)
        extrapolation(surfaces, task, {"one": recipe}, DOMAINS, points=7)
    assert len(surfaces.tasks) > 1
    # The reference; the recipe at seven sizes and its own; the same at the ratios of the runs, where these differ.
    assert rows in ([1, 8], [1, 8, 7])
    assert np.array_equal(surfaces.law_of_measured, predict(surfaces, surfaces.observed.design).law_only)


def test_the_band_of_the_response_closes_where_the_reference_stands(small: Study) -> None:
    shares = [Mixture({"web": 0.3, "books": 0.2, "python": 0.5})] * 3
    reference = Recipe(94_000, tuple(map(Phase, ("init", "continue", "cooldown"), [800_000] * 3, shares)))
    figure = response(small.surfaces, "task0", reference, DOMAINS, points=11)
    width = np.diff(np.array(_named(figure, "init")[0].customdata)[:, :2]).ravel()
    assert width[5] == pytest.approx(0, abs=1e-9)
    assert width[0] > 1e-4 < width[10]


def test_a_share_at_which_a_domain_is_missing_does_not_set_the_axis(small: Study) -> None:
    early, late = Mixture({"python": 0.98, "web": 0.02}), Mixture({"python": 0.3, "books": 0.6, "web": 0.1})
    phases = zip(small.proposal.recipe.phases, (early, early, late), strict=True)
    recipe = replace(small.proposal.recipe, phases=tuple(replace(phase, mixture=own) for phase, own in phases))
    plain, cut = (response(small.surfaces, task, recipe, DOMAINS, runs=False) for task in small.surfaces.tasks)
    assert plain.layout.yaxis.range is None  # without code task0 is a little worse, task1 by much
    line = np.array(_named(cut, "cooldown")[0].y)
    low, high = cut.layout.yaxis.range
    assert low < line[1:-1].min() < line[1:-1].max() < high < line[-1]
    assert "axis cut" in cut.layout.title.text


@pytest.mark.parametrize(("most", "ticks"), [(600_000, ["0", "200K", "400K", "600K"]), (3e6, ["0", "1M", "2M", "3M"])])
def test_ticks_of_tokens_are_as_people_say_them(most: float, ticks: list[str]) -> None:
    assert count_ticks(most)["ticktext"] == ticks


def test_measured_runs_stand_on_the_curve_times_measured_over_law(small: Study) -> None:
    figure = response(small.surfaces, "task1", small.proposal.recipe, DOMAINS)
    dots = _named(figure, "runs, init")[0]
    design, value = small.surfaces.observed.design, small.surfaces.observed.value[1].numpy()
    assert len(dots.x) == len(value)
    assert np.allclose(dots.x, code_shares(design, DOMAINS)[:, 0])
    line = _named(figure, "init")[0]
    law = small.surfaces.predict(design).law_only[:, 1]
    assert np.allclose(dots.y, np.interp(dots.x, line.x, line.y) * value / law)


def test_extrapolation_shows_every_measured_run_and_ends_at_the_target(small: Study) -> None:
    recipes = {"proposal": small.proposal.recipe}
    figure = extrapolation(small.surfaces, "task0", recipes, DOMAINS, {"proposal": [2.5]})
    assert sorted(_named(figure, "measured runs")[0].y) == pytest.approx(sorted(small.table["metric:task0"]))
    target = next(trace for trace in figure.data if trace.error_y.array is not None)
    forecast = small.proposal.forecast("proposal", "task0")
    assert target.x[0] == small.proposal.recipe.params
    assert target.y[0] == pytest.approx(forecast.mean)
    assert target.y[0] + target.error_y.array[0] == pytest.approx(forecast.hi90)
    assert _named(figure, "proposal, measured since")[0].y == (2.5,)


def test_the_schedule_stacks_to_one_and_the_rate_ends_where_the_recipe_says() -> None:
    mixtures = (Mixture({"web": 0.5, "python": 0.5}), Mixture({"web": 1.0}), Mixture({"books": 0.75, "python": 0.25}))
    phases = map(Phase, ("init", "continue", "cooldown"), (400, 250, 150), mixtures, (1.0, 1.0, 0.1))
    figure = schedule(Recipe(1_000, tuple(phases)), DOMAINS)
    bars = [trace for trace in figure.data if isinstance(trace, go.Bar)]
    assert np.allclose(np.sum([bar.y for bar in bars], 0), 1)
    assert list(bars[0].width) == [400, 250, 150]
    rate = _named(figure, "learning rate")[0]
    assert (rate.x[-1], rate.y[-1]) == (800, 0.1)
    assert {bar.name for bar in bars} == {"web", "books", "python"}


def test_a_schedule_of_many_domains_puts_the_small_ones_into_one_band() -> None:
    domains = tuple(Domain(f"d{i}", Kind.TEXT, 9) for i in range(12))
    shares = {d.name: 0.01 if i < 4 else 0.12 for i, d in enumerate(domains)}
    figure = schedule(Recipe(1_000, (Phase("init", 400, Mixture(shares)),)), domains)
    bars = [trace for trace in figure.data if isinstance(trace, go.Bar)]
    assert [bar.name for bar in bars] == ["4 small domains", *(f"d{i}" for i in range(4, 12))]
    assert bars[0].y == pytest.approx((0.04,))
    assert all(f"d{i} (text)<br>init: 1.0 %" in bars[0].customdata[0] for i in range(4))
    assert len({bar.marker.color for bar in bars}) == len(bars)
    few = schedule(Recipe(1_000, (Phase("init", 400, Mixture({"d0": 0.01, "d4": 0.99})),)), domains)
    assert [trace.name for trace in few.data if isinstance(trace, go.Bar)] == ["d0", "d4"]


def test_a_short_phase_is_wide_enough_to_see_and_ticks_and_rates_stay_true() -> None:
    mixture = Mixture({"web": 1.0})
    recipe = Recipe(1_000, (Phase("trunk", 9_500, mixture), Phase("cooldown", 500, mixture, 0.0)))
    figure = schedule(recipe, DOMAINS)
    assert list(figure.data[0].width) == pytest.approx([8_200, 1_800])
    assert figure.layout.xaxis2.tickvals == pytest.approx((0, 8_200, 10_000))
    assert figure.layout.xaxis2.ticktext == ("0", "9.5K", "10K")
    assert "not to scale" in figure.layout.xaxis2.title.text
    rate = _named(figure, "learning rate")[0]
    assert dict(zip(rate.x, rate.y, strict=True)) == pytest.approx({0: 1.0, 8_200: 1.0, 10_000: 0.0})
    assert rate.customdata[-1] == 10_000


def test_the_dotted_line_takes_each_sizes_own_tokens_per_parameter(small: Study) -> None:
    recipe = small.proposal.recipe
    design = small.surfaces.observed.design
    more = replace(design, tokens=design.tokens * torch.where(design.params > 30_000, 1.0, 10.0)[:, None, None])
    surfaces = replace(small.surfaces, observed=replace(small.surfaces.observed, design=more))
    line = _named(extrapolation(surfaces, "task0", {"proposal": recipe}, DOMAINS), "proposal at the runs' tokens/param")
    assert line[0].customdata[0] == pytest.approx(10 * float(design.total[0] / design.params[0]), rel=0.01)
    assert line[0].customdata[-1] == pytest.approx(float(design.total[0] / design.params[0]), rel=0.01)
    assert np.all(np.diff(line[0].customdata) <= 1e-9)


def test_the_segment_tree_puts_a_parent_between_its_children_and_fades_what_is_to_come() -> None:
    figure = segment_tree(NODES)
    trunk, leaves = _named(figure, "init")[0], _named(figure, "cooldown")[0]
    heights = [y for y in leaves.y if y is not None]
    assert trunk.y[0] == pytest.approx(np.mean(heights))
    assert trunk.line.width > leaves.line.width  # two recipes share the trunk
    waiting = [trace for trace in figure.data if trace.name == "init, planned"]
    assert waiting[0].line.color.startswith("rgba")
    assert "shared by 2 recipes, planned" in waiting[0].text[0]


def test_a_comparison_shows_gains_in_percent_of_loss_and_measured_values_as_diamonds(small: Study) -> None:
    proposal = small.proposal
    reference = proposal.forecast(proposal.against, "task0").mean
    figure = comparison(proposal.forecasts, proposal.against, {("proposal", "task0"): [reference * 0.9]})
    dots = _named(figure, "proposal")[0]
    assert dots.x[0] == pytest.approx(100 * np.log(reference / proposal.forecast("proposal", "task0").mean))
    assert _named(figure, proposal.against)[0].x == pytest.approx([0, 0])
    diamond = next(trace for trace in figure.data if trace.marker.symbol == "diamond" and trace.customdata is not None)
    assert diamond.x[0] == pytest.approx(-100 * np.log(0.9))


def test_without_a_flat_direction_the_plot_says_so() -> None:
    assert [note.text for note in flat_directions([]).layout.annotations] == [
        "no other share is statistically equivalent"
    ]


def test_paired_gains_are_sorted_filled_inside_and_cut_where_one_is_far_away() -> None:
    gains = tuple(
        PairedGain(task, Interval(mean, mean - 1, mean + 1), measured, 0.2)
        for task, mean, measured in (("a", 0.0, -0.5), ("b", 1.0, 3.0), ("far", 50.0, 49.5))
    )
    total = PairedGain("all, by weight", Interval(17.0, 16.0, 18.0), 17.3, 0.1)
    figure = paired(Pair("id", 1, "ours", "% of loss", gains, total, (2, 2), False, {}))
    bars, ticks, inside, outside, beyond = figure.data
    assert [*bars.y] == ["<b>all, by weight</b>", "far", "b", "a"]
    assert ([*inside.y], [*outside.y]) == (["<b>all, by weight</b>", "a"], ["b"])
    assert ([*beyond.y], beyond.marker.symbol, beyond.showlegend) == (["far"], "triangle-right", False)
    assert (inside.marker.symbol, outside.marker.symbol) == ("diamond", "diamond-open")
    assert (bars.base[3], bars.x[3], ticks.x[3]) == (-1, 2, 0)
    least, most = figure.layout.xaxis.range
    assert most < 30
    assert all(least <= x <= most for x in (*inside.x, *ticks.x, *bars.base))
    assert figure.layout.title.text.startswith("Measured +17.3, predicted 17.0 ± 1.0")
    assert (
        "tasks: 2 better, 1 worse, 0 within seed noise;<br>2 of 3 inside what was predicted (90 %)"
        in figure.layout.title.text
    )
    assert "<b>+49.5</b>" in [note.text for note in figure.layout.annotations]


def test_parity_and_residuals_show_the_same_runs_and_count_what_lies_inside(small: Study) -> None:
    points = fitted(small.surfaces, "task0")
    inside = [low <= y <= high for low, y, high in zip(points.lo90, points.measured, points.hi90, strict=True)]
    assert points.inside == pytest.approx(np.mean(inside))
    shown = [trace for trace in parity(points).data if trace.mode == "markers"]
    off = residuals(points).data
    assert [trace.name for trace in shown] == ["24K params", "94K params"]
    for a, b in zip(shown, off, strict=True):
        assert np.allclose(b.y, 100 * (np.array(a.x) / np.array(a.y) - 1))


def test_parity_of_held_out_runs_shows_what_was_predicted_without_them(small: Study) -> None:
    assert held_out(small.surfaces, "task0") is None  # no audit
    assert checked(small.surfaces, "task0").how == "in-sample"
    surfaces = audited(small.surfaces, off=1.0)  # bits/byte: a hundredth of log loss too low
    points = held_out(surfaces, "task1")
    assert points is not None
    design = surfaces.observed.design
    assert sorted(points.runs) == sorted(design.runs)
    value = dict(zip(design.runs, surfaces.observed.value[1].tolist(), strict=True))
    assert points.measured == pytest.approx([value[run] for run in points.runs])
    assert points.mean == pytest.approx(points.measured * np.exp(-0.01))
    assert points.hi90 == pytest.approx(points.mean * np.exp(0.01 * 1.6448536))
    assert held_out(surfaces, "task1", "largest size") is None
    assert "held-out mixtures" in parity(points).layout.title.text


def test_calibration_rises_where_the_interval_reaches_what_was_measured(small: Study) -> None:
    points = [held_out(audited(small.surfaces, off), "task0") for off in (1.0, 2.0)]
    assert [np.ptp(p.level) < 0.01 for p in points if p] == [True, True]
    # One standard deviation is the end of a 68 % interval, two of a 95 %; halves are measured in bits, so nearly so.
    assert points[0] is not None
    assert points[1] is not None
    assert points[0].level[0] == pytest.approx(0.683, abs=0.005)
    assert points[1].level[0] == pytest.approx(0.954, abs=0.005)
    figure = calibration([p for p in points if p])
    lines = [trace for trace in figure.data if (trace.hovertemplate or "").startswith("task0")]
    assert [float(np.interp(0.5, line.y, line.x)) for line in lines] == pytest.approx([0.68, 0.95], abs=0.02)


def test_moving_the_code_share_keeps_the_proportions_inside_text() -> None:
    recipe = Recipe(1_000, (Phase("init", 100, Mixture({"web": 0.3, "books": 0.1, "python": 0.6})),))
    moved = with_code_share(recipe, "init", 0.2, DOMAINS).phases[0].mixture
    assert dict(moved) == pytest.approx({"web": 0.6, "books": 0.2, "python": 0.2})
    assert code_share(moved, DOMAINS) == pytest.approx(0.2)


def test_a_phase_without_code_takes_it_in_the_proportions_of_the_recipe_or_of_what_there_is() -> None:
    domains = (*DOMAINS, Domain("readme", Kind.MARKUP, 1_000_000))
    bare = Recipe(1_000, (Phase("init", 100, Mixture({"web": 1.0})),))
    assert with_code_share(bare, "init", 0.4, domains).phases[0].mixture.share("readme") == pytest.approx(0.1)
    later = Recipe(1_000, (*bare.phases, Phase("continue", 100, Mixture({"readme": 1.0}))))
    assert with_code_share(later, "init", 0.4, domains).phases[0].mixture.share("readme") == pytest.approx(0.4)


def test_text_is_blue_and_code_is_orange_and_light_and_dark_differ_only_in_ink() -> None:
    colours = domain_colours(DOMAINS)
    assert {colours["web"], colours["books"]} <= set(TEXT_SHADES)
    assert colours["python"] in CODE_SHADES
    light, dark = (TEMPLATES[mode].layout for mode in ("light", "dark"))
    assert light.colorway == dark.colorway == CYCLE
    assert light.font.color != dark.font.color


@pytest.mark.parametrize(
    ("value", "text"), [(24_128, "24.1K"), (999_999, "1M"), (2_800_000_000, "2.8B"), (1.2e12, "1.2T"), (512, "512")]
)
def test_counts_are_three_digits_with_a_suffix(value: float, text: str) -> None:
    assert count(value) == text


def test_an_axis_of_sizes_says_billions_and_covers_its_ends() -> None:
    axis = size_axis(120e6, 2.5e9)
    assert axis["ticktext"] == ["100M", "200M", "500M", "1B", "2B"]
    assert axis["tickvals"][-2:] == [1e9, 2e9]
    assert size_axis(24_000, 94_000)["ticktext"] == ["20K", "50K", "100K"]
