"""How well the surfaces fit, as a part of the report and of the dashboard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from mixlaw.analysis.audit.result import LOW
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.numbers import percent
from mixlaw.plots import calibration, checked, parity, residuals
from mixlaw.report.page import HoverTexts, bullets, plot, table, words
from mixlaw.tables import cell_of

MEDIANS = (
    "These are figures of the median task. Risk and verdict count the gains of all tasks together: where a few tasks "
    "are predicted badly, fewer are inside there than here."
)


def fit_part(surfaces: Surfaces, tasks: Sequence[str], texts: HoverTexts | None = None) -> str:
    """Every task's fit in a line, the audit, calibration, and predicted against measured runs.

    Args:
        surfaces: fitted tasks.
        tasks: those with plots of their own.
        texts: of the page's hover texts; plots keep their own where None.
    """
    points = {task: checked(surfaces, task) for task in surfaces.tasks}
    how = next(iter(points.values())).how
    rows = [["task", "unit", "runs", "noise of a run", f"inside 90 %, {how}"]]
    styles = []
    for t, (task, held_out) in enumerate(points.items()):
        noise, runs = f"{float(surfaces.noise[t]):.2g}", f"{len(held_out.runs)}"
        rows.append([task, surfaces.units[task], runs, noise, percent(held_out.inside)])
        styles.append(["", "", "", "", "bad" if held_out.inside < LOW else ""])
    whole = plot(calibration(list(points.values())), "Observed coverage of intervals of every nominal coverage")
    pairs = (
        plot(parity(points[task]), f"{task}: predicted against measured", texts)
        + plot(residuals(points[task]), f"{task}: residuals", texts)
        for task in tasks
    )
    grid = grid_of(pairs, surfaces, tasks, "parity")
    note = (
        "<h3>Calibration</h3><p>Intervals are calibrated on the diagonal, too wide above it, too narrow below it. "
        "Tasks inside the grey band may be off by chance; those outside it are coloured.</p>"
    )
    shown = f"<details><summary>Parity and residuals by task</summary>{grid}</details>"
    return table(rows, styles) + bullets(_statuses(surfaces)) + "".join(_audit(surfaces)) + note + whole + shown


def _statuses(surfaces: Surfaces) -> list[str]:
    """Every status with the tasks that have it."""
    statuses = [surfaces.status[task] for task in surfaces.tasks]
    found = {one: [task for task, its in zip(surfaces.tasks, statuses, strict=True) if its is one] for one in statuses}
    return [f"{', '.join(tasks) if len(found) > 1 else 'All tasks'}: {one.value}." for one, tasks in found.items()]


def _audit(surfaces: Surfaces) -> Iterator[str]:
    """A table for every direction in which runs were held out; coverage that is clearly too low is marked."""
    audit = surfaces.audit
    if audit is None:
        return
    yield f"<h3>Audit: runs held out of the fit</h3><p>{words(audit.sentence[:1].upper() + audit.sentence[1:])}.</p>"
    yield f"<p class='soft'>{MEDIANS}</p>"
    for one in audit.tables():
        less = [head.head in ("spearman", "width") for head in one.heads]
        cells = [list(map(cell_of, row)) for row in one.rows]
        styles = [
            ["bad" if cell.tone == "worse" else "extra" if extra else "" for cell, extra in zip(row, less, strict=True)]
            for row in cells
        ]
        title = one.title.removeprefix("audit: ")
        yield f"<p class='soft'>{escape(title[:1].upper() + title[1:])}</p>{table(one.cells(), styles)}"
    yield "".join(f"<p>{words(sentence)}.</p>" for sentence in audit.ahead())


def grid_of(plots: Iterable[str], surfaces: Surfaces, tasks: Sequence[str], method: str) -> str:
    """Plots of tasks beside each other, and how to draw those of the other tasks."""
    grid, others = f"<div class='grid'>{''.join(plots)}</div>", [task for task in surfaces.tasks if task not in tasks]
    if not others:
        return grid
    how = f"To stay small, the page leaves these out; `study.plots.{method}({others[0]!r})` in Python draws the first: "
    more = f"{len(others)} more task{'s' if len(others) > 1 else ''}"
    return f"{grid}<details><summary>{more}</summary><p>{words(how + ', '.join(others))}</p></details>"
