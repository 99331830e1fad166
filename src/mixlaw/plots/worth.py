"""Plot of the worth of each domain to each task."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import plotly.graph_objects as go

from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.plots.style import styled

LINE = 11  # letters of a task's name in a line
WIDE, SIDE, NARROW = 1040, 240, 56  # pixels: of a page, beside the columns, and of a column at least
LEGEND_ROWS = 4  # from which a bar of colours has room for its numbers


def worth(points: Sequence[Worthwhile], title: str = "") -> go.Figure:
    """Gain of every task per extra percentage point of every domain in every phase, as a heat map.

    Only cells whose 90 % interval is clear of zero have a colour; the others show their number in brackets, or none
    where that would be a zero. Rows without a clear cell are left out, unless there is no other.

    Args:
        points: of a what-if.
        title: over the figure.
    """
    rows = list(dict.fromkeys((p.phase, p.domain) for p in points))
    tasks, phases = list(dict.fromkeys(p.task for p in points)), {p.phase for p in points}
    clear_rows = {(p.phase, p.domain) for p in points if p.gain.tone}
    rows = [row for row in rows if row in clear_rows] or rows
    by = {(p.phase, p.domain, p.task): p.gain for p in points}
    cells = [[by[phase, domain, task] for task in tasks] for phase, domain in rows]
    clear = [[bool(cell.tone) for cell in row] for row in cells]
    most = max((abs(cell.mean) for row in cells for cell in row if cell.tone), default=1.0)
    digits = 2 if most < 1 else 1
    least, figure, slant = 0.5 / 10**digits, go.Figure(), slanted(tasks)
    figure.add_heatmap(
        z=[[cell.mean if cell.tone else 0.0 for cell in row] for row in cells],
        x=tasks if slant else list(map(in_lines, tasks)),
        y=[f"{domain}, {phase}" if len(phases) > 1 else domain for phase, domain in rows],
        autocolorscale=True, zmin=-most, zmax=most, xgap=2, ygap=2,
        text=[
            ["" if abs(c.mean) < least else f"{c.mean:+.{digits}f}" if sure else f"({c.mean:+.{digits}f})"
             for c, sure in zip(row, known, strict=True)]
            for row, known in zip(cells, clear, strict=True)
        ],
        texttemplate="%{text}", textfont={"size": 11},
        customdata=[[(c.lo90, c.hi90, c.mean, task) for c, task in zip(row, tasks, strict=True)] for row in cells],
        hovertemplate="+1 percentage point of %{y}<br>%{customdata[3]}: %{customdata[2]:+.3f} % of loss<br>"
        "90 %: %{customdata[0]:+.3f} to %{customdata[1]:+.3f}<extra></extra>",
        showscale=len(rows) >= LEGEND_ROWS,
        colorbar={"title": {"text": "% of loss", "side": "right", "font": {"size": 12.5}}, "thickness": 12,
                  "outlinewidth": 0},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showline=False, ticks="")
    figure.update_xaxes(side="top", showline=False, ticks="", tickangle=-40 if slant else 0)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    names = 5 * max(map(len, tasks)) if slant else 15 * max(in_lines(task).count("<br>") + 1 for task in tasks)
    above = (44 if title else 16) + names
    return styled(figure, title, above + 40 + 26 * len(rows)).update_layout(margin={"t": above, "b": 40})


def in_lines(name: str) -> str:
    """A name in lines of about `LINE` letters, broken behind `_`, `/`, `-` and `.`."""
    lines = [""]
    for part in filter(None, re.split(r"(?<=[_/.-])", name)):
        if lines[-1] and len(lines[-1]) + len(part) > LINE:
            lines.append("")
        lines[-1] += part
    return "<br>".join(lines)


def slanted(tasks: Collection[str]) -> bool:
    """Whether names of tasks are too wide for one line over the columns."""
    return _upright(tasks) > WIDE


def width_of(tasks: Collection[str]) -> int:
    """Pixels that a heat map of these tasks needs."""
    return SIDE + NARROW * len(tasks) if slanted(tasks) else _upright(tasks)


def _upright(tasks: Collection[str]) -> int:
    """The same with names that are not slanted."""
    longest = max((len(line) for task in tasks for line in in_lines(task).split("<br>")), default=0)
    return SIDE + max(NARROW, 12 + 7 * longest) * len(tasks)
