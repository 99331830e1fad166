"""A sheet: a table in the contract's columns that remembers where its cells came from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from mixlaw.errors import InputError

TOKENS = re.compile(r"tokens:([^:]+):(.+)")
PLAIN = ("run", "params", "seed", "progress", "lr", "warmup", "schedule")
PREFIXES = ("tokens:", "lr_end:", "decay:", "unique:", "metric:", "noise:", "stderr:", "count:")
_VERSIONS = re.compile(r"tokeni[sz]er|harness|(^|[^a-z])versions?([^a-z]|$)", re.IGNORECASE)
_SIZE = re.compile(r"\s*([0-9.]+)\s*([KMBT])\s*", re.IGNORECASE)
_POWERS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Label:
    """Something that should be the same in all rows that are compared: a tokenizer, the version of an evaluation.

    Attributes:
        name: what it is called.
        cells: its value per row, None where unknown.
        tasks: the tasks it belongs to; None, all of them.
    """

    name: str
    cells: tuple[str | None, ...]
    tasks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sheet:
    """A table in the contract's columns, and where it came from.

    Attributes:
        frame: columns as in `mixlaw.records`, and `stderr:<task>`, `count:<task>` if the evaluation gives them.
        places: what to call each row in a message.
        sources: column of the frame -> its original name, where they differ.
        units: task -> unit, if the source gives it.
        domains: domain -> kind and unique tokens, if the source gives them.
        labels: what should not differ between rows.
        notes: changes made to the table; warnings: what to check.
        rest: columns that mean nothing to mixlaw.
    """

    frame: pl.DataFrame
    places: tuple[str, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rest: pl.DataFrame = field(default_factory=pl.DataFrame)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the columns that mean nothing to mixlaw."""
        return tuple(self.rest.columns)

    def keep(self, rows: Sequence[int], notes: Sequence[str] = ()) -> Sheet:
        """Some of the rows, with notes on why."""
        places = tuple(self.places[row] for row in rows)
        rest = self.rest[list(rows)] if self.rest.columns else self.rest
        return replace(
            self,
            frame=self.frame[list(rows)],
            places=places,
            labels=self.labels_of(rows),
            notes=(*self.notes, *notes),
            rest=rest,
        )

    def labels_of(self, rows: Sequence[int]) -> tuple[Label, ...]:
        """Labels of some of the rows."""
        return tuple(Label(label.name, tuple(label.cells[row] for row in rows), label.tasks) for label in self.labels)

    @classmethod
    def plain(cls, frame: pl.DataFrame) -> Sheet:
        """A table that is in the contract's columns already; other columns are ignored, but for their versions."""
        others = [name for name in frame.columns if name and not in_contract(name)]
        return cls(
            frame.select(name for name in frame.columns if in_contract(name)),
            tuple(f"row {number}" for number in range(1, frame.height + 1)),
            labels=labels(frame, [name for name in others if tells_version(name)]),
            rest=frame.select(others),
        )

    def column(self, name: str, low: float = -math.inf, high: float = math.inf) -> list[float | None]:
        """Numbers of one column within a range, None where a cell is empty; all None where there is no such column.

        Raises:
            InputError: a cell is not a number or outside the range; names row and column.
        """
        if name not in self.frame.columns:
            return [None] * self.frame.height
        return numbers(self.frame[name], self.places, self.sources.get(name, name), low, high)

    def words(self, name: str, known: Sequence[str]) -> list[str | None]:
        """Words of one column, None where a cell is empty; all None where there is no such column.

        Raises:
            InputError: a cell is none of the known words; names row and column.
        """
        if name not in self.frame.columns:
            return [None] * self.frame.height
        cells = [str(cell).strip() if cell is not None else "" for cell in self.frame[name].to_list()]
        for place, cell in zip(self.places, cells, strict=True):
            if cell and cell not in known:
                raise InputError(
                    f"{place}, column {self.sources.get(name, name)!r}: {cell!r} must be one of {', '.join(known)}; "
                    "correct the cell or leave it empty"
                )
        return [cell or None for cell in cells]


def in_contract(column: str) -> bool:
    """Whether a column belongs to the contract."""
    return column in PLAIN or column.startswith(PREFIXES)


