"""Plots of fitted surfaces: response to the code share of each phase, extrapolation over size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray

from mixlaw.analysis.code_share import code_share, code_shares, with_code_share
from mixlaw.analysis.design import Design
from mixlaw.analysis.from_recipes import design_of
from mixlaw.analysis.plots.style import CYCLE, OTHER, colours, count, faded, headline, rounded, size_axis, styled
from mixlaw.analysis.surface import Z90, Surfaces
from mixlaw.recipe import Domain, Phase, Recipe

Floats = NDArray[np.float64]
MOST_RUNS = 300  # points of a plot; of more runs every so many-th is shown
_ENDS = "<br>90 %: %{customdata[0]:.4g} to %{customdata[1]:.4g}"


def response(
    surfaces: Surfaces, task: str, reference: Recipe, domains: Sequence[Domain], points: int = 41, runs: bool = True
) -> go.Figure:
    """One task against the code share of each phase, all else as in the reference recipe, with 90 % bands.

    The bands are of the difference from the reference (the same worlds, paired), so they close where the reference
    stands; how well its level is known is said in the title. Measured runs stand where they would, had they been the
    reference in all but that code share: on the curve times measured over fitted (partial residuals), so that runs of
    any size and mixture show how well the curve fits.

    Args:
        surfaces: fitted tasks.
        task: which one.
        reference: the recipe that the code share is moved in; a ring marks where it stands.
        domains: all domains, with kinds and unique tokens.
        points: of each curve.
        runs: whether to show measured runs.
    """
    figure = go.Figure()
    at = surfaces.predict(design_of([reference], surfaces.phases, surfaces.domains, _unique(domains)))
    t = surfaces.tasks.index(task)
    for phase, colour in colours([phase.name for phase in reference.phases]).items():
        _phase_response(figure, surfaces, task, reference, phase, domains, points, colour, runs)
    figure.update_xaxes(title_text="code share of the phase", tickformat=".0%", range=[-0.03, 1.03])
    figure.update_yaxes(title_text=f"{task}, {surfaces.units[task]}")
    level = f"at the rings {rounded(at.mean[0, t], at.lo90[0, t], at.hi90[0, t])}"
    return styled(figure, headline(task, level))


def _phase_response(
    figure: go.Figure,
    surfaces: Surfaces,
    task: str,
    reference: Recipe,
    phase: str,
    domains: Sequence[Domain],
    points: int,
    colour: str,
    runs: bool,
) -> None:
    t, unit, unique = surfaces.tasks.index(task), surfaces.units[task], _unique(domains)
    grid = np.linspace(0, 1, points)
    curve = [with_code_share(reference, phase, float(share), domains) for share in grid]
    here = code_share(next(p.mixture for p in reference.phases if p.name == phase), domains)
    design = design_of([*curve, reference], surfaces.phases, surfaces.domains, unique)
    mean, low, high = paired_band(surfaces, design, t)
    mean, low, high, level = mean[:-1], low[:-1], high[:-1], float(mean[-1])
    _band(figure, grid, low, high, colour, phase)
    hover = f"{phase}<br>code share %{{x:.0%}}<br>%{{y:.4g}} {unit}{_ENDS}"
    _line(figure, grid, mean, np.stack([low, high], 1), colour, phase, hover)
    if runs:
        _partial_residuals(figure, surfaces, t, phase, domains, grid, mean, colour)
    ring = {"size": 12, "color": colour, "line": {"color": colour, "width": 2}, "symbol": "circle-open"}
    figure.add_scatter(
        x=[here],
        y=[level],
        mode="markers",
        marker=ring,
        legendgroup=phase,
        showlegend=False,
        hovertemplate=f"reference recipe<br>{phase}: code %{{x:.1%}}<br>%{{y:.4g}} {unit}<extra></extra>",
    )


def paired_band(surfaces: Surfaces, design: Design, task: int, worlds: int = 64) -> tuple[Floats, Floats, Floats]:
    """Mean of a task for every recipe, and the 90 % band of its difference from the last one, (R,) each."""
    with torch.no_grad():
        mean, drawn = surfaces.mean(design)[:, task], surfaces.draws(design, worlds)[..., task]
    spread = (drawn - drawn[:, -1:]).std(0)
    ends = (mean, mean - Z90 * spread, mean + Z90 * spread)
    return ends[0].numpy(), ends[1].numpy(), ends[2].numpy()


def _partial_residuals(
    figure: go.Figure,
    surfaces: Surfaces,
    t: int,
    phase: str,
    domains: Sequence[Domain],
    grid: Floats,
    mean: Floats,
    colour: str,
) -> None:
    """Finished measured runs, moved onto the curve of the reference by their measured over fitted value."""
    observed = surfaces.observed
    design, value = observed.design, observed.value[t].numpy()
    if phase not in design.phases:
        return
    x = code_shares(design, domains)[:, design.phases.index(phase)].numpy()
    fitted = surfaces.predict(design)
    kept = np.flatnonzero(np.isfinite(value) & np.isfinite(x) & (design.progress.numpy() >= 1))
    kept = kept[:: -(-len(kept) // MOST_RUNS) or 1]
    y = np.interp(x, grid, mean) * value / fitted.law_only[:, t]
    names = np.array(design.runs, dtype=object)
    detail = np.stack([names, [count(n) for n in design.params.tolist()], value, fitted.law_only[:, t]], 1)
    figure.add_scatter(
        x=x[kept],
        y=y[kept],
        customdata=detail[kept],
        mode="markers",
        marker={"size": 5, "color": colour, "opacity": 0.45},
        name=f"runs, {phase}",
        legendgroup=phase,
        showlegend=False,
        hovertemplate="run %{customdata[0]}<br>%{customdata[1]} params<br>code in "
        + phase
        + " %{x:.0%}<br>measured %{customdata[2]:.4g}, by the law %{customdata[3]:.4g}<extra></extra>",
    )


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
        measured: values measured since at the target, by name of the recipe: diamonds.
        points: of each line.
    """
    t, unit = surfaces.tasks.index(task), surfaces.units[task]
    design = surfaces.observed.design
    sizes, value = design.params.numpy(), surfaces.observed.value[t].numpy()
    largest, figure = float(sizes.max()), go.Figure()
    kept = np.flatnonzero(np.isfinite(value) & (design.progress.numpy() >= 1))
    kept = kept[:: -(-len(kept) // MOST_RUNS) or 1]
    figure.add_scatter(
        x=sizes[kept],
        y=value[kept],
        customdata=[[design.runs[i], count(float(design.total[i]))] for i in kept],
        mode="markers",
        name="measured runs",
        marker={"color": OTHER, "size": 6, "opacity": 0.55},
        hovertemplate="run %{customdata[0]}<br>%{x:,.0f} params, %{customdata[1]} tokens<br>%{y:.4g} "
        + unit
        + "<extra></extra>",
    )
    for (name, recipe), colour in zip(recipes.items(), CYCLE, strict=False):
        grid = np.geomspace(min(float(sizes.min()), recipe.params), recipe.params * 1.25, points)
        _scaled_line(figure, surfaces, t, name, recipe, domains, np.append(grid, recipe.params), colour)
        for new in (measured or {}).get(name, []):
            figure.add_scatter(
                x=[recipe.params],
                y=[new],
                mode="markers",
                name=f"{name}, measured since",
                marker={"symbol": "diamond", "size": 11, "color": colour, "line": {"width": 1.5, "color": "white"}},
                legendgroup=name,
                showlegend=False,
                hovertemplate=f"{name}, measured since<br>%{{y:.4g}} {unit}<extra></extra>",
            )
    if max(r.params for r in recipes.values()) > largest:
        figure.add_vline(largest, line_dash="dot", line_width=1)
        figure.add_annotation(
            x=np.log10(largest), y=1, yref="paper", text="largest fitted", showarrow=False, xanchor="right", xshift=-4
        )
    ends = float(sizes.min()), max(largest, *(float(r.params) for r in recipes.values()))
    figure.update_xaxes(title_text="parameters (non-embedding)", **size_axis(*ends))
    figure.update_yaxes(title_text=f"{task}, {unit}")
    return styled(figure, headline(task, "over model size"))


def _scaled_line(
    figure: go.Figure,
    surfaces: Surfaces,
    t: int,
    name: str,
    recipe: Recipe,
    domains: Sequence[Domain],
    sizes: Floats,
    colour: str,
) -> None:
    """Line, band and target interval of one recipe; the last of the sizes is the target itself."""
    unit = surfaces.units[surfaces.tasks[t]]
    scaled = [_scaled(recipe, size) for size in sizes]
    found = surfaces.predict(design_of(scaled, surfaces.phases, surfaces.domains, _unique(domains)))
    mean, low, high = (values[:, t] for values in (found.mean, found.lo90, found.hi90))
    _band(figure, sizes[:-1], low[:-1], high[:-1], colour, name)
    hover = f"{name}<br>%{{x:,.0f}} params<br>%{{y:.4g}} {unit}{_ENDS}"
    _line(figure, sizes[:-1], mean[:-1], np.stack([low, high], 1)[:-1], colour, name, hover)
    figure.add_scatter(
        x=sizes[-1:],
        y=mean[-1:],
        error_y={"array": high[-1:] - mean[-1:], "arrayminus": mean[-1:] - low[-1:], "thickness": 1.5, "width": 5},
        customdata=[[low[-1], high[-1]]],
        mode="markers",
        marker={"color": colour, "size": 8},
        legendgroup=name,
        showlegend=False,
        hovertemplate="target, " + hover + "<extra></extra>",
    )


def _scaled(recipe: Recipe, params: float) -> Recipe:
    """The recipe at another size with the same tokens per parameter."""
    phases = [
        Phase(p.name, max(1, round(p.tokens * params / recipe.params)), p.mixture, p.lr_end) for p in recipe.phases
    ]
    return Recipe(max(1, round(params)), tuple(phases), recipe.seed, recipe.unique, recipe.data, recipe.schedule)


def _band(figure: go.Figure, x: Floats, low: Floats, high: Floats, colour: str, group: str) -> None:
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=faded(colour, 0.13),
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=group,
        showlegend=False,
    )


def _line(figure: go.Figure, x: Floats, y: Floats, ends: Floats, colour: str, name: str, hover: str) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        customdata=ends,
        mode="lines",
        line={"color": colour, "width": 2.4},
        name=name,
        legendgroup=name,
        hovertemplate=hover + "<extra></extra>",
    )


def _unique(domains: Sequence[Domain]) -> dict[str, float]:
    return {domain.name: float(domain.unique_tokens) for domain in domains}
