"""Landscapes show what surfaces predict, where runs are and where each posterior sample has its optimum."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from plotly.utils import PlotlyJSONEncoder

from mixlaw.analysis.data.code_share import code_share, code_shares, with_code_share
from mixlaw.analysis.data.recipes import design_of
from mixlaw.plots import ternary, two_phases
from mixlaw.plots.gain_bars import plain_gains
from mixlaw.plots.landscapes import plain_ternary, plain_two_phases
from mixlaw.plots.recipes import plain_schedule
from mixlaw.plots.responses import plain_response
from mixlaw.recipe import Mixture, Recipe
from studies import DOMAINS, Study, study

UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}
CORNERS = ("web", "books", "python")


@pytest.fixture(scope="module")
def small() -> Study:
    return study()


def predicted(small: Study, recipe: Recipe, task: int = 0) -> float:
    design = design_of([recipe], small.surfaces.phases, small.surfaces.domains, UNIQUE)
    with torch.no_grad():
        return float(small.surfaces.mean(design)[0, task])


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_a_triangle_shows_the_prediction_of_each_mixture_at_its_place(small: Study) -> None:
    recipe = small.proposal.recipe
    figure = ternary(small.surfaces, "task0", recipe, "cooldown", CORNERS, DOMAINS, points=5)
    hover = next(trace for trace in figure.data if trace.customdata is not None and len(trace.customdata[0]) == 4)
    values = next(trace for trace in figure.data if isinstance(trace, go.Contourcarpet)).z
    for (x, y), (web, books, python, shown), z in zip(
        zip(hover.x, hover.y, strict=True), hover.customdata, values, strict=True
    ):
        assert web + books + python == pytest.approx(1)
        assert (x, y) == pytest.approx((books + python / 2, python * 3**0.5 / 2))
        mixture = Mixture.normalised({"web": web, "books": books, "python": python})
        assert shown == z == pytest.approx(predicted(small, recipe.with_mixture("cooldown", mixture)))


def test_domains_beside_the_three_keep_their_share(small: Study) -> None:
    recipe = small.proposal.recipe.with_mixture("cooldown", Mixture({"web": 0.5, "books": 0.3, "python": 0.2}))
    figure = ternary(small.surfaces, "task0", recipe, "init", CORNERS, DOMAINS, points=3)
    assert figure.layout.annotations[0].text == "100 % web"
    reference = named(figure, "reference recipe")
    init = recipe.phases[0].mixture
    assert reference.x[0] == pytest.approx(init.share("books") + init.share("python") / 2)


def test_two_phases_show_the_prediction_and_every_run_at_its_code_shares(small: Study) -> None:
    recipe = small.proposal.recipe
    figure = two_phases(small.surfaces, "task1", recipe, ("init", "cooldown"), DOMAINS, points=6)
    values = np.sort(np.ravel(figure.data[0].z))  # colours tell the better half apart: low losses
    assert (figure.data[0].zmin, figure.data[0].zmax) == pytest.approx((values[0], values[17:19].mean()))
    contour = next(trace for trace in figure.data if isinstance(trace, go.Contour))
    moved = with_code_share(with_code_share(recipe, "init", 0.4, DOMAINS), "cooldown", 0.8, DOMAINS)
    assert contour.z[4][2] == pytest.approx(predicted(small, moved, task=1))
    design = small.surfaces.observed.design
    runs = named(figure, "measured runs")
    assert np.allclose(runs.x, code_shares(design, DOMAINS)[:, design.phases.index("init")])
    assert np.allclose(runs.y, code_shares(design, DOMAINS)[:, design.phases.index("cooldown")])
    reference = named(figure, "reference recipe")
    assert reference.x[0] == pytest.approx(code_share(recipe.phases[0].mixture, DOMAINS))


def test_optima_are_where_each_posterior_sample_is_best(small: Study) -> None:
    recipe, grid = small.proposal.recipe, np.linspace(0, 1, 4)
    figure = two_phases(small.surfaces, "task0", recipe, ("init", "cooldown"), DOMAINS, points=4)
    optima = named(figure, "optimum of each posterior sample")
    assert sum(int(part.removesuffix(" %")) for part in optima.customdata) == pytest.approx(100, abs=len(optima.x))
    recipes = [
        with_code_share(with_code_share(recipe, "init", float(across), DOMAINS), "cooldown", float(up), DOMAINS)
        for up in grid
        for across in grid
    ]
    design = design_of(recipes, small.surfaces.phases, small.surfaces.domains, UNIQUE)
    with torch.no_grad():
        lowest = small.surfaces.draws(design, 64)[..., 0].argmin(1)
    expected = {(float(grid[i % 4]), float(grid[i // 4])) for i in lowest.tolist()}
    assert set(zip(optima.x, optima.y, strict=True)) == expected


def test_what_pages_get_as_plain_data_is_the_whole_figure(small: Study) -> None:
    """The objects of plotly spell some values out for plotly.js, reversed colour scales among them."""
    recipe, surfaces = small.proposal.recipe, small.surfaces
    gained = {"proposal": small.proposal.gains}
    found = [
        plain_two_phases(surfaces, "task0", recipe, ("init", "cooldown"), DOMAINS, points=4),
        plain_ternary(surfaces, "task0", recipe, "cooldown", CORNERS, DOMAINS, points=4),
        plain_response(surfaces, "task0", recipe, DOMAINS, points=4),
        plain_schedule(recipe, DOMAINS),
        plain_gains(gained, "proportional", "%"),
    ]
    for plain in found:
        whole = json.loads(json.dumps(go.Figure(plain).to_dict(), cls=PlotlyJSONEncoder))
        assert listed(whole["data"]) == listed(json.loads(json.dumps(plain["data"], cls=PlotlyJSONEncoder)))
        for name, part in json.loads(json.dumps(plain["layout"], cls=PlotlyJSONEncoder)).items():
            assert whole["layout"][name] == part


def listed(value: Any) -> Any:
    """Plain data with packed arrays as lists."""
    if isinstance(value, dict) and "bdata" in value:
        found = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        return found.reshape([int(n) for n in value.get("shape", str(found.size)).split(",")]).tolist()
    if isinstance(value, dict):
        return {key: listed(part) for key, part in value.items()}
    return [listed(part) for part in value] if isinstance(value, list) else value
