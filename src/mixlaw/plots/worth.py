"""Plot of the worth of each domain to each task."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.plots.style import styled


def worth(points: Sequence[Worthwhile], title: str = "") -> go.Figure:
    """Gain of every task per extra percentage point of every domain in every phase, as a heat map.

    Only cells whose 90 % interval is clear of zero have a colour; the others show their number in brackets, or none
    where that would be a zero. Rows without a clear cell are left out, unless there is no other.

    Args:
        points: of a what-if.
        title: over the figure.
    """
    rows = list(dict.fromkeys((p.phase, p.domain) for p in points))
    tasks = list(dict.fromkeys(p.task for p in points))
    clear_rows = {(p.phase, p.domain) for p in points if p.gain.tone}
    rows = [row for row in rows if row in clear_rows] or rows
    by = {(p.phase, p.domain, p.task): p.gain for p in points}
    cells = [[by[phase, domain, task] for task in tasks] for phase, domain in rows]
    clear = [[bool(cell.tone) for cell in row] for row in cells]
    most = max((abs(cell.mean) for row in cells for cell in row if cell.tone), default=1.0)
    digits = 2 if most < 1 else 1
    least, figure = 0.5 / 10**digits, go.Figure()
    figure.add_heatmap(
        z=[[cell.mean if cell.tone else 0.0 for cell in row] for row in cells], x=tasks,
        y=[f"{domain}, {phase}" for phase, domain in rows],
        autocolorscale=True, zmin=-most, zmax=most, xgap=2, ygap=2,
        text=[
            ["" if abs(c.mean) < least else f"{c.mean:+.{digits}f}" if sure else f"({c.mean:+.{digits}f})"
             for c, sure in zip(row, known, strict=True)]
            for row, known in zip(cells, clear, strict=True)
        ],
        texttemplate="%{text}", textfont={"size": 11},
        customdata=[[(cell.lo90, cell.hi90, cell.mean) for cell in row] for row in cells],
        hovertemplate="+1 percentage point of %{y}<br>%{x}: %{customdata[2]:+.3f} % of loss<br>"
        "90 %: %{customdata[0]:+.3f} to %{customdata[1]:+.3f}<extra></extra>",
        colorbar={"title": {"text": "% of loss", "side": "right", "font": {"size": 12.5}}, "thickness": 12,
                  "outlinewidth": 0},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showline=False, ticks="")
    figure.update_xaxes(side="top", showline=False, ticks="", tickangle=0)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return styled(figure, title, 110 + 26 * len(rows)).update_layout(margin={"t": 84 if title else 56})
