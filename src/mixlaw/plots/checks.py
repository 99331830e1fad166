"""Plots of predictions against measured values: recipes side by side, parity, residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, sqrt
from typing import Protocol

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray

from mixlaw.analysis.audit.held import Held
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Z90, from_log_loss, to_log_loss
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.plots.hover import recipe_words, run_words
from mixlaw.plots.style import CYCLE, OTHER, colours, count, faded, headline, styled
from mixlaw.recipe import Recipe

Floats = NDArray[np.float64]
DASHES = ("solid", "dash", "dot", "longdashdot")  # where tasks are more than colours
_TOLD = "%{hovertext}<br>"
Measured = Mapping[tuple[str, str], Sequence[float]]  # (recipe, task) -> values, one per run


class Forecast(Protocol):
    """A predicted value of a recipe on a task, with its 90 % interval, in the unit of the task."""

    @property
    def recipe(self) -> str:
        """Name of the recipe."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def unit(self) -> str:
        """Unit of the values."""

    @property
    def mean(self) -> float:
        """Expected value."""

    @property
    def lo90(self) -> float:
        """Lower end."""

    @property
    def hi90(self) -> float:
        """Upper end."""


@dataclass(frozen=True)
class Parity:
    """Predicted and measured values of N runs on one task, in its unit; made by `fitted` or by `held_out`.

    Attributes:
        task, unit: what was measured.
        runs, words, params: names of the runs, their recipes in words, and their sizes.
        measured, mean, lo90, hi90: measured values, predicted ones and the ends of their 90 % intervals, (N,).
        how: they were predicted.
    """

    task: str
    unit: str
    runs: tuple[str, ...]
    words: tuple[str, ...]
    params: tuple[float, ...]
    measured: Floats
    mean: Floats
    lo90: Floats
    hi90: Floats
    how: str = "fitted"

    @property
    def inside(self) -> float:
        """Share of measured values inside their 90 % interval."""
        return float(np.mean((self.measured >= self.lo90) & (self.measured <= self.hi90)))

    @property
    def level(self) -> Floats:
        """Width of the interval that just holds each measured value: 0.9 where it lies at the end of its 90 %, (N,)."""
        over = self.measured - self.mean
        half = np.where(over > 0, self.hi90 - self.mean, self.mean - self.lo90)
        return np.array([erf(Z90 * abs(z) / sqrt(2)) for z in over / half])


