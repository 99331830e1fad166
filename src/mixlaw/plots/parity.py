"""Plots of predicted against measured values: parity, residuals, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from mixlaw.analysis.audit.held import WITHIN, Held
from mixlaw.analysis.data.design import Design, Floats
from mixlaw.analysis.data.observed import Z90, from_log_loss
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.numbers import percent
from mixlaw.plots.hover import run_words
from mixlaw.plots.style import CYCLE, OTHER, SHARES, count, faded, headline, styled

MARKED = 4  # tasks with a colour of their own in a plot of calibration


@dataclass(frozen=True)
class Parity:
    """Predicted and measured values of N runs on one task, in its unit; made by `fitted` or by `held_out`.

    Attributes:
        task, unit: what was measured.
        runs, words, params: names of the runs, their recipes in words, and their sizes.
        measured, mean, lo90, hi90: measured values, predicted ones and the ends of their 90 % intervals, (N,).
        how: the way they were predicted, `in-sample` or `held-out` and the kind of folds.
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
    how: str = "in-sample"

    @property
    def inside(self) -> float:
        """Share of measured values inside their 90 % interval."""
        return float(np.mean((self.measured >= self.lo90) & (self.measured <= self.hi90)))

    @property
    def level(self) -> Floats:
        """Width of the interval that just holds each measured value: 0.9 at the ends of its 90 % interval, (N,)."""
        over = self.measured - self.mean
        half = np.where(over > 0, self.hi90 - self.mean, self.mean - self.lo90)
        return np.array([erf(Z90 * abs(z) / sqrt(2)) for z in over / half])


def fitted(surfaces: Surfaces, task: str) -> Parity:
    """In-sample prediction (law and residual process) of a task's measured runs: optimistic."""
    t, observed = surfaces.tasks.index(task), surfaces.observed
    design, value = observed.design, observed.value[t].numpy()
    rows, prediction = np.flatnonzero(np.isfinite(value)), surfaces.in_sample
    ends = [values[rows, t] for values in (prediction.mean, prediction.lo90, prediction.hi90)]
    return Parity(task, surfaces.units[task], *_runs(design, rows), value[rows], *ends)


def held_out(surfaces: Surfaces, task: str, kind: str | None = None) -> Parity | None:
    """What a task's runs were predicted to measure while they were held out; None where no fold held any out.

    Args:
        surfaces: fitted with an audit.
        task: which one.
        kind: of folds: `mixtures`, `runs`, `largest size` or `phase order`; those of mixtures, or of runs, where None.
    """
    t, parts = surfaces.tasks.index(task), surfaces.audit.held if surfaces.audit else ()
    wanted = [held for held in parts if held.fold.kind in (WITHIN if kind is None else (kind,))]
    predicted = [_values_of(surfaces, held, t) for held in wanted]
    if not predicted:
        return None
    rows, mean, low, high = (np.concatenate(part) for part in zip(*predicted, strict=True))
    runs, words, params = _runs(surfaces.observed.design, rows)
    value = surfaces.observed.value[t].numpy()[rows]
    return Parity(
        task, surfaces.units[task], runs, words, params, value, mean, low, high, f"held-out {wanted[0].fold.kind}"
    )


def _runs(design: Design, rows: NDArray[np.int64]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[float, ...]]:
    """Names of runs, their recipes in words, and their sizes."""
    words = run_words(design)
    chosen = [(design.runs[row], words[row], float(design.params[row])) for row in rows.tolist()]
    names, recipes, params = zip(*chosen, strict=True)
    return names, recipes, params


