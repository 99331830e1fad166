"""Files and data frames into tables: CSV and NDJSON as text, cell for cell as it is written, Parquet as it is typed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mixlaw.cells import as_frame, cell_text, refuse_twice, text_of
from mixlaw.errors import InputError
from mixlaw.files import kind_of, read_text
from mixlaw.parquet import frames

#: What a table may be: a path, a polars or a pandas DataFrame.
Table = str | Path | pl.DataFrame | Any

_SHEETS = frozenset({".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers"})
_PACKED = frozenset({".zip", ".zst", ".xz", ".bz2", ".7z", ".lz4"})
#: Numbers with a comma, and those of them in which it may be one of thousands.
_COMMA = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)? *%?")
_UNCLEAR = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_LONGEST = 1 << 30  # of a cell, in characters; a configuration as JSON is longer than the csv module expects


def read_table(path: Path) -> pl.DataFrame:
    """Read CSV, TSV, NDJSON or Parquet, by the ending of the name; the first three may be packed as .gz.

    Raises:
        InputError: no such file, another ending, content that is not of that format, or a column that is there twice.
    """
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    ending = endings[-2] if endings[-1:] == [".gz"] and len(endings) > 1 else "".join(endings[-1:])
    if ending not in _READERS:
        raise InputError(f"cannot read {str(path)!r}: supported are {', '.join(_READERS)}; {_way_out(path, ending)}")
    if not os.path.exists(path):
        raise InputError(f"there is no table {str(path)!r}; check the path")
    return _READERS[ending](path)


def _way_out(path: Path, ending: str) -> str:
    """What to do with a file whose ending is that of no table, by its ending and by what it begins with."""
    with path.open("rb") if os.path.isfile(path) else io.BytesIO() as file:
        head = file.read(16)
    if ending in _SHEETS and (not head or kind_of(head)):
        return "save the sheet as CSV (UTF-8)"
    if ending == ".json":
        return "write an object per line and name it .jsonl (in pandas, to_json with orient='records', lines=True)"
    if ending in _PACKED:
        return "unpack it, or pack it as .gz"
    if head and not kind_of(head):
        return "if it is text, let its name end in .csv (commas between cells) or .tsv (tabs)"
    return "save it as one of them, as data frames do with write_parquet or to_csv"


def frame_of(table: Table) -> pl.DataFrame:
    """A table as a polars frame: a file, or a polars or pandas data frame.

    Raises:
        InputError: as `read_table`; or it is no table.
    """
    return read_table(Path(table)) if isinstance(table, str | Path) else as_frame(table)


def _separated(path: Path, comma: str) -> pl.DataFrame:
    """Rows of cells between commas, all text; a blank around a cell is not part of it."""
    text = read_text(path)
    csv.field_size_limit(_LONGEST)
    lines = _lines(csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True), path)
    number, header = next(lines, (0, []))
    if header and header[0].lower() == "sep=":  # for Excel
        number, header = next(lines, (0, []))
    if comma == "," and len(header) == 1 and ";" in header[0]:
        return _with_points(_separated(path, ";"), path)
    header = [name.strip() for name in header]
    while header and not header[-1]:
        header.pop()
    refuse_twice(header, str(path))
    _refuse_other_separator(header, path, comma)
    cells: list[list[str | None]] = [[] for _ in header]
    for number, row in lines:
        short = len(row) < len(header)
        if len(header) == 1 and len(row) > 1 and not cells[0]:
            raise InputError(f"{path} begins with {header[0]!r:.80}, which is no header; remove what stands above it")
        if any(cell.strip() for cell in row[len(header) :]):
            raise InputError(f"{path}, line {number}: {len(row)} cells, but the header has {len(header)}; fix the line")
        if short and row and number >= text.count("\n") + 1:
            raise InputError(f"{path}, line {number}: the file ends in the middle of a row; write it again")
        for column, cell in zip(cells, [*row, *[""] * (len(header) - len(row))], strict=False):
            column.append(cell_text(cell) or None)
    kept = [i for i, name in enumerate(header) if name or i == header.index("")]  # of columns without a name, one
    return pl.DataFrame({header[i]: pl.Series(cells[i], dtype=pl.String) for i in kept})


def _lines(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the lines on which they end."""
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; fix the quotes there") from error


def _refuse_other_separator(header: Sequence[str], path: Path, comma: str) -> None:
    if not header:
        raise InputError(f"{path} is empty; a table begins with the names of its columns")
    others = {"\t": ("tabs", ".tsv"), ",": ("commas", ".csv")}
    for other, (name, ending) in others.items():
        if len(header) == 1 and other != comma and other in header[0]:
            raise InputError(f"{path} is separated by {name}; name it {ending}")


def _with_points(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Cells that stood between semicolons: there, sheets write commas in numbers.

    Raises:
        InputError: every comma may be one of thousands.
    """
    commas = [cell for column in frame for cell in column if cell and _COMMA.fullmatch(cell)]
    if commas and all(_UNCLEAR.fullmatch(cell) for cell in commas):
        raise InputError(
            f"{path} is separated by semicolons, so {commas[0]!r} may be a fraction; write it with a point"
        )
    return frame.with_columns(pl.all().map_elements(_pointed, pl.String))


def _pointed(cell: str) -> str:
    return cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell


def _json_lines(path: Path) -> pl.DataFrame:
    """A JSON object per line; numbers stay as they are written, lists and mappings are their JSON."""
    columns: dict[str, list[str | None]] = {}
    height = 0
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_once)
        except RecursionError:
            raise InputError(f"{path}, line {number} is nested too deeply; fix the line") from None
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}; fix the line") from error
        if not isinstance(row, dict):
            raise InputError(f'{path}, line {number} holds no object; write a row as {{"run": ..., ...}}')
        for name, cell in row.items():
            columns.setdefault(name.strip(), [None] * height).append(text_of(cell))
        height += 1
        for cells in columns.values():
            if len(cells) < height:
                cells.append(None)
            elif len(cells) > height:
                raise InputError(f"{path}, line {number}: two keys differ by blanks alone; rename one of them")
    return pl.DataFrame({name: pl.Series(cells, dtype=pl.String) for name, cells in columns.items()})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which no key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def _parquet(path: Path) -> pl.DataFrame:
    """Typed columns; the path is one file, whatever brackets and stars its name has."""
    (frame,) = frames(path)
    return frame


_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: _separated(path, ","),
    ".tsv": lambda path: _separated(path, "\t"),
    ".ndjson": _json_lines,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
