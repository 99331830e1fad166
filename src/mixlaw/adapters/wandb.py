"""Weights & Biases: the runs table as its web page exports it, and as a script over its API writes it, unfolded."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mixlaw.cells import INFINITE, series_of
from mixlaw.errors import InputError

# Columns of the runs table that describe the run as an entry of the web page, not its configuration or results.
_ABOUT = {
    "State",
    "Notes",
    "User",
    "Tags",
    "Created",
    "Updated",
    "Runtime",
    "End Time",
    "Sweep",
    "Description",
    "Hostname",
}
_ABOUT |= {"GitHub", "Commit", "Github", "Group", "Job Type", "Heartbeat At", "Path", "Command", "Python version"}
_LOST = INFINITE | {"nan"}


@dataclass(frozen=True)
class Unfolded:
    """An export as a flat table: `run`, and a column for each key of configuration and summary, nested ones dotted.

    Attributes:
        frame: all rows of the export.
        finished: which of them ended as they should.
        notes, warnings: what was done to it, what its author should look at.
    """

    frame: pl.DataFrame
    finished: tuple[bool, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def unfold(frame: pl.DataFrame, places: Sequence[str]) -> Unfolded | None:
    """Unfold an export of Weights & Biases; None where the table is none.

    Raises:
        InputError: a cell that should hold JSON or a Python literal does not; names row and column.
    """
    if {"Name", "State"} <= set(frame.columns):
        frame = frame.rename({"run": "config.run"}, strict=False)  # a key of the configuration, not the run
        return _finish(frame.rename({"Name": "run"}), "State", "ID", "its runs table")
    if {"run_id", "experiment_id", "status", "tags.mlflow.runName"} <= set(frame.columns):
        frame = frame.rename({"run": "config.run"}, strict=False).rename({"tags.mlflow.runName": "run"})
        return _finish(
            frame.drop("artifact_uri", "experiment_id", strict=False), "status", "run_id", "search_runs of MLflow"
        )
    if {"summary", "config", "name"} <= set(frame.columns):
        flat = _flat_rows(frame, places)
        names = dict.fromkeys(name for row in flat for name in row)
        wide = pl.DataFrame({name: series_of(name, [row.get(name) for row in flat]) for name in names})
        return _finish(wide, "state", "id", "its API")
    return None


def _finish(frame: pl.DataFrame, state: str, identity: str, how: str) -> Unfolded:
    """Drop columns about the page, empty cells that are no numbers, mark the runs that finished."""
    notes = [how if "MLflow" in how else f"an export of Weights & Biases, as {how} writes it"]
    warnings = []
    if identity in frame.columns and frame["run"].n_unique() < frame.height:
        frame = frame.with_columns(pl.col(identity).alias("run"))
        notes.append(f"names of runs repeat: the column {identity!r} names them instead")
    states = frame[state].to_list() if state in frame.columns else ["finished"] * frame.height
    finished = tuple(status in ("finished", "Finished", "FINISHED", None) for status in states)
    if not all(finished):
        others = sorted({str(status) for status, done in zip(states, finished, strict=True) if not done})
        warnings.append(
            f"{finished.count(False)} of {frame.height} runs did not finish ({', '.join(others)}): left out"
        )
    columns, lost = {}, 0
    for name in frame.columns:
        if name not in _ABOUT and name not in (state, identity, ""):
            columns[name], empty = (frame[name], 0) if name == "run" else _without_lost(frame[name])
            lost += empty
    if lost:
        warnings.append(f"cells that are NaN or infinite, so the runs diverged there: {lost}, left empty")
    return Unfolded(pl.DataFrame(columns), finished, tuple(notes), tuple(warnings))


def _without_lost(cells: pl.Series) -> tuple[pl.Series, int]:
    """Cells with NaN and infinity emptied, also where they are words, and how many there were."""
    if cells.dtype == pl.String:
        lost = cells.str.to_lowercase().is_in(sorted(_LOST))
    elif cells.dtype.is_float():
        lost = ~cells.is_finite()
    else:
        return cells, 0
    lost = lost.fill_null(False)
    return cells.set(lost, None), int(lost.sum())


def _flat_rows(frame: pl.DataFrame, places: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of an export through the API: configuration and summary unfolded into columns.

    A key that both have anywhere in the table is `config.<key>` where it comes from the configuration.
    """
    rows = list(frame.iter_rows(named=True))
    configs = [dict(_flat(_cell(row["config"], place, "config"))) for row, place in zip(rows, places, strict=True)]
    summaries = [dict(_flat(_cell(row["summary"], place, "summary"))) for row, place in zip(rows, places, strict=True)]
    both = {key for config in configs for key in config} & {key for summary in summaries for key in summary}
    made = []
    for row, config, summary in zip(rows, configs, summaries, strict=True):
        plain = {key: value for key, value in row.items() if key not in ("config", "summary", "name", "run", "")}
        renamed = {f"config.{key}" if key in both | {"run"} else key: value for key, value in config.items()}
        made.append({"run": row["name"], **plain, **renamed} | {k: v for k, v in summary.items() if k != "run"})
    return made


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and plain values of a nested mapping, keys joined by dots; media and lists are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if set(value) <= {"value", "desc"} and "value" in value:
                yield from _flat({key: value["value"]}, head)
            elif "_type" not in value:
                yield from _flat(value, f"{head}{key}.")
        elif not isinstance(value, (list, tuple, set)):
            yield head + key, value


def _cell(cell: Any, place: str, column: str) -> dict[str, Any]:
    """A cell with JSON, or with the Python literal that pandas writes for a dict."""
    if cell is None or isinstance(cell, dict):
        return cell or {}
    try:
        content = json.loads(str(cell), parse_constant=float)
    except json.JSONDecodeError:
        content = _literal(str(cell))
    if not isinstance(content, dict):
        raise InputError(
            f"{place}, column {column!r}: {str(cell)[:40]!r} is neither JSON nor a Python dict; "
            "export with json.dumps(dict(run.config)) and json.dumps(dict(run.summary))"
        )
    return content


class _Named(ast.NodeTransformer):
    """`nan` and `inf`, as Python prints them, become numbers."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replace a name that is a number."""
        return ast.copy_location(ast.Constant(math.nan), node) if node.id in ("nan", "inf") else node


def _literal(text: str) -> Any:
    """A Python literal; None where it is not one."""
    try:
        tree = ast.parse(text, mode="eval")
        return ast.literal_eval(_Named().visit(tree) if "nan" in text or "inf" in text else tree)
    except (SyntaxError, ValueError):
        return None