def _values_of(surfaces: Surfaces, held: Held, t: int) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Rows of a fold that measure a task, and what was predicted for them with the calibrated ends."""
    observed, seen = surfaces.observed, surfaces.observed.seen[t, held.fold.test]
    mean = held.mean[seen, t] + observed.centre[t]
    half = Z90 * surfaces.calibration[t] * held.deviation[seen, t]
    middle, *ends = (from_log_loss(x, observed.units[t]).numpy() for x in (mean, mean - half, mean + half))
    return held.fold.test[seen].numpy(), middle, np.minimum(*ends), np.maximum(*ends)


def checked(surfaces: Surfaces, task: str) -> Parity:
    """Held-out runs of a task where mixtures were held out, else the in-sample predictions."""
    return held_out(surfaces, task) or fitted(surfaces, task)


def calibration(points: Sequence[Parity], title: str = "") -> go.Figure:
    """Share of measured values inside intervals of every nominal coverage; the diagonal is calibrated.

    The grey band is the 90 % range of calibrated intervals for as many independent runs as the task with most has. The
    thick line is the mean over tasks; tasks are thin and grey, but for those that are farthest outside the band.
    """
    figure, grid = go.Figure(), np.linspace(0, 1, 51)
    room = Z90 * np.sqrt(grid * (1 - grid) / max(len(p.runs) for p in points))
    figure.add_scatter(
        x=np.concatenate([grid, grid[::-1]]), y=np.clip(np.concatenate([grid + room, (grid - room)[::-1]]), 0, 1),
        fill="toself", fillcolor=faded(OTHER, 0.16), line={"width": 0}, hoverinfo="skip", name="expected by chance",
    )  # fmt: skip
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": OTHER, "dash": "dot", "width": 1}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    inside = np.array([[float(np.mean(one.level <= width)) for width in grid] for one in points])
    outside = (np.abs(inside - grid) - room).max(1)
    marked = [number for number in np.argsort(-outside).tolist() if outside[number] > 0.02][:MARKED]
    for number, one in enumerate(points):
        paint = CYCLE[1 + marked.index(number)] if number in marked else OTHER
        line = {"color": paint, "width": 1.6 if number in marked else 0.9}
        figure.add_scatter(
            x=grid, y=inside[number], mode="lines", line=line, name=one.task if number in marked else "other tasks",
            legendgroup=one.task if number in marked else "other",
            showlegend=number in marked or number == next((i for i in range(len(points)) if i not in marked), None),
            opacity=1 if number in marked else 0.7, hovertemplate=f"{one.task}, {len(one.runs)} runs {one.how}<br>"
            "%{customdata[0]:.0f} % inside %{customdata[1]:.0f} % intervals<extra></extra>",
            customdata=100 * np.stack([inside[number], grid], 1),
        )  # fmt: skip
    figure.add_scatter(
        x=grid, y=inside.mean(0), mode="lines", line={"color": CYCLE[0], "width": 3}, name="mean over tasks",
        hovertemplate="%{customdata[0]:.0f} % inside %{customdata[1]:.0f} % intervals, mean over tasks<extra></extra>",
        customdata=100 * np.stack([inside.mean(0), grid], 1),
    )  # fmt: skip
    figure.update_xaxes(title_text="nominal coverage", **SHARES, range=[0, 1.02])
    figure.update_yaxes(title_text="observed coverage", **SHARES, range=[0, 1.02])
    return styled(figure, title, 400)


def parity(points: Parity, title: str = "") -> go.Figure:
    """Predicted against measured values with 90 % intervals, a colour per model size, and how many lie inside."""
    figure, low = go.Figure(), float(min(points.measured.min(), points.mean.min()))
    high = float(max(points.measured.max(), points.mean.max()))
    margin = 0.08 * (high - low or 1)
    line = [low - margin, high + margin]
    figure.add_scatter(
        x=line, y=line, mode="lines", line={"color": OTHER, "dash": "dot", "width": 1}, showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip
    for size, colour in zip(sorted(set(points.params)), CYCLE * 4, strict=False):
        rows = np.array(points.params) == size
        _by_size(figure, points, rows, points.mean[rows], colour, count(size), intervals=True)
    figure.update_xaxes(title_text=f"measured, {points.unit}", range=line)
    figure.update_yaxes(title_text=f"predicted, {points.unit}", range=line)
    covered = f"{percent(points.inside)} inside 90 %, {points.how}"
    return styled(figure, title or headline(points.task, covered))


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
    values = (points.measured, points.mean, points.lo90, points.hi90)
    ends = {"array": (points.hi90 - points.mean)[rows], "arrayminus": (points.mean - points.lo90)[rows]}
    figure.add_scatter(
        x=points.measured[rows] if intervals else points.mean[rows], y=y, mode="markers", name=f"{size} params",
        error_y={**ends, "thickness": 1, "width": 0, "color": colour} if intervals else None,
        customdata=np.stack([np.array(runs, dtype=object), *(v[rows].round(6) for v in values)], 1),
        marker={"color": colour, "size": 6, "opacity": 0.75},
        hovertext=[text for text, keep in zip(points.words, rows, strict=True) if keep],
        hovertemplate=f"run %{{customdata[0]}}, {points.how}<br>%{{hovertext}}<br>"
        f"measured %{{customdata[1]:.4g}} {points.unit}<br>predicted %{{customdata[2]:.4g}}<br>"
        "90 %: %{customdata[3]:.4g} to %{customdata[4]:.4g}<extra></extra>",
    )  # fmt: skip
