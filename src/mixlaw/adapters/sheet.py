"""A sheet: a table in the contract's columns that remembers where its cells came from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from mixlaw.cells import EMPTY, CellLog, numbers, refuse_twice, texts
from mixlaw.errors import InputError
from mixlaw.records import phase_order

TOKENS = re.compile(r"tokens:([^:]+):(.+)")
PLAIN = ("run", "params", "seed", "progress", "lr", "warmup", "schedule")
TEXT = ("run", "schedule")
MEASURED = ("metric:", "noise:", "stderr:", "count:")
PREFIXES = ("tokens:", "lr_end:", "decay:", "unique:", *MEASURED)
_VERSIONS = re.compile(r"tokeni[sz]er|harness|(^|[^a-z])versions?([^a-z]|$)", re.IGNORECASE)


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
        log: what was met while the cells were read.
        phases: in the order of training, if a mapping gives it.
        mapped: whether a mapping said what its columns mean.
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
    log: CellLog = field(default_factory=CellLog, compare=False)
    phases: tuple[str, ...] = ()
    mapped: bool = False

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
        frame = _without_blanks(frame)
        others = [name for name in frame.columns if name and not in_contract(name)]
        return cls(
            frame.select(name for name in frame.columns if in_contract(name)),
            tuple(f"row {number}" for number in range(1, frame.height + 1)),
            labels=labels(frame, [name for name in others if tells_version(name)]),
            rest=frame.select(others),
        )

    def column(self, name: str, low: float = -math.inf, high: float = math.inf, **more: bool) -> list[float | None]:
        """Numbers of one column, None where a cell is empty; all None where there is no such column.

        Args:
            name: of the column.
            low, high: ends of the range; what is outside goes into the log.
            more: diverging, as `mixlaw.cells.numbers` takes it.
        """
        if name not in self.frame.columns:
            return [None] * self.frame.height
        original = self.sources.get(name, name)
        return numbers(self.frame[name], self.places, original, low, high, log=self.log, **options(name), **more)

    def names(self, name: str) -> list[str]:
        """Text of one column, of which no cell may be empty; an empty one goes into the log."""
        found = texts(self.frame[name])
        for place, text in zip(self.places, found, strict=True):
            if text is None:
                self.log.add(place, self.sources.get(name, name), "the cell is empty", "fill it")
        return [text or "" for text in found]

    def words(self, name: str, known: Sequence[str]) -> list[str | None]:
        """Words of one column, None where a cell is empty; all None where there is no such column.

        A cell that is none of the known words goes into the log.
        """
        if name not in self.frame.columns:
            return [None] * self.frame.height
        found: list[str | None] = []
        for place, cell in zip(self.places, texts(self.frame[name]), strict=True):
            word = None if cell is None or cell.lower() in EMPTY else cell
            if word is not None and word not in known:
                self.log.add(place, self.sources.get(name, name), f"{word!r} must be one of {', '.join(known)}")
            found.append(word if word in known else None)
        return found


def _without_blanks(frame: pl.DataFrame) -> pl.DataFrame:
    """The table without blanks around the parts of its columns: `tokens: init:web` is no other phase.

    Raises:
        InputError: two columns become the same.
    """
    tidy = {name: re.sub(r"\s*:\s*", ":", name.strip()) for name in frame.columns}
    tidy = {name: clean if in_contract(clean) else name for name, clean in tidy.items()}
    refuse_twice(list(tidy.values()), "table")
    return frame.rename(tidy)


def in_contract(column: str) -> bool:
    """Whether a column belongs to the contract."""
    return column in PLAIN or column.startswith(PREFIXES)


def options(column: str) -> dict[str, bool]:
    """How the cells of a column of the contract are read, beside their range."""
    counts = column in ("params", "warmup") or column.startswith(("tokens:", "unique:"))
    return {"sizes": counts, "whole": column in ("params", "warmup", "seed") or column.startswith("count:")}


def tells_version(column: str) -> bool:
    """Whether a column that mixlaw does not read tells of a tokenizer or the version of an evaluation."""
    return _VERSIONS.search(column) is not None


def labels(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[Label, ...]:
    """Columns of a table as labels."""
    return tuple(Label(name, tuple(texts(frame[name]))) for name in columns)


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
    log = CellLog()
    for sheet in sheets:
        log.take(sheet.log)
    return Sheet(
        pl.concat([sheet.frame for sheet in sheets], how="diagonal_relaxed"),
        tuple(place for sheet in sheets for place in sheet.places),
        {name: source for sheet in sheets for name, source in sheet.sources.items()},
        units,
        domains,
        _joined_labels(sheets, heights),
        tuple(dict.fromkeys(note for sheet in sheets for note in sheet.notes)),
        tuple(dict.fromkeys(warning for sheet in sheets for warning in sheet.warnings)),
        pl.concat([_numbered(sheet) for sheet in sheets], how="diagonal_relaxed").drop(""),
        log,
        tuple(phase_order(dict.fromkeys(sheet.phases for sheet in sheets))),
        any(sheet.mapped for sheet in sheets),
    )


def _numbered(sheet: Sheet) -> pl.DataFrame:
    """The columns that are not read, as text, beside the places, so that there are rows even without columns."""
    columns = [pl.Series(name, texts(sheet.rest[name]), pl.String) for name in sheet.rest.columns]
    return pl.DataFrame({"": list(sheet.places)}).with_columns(columns)


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
