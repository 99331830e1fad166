"""From a path and a mapping to one sheet: which files are read, how they join, which rows are meant."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from mixlaw.adapters.apply import apply
from mixlaw.adapters.history import moments
from mixlaw.adapters.mapping import Pivot, TableMap, captures, read_mapping
from mixlaw.adapters.reading import Table
from mixlaw.adapters.rows import axes_of, records
from mixlaw.adapters.sheet import MEASURED, Sheet, together
from mixlaw.adapters.tables import Source, joined, read_source
from mixlaw.adapters.trackers import reader_of
from mixlaw.cells import numbers, texts
from mixlaw.errors import InputError, unknown
from mixlaw.records import to_table

FRAME = Path("data frame")  # in place of a path where the table is no file


def gather(table: Table, mapping: Path | None = None, measured: bool = True) -> tuple[Sheet, TableMap]:
    """Read a table, or a folder of tables, as a mapping says; without one, columns are those of the contract.

    Args:
        table: a data frame, a file, or a folder of the files that the mapping names.
        mapping: TOML file as `mixlaw.adapters.mapping` describes it.
        measured: whether the tasks that the mapping names must be there.

    Returns:
        The sheet, and what the mapping says of all tables.

    Raises:
        InputError: a file is missing or says something else than the mapping.
    """
    maps = [TableMap()] if mapping is None else read_mapping(mapping)
    path = Path(table) if isinstance(table, str | Path) else FRAME
    folder = os.path.isdir(path) and reader_of(path) is None  # what a tracker keeps in a folder is one table
    if folder and not all(entry.file for entry in maps):
        raise InputError(
            f"{path} is a folder; give one table, or a mapping with [[table]] and file = ... (evaluation results go "
            "into --results, beside the table of the runs)"
        )
    chosen = _chosen(path, maps, folder)
    sheets, absent = [], []
    for file, entry in chosen:
        if folder and not os.path.exists(file):
            absent.append(f"{file.name} is not in {path} and is left out")
            continue
        source = _source(table if path is FRAME else file, file.parent, entry, alone=len(chosen) == 1)
        if not measured:
            entry = entry.model_copy(update={"tasks": _there(entry.tasks, source.frame.columns)})
        sheets.append(Sheet.plain(source.frame) if mapping is None else apply(source, entry))
        if mapping is None:
            sheets[-1] = replace(
                sheets[-1], places=source.places, notes=source.notes, warnings=source.warnings, log=source.log
            )
        if source.history:
            sheets[-1] = moments(sheets[-1])
        elif entry.progress is not None:
            sheets[-1] = _with_progress(sheets[-1])
    if not sheets:
        raise InputError(f"none of {', '.join(file.name for file, _ in chosen)} is in {path}; check the path")
    sheet = together(sheets)
    return replace(sheet, warnings=(*absent, *sheet.warnings)), chosen[0][1]


def _with_progress(sheet: Sheet) -> Sheet:
    """The rows of which progress is known, where a mapping says what it is; the others are no finished runs.

    Raises:
        InputError: it is known of none.
    """
    known = [at is not None for at in texts(sheet.frame["progress"])]
    if all(known):
        return sheet
    if not any(known):
        source = sheet.sources.get("progress", "progress")
        raise InputError(f"progress is empty in every row (column {source!r}); fix the mapping, or take progress out")
    note = (
        f"{known.count(False)} rows have no progress and are left out (empty = 1 in the mapping takes them as finished)"
    )
    return sheet.keep([row for row, there in enumerate(known) if there], [note])


def recipes(table: Table, mapping: Path | None = None, phases: Sequence[str] = ()) -> pl.DataFrame:
    """The recipes of a table in the contract's columns, read as an import reads them; tasks need not be there.

    Args:
        table, mapping: as `gather` takes them; without a column `run`, rows are called by their numbers from 0 on.
        phases: in the order of training, as far as that is known.

    Raises:
        InputError: a cell is not what it should be, or a column is missing.
    """
    sheet, _ = gather(table, mapping, measured=False)
    frame = sheet.frame.select(n for n in sheet.frame.columns if not n.startswith(MEASURED))
    if "run" not in frame.columns:
        frame = frame.with_columns(pl.Series("run", [str(row) for row in range(frame.height)], pl.String))
    sheet = replace(sheet, frame=frame)
    axes = axes_of(sheet, phases, measured=False)
    if frame.is_empty():
        raise InputError("the table has no rows; give at least one recipe")
    rows, order = records(sheet, axes, {})
    found = to_table(rows, axes.domains, phases=order)
    tokens = [f"tokens:{phase}:{domain}" for phase in order for domain in axes.domains]
    # A phase that no row has is not the last one trained all the same: without it, the one before would decay.
    found = found.with_columns(pl.lit(0.0).alias(name) for name in tokens if name not in found.columns)
    return found.select(*tokens, pl.exclude(tokens))


def _chosen(path: Path, maps: Sequence[TableMap], folder: bool) -> list[tuple[Path, TableMap]]:
    """Files to read with their mappings: all of a folder, or the one given."""
    if folder:
        return [(path / str(entry.file), entry) for entry in maps]
    named = [entry for entry in maps if entry.file == path.name]
    open_maps = [entry for entry in maps if entry.file is None]
    if not (named or open_maps):
        known = ", ".join(str(entry.file) for entry in maps)
        raise InputError(f"the mapping is for {known}, not for {path.name}; give one of these or their folder")
    return [(path, (named or open_maps)[0])]


def _source(table: Table, folder: Path, mapping: TableMap, alone: bool) -> Source:
    """One table with its joins, the rows that are meant, a row per run."""
    source = read_source(table, alone)
    for join in mapping.join:
        source = joined(source, read_source(folder / join.file), join.keys, join.prefix)
    for column, wanted in mapping.only.items():
        if column not in source.frame.columns:
            raise unknown("column", column, source.frame.columns)
        values = wanted if isinstance(wanted, list) else [wanted]
        rows = [any(_meant(cell, value) for value in values) for cell in texts(source.frame[column])]
        if not any(rows):
            raise InputError(f"only: no row has {column} = {wanted!r}; there is {source.frame[column][0]!r}")
        source = source.keep(rows)
    return source if mapping.pivot is None else _pivoted(source, mapping.pivot)


def _meant(cell: str | None, value: str | float) -> bool:
    """Whether a cell is a value of the mapping: the same text, or the same number."""
    if isinstance(value, str):
        return cell == value
    try:
        return cell is not None and float(cell) == value
    except ValueError:
        return False


def _there(tasks: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Tasks that the mapping names and the table has."""
    return {glob: task for glob, task in tasks.items() if any(captures(glob, name) is not None for name in columns)}


