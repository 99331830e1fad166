"""Plot of recipes side by side: predicted gains with intervals, and what was measured since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch

from mixlaw.analysis.data.observed import to_log_loss
from mixlaw.optimizer.goal.values import Forecast
from mixlaw.plots.hover import recipe_words
from mixlaw.plots.style import OTHER, colours, styled
from mixlaw.recipe import Recipe

Measured = Mapping[tuple[str, str], Sequence[float]]  # (recipe, task) -> values, one per run


def comparison(
    forecasts: Sequence[Forecast],
    reference: str,
    measured: Measured | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> go.Figure:
    """Predicted gain of every recipe over the reference's prediction by task, 90 % intervals, measured as diamonds.

    All tasks share one axis, percent of loss with better to the right (for a score p the loss is -log p); the values
    themselves are in the hover text. The axis is that of the first recipe and of the reference: a baseline that is far
    worse leaves it.

    Args:
        forecasts: of every recipe and task.
        reference: name of the recipe at zero.
        measured: values of runs trained since.
        recipes: by name, described in the hover text.
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
    ends = [_gain(v, base[f.task], f.unit) for f in forecasts if f.recipe in (names[0], reference)
            for v in (f.lo90, f.hi90, *(measured or {}).get((f.recipe, f.task), ()))]  # fmt: skip
    pad = 0.15 * (max(ends) - min(ends))
    figure.update_xaxes(range=[min(ends) - pad, max(ends) + pad])
    height = 130 + (26 + 17 * len(names)) * len(tasks)
    styled(figure, height=height)
    return figure.update_layout(hovermode="closest", legend={"y": -78 / (height - 100)}, margin={"t": 8, "b": 60})


def _forecast_dots(
    figure: go.Figure, rows: Sequence[Forecast], y: Sequence[float], base: Mapping[str, float], colour: str, words: str
) -> None:
    mean = np.array([_gain(f.mean, base[f.task], f.unit) for f in rows])
    ends = np.array([[_gain(v, base[f.task], f.unit) for v in (f.lo90, f.hi90)] for f in rows])
    figure.add_scatter(
        x=mean, y=y, mode="markers", name=rows[0].recipe, marker={"color": colour, "size": 8},
        error_x={"array": ends.max(1) - mean, "arrayminus": mean - ends.min(1), "thickness": 1.6, "width": 4},
        customdata=[[f.task, f.mean, f.lo90, f.hi90, f.unit] for f in rows], hovertext=words,
        hovertemplate=f"<b>{rows[0].recipe}</b>, %{{customdata[0]}}<br>{'%{hovertext}<br>' if words else ''}"
        "predicted %{customdata[1]:.4g} %{customdata[4]}"
        "<br>90 %: %{customdata[2]:.4g} to %{customdata[3]:.4g}<br>gain %{x:.2f} %<extra></extra>",
    )  # fmt: skip


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
        x=[_gain(v, base[f.task], f.unit) for f, _, v in points], y=[at for _, at, _ in points],
        customdata=[[f.task, v, f.unit, f.recipe] for f, _, v in points], mode="markers", name="measured since",
        showlegend=False, hovertext=words,
        marker={"symbol": "diamond", "size": 11, "color": colour, "line": {"color": "white", "width": 1.5}},
        hovertemplate=f"<b>%{{customdata[3]}}</b>, %{{customdata[0]}}<br>{'%{hovertext}<br>' if words else ''}"
        "measured %{customdata[1]:.4g} %{customdata[2]}<extra></extra>",
    )  # fmt: skip


def _gain(value: float, base: float, unit: str) -> float:
    """Percent of loss by which a value is better than another one."""
    pair = to_log_loss(torch.tensor([value, base], dtype=torch.float64), unit)
    return 100 * float(pair[1] - pair[0])
