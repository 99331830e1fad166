"""Files into tables: CSV, Parquet, NDJSON; exports of Weights & Biases are unfolded on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors as cs

from mixlaw.adapters.history import unfold_history
from mixlaw.adapters.wandb import unfold
from mixlaw.errors import InputError

#: What a table may be: a path, a polars or a pandas DataFrame.
Table = str | Path | pl.DataFrame | Any

_TWICE = re.compile(r"(.*)_duplicated_\d+")

_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    ".parquet": pl.read_parquet,
    ".ndjson": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
}


@dataclass(frozen=True)
class Source:
    """A table as its author wrote it.

    Attributes:
        frame: its columns.
        places: what to call each row in a message.
        name: name of the file without its ending.
        notes, warnings: what was done to it, what its author should look at.
        history: whether rows are moments of runs, of which tokens and progress are those by then.
    """

    frame: pl.DataFrame
    places: tuple[str, ...]
    name: str = "table"
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    history: bool = False

    def keep(self, rows: Sequence[bool]) -> Source:
        """Some of the rows."""
        places = tuple(place for place, wanted in zip(self.places, rows, strict=True) if wanted)
        return replace(self, frame=self.frame.filter(pl.Series(rows, dtype=pl.Boolean)), places=places)


def read_table(path: Path) -> pl.DataFrame:
    """Read CSV, Parquet or NDJSON, by the ending of the name.

    Raises:
        InputError: no such file, another ending, content that is not of that format, or a column that is there twice.
    """
    if path.suffix not in _READERS:
        raise InputError(f"cannot read {str(path)!r}: supported are {', '.join(_READERS)}; convert it or rename it")
    try:
        frame = _READERS[path.suffix](path)
    except FileNotFoundError:
        raise InputError(f"there is no table {str(path)!r}; check the path") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {reason}; {_way_out(path)}") from error
    twice = [match[1] for name in frame.columns if (match := _TWICE.fullmatch(name)) and match[1] in frame.columns]
    if twice and twice[0]:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; rename or remove one of them")
    return frame


def _way_out(path: Path) -> str:
    """What to do about a table that cannot be read."""
    with path.open("rb") as file:
        head = file.readline()
    if path.suffix == ".csv" and b";" in head and b"," not in head:
        return "it is separated by semicolons: export it with commas between cells and points in numbers"
    return "export it again"


def frame_of(table: Table) -> pl.DataFrame:
    """A table as a polars frame: a file, a polars frame, or a pandas frame, whose NaN are empty cells.

    Raises:
        InputError: as `read_table`; or it is no table.
    """
    if isinstance(table, str | Path):
        return read_table(Path(table))
    if isinstance(table, pl.DataFrame):
        return table
    if not hasattr(table, "to_dict"):
        raise InputError(f"a table is a path, a polars or a pandas DataFrame, got {type(table).__name__}")
    columns = {str(name): cells for name, cells in table.to_dict("list").items()}
    return pl.DataFrame(columns, strict=False).with_columns(cs.float().fill_nan(None))


def read_source(table: Table, alone: bool = True) -> Source:
    """Read a table and unfold it where it is an export of Weights & Biases.

    Args:
        table: a file or a data frame.
        alone: whether messages can do without the name of the file.
    """
    frame, path = frame_of(table), Path(table) if isinstance(table, str | Path) else Path("table")
    head = "" if alone else f"{path.name}, "
    places = tuple(f"{head}row {number}" for number in range(1, frame.height + 1))
    unfolded = unfold(frame, places)
    if unfolded is None:
        history = unfold_history(frame, places)
        if history is not None:
            return Source(history.frame, history.places, path.stem, (history.note,), history=True)
        return Source(frame, places, path.stem)
    source = Source(unfolded.frame, places, path.stem, unfolded.notes, unfolded.warnings)
    return source.keep(unfolded.finished)


def joined(left: Source, right: Source, on: Sequence[str], prefix: str = "") -> Source:
    """Two tables side by side: by the values of key columns, or row by row where there is no key.

    Args:
        left: leads; its rows and their order stay.
        right: its columns are added, in front of their names the prefix.
        on: key columns of both.
        prefix: for the added columns.

    Raises:
        InputError: a key is missing or there twice in `right`, nothing matches, or rows that should correspond do not.
    """
    other = right.frame.rename({name: prefix + name for name in right.frame.columns if name not in on})
    if not on:
        return _side_by_side(left, right, other)
    for side in (left, right):
        if lacking := [name for name in on if name not in side.frame.columns]:
            raise InputError(f"{side.name} has no column {lacking[0]!r} to join on; there are {_some(side.frame)}")
    keys, partners = _keys(left.frame, on, "left"), _keys(right.frame, on, "right")
    if len(set(partners)) < len(partners):
        twice = next(key for key in partners if partners.count(key) > 1)
        raise InputError(f"{right.name} has {' '.join(twice)!r} twice in {', '.join(on)}; keep one of the rows")
    index = {key: number for number, key in enumerate(partners)}
    matches = [index.get(key) for key in keys]
    if all(number is None for number in matches):
        raise InputError(
            f"no row of {left.name} has a partner in {right.name}: {', '.join(on)} is {keys[0]} here and "
            f"{partners[0]} there; join on another column"
        )
    added = [name for name in other.columns if name not in on and name not in left.frame.columns]
    rows = pl.Series(matches, dtype=pl.UInt32)
    frame = left.frame.with_columns(other[name].gather(rows) for name in added)
    alone, unused = matches.count(None), len(set(partners) - set(keys))
    if left.history and not right.history:  # runs that did not finish are not in the runs table
        lost = sorted({keys[row][0] for row, number in enumerate(matches) if number is None})
        source = replace(left, frame=frame).keep([number is not None for number in matches])
        names = ", ".join(lost[:3])
        warnings = (
            [f"{len(lost)} runs of {left.name} are not in {right.name} and are left out: {names}"] if lost else []
        )
        return replace(source, warnings=(*left.warnings, *warnings))
    warnings = [f"{alone} rows have no partner in {right.name}; its cells stay empty there"] if alone else []
    warnings += [f"{unused} rows of {right.name} have no partner and are left out"] if unused else []
    return replace(left, frame=frame, warnings=(*left.warnings, *warnings))


def _side_by_side(left: Source, right: Source, other: pl.DataFrame) -> Source:
    """Rows that correspond; what both tables call the same must be the same."""
    if left.frame.height != right.frame.height:
        raise InputError(
            f"{left.name} has {left.frame.height} rows and {right.name} {right.frame.height}; "
            "rows that correspond must be as many: join on a key column instead"
        )
    for name in set(left.frame.columns) & set(other.columns):
        pairs = zip(left.places, left.frame[name].to_list(), other[name].to_list(), strict=True)
        for place, mine, theirs in pairs:
            if mine != theirs:
                raise InputError(
                    f"{place}, column {name!r}: {mine!r} in {left.name} but {theirs!r} in {right.name}; the rows "
                    "do not correspond: join on a key column instead"
                )
    return replace(left, frame=left.frame.with_columns(other[n] for n in other.columns if n not in left.frame.columns))


def _keys(frame: pl.DataFrame, on: Sequence[str], side: str) -> list[tuple[str, ...]]:
    """Keys of the rows as text; an empty cell is like no other."""
    cells = [enumerate(frame[name].to_list()) for name in on]
    columns = [[f"(empty, {side} {row})" if cell is None else _text(cell) for row, cell in column] for column in cells]
    return list(zip(*columns, strict=True))


def _text(cell: object) -> str:
    """A key as text; 1 and 1.0 are the same key."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _some(frame: pl.DataFrame) -> str:
    return ", ".join(frame.columns[:12])