def _pivoted(source: Source, pivot: Pivot) -> Source:
    """A row per run and task becomes a row per run."""
    values = [pivot.value, *([pivot.noise] if pivot.noise else [])]
    seeds = [pivot.seeds] if pivot.seeds else []
    if lacking := [name for name in (*pivot.by, pivot.task, *values, *seeds) if name not in source.frame.columns]:
        raise unknown("column", lacking[0], source.frame.columns)
    keys = source.frame.select(*pivot.by, pivot.task)
    if keys.is_duplicated().any():
        row = int(keys.is_duplicated().arg_max() or 0)
        raise InputError(
            f"{source.places[row]}: task {keys[pivot.task][row]!r} of this run occurs twice; "
            "keep one, or add the columns that distinguish its runs to pivot.by"
        )
    if pivot.noise and pivot.seeds:
        source = _of_means(source, pivot.noise, pivot.seeds)
    numbered = source.frame.with_columns(pl.int_range(pl.len()).alias("\0row"))
    first = numbered.group_by(pivot.by, maintain_order=True).agg(pl.col("\0row").first())
    wide = first
    for value in values:
        part = source.frame.pivot(pivot.task, index=pivot.by, values=value, aggregate_function=None)
        part = part.rename({name: f"{value}/{name}" for name in part.columns if name not in pivot.by})
        wide = wide.join(part, on=pivot.by, how="left", maintain_order="left", nulls_equal=True)
    places = tuple(source.places[row] for row in first["\0row"].to_list())
    return replace(source, frame=wide.drop("\0row"), places=places)


def _of_means(source: Source, noise: str, seeds: str) -> Source:
    """The table with the noise of means over seeds in place of that of one seed."""
    columns = [(noise, 0.0), (seeds, 1.0)]
    spread, count = (numbers(source.frame[n], source.places, n, low, log=source.log) for n, low in columns)
    means = [None if s is None or n is None else s / n**0.5 for s, n in zip(spread, count, strict=True)]
    return replace(source, frame=source.frame.with_columns(pl.Series(noise, means, pl.Float64)))