def comparison(
    forecasts: Sequence[Forecast],
    reference: str,
    measured: Measured | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> go.Figure:
    """Predicted gain of every recipe over the reference's prediction by task, 90 % intervals, measured as diamonds.

    All tasks share one axis, percent of loss with better to the right (for a score p the loss is -log p); the values
    themselves are in the hover text.

    Args:
        forecasts: of every recipe and task.
        reference: name of the recipe at zero.
        measured: what was measured since.
        recipes: what is told of a recipe that is pointed at, by name.
    """
    words = {name: recipe_words(recipe) for name, recipe in (recipes or {}).items()}
    tasks = list(dict.fromkeys(f.task for f in forecasts))
    names = list(dict.fromkeys(f.recipe for f in forecasts))
    paint, base = colours(names), {f.task: f.mean for f in forecasts if f.recipe == reference}
    figure = go.Figure()
    for i, name in enumerate(names):
        rows = [f for f in forecasts if f.recipe == name]
        y = [tasks.index(f.task) + 0.62 * ((i + 0.5) / len(names) - 0.5) for f in rows]
        _forecast_dots(figure, rows, y, base, paint[name], words.get(name, ""))
        _measured_diamonds(figure, rows, y, base, paint[name], measured or {}, words.get(name, ""))
    if measured:
        key = {"symbol": "diamond", "size": 10, "color": OTHER}
        figure.add_scatter(x=[None], y=[None], mode="markers", name="measured since", marker=key)
    figure.add_vline(0, line_width=1, line_dash="dot")
    for edge in range(1, len(tasks)):
        figure.add_hline(edge - 0.5, line_width=0.5, opacity=0.4)
    figure.update_yaxes(tickvals=list(range(len(tasks))), ticktext=tasks, range=[len(tasks) - 0.5, -0.5], ticks="")
    figure.update_yaxes(showgrid=False)
    figure.update_xaxes(title_text=f"gain over the prediction for<br>{reference}, % of loss →")
    height = 130 + (26 + 17 * len(names)) * len(tasks)
    styled(figure, height=height)
    return figure.update_layout(hovermode="closest", legend={"y": -78 / (height - 100)}, margin={"t": 8, "b": 60})


def _forecast_dots(
    figure: go.Figure, rows: Sequence[Forecast], y: Sequence[float], base: Mapping[str, float], colour: str, words: str
) -> None:
    mean = np.array([_gain(f.mean, base[f.task], f.unit) for f in rows])
    ends = np.array([[_gain(v, base[f.task], f.unit) for v in (f.lo90, f.hi90)] for f in rows])
    figure.add_scatter(
        x=mean,
        y=y,
        error_x={
            "array": ends.max(1) - mean,
            "arrayminus": mean - ends.min(1),
            "thickness": 1.6,
            "width": 4,
        },
        customdata=[[f.task, f.mean, f.lo90, f.hi90, f.unit] for f in rows],
        mode="markers",
        name=rows[0].recipe,
        marker={"color": colour, "size": 8},
        hovertext=words,
        hovertemplate=f"<b>{rows[0].recipe}</b>, %{{customdata[0]}}<br>{_TOLD if words else ''}"
        "predicted %{customdata[1]:.4g} %{customdata[4]}"
        "<br>90 %: %{customdata[2]:.4g} to %{customdata[3]:.4g}<br>gain %{x:.2f} %<extra></extra>",
    )


def _measured_diamonds(
    figure: go.Figure,
    rows: Sequence[Forecast],
    y: Sequence[float],
    base: Mapping[str, float],
    colour: str,
    measured: Measured,
    words: str,
) -> None:
    points = [(f, at, v) for f, at in zip(rows, y, strict=True) for v in measured.get((f.recipe, f.task), [])]
    if not points:
        return
    figure.add_scatter(
        x=[_gain(v, base[f.task], f.unit) for f, _, v in points],
        y=[at for _, at, _ in points],
        customdata=[[f.task, v, f.unit, f.recipe] for f, _, v in points],
        mode="markers",
        name="measured since",
        showlegend=False,
        marker={"symbol": "diamond", "size": 11, "color": colour, "line": {"color": "white", "width": 1.5}},
        hovertext=words,
        hovertemplate=f"<b>%{{customdata[3]}}</b>, %{{customdata[0]}}<br>{_TOLD if words else ''}"
        "measured %{customdata[1]:.4g} %{customdata[2]}<extra></extra>",
    )


def _gain(value: float, base: float, unit: str) -> float:
    """Percent of loss by which a value is better than another one."""
    pair = to_log_loss(torch.tensor([value, base], dtype=torch.float64), unit)
    return 100 * float(pair[1] - pair[0])


def fitted(surfaces: Surfaces, task: str) -> Parity:
    """The law alone against the measured runs of a task: what the fit makes of the runs it saw."""
    t, observed = surfaces.tasks.index(task), surfaces.observed
    design, value = observed.design, observed.value[t].numpy()
    kept = np.isfinite(value)
    found = surfaces.predict(design)
    parts = [values[kept, t] for values in (found.mean, found.lo90, found.hi90)]
    runs, words = _named(design, np.flatnonzero(kept).tolist())
    params = tuple(design.params.numpy()[kept].tolist())
    return Parity(task, surfaces.units[task], runs, words, params, value[kept], *parts)


def held_out(surfaces: Surfaces, task: str, kind: str = "mixtures") -> Parity | None:
    """What a task's runs were predicted to measure while they were held out; None where no fold held any out.

    Args:
        surfaces: fitted with an audit.
        task: which one.
        kind: of folds: `mixtures`, `largest size` or `phase order`.
    """
    t, parts = surfaces.tasks.index(task), surfaces.audit.held if surfaces.audit else ()
    found = [_values_of(surfaces, held, t) for held in parts if held.fold.kind == kind]
    if not found:
        return None
    rows, mean, low, high = (np.concatenate(part) for part in zip(*found, strict=True))
    design, value = surfaces.observed.design, surfaces.observed.value[t].numpy()
    runs, words = _named(design, rows.tolist())
    params = tuple(design.params.numpy()[rows].tolist())
    return Parity(task, surfaces.units[task], runs, words, params, value[rows], mean, low, high, f"held-out {kind}")


def _named(design: Design, rows: Sequence[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of runs, and their recipes in words."""
    words = run_words(design)
    return tuple(design.runs[row] for row in rows), tuple(words[row] for row in rows)


def _values_of(surfaces: Surfaces, held: Held, t: int) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Rows of a fold that measure a task, and what was predicted for them with the calibrated ends."""
    observed, seen = surfaces.observed, surfaces.observed.seen[t, held.fold.test]
    mean = held.mean[seen, t] + observed.centre[t]
    half = Z90 * surfaces.calibration[t] * held.deviation[seen, t]
    middle, *ends = (from_log_loss(x, observed.units[t]).numpy() for x in (mean, mean - half, mean + half))
    return held.fold.test[seen].numpy(), middle, np.minimum(*ends), np.maximum(*ends)


def checked(surfaces: Surfaces, task: str) -> Parity:
    """Held-out runs of a task where mixtures were held out, else the runs as they were fitted."""
    return held_out(surfaces, task) or fitted(surfaces, task)


def calibration(points: Sequence[Parity], title: str = "") -> go.Figure:
    """How often measured values lie inside intervals of every width, a line per task; on the diagonal they are right.

    The grey band holds 90 % of what as many independent runs as the task with most would show of right intervals.
    """
    figure, grid = go.Figure(), np.linspace(0, 1, 51)
    room = Z90 * np.sqrt(grid * (1 - grid) / max(len(p.runs) for p in points))
    figure.add_scatter(
        x=np.concatenate([grid, grid[::-1]]), y=np.clip(np.concatenate([grid + room, (grid - room)[::-1]]), 0, 1),
        fill="toself", fillcolor=faded(OTHER, 0.16), line={"width": 0}, hoverinfo="skip", name="by chance",
    )  # fmt: skip
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": OTHER, "dash": "dot", "width": 1}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    for number, one in enumerate(points):
        colour, dash = CYCLE[number % len(CYCLE)], DASHES[number // len(CYCLE) % len(DASHES)]
        inside = [float(np.mean(one.level <= width)) for width in grid]
        figure.add_scatter(
            x=grid, y=inside, mode="lines", line={"color": colour, "width": 1.8, "dash": dash}, name=one.task,
            hovertemplate=f"{one.task}, {len(one.runs)} runs {one.how}<br>%{{y:.0%}} lie inside %{{x:.0%}} intervals"
            "<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="width of the interval", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(title_text="runs inside", tickformat=".0%", range=[0, 1.02])
    return styled(figure, title, 400)


def parity(points: Parity, title: str = "") -> go.Figure:
    """Predicted against measured values with 90 % intervals, a colour per model size, and how many lie inside."""
    figure, low = go.Figure(), float(min(points.measured.min(), points.mean.min()))
    high = float(max(points.measured.max(), points.mean.max()))
    margin = 0.08 * (high - low or 1)
    line = [low - margin, high + margin]
    figure.add_scatter(
        x=line,
        y=line,
        mode="lines",
        line={"color": OTHER, "dash": "dot", "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )
    for size, colour in zip(sorted(set(points.params)), CYCLE * 4, strict=False):
        rows = np.array(points.params) == size
        _by_size(figure, points, rows, points.mean[rows], colour, count(size), intervals=True)
    figure.update_xaxes(title_text=f"measured, {points.unit}", range=line)
    figure.update_yaxes(title_text=f"predicted, {points.unit}", range=line)
    told = f"{points.inside:.0%} inside 90 %, {points.how}"
    return styled(figure, title or headline(points.task, told))


def residuals(points: Parity, title: str = "") -> go.Figure:
    """Measured over predicted against the predicted value, a colour per model size: bends and drifts show here."""
    figure = go.Figure()
    for size, colour in zip(sorted(set(points.params)), CYCLE * 4, strict=False):
        rows = np.array(points.params) == size
        off = 100 * (points.measured[rows] / points.mean[rows] - 1)
        _by_size(figure, points, rows, off, colour, count(size), intervals=False)
    figure.add_hline(0, line_width=1, line_dash="dot")
    figure.update_xaxes(title_text=f"predicted, {points.unit}")
    figure.update_yaxes(title_text="measured over predicted − 1, %")
    return styled(figure, title or headline(points.task, points.how))


def _by_size(
    figure: go.Figure, points: Parity, rows: NDArray[np.bool_], y: Floats, colour: str, size: str, intervals: bool
) -> None:
    """Points of one model size: predicted over measured with intervals, or residuals over predicted."""
    runs = [run for run, keep in zip(points.runs, rows, strict=True) if keep]
    told = (points.measured, points.mean, points.lo90, points.hi90)
    ends = {"array": (points.hi90 - points.mean)[rows], "arrayminus": (points.mean - points.lo90)[rows]}
    figure.add_scatter(
        x=points.measured[rows] if intervals else points.mean[rows],
        y=y,
        error_y={**ends, "thickness": 1, "width": 0, "color": colour} if intervals else None,
        customdata=np.stack([np.array(runs, dtype=object), *(v[rows].round(6) for v in told)], 1),
        mode="markers",
        name=f"{size} params",
        marker={"color": colour, "size": 6, "opacity": 0.75},
        hovertext=[text for text, keep in zip(points.words, rows, strict=True) if keep],
        hovertemplate=f"run %{{customdata[0]}}, {points.how}<br>{_TOLD}"
        f"measured %{{customdata[1]:.4g}} {points.unit}<br>predicted %{{customdata[2]:.4g}}<br>"
        "90 %: %{customdata[3]:.4g} to %{customdata[4]:.4g}<extra></extra>",
    )
