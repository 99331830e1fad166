"""Plots of a task over two dials at once: the mixture of three domains, and the code shares of two phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from plotly.colors import get_colorscale

from mixlaw.analysis.data.code_share import code_shares, with_code_share
from mixlaw.analysis.data.design import Design, Floats
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.numbers import percent
from mixlaw.plots.hover import recipe_words, run_words
from mixlaw.plots.style import CYCLE, OTHER, SHARES, Plain, drawn, faded, headline, scatter
from mixlaw.recipe import Domain, Mixture, Recipe
from mixlaw.records import Unit

SAMPLES = 64  # posterior samples whose optima are shown
HEIGHT = 3**0.5 / 2  # of a triangle of side one
SCALE = "Viridis"


@dataclass(frozen=True, eq=False)
class Together:
    """What a landscape shows: a task, or a quantity of several.

    Attributes:
        name, unit: of the quantity.
        falls: whether less is better.
        values: recipes and a number of posterior samples -> expected values, (R,), and values in each sample, (S, R).
        measured: of the runs of the fit, (N,), NaN where there is none; None for what runs do not measure.
    """

    name: str
    unit: str
    falls: bool
    values: Callable[[Design, int], tuple[Floats, Floats]]
    measured: Floats | None = None


def plain_ternary(
    surfaces: Surfaces,
    task: str | Together,
    reference: Recipe,
    phase: str,
    corners: Sequence[str],
    domains: Sequence[Domain],
    points: int = 31,
) -> Plain:
    """One task over the shares of three domains in one phase, all else as in the reference, with measured runs.

    The three domains share what they have together in the reference's phase, or the whole phase where they have
    nothing there. Runs are at their own shares of the three; filled if the phase has no other domain.

    Args:
        surfaces: fitted tasks.
        task: which one, or a quantity of all of them.
        reference: the recipe that is changed.
        phase: name of the phase.
        corners: three domains, left, right and top.
        domains: all domains, with unique tokens.
        points: of the grid on each side.
    """
    mixture = next(p.mixture for p in reference.phases if p.name == phase)
    room = sum(mixture.share(name) for name in corners) or 1.0
    rest = {name: share for name, share in mixture.items() if name not in corners} if room < 1 else {}
    # Rows of equal top share with as many points each: the grid is a triangle on paper.
    top, right = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, points), np.linspace(0, 1, points)))
    shares = np.stack([(1 - top) * (1 - right), (1 - top) * right, top], 1)
    recipes = [
        reference.with_mixture(phase, Mixture.normalised({**rest, **dict(zip(corners, room * row, strict=True))}))
        for row in shares
    ]
    shown = task if isinstance(task, Together) else _one(surfaces, task)
    mean, best = _means(shown, _design(surfaces, recipes, domains))
    x, y = _flat(shares)
    places, times = np.unique(best, return_counts=True)
    there = np.array([[mixture.share(name) / room for name in corners]])
    here = _flat(there if there.sum() > 0 else np.full((1, 3), np.nan))
    words, title = _hover(corners, shown), f"three domains, {percent(room)} of {phase}"
    traces = [
        _carpet(top, right, x, y),
        {
            "type": "contourcarpet", "a": top, "b": right, "z": mean, "ncontours": 14,
            "colorscale": _scale(shown), "line": {"width": 0.6, "color": "white"}, "colorbar": _bar(shown),
        },
        scatter(
            x, y, "markers", marker={"opacity": 0}, showlegend=False, customdata=np.column_stack([shares, mean]),
            hovertemplate=words,
        ),
        scatter(
            [0, 1, 0.5, 0], [0, 0, HEIGHT, 0], "lines", line={"color": OTHER, "width": 1.2}, hoverinfo="skip",
            showlegend=False,
        ),
        *_runs_in_triangle(surfaces, phase, corners, shown),
        _optima(x[places], y[places], times),
        _reference(*here, reference),
    ]  # fmt: skip
    return {"data": traces, "layout": _triangle_layout(headline(shown.name, title), corners, room)}


ternary = drawn(plain_ternary)


def plain_two_phases(
    surfaces: Surfaces,
    task: str | Together,
    reference: Recipe,
    phases: tuple[str, str],
    domains: Sequence[Domain],
    points: int = 31,
    samples: int = SAMPLES,
) -> Plain:
    """One task over the code shares of two phases, all else as in the reference, with optima of posterior samples.

    Args:
        surfaces: fitted tasks.
        task: which one, or a quantity of all of them.
        reference: the recipe that is changed.
        phases: on the horizontal and on the vertical axis.
        domains: all domains, with kinds and unique tokens.
        points: of the grid on each side.
        samples: how many posterior samples.
    """
    grid, (across, up) = np.linspace(0, 1, points), phases
    shown = task if isinstance(task, Together) else _one(surfaces, task)
    mean, best = _means(shown, _plane(surfaces, reference, phases, domains, grid), samples)
    places, times = np.unique(best, return_counts=True)
    here = code_shares(_design(surfaces, [reference], domains), domains)[0]
    x, y = (np.array([float(here[surfaces.phases.index(phase)])]) for phase in phases)
    contour = {
        "type": "contour", "x": grid, "y": grid, "z": mean.reshape(points, points), "ncontours": 16,
        **_better_half(mean, shown), "colorscale": _scale(shown), "colorbar": _bar(shown),
        "line": {"width": 0.6, "color": "white"},
        "hovertemplate": f"code share of {across} %{{x:.2f}}<br>of {up} %{{y:.2f}}<br>"
        f"%{{z:.4g}} {shown.unit}<extra></extra>",
    }  # fmt: skip
    optima = _optima(grid[places % points], grid[places // points], times)
    axis = {**SHARES, "range": [-0.02, 1.02]}
    layout = {
        "title": {"text": headline(shown.name, "over the code shares of two phases")},
        "height": 480,
        "autosize": True,
        "xaxis": {**axis, "title": {"text": f"code share of {across}"}},
        "yaxis": {**axis, "title": {"text": f"code share of {up}"}},
        "hovermode": "closest",
        "legend": {"y": -0.2},
    }
    runs = _runs_in_plane(surfaces, phases, domains, shown)
    return {"data": [contour, *runs, optima, _reference(x, y, reference)], "layout": layout}


two_phases = drawn(plain_two_phases)


def _design(surfaces: Surfaces, recipes: Sequence[Recipe], domains: Sequence[Domain]) -> Design:
    unique = {domain.name: float(domain.unique_tokens) for domain in domains}
    return design_of(recipes, surfaces.phases, surfaces.domains, unique)


def _plane(
    surfaces: Surfaces, reference: Recipe, phases: tuple[str, str], domains: Sequence[Domain], grid: Floats
) -> Design:
    """The reference at all pairs of code shares, rows of the grid by the second phase.

    The tokens of a phase move on a straight line from all text to all code, so its two ends define all that is between.
    """
    ends = [with_code_share(reference, phase, share, domains) for phase in phases for share in (0.0, 1.0)]
    design = _design(surfaces, [reference, *ends], domains)
    rows = replace(design, unique=design.unique.amin(0, keepdim=True).expand_as(design.unique))
    rows = rows.select([0] * len(grid) ** 2)
    tokens, share = rows.tokens.clone(), torch.tensor(grid)[:, None]
    for i, places in enumerate((share.repeat(len(grid), 1), share.repeat_interleave(len(grid), 0))):
        p = surfaces.phases.index(phases[i])
        tokens[:, p] = torch.lerp(design.tokens[1 + 2 * i, p], design.tokens[2 + 2 * i, p], places)
    return replace(rows, tokens=tokens)


def _one(surfaces: Surfaces, task: str) -> Together:
    """A task by itself."""
    t = surfaces.tasks.index(task)

    def values(design: Design, samples: int) -> tuple[Floats, Floats]:
        with torch.no_grad():
            return surfaces.mean(design)[:, t].numpy(), surfaces.draws(design, samples)[..., t].numpy()

    unit = surfaces.units[task]
    return Together(task, unit, Unit(unit).lower_is_better, values, surfaces.observed.value[t].numpy())


def _means(shown: Together, design: Design, samples: int = SAMPLES) -> tuple[Floats, NDArray[np.int64]]:
    """Expected values of recipes, (R,), and the number of the best of them in each posterior sample, (S,)."""
    mean, draws = shown.values(design, samples)
    return mean, draws.argmin(1) if shown.falls else draws.argmax(1)


def _scale(shown: Together) -> list[list[object]]:
    """Bright is better; in full, for plotly.js knows no reversed scales by name."""
    return [list(step) for step in get_colorscale(f"{SCALE}_r" if shown.falls else SCALE)]


def _better_half(values: Floats, shown: Together) -> Plain:
    """Limits of the colours: from the median to the best, where a choice is made; what is worse has the last colour."""
    low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
    return {"zmin": low, "zmax": middle} if shown.falls else {"zmin": middle, "zmax": high}


def _bar(shown: Together) -> dict[str, object]:
    title = {"text": f"{shown.name}, {shown.unit}", "side": "right", "font": {"size": 12.5}}
    return {"title": title, "thickness": 12, "outlinewidth": 0}


def _hover(corners: Sequence[str], shown: Together) -> str:
    rows = "".join(f"{name} %{{customdata[{i}]:.2f}}<br>" for i, name in enumerate(corners))
    return f"{rows}{shown.name} %{{customdata[3]:.4g}} {shown.unit}<extra></extra>"


def _flat(shares: Floats) -> tuple[Floats, Floats]:
    """Places on paper of shares of (left, right, top), (n, 3)."""
    return shares[:, 1] + shares[:, 2] / 2, shares[:, 2] * HEIGHT


def _carpet(top: Floats, right: Floats, x: Floats, y: Floats) -> Plain:
    """The invisible grid that carries the contours."""
    hidden = {"showgrid": False, "showline": False, "showticklabels": "none", "startline": False, "endline": False}
    return {"type": "carpet", "a": top, "b": right, "x": x, "y": y, "aaxis": hidden, "baxis": hidden}


def _triangle_layout(title: str, corners: Sequence[str], room: float) -> Plain:
    return {
        "title": {"text": title}, "height": 520, "autosize": True, "hovermode": "closest", "legend": {"y": -0.02},
        "xaxis": {"visible": False, "range": [-0.06, 1.06]}, "margin": {"t": 48},
        "yaxis": {"visible": False, "range": [-0.07, HEIGHT + 0.08], "scaleanchor": "x"},
        "annotations": _corners(corners, room),
    }  # fmt: skip


def _corners(corners: Sequence[str], room: float) -> list[Plain]:
    """Names at the corners of the triangle."""
    places = ((0.0, 0.0, "top", "center"), (1.0, 0.0, "top", "center"), (0.5, HEIGHT, "bottom", "center"))
    return [
        {
            "x": x, "y": y, "text": f"{percent(room)} {name}", "showarrow": False, "yanchor": vertical,
            "xanchor": across,
            "yshift": 12 if vertical == "bottom" else -8,
        }
        for name, (x, y, vertical, across) in zip(corners, places, strict=True)
    ]  # fmt: skip


def _runs_in_triangle(surfaces: Surfaces, phase: str, corners: Sequence[str], shown: Together) -> list[Plain]:
    design = surfaces.observed.design
    if phase not in design.phases or not set(corners) <= set(design.domains):
        return []
    tokens = design.tokens[:, design.phases.index(phase)].numpy()
    three = tokens[:, [design.domains.index(name) for name in corners]]
    with np.errstate(invalid="ignore", divide="ignore"):
        places = _flat(three / three.sum(1, keepdims=True))
    return [_runs(surfaces, shown, places, three.sum(1) > 0.98 * tokens.sum(1))]


def _runs_in_plane(
    surfaces: Surfaces, phases: tuple[str, str], domains: Sequence[Domain], shown: Together
) -> list[Plain]:
    design = surfaces.observed.design
    if not {*phases} <= {*design.phases}:
        return []
    both = code_shares(design, domains)[:, [design.phases.index(phase) for phase in phases]].numpy()
    return [_runs(surfaces, shown, (both[:, 0], both[:, 1]))]


def _runs(
    surfaces: Surfaces, shown: Together, places: tuple[Floats, Floats], filled: NDArray[np.bool_] | None = None
) -> Plain:
    """Measured runs at their places; hollow where what is shown is not the whole phase."""
    design, (x, y) = surfaces.observed.design, places
    value = shown.measured
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (True if value is None else np.isfinite(value))).tolist()
    whole, words = np.ones(len(x), bool) if filled is None else filled, run_words(design)
    return {
        "type": "scatter", "x": x[rows], "y": y[rows], "mode": "markers", "name": "measured runs",
        "customdata": [[design.runs[i], None if value is None else float(value[i])] for i in rows],
        "hovertext": [words[i] for i in rows],
        "marker": {
            "size": 6, "color": ["white" if whole[i] else faded("#ffffff", 0.35) for i in rows],
            "line": {"color": OTHER, "width": 1.2},
        },
        "hovertemplate": "run %{customdata[0]}<br>%{hovertext}"
        + ("" if value is None else f"<br>measured %{{customdata[1]:.4g}} {shown.unit}")
        + "<extra></extra>",
    }  # fmt: skip


def _optima(x: Floats, y: Floats, times: NDArray[np.int64]) -> Plain:
    line = {"color": "white", "width": 1}
    return scatter(
        x, y, "markers", cliponaxis=False, name="optimum of each posterior sample",
        customdata=[percent(part) for part in times / times.sum()],
        marker={"color": CYCLE[1], "size": 5 + 20 * np.sqrt(times / times.sum()), "opacity": 0.85, "line": line},
        hovertemplate="best in %{customdata} of posterior samples<extra></extra>",
    )  # fmt: skip


def _reference(x: Floats, y: Floats, recipe: Recipe) -> Plain:
    return {
        "type": "scatter", "x": x, "y": y, "mode": "markers", "name": "reference recipe",
        "hovertext": [recipe_words(recipe)], "hovertemplate": "reference recipe<br>%{hovertext}<extra></extra>",
        "marker": {"symbol": "diamond", "size": 12, "color": CYCLE[3], "line": {"color": "white", "width": 1.5}},
    }  # fmt: skip
