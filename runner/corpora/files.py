"""Corpora of one's own: text files, JSON lines (plain, gzip, zstandard) and Parquet, by path or glob."""

from __future__ import annotations

import gzip
import importlib
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.document import Document
from mixlaw.runner.corpora.part import Part, batches, name_of

COLUMN = "text"


def matching(pattern: str, root: Path) -> list[Path]:
    """Files that a path or glob names, relative to `root`, sorted; a folder stands for all files below it.

    Raises:
        InputError: there is no such file.
    """
    absolute = Path(pattern).expanduser()
    base, relative = (
        (Path(absolute.anchor), str(absolute.relative_to(absolute.anchor)))
        if absolute.is_absolute()
        else (root, pattern)
    )
    found = [base / relative] if (base / relative).exists() else sorted(base.glob(relative))
    files = sorted(
        {file for path in found for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()}
    )
    if not files:
        raise InputError(f"no file matches the source {pattern!r} below {root}: name an existing path or glob")
    return files


def file_parts(source: str, root: Path) -> list[Part]:
    """Parts of a source `path` or `path#column`: a file that holds many documents, or a batch of those that are one.

    Raises:
        InputError: no file matches; when read, a file that is not what its suffix says.
    """
    pattern, _, column = source.partition("#")
    return [
        Part(name_of(files[0], root), partial(_read_all, files, column or COLUMN), size)
        for files, size in batches(matching(pattern, root))
    ]


def _read_all(files: Sequence[Path], column: str) -> Iterator[Document]:
    for file in files:
        yield from _read(file, column)


def _read(path: Path, column: str) -> Iterator[Document]:
    if path.suffix == ".parquet":
        texts = _parquet(path, column)
    elif ".jsonl" in path.suffixes[-2:]:
        texts = _json_lines(path, column)
    else:
        texts = iter([_whole(path)])
    for number, text in enumerate(texts):
        yield Document(text, f"{path}:{number}")


def _whole(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): leave it out or convert it"
        ) from error


def _parquet(path: Path, column: str) -> Iterator[str]:
    import polars

    try:
        for batch in polars.scan_parquet(path).select(column).collect_batches():
            yield from (text for text in batch[column] if text)
    except polars.exceptions.PolarsError as error:
        raise InputError(f"{path} cannot be read for the column {column!r}: {str(error).splitlines()[0]}") from error


def _json_lines(path: Path, column: str) -> Iterator[str]:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _field(line, column, f"{path} line {number}")


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix != ".zst":
        return path.open(encoding="utf-8")
    try:
        zstandard = importlib.import_module("zstandard")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is compressed with zstandard: run pip install zstandard, or recompress it as .gz"
        ) from error
    return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(path.open("rb")), encoding="utf-8")


def _field(line: str, column: str, where: str) -> str:
    try:
        row: Any = json.loads(line)
        text = row[column]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is no JSON object with a field {column!r}: name the field as path#field") from error
    if not isinstance(text, str):
        raise InputError(f"{where}: the field {column!r} holds {text!r:.40} instead of text")
    return text
