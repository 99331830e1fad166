"""Plot of what recipes gain over a baseline by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixlaw.optimizer.goal.values import Interval
from mixlaw.plots.style import CYCLE, OTHER, Plain, drawn

#: Of the recipe at hand, and of those that it is compared with: no orange, which is code.
PAINT = (CYCLE[0], CYCLE[3], CYCLE[2], OTHER, "#7A5CB8", CYCLE[5])


def plain_gains(by_recipe: Mapping[str, Mapping[str, Interval]], against: str, unit: str, title: str = "") -> Plain:
    """Gain of recipes over a baseline as a bar by task, with 90 % intervals; better to the right.

    Args:
        by_recipe: recipe -> task -> gain and interval; six at most.
        against: name of the baseline, at zero.
        unit: of gains.
        title: over the figure.
    """
    tasks, several = list(next(iter(by_recipe.values()))), len(by_recipe) > 1
    height = 96 + (14 + 17 * len(by_recipe)) * len(tasks)
    bars = zip(by_recipe.items(), PAINT, strict=False)
    layout = {
        "title": {"text": title}, "height": height, "autosize": True,
        "xaxis": {"title": {"text": f"gain over {against}, {unit} →"}, "zeroline": True},
        "yaxis": {"autorange": "reversed", "ticks": "", "showgrid": False, "showline": False},
        "bargap": 0.3, "bargroupgap": 0.08, "showlegend": several, "legend": {"y": -64 / (height - 90)},
        "margin": {"t": 40 if title else 8, "b": 76 if several else 50},
    }  # fmt: skip
    return {"data": [_bars(name, gained, tasks, unit, paint) for (name, gained), paint in bars], "layout": layout}


gains = drawn(plain_gains)


def _bars(name: str, gained: Mapping[str, Interval], tasks: Sequence[str], unit: str, colour: str) -> dict[str, Any]:
    """Bars and intervals of one recipe."""
    rows = [gained[task] for task in tasks]
    ends = {"array": [row.hi90 - row.mean for row in rows], "arrayminus": [row.mean - row.lo90 for row in rows]}
    return {
        "type": "bar", "x": [row.mean for row in rows], "y": tasks, "orientation": "h", "name": name,
        "marker": {"color": colour}, "error_x": {**ends, "thickness": 1.4, "width": 4, "color": OTHER},
        "customdata": [[row.lo90, row.hi90] for row in rows],
        "hovertemplate": f"<b>{name}</b>, %{{y}}<br>gain %{{x:.2f}} {unit}"
        "<br>90 %: %{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>",
    }  # fmt: skip
