"""Files: text, JSON lines, JSON (each plain, gzip or zstandard) and Parquet, by path or glob."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.address import below, exists, hidden, named
from mixlaw.runner.corpora.sources.compressed import SUFFIXES, opened
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.encodings import decoded, parsed, values
from mixlaw.runner.corpora.sources.part import Part, batches, is_pointer, name_of

COLUMN = "text"
SLICE = 2**28  # bytes of a plain JSONL or Parquet file that make a part of their own
SHOWN = 4  # names of files that are left out

#: What the folder of a published data set holds besides documents; of files that are read whole, and of JSON.
ABOUT = re.compile(
    r"readme([._-].*)?|licen[cs]e(\.\w+)?|citation\.cff|_success|(dataset_(infos?|dict)|state)\.json",
    re.IGNORECASE,
)
#: Checksums of files, beside them or together.
SUMS = re.compile(r"((md5|sha\d+)(sums?)?|checksums?)(\.(txt|md5|sha\d+))?|.*\.(md5|sha\d+|crc)", re.IGNORECASE)


def split(source: str, root: Path) -> tuple[str, str]:
    """Path or glob, and column, of a source `path` or `path#column`; the path of something may hold a # itself."""
    pattern, _, column = source.partition("#")
    return (source, COLUMN) if exists(source, root) else (pattern, column or COLUMN)


def matching(source: str, root: Path) -> list[Path]:
    """Files of a source, relative to `root`, sorted; a folder means all files below it that can be documents.

    Raises:
        InputError: there is no such file.
    """
    paths, about = _named(source, root)
    files = [file for file in below(paths) if file not in about]
    if not files:
        seen = "".join(f"; {note}" for note in left_out(source, root))
        raise InputError(f"no file matches the source {source!r} below {root}{seen}: name an existing path or glob")
    return files


def left_out(source: str, root: Path) -> list[str]:
    """What a source of files does not read though it is there, in words."""
    paths, about = _named(source, root)
    pointers = [file for file in below(paths) if file not in about and is_pointer(file)]
    return [
        f"left out {_listed(files, root)}{why}"
        for files, why in (
            (sorted(about), ""),
            (sorted(hidden(paths)), " (hidden)"),
            (pointers, " (Git LFS pointers: run `git lfs pull` there)"),
        )
        if files
    ]


def _named(source: str, root: Path) -> tuple[list[Path], set[Path]]:
    """Files and folders of a source, and the files there that are about the others, unless asked for by ending."""
    pattern, _ = split(source, root)
    paths = named(pattern, root)
    asked = set(paths) if Path(pattern).suffix or exists(pattern, root) else set()
    return paths, {file for file in below(paths) if file not in asked and is_about(file)}


def is_about(file: PurePath) -> bool:
    """Whether a file of a folder is about the others, by its name."""
    return bool(SUMS.fullmatch(file.name) or (ABOUT.fullmatch(file.name) and not _is_rows(file)))


def _listed(files: Sequence[Path], root: Path) -> str:
    names = [name_of(file, root) for file in files[:SHOWN]]
    return ", ".join(names) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")


def file_parts(source: str, root: Path) -> list[Part]:
    """Parts of a source `path` or `path#column`: a batch of small files, or a slice of a large one.

    Raises:
        InputError: no file matches; when read, the content of a file does not fit its suffix.
    """
    column = split(source, root)[1]
    found = batches(matching(source, root))
    return [part for files, size in found for part in _parts(files, size, column, root)]


def _parts(files: Sequence[Path], size: int, column: str, root: Path) -> Iterator[Part]:
    name = name_of(files[0], root)
    if size <= SLICE or len(files) > 1 or not _can_be_cut(files[0]):
        yield Part(name, partial(_read_all, files, column), size)
        return
    for begin in range(0, size, SLICE):
        end = min(size, begin + SLICE)
        yield Part(f"{name}@{begin}", partial(_read_slice, files[0], column, begin, end, size), end - begin)


def _kinds(path: PurePath) -> list[str]:
    """The last endings of a name, that of compression aside."""
    kinds = [suffix.lower() for suffix in path.suffixes]
    return (kinds[:-1] if kinds and kinds[-1] in SUFFIXES else kinds)[-2:]


def _is_lines(path: PurePath) -> bool:
    return ".jsonl" in _kinds(path) or ".ndjson" in _kinds(path)


def _is_parquet(path: PurePath) -> bool:
    return path.suffix.lower() == ".parquet"


