"""A foreign table while a mapping is applied to it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.adapters.mapping import BLANK, Reading, Value, blank
from mixlaw.adapters.tables import Source
from mixlaw.cells import numbers, texts
from mixlaw.errors import InputError, did_you_mean, some

#: A column of the table in a name: "{column}".
FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass
class Mapped:
    """A table on its way into the contract: the columns so far, their original names, and notes.

    Attributes:
        source: the table.
        columns: contract column -> cells.
        sources: contract column -> what its author called it.
        used: columns of the table that have a meaning.
        notes: what was done.
    """

    source: Source
    columns: dict[str, pl.Series] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, cells: Any, source: str) -> None:
        """Add a column of the contract.

        Raises:
            InputError: another column became the same one.
        """
        if name in self.columns:
            raise InputError(f"{source!r} and {self.sources[name]!r} both become {name!r}; tell them apart by name")
        self.columns[name] = pl.Series(name, cells, nan_to_null=True, strict=False)
        self.sources[name] = source

    def numbers(self, column: str, **options: bool) -> NDArray[np.float64]:
        """A column of the table as numbers, NaN where empty, shape (rows,).

        A cell that is no number is empty and goes into the log of the table.

        Raises:
            InputError: there is no such column.
        """
        frame = self.source.frame
        if column not in frame.columns:
            raise self.absent(column)
        self.used.add(column)
        return np.array(numbers(frame[column], self.source.places, column, log=self.source.log, **options), np.float64)

    def absent(self, column: str) -> InputError:
        """The error for a column that the mapping names and the table lacks."""
        columns = self.source.frame.columns
        if column == BLANK:
            return blank(columns)
        meant = did_you_mean(column, columns) or f"there are {some(columns)}"
        return InputError(f"there is no column {column!r}; {meant}: fix the mapping")

    def value(self, value: Value, *, counts: bool = True) -> NDArray[np.float64]:
        """A value of the mapping for every row, NaN where empty, shape (rows,).

        A cell may be a size, such as 470M, where nothing scales it again, or a percentage where it `counts` nothing.
        """
        if isinstance(value, str):
            value = Reading(column=value)
        if not isinstance(value, Reading):
            return np.full(self.source.frame.height, float(value))
        scale, over = (self.numbers(n) if isinstance(n, str) else n for n in (value.scale, value.over))
        sizes = counts and isinstance(scale, float) and scale == 1 and isinstance(over, float) and over == 1
        with np.errstate(divide="ignore", invalid="ignore"):
            cells = self.numbers(value.column, sizes=sizes) * scale / over + value.offset
        return cells if value.empty is None else np.where(np.isnan(cells), value.empty, cells)

    def words(self, word: str) -> list[str | None]:
        """A column of words, or one word for every row where there is no such column."""
        frame = self.source.frame
        if word not in frame.columns:
            return [word] * frame.height
        self.used.add(word)
        return texts(frame[word])

    def names(self, template: str) -> list[str]:
        """A name with {column} in it, for every row."""
        keys = FIELD.findall(template)
        for key in keys:
            if key != "file" and key not in self.source.frame.columns:
                raise self.absent(key)
        cells = {key: texts(self.source.frame[key]) for key in keys if key != "file"}
        self.used.update(cells)
        made = []
        for row in range(self.source.frame.height):
            own = {"file": self.source.name, **{key: column[row] or "" for key, column in cells.items()}}
            made.append(FIELD.sub(lambda match, own=own: own[match[1]], template))  # type: ignore[misc]
        return made
