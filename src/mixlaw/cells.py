"""Cells of tables, whatever wrote them: names are text as it is written, numbers are read where they are due.

A table may be text through and through, as CSV is, or typed, as Parquet and data frames are; both give the same.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from mixlaw.errors import InputError

#: Words that mean an empty cell where a number is due, in lower case.
EMPTY = frozenset({"", "-", "nan", "na", "n/a", "#n/a", "<na>", "null", "none"})
#: Words for a value that grew out of bounds, as a loss that diverged.
INFINITE = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
#: Cells that one message names.
SHOWN = 10
FEW = 3  # rows with the same fault that are named
#: A number of parameters may be rounded by this much of it, and by no more.
ROUNDING = 1e-6

#: The head of a text that a spreadsheet takes for a formula, and the apostrophes that keep it from that.
_FORMULA, _KEPT_TEXT = re.compile(r"^('*[=+@-])"), re.compile(r"^'('*[=+@-])")
_SIZE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMBT])", re.IGNORECASE)
_POWERS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
_GROUPED_OTHERWISE = re.compile(r"[1-9]\d{0,2}([.'\u2019 \u00a0\u2009\u202f])\d{3}(\1\d{3})+", re.ASCII)
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def csv_of(frame: pl.DataFrame) -> str:
    """A frame as CSV; texts that a spreadsheet would run as formulas have an apostrophe at their head."""
    return frame.with_columns(pl.col(pl.String).str.replace(_FORMULA.pattern, "'${1}")).write_csv()


def cell_text(cell: str) -> str:
    """A cell of CSV without blanks around it and without the apostrophe of `csv_of`."""
    return _KEPT_TEXT.sub(r"\1", cell.strip())


@dataclass
class CellLog:
    """What was met while the cells of a table were read, so that one message has all of it.

    Attributes:
        faults: place, column, what is wrong with a cell, and what to do about it.
        blanks: place and column of cells that hold a word for nothing, such as NaN.
        diverged: place and column of losses that are infinite.
    """

    faults: list[tuple[str, str, str, str]] = field(default_factory=list)
    blanks: set[tuple[str, str]] = field(default_factory=set)
    diverged: set[tuple[str, str]] = field(default_factory=set)

    def add(self, place: str, column: str, problem: str, remedy: str = "correct the cell or leave it empty") -> None:
        """Note a cell that cannot be read; one is enough."""
        if not any(fault[:2] == (place, column) for fault in self.faults[-SHOWN:]):
            self.faults.append((place, column, problem, remedy))

    def check(self) -> None:
        """Refuse the table if any cell could not be read.

        Raises:
            InputError: names the first ten, with row and column.
        """
        if not self.faults:
            return
        alike: dict[tuple[str, str], list[str]] = {}
        for place, column, problem, _ in self.faults:
            alike.setdefault((column, problem), []).append(place)
        shown = [f"{_few(places)}, column {c!r}: {p}" for (c, p), places in [*alike.items()][:SHOWN]]
        remedies = list(dict.fromkeys(remedy for *_, remedy in self.faults))
        if len(self.faults) == 1:
            raise InputError(f"{shown[0]}; {remedies[0]}")
        left = len(self.faults) - sum(len(places) for places in [*alike.values()][:SHOWN])
        more = f"; and {left} more" if left else ""
        remedy = remedies[0] if len(remedies) == 1 else "correct the cells or leave them empty"
        raise InputError(f"{len(self.faults)} cells are wrong: {'; '.join(shown)}{more}; {remedy}")

    def take(self, other: CellLog) -> None:
        """Add what another log holds."""
        self.faults += other.faults
        self.blanks |= other.blanks
        self.diverged |= other.diverged


def _few(places: Sequence[str]) -> str:
    """Rows with the same fault."""
    return ", ".join(places) if len(places) <= FEW else f"{', '.join(places[:FEW])} and {len(places) - FEW} more"


def texts(cells: pl.Series) -> list[str | None]:
    """Cells as text without blanks around it, None where empty.

    Whole numbers that a data frame holds as floats, as pandas does beside an empty cell, have no `.0`.
    """
    if cells.dtype.is_float() and bool((cells.drop_nulls().drop_nans() % 1 == 0).all()):
        return [None if cell is None or math.isnan(cell) else f"{cell:.0f}" for cell in cells.to_list()]
    return [text_of(cell) for cell in cells.to_list()]


def text_of(cell: Any) -> str | None:
    """One cell as text; of a list or a mapping, its JSON."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, pl.Series):
        cell = cell.to_list()
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "backslashreplace")
    if isinstance(cell, list | tuple | dict):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell).strip() or None


