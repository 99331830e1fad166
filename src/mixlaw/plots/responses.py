"""Plots of fitted surfaces: response to the code share of each phase, extrapolation over size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray

from mixlaw.analysis.data.code_share import code_share, code_shares, with_code_share
from mixlaw.analysis.data.design import Floats
from mixlaw.analysis.data.observed import Z90
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.model import Prediction
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.numbers import percent
from mixlaw.plots.hover import recipe_words, run_words
from mixlaw.plots.style import (
    CYCLE,
    HEIGHT,
    OTHER,
    SHARES,
    Plain,
    colours,
    drawn,
    faded,
    figure_of,
    headline,
    rounded,
    scatter,
    size_axis,
)
from mixlaw.recipe import Domain, Kind, Recipe

MOST_RUNS = 300  # points of a plot; more runs are thinned evenly
SAME_RATIO = 0.1  # difference of logarithms of tokens per parameter that is not drawn
DODGE = 1.12  # between the intervals of recipes at one size, on a logarithmic axis
_ENDS = "<br>90 %: %{customdata[0]:.4g} to %{customdata[1]:.4g}"


def plain_response(
    surfaces: Surfaces,
    task: str,
    reference: Recipe,
    domains: Sequence[Domain],
    points: int = 41,
    runs: bool = True,
    domain: str | None = None,
    phase: str | None = None,
) -> Plain:
    """One task against the share of code, or of a domain, in each phase, all else as in the reference, with 90 % bands.

    The bands are of the difference from the reference (paired posterior samples), so they close at the reference; the
    title gives the interval of its level. Measured runs are partial residuals: the curve times measured over fitted, so
    that runs of any size and mixture show how well the curve fits.

    Args:
        surfaces: fitted tasks.
        task: which one.
        reference: the recipe whose share is moved, marked by a ring.
        domains: all domains, with kinds and unique tokens.
        points: of each curve.
        runs: whether to show measured runs.
        domain, phase: whose share is moved, all code where None, and in which phase, in each where None.
    """
    if domain is not None:  # one domain against the others is what all code is against text
        domains = [replace(d, kind=Kind.CODE if d.name == domain else Kind.TEXT) for d in domains]
    what, where = domain or "code", phase or "the phase"
    at = _predicted(surfaces, (reference,), tuple(domains))
    t = surfaces.tasks.index(task)
    level = f"reference: {rounded(at.mean[0, t], at.lo90[0, t], at.hi90[0, t])}"
    traces = [
        trace
        for name, colour in colours([each.name for each in reference.phases]).items()
        if phase in (None, name)
        for trace in _phase_response(surfaces, task, reference, name, domains, points, colour, runs, what)
    ]
    cut = _without_ends(traces)
    layout = {
        "title": {"text": headline(task, level + (", axis cut" if cut else ""))}, "height": HEIGHT,
        "xaxis": {"title": {"text": f"{what} share of {where}"}, **SHARES, "range": [-0.03, 1.03]}, "autosize": True,
        "yaxis": {"title": {"text": f"{task}, {surfaces.units[task]}"}, **cut},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


response = drawn(plain_response)


def _without_ends(traces: Sequence[Plain]) -> Plain:
    """A range of the axis where shares of 0 and 1, at which a domain is missing, would take more than half of it."""
    places = np.concatenate([np.asarray(trace["x"], float) for trace in traces])
    values = np.concatenate([np.asarray(trace["y"], float) for trace in traces])
    inside = values[(places > 0) & (places < 1)]
    if np.ptp(values) <= 2 * np.ptp(inside):
        return {}
    room = 0.06 * np.ptp(inside)
    return {"range": [float(inside.min() - room), float(inside.max() + room)]}


def _phase_response(
    surfaces: Surfaces,
    task: str,
    reference: Recipe,
    phase: str,
    domains: Sequence[Domain],
    points: int,
    colour: str,
    runs: bool,
    what: str,
) -> list[Plain]:
    """Band, line, runs and ring of one phase."""
    t, unit = surfaces.tasks.index(task), surfaces.units[task]
    grid = np.linspace(0, 1, points)
    here = code_share(next(p.mixture for p in reference.phases if p.name == phase), domains)
    mean, low, high = (ends[:, t] for ends in _bands(surfaces, reference, phase, tuple(domains), points))
    mean, low, high, level = mean[:-1], low[:-1], high[:-1], float(mean[-1])
    hover = f"{phase}<br>{what} share %{{customdata[2]:.0f}} %<br>%{{y:.4g}} {unit}{_ENDS}"
    ring = scatter(
        [here], [level], "markers", legendgroup=phase, showlegend=False, hovertext=[recipe_words(reference)],
        marker={"size": 12, "color": colour, "line": {"color": colour, "width": 2}, "symbol": "circle-open"},
        hovertemplate=f"reference recipe<br>%{{hovertext}}<br>{phase}: {what} {percent(here, 1)}<br>%{{y:.4g}} {unit}"
        "<extra></extra>",
    )  # fmt: skip
    return [
        _band(grid, low, high, colour, phase),
        _line(grid, mean, np.stack([low, high, 100 * grid], 1), colour, phase, hover),
        *(_partial_residuals(surfaces, t, phase, domains, grid, mean, colour, what) if runs else []),
        ring,
    ]


@lru_cache(maxsize=16)  # all tasks at once, and a page draws one task after another
def _predicted(surfaces: Surfaces, recipes: tuple[Recipe, ...], domains: tuple[Domain, ...]) -> Prediction:
    return surfaces.predict(design_of(recipes, surfaces.phases, surfaces.domains, _unique(domains)))


@lru_cache(maxsize=8)  # a curve predicts all tasks at once, and a page draws one task after another
def _bands(
    surfaces: Surfaces, reference: Recipe, phase: str, domains: tuple[Domain, ...], points: int
) -> tuple[Floats, Floats, Floats]:
    """Means over shares from 0 to 1 in a phase, and 90 % bands of the differences from the reference, (points + 1, T).

    The reference is the last row.
    """
    curve = [with_code_share(reference, phase, float(share), domains) for share in np.linspace(0, 1, points)]
    design = design_of([*curve, reference], surfaces.phases, surfaces.domains, _unique(domains))
    with torch.no_grad():
        mean, draws = surfaces.mean(design), surfaces.draws(design, 64)
    spread = (draws - draws[:, -1:]).std(0)
    ends = (mean, mean - Z90 * spread, mean + Z90 * spread)
    return ends[0].numpy(), ends[1].numpy(), ends[2].numpy()


def _partial_residuals(
    surfaces: Surfaces,
    t: int,
    phase: str,
    domains: Sequence[Domain],
    grid: Floats,
    mean: Floats,
    colour: str,
    what: str,
) -> list[Plain]:
    """Finished measured runs, moved onto the curve of the reference by their measured over fitted value."""
    observed = surfaces.observed
    design, value = observed.design, observed.value[t].numpy()
    if phase not in design.phases:
        return []
    x = code_shares(design, domains)[:, design.phases.index(phase)].numpy()
    law = surfaces.law_of_measured[:, t]
    rows = _thinned(np.isfinite(value) & np.isfinite(x) & (design.progress.numpy() >= 1))
    words = run_words(design)
    trace = scatter(
        x[rows], (np.interp(x, grid, mean) * value / law)[rows], "markers", name=f"runs, {phase}",
        customdata=[
            [design.runs[i], round(float(value[i]), 6), round(float(law[i]), 6), percent(float(x[i]))] for i in rows
        ],
        hovertext=[words[i] for i in rows], marker={"size": 5, "color": colour, "opacity": 0.45}, legendgroup=phase,
        showlegend=False,
        hovertemplate=f"run %{{customdata[0]}}<br>%{{hovertext}}<br>{what} in {phase} %{{customdata[3]}}<br>"
        "measured %{customdata[1]:.4g}, by the law %{customdata[2]:.4g}<extra></extra>",
    )  # fmt: skip
    return [trace]


def _thinned(shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the runs to show: all that are kept, thinned evenly."""
    rows = np.flatnonzero(shown)
    return rows[:: -(-len(rows) // MOST_RUNS) or 1]


def extrapolation(
    surfaces: Surfaces,
    task: str,
    recipes: Mapping[str, Recipe],
    domains: Sequence[Domain],
    measured: Mapping[str, Sequence[float]] | None = None,
    points: int = 31,
) -> go.Figure:
    """One task over model size for recipes scaled to each size at their own tokens per parameter, with 90 % bands.

    Args:
        surfaces: fitted tasks.
        task: which one.
        recipes: by name, at the target's size; the line shows their mixtures and phase proportions at other sizes.
        domains: all domains, with unique tokens.
        measured: values that runs at the target measured since, by name of the recipe: diamonds.
        points: of each line.
    """
    measured, largest = measured or {}, float(surfaces.observed.design.params.max())
    smallest = float(surfaces.observed.design.params.min())
    traces = [_sizes_measured(surfaces, task)]
    for i, ((name, recipe), colour) in enumerate(zip(recipes.items(), CYCLE, strict=False)):
        grid = np.append(np.geomspace(min(smallest, recipe.params), recipe.params * 1.25, points), recipe.params)
        # Intervals at one size are drawn side by side.
        at = recipe.params * DODGE ** (i - (len(recipes) - 1) / 2)
        traces += _scaled_line(surfaces, task, name, recipe, domains, grid, at, colour)
        if i == 0 and (own := _own_ratio(surfaces, name, task, recipe, domains, grid[:-1], colour)):
            traces.append(own)
        if new := measured.get(name, []):
            traces.append(_measured_since(name, recipe, at, new, surfaces.units[task], colour))
    axis = size_axis(smallest, max(largest, *(float(r.params) for r in recipes.values())))
    layout = {
        "title": {"text": headline(task, "over model size")}, "height": HEIGHT, "autosize": True,
        "xaxis": {"title": {"text": "parameters (non-embedding)"}, **axis},
        "yaxis": {"title": {"text": f"{task}, {surfaces.units[task]}"}},
    }  # fmt: skip
    figure = figure_of({"data": traces, "layout": layout})
    if max(r.params for r in recipes.values()) > largest:
        figure.add_vline(largest, line_dash="dot", line_width=1)
        figure.add_annotation(
            x=np.log10(largest), y=1, yref="paper", text="largest fitted", showarrow=False, xanchor="right", xshift=-4
        )
    return figure


def _sizes_measured(surfaces: Surfaces, task: str) -> Plain:
    """All finished measured runs at their size."""
    design, value = surfaces.observed.design, surfaces.observed.value[surfaces.tasks.index(task)].numpy()
    kept, words = _thinned(np.isfinite(value) & (design.progress.numpy() >= 1)), run_words(design)
    return scatter(
        design.params.numpy()[kept], value[kept], "markers", name="measured runs",
        customdata=[design.runs[i] for i in kept], hovertext=[words[i] for i in kept],
        marker={"color": OTHER, "size": 6, "opacity": 0.55},
        hovertemplate=f"run %{{customdata}}<br>%{{hovertext}}<br>measured %{{y:.4g}} {surfaces.units[task]}"
        "<extra></extra>",
    )  # fmt: skip


def _measured_since(name: str, recipe: Recipe, at: float, new: Sequence[float], unit: str, colour: str) -> Plain:
    """Values measured since a recipe was predicted."""
    return scatter(
        [at] * len(new), list(new), "markers", name=f"{name}, measured since", legendgroup=name, showlegend=False,
        marker={"symbol": "diamond", "size": 11, "color": colour, "line": {"width": 1.5, "color": "white"}},
        hovertext=[recipe_words(recipe)] * len(new),
        hovertemplate=f"{name}, measured since<br>%{{hovertext}}<br>%{{y:.4g}} {unit}<extra></extra>",
    )  # fmt: skip


def _scaled_line(
    surfaces: Surfaces,
    task: str,
    name: str,
    recipe: Recipe,
    domains: Sequence[Domain],
    sizes: Floats,
    at: float,
    colour: str,
) -> list[Plain]:
    """Line, band and target interval of one recipe; the last of the sizes is the target itself, drawn at `at`."""
    t, unit = surfaces.tasks.index(task), surfaces.units[task]
    scaled = [_scaled(recipe, size) for size in sizes]
    predicted = _predicted(surfaces, tuple(scaled), tuple(domains))
    mean, low, high = (values[:, t] for values in (predicted.mean, predicted.lo90, predicted.hi90))
    hover = f"<br>%{{y:.4g}} {unit}{_ENDS}"
    target = scatter(
        [at], mean[-1:], "markers", customdata=[[low[-1], high[-1]]], marker={"color": colour, "size": 8},
        error_y={"array": high[-1:] - mean[-1:], "arrayminus": mean[-1:] - low[-1:], "thickness": 1.5, "width": 5},
        legendgroup=name, showlegend=False, hovertext=[recipe_words(recipe)],
        hovertemplate=f"target, {name}<br>%{{hovertext}}{hover}<extra></extra>",
    )  # fmt: skip
    line = _line(sizes[:-1], mean[:-1], np.stack([low, high], 1)[:-1], colour, name,
                 f"{name}<br>%{{x:,.0f}} params{hover}")  # fmt: skip
    return [_band(sizes[:-1], low[:-1], high[:-1], colour, name), line, target]


def _own_ratio(
    surfaces: Surfaces, name: str, task: str, recipe: Recipe, domains: Sequence[Domain], sizes: Floats, colour: str
) -> Plain | None:
    """The recipe at the measured runs' tokens per parameter, dotted, so that dots can be compared; None where equal.

    Where sizes were trained on different ratios the line takes each size's own, straight in logarithms between them.
    """
    design = surfaces.observed.design
    runs = (design.progress >= 1).numpy()
    params, ratio = design.params.numpy()[runs], (design.total / design.params).numpy()[runs]
    known = np.unique(params)
    logs = np.array([np.median(np.log(ratio[params == size])) for size in known])
    if not runs.any() or np.abs(logs - np.log(recipe.tokens / recipe.params)).max() < SAME_RATIO:
        return None
    own = np.exp(np.interp(np.log(sizes), np.log(known), logs))
    scaled = [_scaled(recipe, params, each) for params, each in zip(sizes, own, strict=True)]
    predicted = _predicted(surfaces, tuple(scaled), tuple(domains))
    line = {"color": colour, "width": 1.8, "dash": "dot"}
    hover = f"{name} at %{{customdata:.3g}} tokens/param<br>%{{x:,.0f}} params: %{{y:.4g}}<extra></extra>"
    return scatter(sizes, predicted.mean[:, surfaces.tasks.index(task)], "lines", line=line, customdata=own,
                   name=f"{name} at the runs' tokens/param", hovertemplate=hover)  # fmt: skip


def _scaled(recipe: Recipe, params: float, ratio: float | None = None) -> Recipe:
    """The recipe at another size, with the same tokens per parameter unless others are given."""
    times = params * (recipe.tokens / recipe.params if ratio is None else ratio) / recipe.tokens
    phases = tuple(replace(p, tokens=max(1, round(p.tokens * times))) for p in recipe.phases)
    return replace(recipe, params=max(1, round(params)), phases=phases)


def _band(x: Floats, low: Floats, high: Floats, colour: str, group: str) -> Plain:
    return {
        "type": "scatter", "x": np.concatenate([x, x[::-1]]), "y": np.concatenate([high, low[::-1]]), "fill": "toself",
        "fillcolor": faded(colour, 0.13), "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": group,
        "showlegend": False,
    }  # fmt: skip


def _line(x: Floats, y: Floats, ends: Floats, colour: str, name: str, hover: str) -> Plain:
    line = {"color": colour, "width": 2.4}
    return scatter(
        x, y, "lines", customdata=ends, line=line, name=name, legendgroup=name, hovertemplate=f"{hover}<extra></extra>"
    )


def _unique(domains: Sequence[Domain]) -> dict[str, float]:
    return {domain.name: float(domain.unique_tokens) for domain in domains}
