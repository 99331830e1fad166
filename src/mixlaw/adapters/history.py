"""Histories of Weights & Biases, a row per run and moment: a chart as its web page exports it, or frames of its API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.adapters.sheet import TOKENS, Sheet
from mixlaw.cells import EMPTY, INFINITE, CellLog, numbers, texts
from mixlaw.errors import InputError

Floats = NDArray[np.float64]

#: Moments of one run that are kept: enough for what a schedule does to a loss, few enough for many runs.
MOMENTS = 16
_NAMES = ("run", "name", "run_name", "run_id")
_IDS = ("run_id", "id")  # which differ where names do not
_INNER = ("_runtime", "_timestamp")
_BETWEEN = " - "
_OURS = ("lr", "warmup", "schedule")  # mean something else in the contract


@dataclass(frozen=True)
class History:
    """A history as a flat table: `run`, the moment, a column for each metric.

    Attributes:
        frame: a row per run and moment at which anything was logged.
        places: what to call each row in a message.
        note: what it was.
    """

    frame: pl.DataFrame
    places: tuple[str, ...]
    note: str


def unfold_history(frame: pl.DataFrame, places: Sequence[str]) -> History | None:
    """Unfold a history; None where the table is none.

    Raises:
        InputError: it does not say which run a row is of.
    """
    values = [
        name for name in frame.columns if _BETWEEN in name and {f"{name}__MIN", f"{name}__MAX"} <= {*frame.columns}
    ]
    if values:
        return _as_logged(_chart(frame, values, places))
    if "_step" not in frame.columns or not any(name in frame.columns for name in _INNER):
        return None
    if any(TOKENS.fullmatch(name) for name in frame.columns):  # in the contract's columns already
        return None
    named = _named(frame)
    if not named:
        raise InputError(
            "a history of one run of Weights & Biases names no run; add a column `run`, or export all of them with "
            "api.runs(...).histories()"
        )
    frame = frame.drop(named[1:]).rename({named[0]: "run"})
    frame, places = _in_time(frame, places) if "_timestamp" in frame.columns else (frame, places)
    note = "a history of Weights & Biases, as its API writes it"
    if named[1:]:
        note += f"; names of runs repeat: the column {named[0]!r} names them instead"
    return _as_logged(History(frame.drop(*_INNER, "", strict=False), tuple(places), note))


def _named(frame: pl.DataFrame) -> list[str]:
    """Columns that name the runs, the one to take first; no other where that is the first there is."""
    there = [name for name in _NAMES if name in frame.columns]
    ids = [name for name in _IDS if name in frame.columns]
    if (
        there
        and ids
        and there[0] not in ids
        and frame.select(there[0], ids[0]).unique().height > frame[there[0]].n_unique()
    ):
        return [ids[0], there[0]]
    return there[:1]


def _as_logged(history: History) -> History:
    """The history, in which a learning rate of a moment is not that of the contract, which is a ratio of peaks."""
    columns = {name: f"logged.{name}" for name in _OURS if name in history.frame.columns}
    return replace(history, frame=history.frame.rename(columns))


def _in_time(frame: pl.DataFrame, places: Sequence[str]) -> tuple[pl.DataFrame, Sequence[str]]:
    """Rows in the order of their time; of a run that was resumed, what it logged again counts, and not what it had.

    Unchanged where a row has no time. A row without a step is no moment, and left to `moments`.
    """
    times, steps = (numbers(frame[name], places, name, log=CellLog()) for name in ("_timestamp", "_step"))
    if any(time is None for time in times):
        return frame, places
    rows, runs = list(frame.iter_rows(named=True)), texts(frame["run"])
    by_run: dict[str | None, list[int]] = {}
    for row in sorted(range(len(rows)), key=lambda row: times[row] or 0.0):
        kept = by_run.setdefault(runs[row], [])
        while (step := steps[row]) is not None and kept and (last := steps[kept[-1]]) is not None and last >= step:
            if last == step:  # two lines of one step: what the later one does not say
                rows[row] = {
                    name: old if (new := rows[row][name]) is None else new for name, old in rows[kept[-1]].items()
                }
            kept.pop()
        kept.append(row)
    order = [row for kept in by_run.values() for row in kept]
    whole = pl.DataFrame([rows[row] for row in order], schema=frame.schema)
    return whole, [places[row] for row in order]


def _chart(frame: pl.DataFrame, values: Sequence[str], places: Sequence[str]) -> History:
    """Columns `<run> - <metric>` of a chart become rows; the first column is its horizontal axis."""
    axis = frame.columns[0]
    runs: dict[str, dict[str, str]] = {}
    for name in values:
        run, _, metric = name.rpartition(_BETWEEN)
        runs.setdefault(run, {})[metric] = name
    numbered = frame.with_row_index("\0row")
    parts = []
    for run, columns in runs.items():
        cells = [_logged(frame[name]).alias(metric) for metric, name in columns.items()]
        part = pl.DataFrame([numbered["\0row"], pl.Series("run", [run] * frame.height), frame[axis], *cells])
        parts.append(part.filter(pl.any_horizontal(pl.col(*columns).is_not_null())))
    whole = pl.concat(parts, how="diagonal_relaxed")
    labels = tuple(f"{places[row]}, run {run}" for row, run in zip(whole["\0row"], whole["run"], strict=True))
    note = f"a chart of Weights & Biases, as its web page exports it: {len(runs)} runs over {axis!r}"
    return History(whole.drop("\0row"), labels, note)


def _logged(cells: pl.Series) -> pl.Series:
    """Cells as text; values that are not finite were not logged, or diverged, and are empty."""
    words = EMPTY | INFINITE
    return pl.Series(
        [None if cell is None or cell.lower() in words else cell for cell in texts(cells)], dtype=pl.String
    )


def moments(sheet: Sheet) -> Sheet:
    """A history in the contract's columns with at most MOMENTS rows of a run, evenly spread, the last among them.

    Rows from before the first token, and those that measure nothing, are left out.

    Raises:
        InputError: it does not tell what its runs were trained on, or when, or a cell is wrong.
    """
    tokens = [name for name in sheet.frame.columns if TOKENS.fullmatch(name)]
    if not tokens:
        raise InputError(
            "a history says nothing of what its runs were trained on; export the runs table too, and join both in a "
            'mapping: join = [{ file = "runs.csv", on = "run" }]'
        )
    if "progress" not in sheet.frame.columns:
        raise InputError(
            "a history needs progress, the share of the run that is done; give it in the mapping, such as "
            'progress = { column = "_step", over = "max_steps" }'
        )
    metrics = [name for name in sheet.frame.columns if name.startswith("metric:")]
    measured = np.array([[cell is not None for cell in sheet.column(name, diverging=True)] for name in metrics])
    amounts = np.array([[cell or 0.0 for cell in sheet.column(name)] for name in tokens]).sum(0)
    done = np.array(sheet.column("progress", 0, 1), dtype=np.float64)
    sheet.log.check()
    seen = measured.any(0) & (amounts > 0)
    timeless = int((seen & np.isnan(done)).sum())
    seen &= ~np.isnan(done)
    if not seen.any():
        raise InputError(
            f"no row of the history has tokens, a metric and progress ({sheet.sources.get('progress', 'progress')!r}); "
            "check these columns, and the mapping"
        )
    by_run: dict[str | None, list[int]] = {}
    runs = texts(sheet.frame["run"])
    for row in sorted(np.flatnonzero(seen).tolist(), key=lambda row: (done[row], amounts[row])):
        by_run.setdefault(runs[row], []).append(row)
    sheet, dropped = _merged(sheet, metrics, by_run.values(), done, amounts)
    rows = sorted(
        row for moments_of_run in by_run.values() for row in _spread([r for r in moments_of_run if r not in dropped])
    )
    there = int(seen.sum()) - len(dropped)
    notes = [f"of {there} moments, {len(rows)} are kept: {MOMENTS} of each run at most"] if len(rows) < there else []
    notes += [f"{timeless} rows of the history have no progress and are left out"] if timeless else []
    return sheet.keep(rows, notes)


def _merged(
    sheet: Sheet, metrics: Sequence[str], runs: Iterable[Sequence[int]], done: Floats, amounts: Floats
) -> tuple[Sheet, set[int]]:
    """Rows of one moment as one, the last of them, and the others; those that contradict each other stay apart.

    A step past the last one is the last moment too: of two rows with other tokens, the later counts.
    """
    columns = {name: sheet.frame[name].to_list() for name in metrics}
    dropped: set[int] = set()
    for one, other in (pair for rows in runs for pair in pairwise(rows) if done[pair[0]] == done[pair[1]]):
        cells = [(column[one], column[other]) for column in columns.values()]
        if amounts[one] == amounts[other] and any(None not in pair and pair[0] != pair[1] for pair in cells):
            continue
        for column in columns.values():
            column[other] = column[one] if column[other] is None else column[other]
        dropped.add(one)
    frame = sheet.frame.with_columns(
        pl.Series(name, cells, sheet.frame[name].dtype) for name, cells in columns.items() if dropped
    )
    return replace(sheet, frame=frame), dropped


def _spread(rows: Sequence[int]) -> list[int]:
    """At most MOMENTS of the rows, evenly spread, the last among them."""
    if len(rows) <= MOMENTS:
        return list(rows)
    return [rows[round((i + 1) * len(rows) / MOMENTS) - 1] for i in range(MOMENTS)]