def series_of(name: str, cells: Iterable[Any]) -> pl.Series:
    """A column of Python values: numbers stay numbers where all are, anything else is text."""
    values = [None if cell is None or str(cell) in ("<NA>", "NaT") else cell for cell in cells]
    kinds = {type(cell) for cell in values if cell is not None}
    if kinds <= {int} and all(cell is None or abs(cell) < 2**63 for cell in values):
        return pl.Series(name, values, pl.Int64)
    if kinds <= {int, float} and all(not isinstance(cell, int) or abs(cell) <= 2**53 for cell in values):
        return pl.Series(name, values, pl.Float64, strict=False)
    if kinds == {bool}:
        return pl.Series(name, values, pl.Boolean)
    return pl.Series(name, [text_of(cell) for cell in values], pl.String)


def as_frame(table: Any) -> pl.DataFrame:
    """A data frame as a polars one; of a pandas frame, a named index is a column.

    Raises:
        InputError: it is no data frame, or has a column twice.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if not hasattr(table, "to_dict") or not hasattr(table, "columns"):
        raise InputError(f"a table is a path, a polars or a pandas DataFrame, got {type(table).__name__}")
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    names = [str(name) for name in table.columns]
    refuse_twice(names, "data frame")
    return pl.DataFrame({name: series_of(name, table.iloc[:, i].tolist()) for i, name in enumerate(names)})


def refuse_twice(names: Sequence[str], what: str) -> None:
    """Refuse a table that has a column twice.

    Raises:
        InputError: names it.
    """
    if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise InputError(f"{what}: column {twice[0]!r} occurs twice; rename or remove one of them")


def numbers(
    cells: pl.Series,
    places: Sequence[str],
    column: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    log: CellLog,
    sizes: bool = False,
    whole: bool = False,
    diverging: bool = False,
    infinite: bool = False,
) -> list[float | None]:
    """Cells as numbers, None where empty; what is none, or outside the range, goes into the log.

    Args:
        cells: of one column.
        places: what to call each row.
        column: what to call the column.
        low, high: ends of the range.
        log: of the table.
        sizes: whether the cells are counts: 470M and 14B are numbers then, 50% is one elsewhere.
        whole: whether a number must be whole, up to a rounding of one in a million.
        diverging: whether infinity is a loss that diverged, and empty.
        infinite: whether infinity is a number within the range.
    """
    found: list[float | None] = []
    for place, cell in zip(places, cells.to_list(), strict=True):
        number = _number(cell, sizes)
        if number is None or (isinstance(number, float) and math.isnan(number)):
            if cell is not None and str(cell).strip():
                log.blanks.add((place, column))
            number = None
        elif isinstance(number, str):
            log.add(place, column, number)
            number = None
        elif diverging and number == math.inf:
            log.diverged.add((place, column))
            number = None
        elif not ((math.isfinite(number) or infinite) and low <= number <= high):
            log.add(place, column, f"{cell} must be {_span(low, high)}")
            number = None
        elif whole and abs(number - round(number)) > ROUNDING * abs(number):
            log.add(place, column, f"{cell} must be a whole number")
            number = None
        found.append(number)
    return found


def _number(cell: Any, sizes: bool) -> float | str | None:
    """A cell as a number; what is wrong with it where it is none; None where it is empty."""
    if cell is None:
        return None
    if isinstance(cell, bool):
        return f"{str(cell).lower()!r} is not a number"
    if isinstance(cell, int | float):
        return float(cell)
    text = (text_of(cell) or "").strip()
    if text.lower() in EMPTY:
        return None
    if _PLAIN.fullmatch(text.replace("_", "")) and not text.startswith("_"):
        return float(text.replace("_", ""))
    if not sizes and text.endswith("%") and _PLAIN.fullmatch(text[:-1].strip()):
        return float(text[:-1]) / 100
    if text.lower() in INFINITE:
        return float(text)
    if size := _SIZE.fullmatch(text):
        number = float(size[1]) * _POWERS[size[2].upper()]
        return number if sizes else f"{text!r} is a size, not a number"
    return f"{text[:60]!r} is not a number{_hint(text)}"


def _hint(text: str) -> str:
    """What a text that is no number was probably meant to be."""
    if text.endswith("%") and _PLAIN.fullmatch(text[:-1].strip()):
        return " (give a count, not a percentage)"
    if _GROUPED.fullmatch(text):
        without = text.replace(",", "")
        return f" (write {without}, or {text.replace(',', '.')})" if text.count(",") == 1 else f" (write {without})"
    if _GROUPED_OTHERWISE.fullmatch(text):
        return f" (write {re.sub(r'[^0-9]', '', text)})"
    if text[:1] == "\u2212" and _PLAIN.fullmatch(text[1:]):
        return f" (write -{text[1:]})"
    return " (write a point, not a comma)" if _PLAIN.fullmatch(text.replace(",", ".", 1)) else ""


def _span(low: float, high: float) -> str:
    if low == -math.inf:
        return "finite" if high == math.inf else f"at most {high:g}"
    return f"between {low:g} and {high:g}" if high < math.inf else f"finite and >= {low:g}"