def tells_version(column: str) -> bool:
    """Whether a column that mixlaw does not read tells of a tokenizer or the version of an evaluation."""
    return _VERSIONS.search(column) is not None


def labels(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[Label, ...]:
    """Columns of a table as labels."""
    return tuple(Label(name, tuple(frame[name].cast(pl.String, strict=False).to_list())) for name in columns)


def numbers(
    cells: pl.Series, places: Sequence[str], column: str, low: float = -math.inf, high: float = math.inf
) -> list[float | None]:
    """Cells as numbers, None where empty; `470M` and the like are read as sizes.

    Raises:
        InputError: a cell is not a number, not finite or outside the range; names row and column.
    """
    values = cells.to_list() if cells.dtype.is_numeric() else [_number(cell) for cell in cells.to_list()]
    for place, cell, number in zip(places, cells.to_list(), values, strict=True):
        if number is None:
            continue
        if isinstance(number, str):
            raise InputError(
                f"{place}, column {column!r}: {cell!r} is not a number; correct the cell or leave it empty"
            )
        if not (math.isfinite(number) and low <= number <= high):
            raise InputError(
                f"{place}, column {column!r}: {cell} must be {_span(low, high)}; correct the cell or leave it empty"
            )
    return [None if number is None else float(number) for number in values]


def _number(cell: Any) -> float | str | None:
    """A cell as a number; as text where it is none; None where it is empty."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        return float(cell)
    except (TypeError, ValueError):
        size = _SIZE.fullmatch(str(cell))
    try:
        return float(size[1]) * _POWERS[size[2].upper()] if size else str(cell)
    except ValueError:
        return str(cell)


def _span(low: float, high: float) -> str:
    if low == -math.inf:
        return "finite" if high == math.inf else f"at most {high:g}"
    return f"between {low:g} and {high:g}" if high < math.inf else f"finite and >= {low:g}"


def together(sheets: Sequence[Sheet]) -> Sheet:
    """Several sheets as one; a column that a sheet lacks is empty there.

    Raises:
        InputError: they disagree on the unit of a task or on a domain.
    """
    if len(sheets) == 1:
        return sheets[0]
    units: dict[str, str] = {}
    domains: dict[str, Mapping[str, Any]] = {}
    for sheet in sheets:
        for task, unit in sheet.units.items():
            if units.setdefault(task, unit) != unit:
                raise InputError(f"task {task!r} is in {unit} and in {units[task]}; use one unit, or two names")
        domains.update(sheet.domains)
    heights = [sheet.frame.height for sheet in sheets]
    return Sheet(
        pl.concat([_as_floats(sheet.frame) for sheet in sheets], how="diagonal_relaxed"),
        tuple(place for sheet in sheets for place in sheet.places),
        {name: source for sheet in sheets for name, source in sheet.sources.items()},
        units,
        domains,
        _joined_labels(sheets, heights),
        tuple(dict.fromkeys(note for sheet in sheets for note in sheet.notes)),
        tuple(dict.fromkeys(warning for sheet in sheets for warning in sheet.warnings)),
        pl.concat([_numbered(sheet) for sheet in sheets], how="diagonal_relaxed").drop(""),
    )


def _numbered(sheet: Sheet) -> pl.DataFrame:
    """The columns that are not read, beside the places, so that there are rows even without columns."""
    return pl.DataFrame({"": list(sheet.places)}).with_columns(sheet.rest.get_columns())


def _as_floats(frame: pl.DataFrame) -> pl.DataFrame:
    numeric = frame.with_columns(
        (pl.selectors.integer() - pl.selectors.by_name("run", require_all=False)).cast(pl.Float64)
    )
    return numeric.with_columns(pl.selectors.by_name("run", require_all=False).cast(pl.String))


def _joined_labels(sheets: Sequence[Sheet], heights: Sequence[int]) -> tuple[Label, ...]:
    names = dict.fromkeys((label.name, label.tasks) for sheet in sheets for label in sheet.labels)
    labels = []
    for name, tasks in names:
        cells: list[str | None] = []
        for sheet, height in zip(sheets, heights, strict=True):
            own = [label.cells for label in sheet.labels if (label.name, label.tasks) == (name, tasks)]
            cells.extend(own[0] if own else [None] * height)
        labels.append(Label(name, tuple(cells), tasks))
    return tuple(labels)
