"""Files: text, JSON lines (plain, gzip, zstandard) and Parquet, by path or glob."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import below, named
from mixlaw.runner.corpora.sources.compressed import SUFFIXES, opened
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.part import Part, batches, name_of

COLUMN = "text"
SLICE = 2**28  # bytes of a plain JSONL or Parquet file that make a part of their own


def matching(pattern: str, root: Path) -> list[Path]:
    """Files that a path or glob names, relative to `root`, sorted; a folder means all files below it.

    Raises:
        InputError: there is no such file.
    """
    files = below(named(pattern, root))
    if not files:
        raise InputError(f"no file matches the source {pattern!r} below {root}: name an existing path or glob")
    return files


def file_parts(source: str, root: Path) -> list[Part]:
    """Parts of a source `path` or `path#column`: a batch of small files, or a slice of a large one.

    Raises:
        InputError: no file matches; when read, the content of a file does not fit its suffix.
    """
    pattern, _, column = source.partition("#")
    return [
        part for files, size in batches(matching(pattern, root)) for part in _parts(files, size, column or COLUMN, root)
    ]


def _parts(files: Sequence[Path], size: int, column: str, root: Path) -> Iterator[Part]:
    name = name_of(files[0], root)
    if size <= SLICE or len(files) > 1 or not _can_be_cut(files[0]):
        yield Part(name, partial(_read_all, files, column), size)
        return
    for begin in range(0, size, SLICE):
        end = min(size, begin + SLICE)
        yield Part(f"{name}@{begin}", partial(_read_slice, files[0], column, begin, end, size), end - begin)


def _can_be_cut(path: Path) -> bool:
    return path.suffix == ".parquet" or (_is_lines(path) and path.suffix not in SUFFIXES)


def _read_all(files: Sequence[Path], column: str) -> Iterator[Document]:
    for file in files:
        yield from _read(file, column)


def _is_lines(path: Path) -> bool:
    """Whether a file holds a JSON object a line; compressed .json does where corpora are published."""
    kinds = path.suffixes[-2:]
    return ".jsonl" in kinds or ".ndjson" in kinds or (path.suffix in SUFFIXES and ".json" in kinds)


def _read(path: Path, column: str) -> Iterator[Document]:
    if path.suffix == ".parquet":
        texts = _parquet(path, column)
    elif _is_lines(path):
        texts = _json_lines(path, column)
    else:
        texts = iter([_whole(path)])
    for number, text in enumerate(texts):
        yield Document(text, f"{path}:{number}")


def _read_slice(path: Path, column: str, begin: int, end: int, size: int) -> Iterator[Document]:
    """Documents of the lines that begin in these bytes, or of rows in proportion; all slices are the whole file."""
    lines = path.suffix != ".parquet"
    texts = _lines_between(path, column, begin, end) if lines else _parquet(path, column, (begin / size, end / size))
    for number, text in enumerate(texts):
        yield Document(text, f"{path}@{begin}:{number}")


def _whole(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): leave it out or convert it"
        ) from error


def _parquet(path: Path, column: str, between: tuple[float, float] = (0.0, 1.0)) -> Iterator[str]:
    import polars

    try:
        frame = polars.scan_parquet(path).select(column)
        if (kind := frame.collect_schema()[column]) != polars.String:
            raise InputError(f"{path}: the column {column!r} holds {kind} instead of text: name another as path#column")
        rows = int(frame.select(polars.len()).collect().item())
        first, last = (round(share * rows) for share in between)
        for batch in frame.slice(first, last - first).collect_batches():
            yield from (text for text in batch[column] if text)
    except polars.exceptions.PolarsError as error:
        raise InputError(f"{path} cannot be read for the column {column!r}: {str(error).splitlines()[0]}") from error


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _field(line, column, f"{path} line {number}")


def _lines_between(path: Path, column: str, begin: int, end: int) -> Iterator[str]:
    with path.open("rb") as lines:
        if begin:
            lines.seek(begin - 1)
            lines.readline()  # the line under way belongs to the slice before
        while (at := lines.tell()) < end and (line := lines.readline()):
            if line.strip():
                yield _field(line, column, f"{path} at byte {at}")


def _field(line: bytes, column: str, where: str) -> str:
    try:
        row: Any = json.loads(line)
        text = row[column]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is no JSON object with a field {column!r}: name the field as path#field") from error
    if not isinstance(text, str):
        raise InputError(f"{where}: the field {column!r} holds {text!r:.40} instead of text")
    return text
