"""Plot of the Pareto front between groups of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from mixlaw.optimizer.goal.values import Interval
from mixlaw.plots.style import CYCLE, OTHER, faded, rounded, styled


def front(
    gains: Sequence[Mapping[str, Interval]],
    against: str,
    words: Sequence[str] = (),
    marked: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
    unit: str = "%",
) -> go.Figure:
    """The front between the first two groups of tasks; a third one is the colour.

    Args:
        gains: of every recipe on the front by group, ordered along the front.
        against: the baseline that gains refer to, at zero.
        words: a description of each recipe, for the hover text.
        marked: recipes to show beside the front, by name, with their gains by group.
        title: over the figure.
        unit: of gains.
    """
    names, figure = list(gains[0]), go.Figure()
    x, y = ([gain[name] for gain in gains] for name in names[:2])
    figure.add_scatter(
        x=[g.mean for g in x], y=[g.mean for g in y], error_x=_bars(x), error_y=_bars(y),
        mode="lines+markers" if len(names) == 2 else "markers",
        line={"color": faded(CYCLE[0], 0.5), "width": 1.6},
        marker=_dots([gain[names[2]].mean for gain in gains] if len(names) > 2 else [], names, unit),
        customdata=["; ".join(f"{n} {rounded(*_ends(gain[n]))} {unit}" for n in names) for gain in gains],
        hovertext=[f"{text}<br>" if text else "" for text in words or [""] * len(gains)],
        hovertemplate="%{hovertext}%{customdata}<extra></extra>", name="front", showlegend=False,
    )  # fmt: skip
    for i, (name, values) in enumerate((marked or {}).items()):
        figure.add_scatter(
            x=[values[names[0]]], y=[values[names[1]]], mode="markers", name=name,
            marker={"symbol": "diamond", "size": 12, "color": CYCLE[1 + i % (len(CYCLE) - 1)]},
            hovertemplate=f"{name}: %{{x:+.2f}}, %{{y:+.2f}} {unit}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[0], y=[0], mode="markers", name=against, hovertemplate=f"{against}<extra></extra>",
        marker={"color": OTHER, "size": 11, "symbol": "x"},
    )  # fmt: skip
    figure.update_xaxes(title_text=f"{names[0]}: gain over {against}, {unit}")
    figure.update_yaxes(title_text=f"{names[1]}: gain over {against}, {unit}")
    return styled(figure, title, height=440).update_layout(hovermode="closest", legend={"y": -0.18})


def _ends(value: Interval) -> tuple[float, float, float]:
    return value.mean, value.lo90, value.hi90


def _bars(values: Sequence[Interval]) -> dict[str, object]:
    """Error bars of 90 % intervals, faint: they overlap."""
    ends = {"array": [v.hi90 - v.mean for v in values], "arrayminus": [v.mean - v.lo90 for v in values]}
    return {"type": "data", **ends, "color": faded(CYCLE[0], 0.28), "thickness": 1, "width": 0}


def _dots(third: Sequence[float], names: Sequence[str], unit: str) -> dict[str, object]:
    if not third:
        return {"size": 8, "color": CYCLE[0]}
    title = {"text": f"{names[2]}, {unit}", "side": "right", "font": {"size": 12.5}}
    bar = {"title": title, "thickness": 12, "outlinewidth": 0}
    line = {"width": 1, "color": OTHER}
    return {"size": 9, "color": list(third), "colorscale": "Viridis", "colorbar": bar, "line": line}
