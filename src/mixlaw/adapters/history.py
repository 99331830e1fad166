"""Histories of Weights & Biases, a row per run and moment: a chart as its web page exports it, or frames of its API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mixlaw.adapters.sheet import TOKENS, Sheet
from mixlaw.cells import EMPTY, INFINITE, texts
from mixlaw.errors import InputError

#: Moments of one run that are kept: enough for what a schedule does to a loss, few enough for many runs.
MOMENTS = 16
_NAMES = ("run", "name", "run_name", "run_id")
_INNER = ("_runtime", "_timestamp")
_BETWEEN = " - "


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
        return _chart(frame, values, places)
    if "_step" not in frame.columns or not any(name in frame.columns for name in _INNER):
        return None
    if any(TOKENS.fullmatch(name) for name in frame.columns):  # in the contract's columns already
        return None
    named = [name for name in _NAMES if name in frame.columns]
    if not named:
        raise InputError(
            "a history of one run of Weights & Biases names no run; add a column `run`, or export all of them with "
            "api.runs(...).histories()"
        )
    return History(
        frame.rename({named[0]: "run"}).drop(*_INNER, "", strict=False),
        tuple(places),
        "a history of Weights & Biases, as its API writes it",
    )


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
        InputError: it says nothing of what the runs were trained on.
    """
    tokens = [name for name in sheet.frame.columns if TOKENS.fullmatch(name)]
    if not tokens:
        raise InputError(
            "a history says nothing of what its runs were trained on; export the runs table too, and join both in a "
            'mapping: join = [{ file = "runs.csv", on = "run" }]'
        )
    metrics = [name for name in sheet.frame.columns if name.startswith("metric:")]
    measured = np.array([[cell is not None for cell in sheet.column(name, diverging=True)] for name in metrics])
    amounts = np.array([[cell or 0.0 for cell in sheet.column(name)] for name in tokens])
    seen = measured.any(0) & (amounts.sum(0) > 0)
    by_run: dict[str, list[int]] = {}
    for row, (run, there) in enumerate(zip(texts(sheet.frame["run"]), seen.tolist(), strict=True)):
        if there:
            by_run.setdefault(str(run), []).append(row)
    rows = sorted(row for moments_of_run in by_run.values() for row in _spread(moments_of_run))
    there = int(seen.sum())
    note = [f"of {there} moments, {len(rows)} are kept: {MOMENTS} of each run at most"] if len(rows) < there else []
    return sheet.keep(rows, note)


def _spread(rows: Sequence[int]) -> list[int]:
    """At most MOMENTS of the rows, evenly spread, the last among them."""
    if len(rows) <= MOMENTS:
        return list(rows)
    return [rows[round((i + 1) * len(rows) / MOMENTS) - 1] for i in range(MOMENTS)]
