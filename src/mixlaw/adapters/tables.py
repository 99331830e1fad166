"""Tables as their authors wrote them: read, exports of trackers unfolded, two of them joined."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from mixlaw.adapters.history import unfold_history
from mixlaw.adapters.reading import Table, frame_of
from mixlaw.adapters.trackers import read_curves
from mixlaw.adapters.wandb import unfold
from mixlaw.cells import CellLog, texts
from mixlaw.errors import InputError, did_you_mean, some


@dataclass(frozen=True)
class Source:
    """A table as its author wrote it.

    Attributes:
        frame: its columns.
        places: what to call each row in a message.
        name: name of the file without its ending.
        notes, warnings: what was done to it, what its author should look at.
        history: whether rows are moments of runs, of which tokens and progress are those by then.
        log: what was met while its cells were read.
    """

    frame: pl.DataFrame
    places: tuple[str, ...]
    name: str = "table"
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    history: bool = False
    log: CellLog = field(default_factory=CellLog, compare=False)

    def keep(self, rows: Sequence[bool]) -> Source:
        """Some of the rows."""
        places = tuple(place for place, wanted in zip(self.places, rows, strict=True) if wanted)
        return replace(self, frame=self.frame.filter(pl.Series(rows, dtype=pl.Boolean)), places=places)


def read_source(table: Table, alone: bool = True) -> Source:
    """Read a table and unfold it where it is an export of Weights & Biases.

    Args:
        table: a file or a data frame.
        alone: whether messages can do without the name of the file.
    """
    path = Path(table) if isinstance(table, str | Path) else Path("table")
    curves = read_curves(path) if isinstance(table, str | Path) else None
    frame = frame_of(table) if curves is None else curves.table()
    head = "" if alone else f"{path.name}, "
    whole = Source(frame, tuple(f"{head}row {number}" for number in range(1, frame.height + 1)), path.stem)
    if curves is not None:
        count = frame["run"].n_unique()
        notes: tuple[str, ...] = (f"curves of {curves.of}: {count} run{'s' if count != 1 else ''}",)
        return replace(whole, notes=notes, warnings=curves.warnings, history=True)
    whole = _without_empty_rows(whole)
    unfolded = unfold(whole.frame, whole.places)
    if unfolded is None:
        history = unfold_history(whole.frame, whole.places)
        if history is not None:
            notes = (*whole.notes, history.note)
            return replace(whole, frame=history.frame, places=history.places, notes=notes, history=True)
        return whole
    notes = (*whole.notes, *unfolded.notes)
    return replace(whole, frame=unfolded.frame, notes=notes, warnings=unfolded.warnings).keep(unfolded.finished)


def _without_empty_rows(source: Source) -> Source:
    """The rows in which anything is written, with a note on the others."""
    if not source.frame.columns:
        return source
    empty = source.frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    if not empty.any():
        return source
    count = int(empty.sum())
    notes = (*source.notes, f"{count} empty row{'s' * (count > 1)} of {source.name} left out")
    return replace(source.keep((~empty).to_list()), notes=notes)


def joined(left: Source, right: Source, on: Sequence[str], prefix: str = "") -> Source:
    """Two tables side by side: by the values of key columns, or row by row where there is no key.

    Args:
        left: leads; its rows and their order stay.
        right: its columns are added, in front of their names the prefix.
        on: key columns of both.
        prefix: for the added columns.

    Raises:
        InputError: a key is missing or there twice in `right`, nothing matches, rows that should correspond do not, or
            both tables have a column in which they differ.
    """
    other = right.frame.rename({name: prefix + name for name in right.frame.columns if name not in on})
    if not on:
        return _side_by_side(left, right, other)
    for side in (left, right):
        if lacking := [name for name in on if name not in side.frame.columns]:
            raise InputError(
                f"{side.name} has no column {lacking[0]!r} to join on; "
                + (did_you_mean(lacking[0], side.frame.columns) or f"there are {some(side.frame.columns)}")
            )
    if empty := [side.name for side in (left, right) if not side.frame.height]:
        raise InputError(f"{empty[0]} has no rows to join; check the file")
    keys, partners = _keys(left.frame, on, "left"), _keys(right.frame, on, "right")
    if len(set(partners)) < len(partners):
        twice = next(key for key, count in Counter(partners).items() if count > 1)
        raise InputError(f"{right.name} has {' '.join(twice)!r} twice in {', '.join(on)}; keep one of the rows")
    index = {key: number for number, key in enumerate(partners)}
    matches = [index.get(key) for key in keys]
    if all(number is None for number in matches):
        raise InputError(
            f"no row of {left.name} has a partner in {right.name}: {', '.join(on)} is {keys[0]} here and "
            f"{partners[0]} there; join on another column"
        )
    rows = pl.Series(matches, dtype=pl.UInt32)
    partner = other.select(pl.all().gather(rows))
    if left.history and not right.history:  # what a runs table says of a metric is its last value
        partner = partner.drop(name for name in left.frame.columns if name in partner.columns)
        frame = left.frame.with_columns(partner[name] for name in partner.columns)
    else:
        frame = _merged(left, right.name, partner.drop(on))
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
    return replace(
        left, frame=_merged(left, right.name, other, "the rows do not correspond: join on a key column instead")
    )


#: What to do about two columns of one name that differ.
_APART = "correct one, or give the join a prefix that names the columns of the second file"


def _merged(left: Source, name: str, partner: pl.DataFrame, remedy: str = _APART) -> pl.DataFrame:
    """The left table with the columns of the other, whose rows correspond; an empty cell takes what the other has.

    Raises:
        InputError: both have a cell, and not the same.
    """
    columns = []
    for column in partner.columns:
        if column not in left.frame.columns:
            columns.append(partner[column])
            continue
        mine, theirs = texts(left.frame[column]), texts(partner[column])
        for place, one, other in zip(left.places, mine, theirs, strict=True):
            if one is not None and other is not None and not _equal(one, other):
                raise InputError(
                    f"{place}, column {column!r}: {one!r} in {left.name} but {other!r} in {name}; {remedy}"
                )
        if None in mine:
            both = [other if one is None else one for one, other in zip(mine, theirs, strict=True)]
            columns.append(pl.Series(column, both, pl.String))
    return left.frame.with_columns(columns)


def _equal(one: str, other: str) -> bool:
    """Whether two cells are the same text or the same number."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _keys(frame: pl.DataFrame, on: Sequence[str], side: str) -> list[tuple[str, ...]]:
    """Keys of the rows as text; an empty cell is like no other."""
    columns = [
        [f"(empty, {side} {row})" if cell is None else _WHOLE.sub(r"\1", cell) for row, cell in enumerate(cells)]
        for cells in (texts(frame[name]) for name in on)
    ]
    return list(zip(*columns, strict=True))


#: A whole number as pandas writes it beside an empty cell; as a key it is the same as without the point.
_WHOLE = re.compile(r"^(-?\d+)\.0+$")