def _is_rows(path: PurePath) -> bool:
    return _is_lines(path) or _is_parquet(path)


def _can_be_cut(path: Path) -> bool:
    return _is_parquet(path) or (_is_lines(path) and path.suffix.lower() not in SUFFIXES)


def _read_all(files: Sequence[Path], column: str) -> Iterator[Document]:
    for file in files:
        if not is_pointer(file):
            yield from read_file(file, column)


def read_file(path: Path, column: str) -> Iterator[Document]:
    """Documents of a file, by its ending; `column` holds the text of rows."""
    if _is_parquet(path):
        texts = _parquet(path, column)
    elif _is_lines(path):
        texts = _json_lines(path, column)
    elif _kinds(path)[-1:] == [".json"]:
        texts = _json_values(path, column)
    else:
        texts = iter([_whole(path, column)])
    for number, text in enumerate(texts):
        yield Document(text, f"{path}:{number}")


def _read_slice(path: Path, column: str, begin: int, end: int, size: int) -> Iterator[Document]:
    """Documents of the lines that begin in these bytes, or of rows in proportion; all slices are the whole file."""
    lines = not _is_parquet(path)
    texts = _lines_between(path, column, begin, end) if lines else _parquet(path, column, (begin / size, end / size))
    for number, text in enumerate(texts):
        yield Document(text, f"{path}@{begin}:{number}")


def _whole(path: Path, column: str) -> str:
    with opened(path) as stream:
        text = decoded(stream.read(), str(path)).replace("\r\n", "\n").replace("\r", "\n")
    _refuse_rows(path, text.partition("\n")[0], column)
    return text


def _refuse_rows(path: Path, first: str, column: str) -> None:
    """Refuse rows under the name of another format, which would be one document with keys, quotes and all.

    Args:
        path: of a file that is read whole.
        first: its first line.
        column: that holds the text of rows.
    """
    row = None
    with suppress(ValueError, RecursionError):
        row = json.loads(first) if first.startswith("{") else None
    if isinstance(row, dict) and column in row:
        raise InputError(f"{path} holds JSON lines with a field {column!r}: let its name end in .jsonl")
    comma = {".csv": ",", ".tsv": "\t"}.get(_kinds(path)[-1] if _kinds(path) else "")
    if comma and column in (cell.strip().strip('"') for cell in first.split(comma)):
        raise InputError(f"{path} is a table with a column {column!r}: write its rows as .parquet or .jsonl")


def _parquet(path: Path, column: str, between: tuple[float, float] = (0.0, 1.0)) -> Iterator[str]:
    import polars

    from mixlaw.parquet import frames

    for frame in frames(path, column, between):
        kind = frame.schema[column]
        if kind in (polars.Categorical, polars.Enum):  # text all the same
            frame, kind = frame.cast({column: polars.String}), polars.String()
        if kind != polars.String:
            raise InputError(f"{path}: the column {column!r} holds {kind} instead of text: name another as path#column")
        yield from (text or "" for text in frame[column])


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.removeprefix(BOM_UTF8).strip():
                where = f"{path} line {number}"
                yield _field(parsed(line, where), column, where)


def _json_values(path: Path, column: str) -> Iterator[str]:
    with opened(path) as stream:
        rows = values(stream, str(path), "fetch it again; sources of JSON as it is are tree:PATH?languages=json")
        for number, row in enumerate(rows, 1):
            yield _field(row, column, f"{path} value {number}")


def _lines_between(path: Path, column: str, begin: int, end: int) -> Iterator[str]:
    with path.open("rb") as lines:
        if begin:
            lines.seek(begin - 1)
            lines.readline()  # the line under way belongs to the slice before
        while (at := lines.tell()) < end and (line := lines.readline()):
            if line.removeprefix(BOM_UTF8).strip():
                where = f"{path} at byte {at}"
                yield _field(parsed(line, where), column, where)


def _field(row: Any, column: str, where: str) -> str:
    """The text of a row; empty where it is null, so that it counts as a blank document."""
    if not isinstance(row, dict):
        raise InputError(f"{where} holds {row!r:.40} instead of an object with a field {column!r}: leave the file out")
    if column not in row:
        fields = ", ".join(map(repr, row)) or "none"
        raise InputError(f"{where} has no field {column!r}, but {fields:.200}: name the field as path#field")
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise InputError(
            f"{where}: the field {column!r} holds {text!r:.40} instead of text: name another as path#field"
        )
    return text or ""
