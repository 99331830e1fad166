"""What commands have in common: opening a study, reading groups, and printing a result as text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.printable import Printable

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.study import Study


def open_study_at(path: Path, target: Mapping[str, Any] | None = None) -> Study:
    """The study in a folder, with changes to its [target]."""
    from mixlaw.study import open_study

    return open_study(path, target=target)


def groups_of(words: Sequence[str]) -> dict[str, list[str]] | None:
    """Groups of tasks from words such as `code=humaneval,mbpp`; None where there are none.

    Raises:
        InputError: a word of another form, or two groups of one name.
    """
    groups: dict[str, list[str]] = {}
    for word in words:
        name, _, tasks = word.partition("=")
        if not name or not tasks or name in groups:
            raise InputError(f"a group is NAME=TASK,TASK and each name is given once, got {word!r}; correct it")
        groups[name] = tasks.split(",")
    return groups or None


def tokens_of(words: Sequence[str]) -> dict[str, int] | None:
    """Tokens by domain from words such as `code=10B`; None where there are none.

    Raises:
        InputError: a word of another form.
    """
    from mixlaw.runner.models.ladder import parse_size

    pairs = [word.partition("=") for word in words]
    wrong = [word for word, (name, _, count) in zip(words, pairs, strict=True) if not name or not count]
    if wrong:
        raise InputError(f"more tokens are DOMAIN=TOKENS, for instance code=10B, got {wrong[0]!r}; correct it")
    return {name: parse_size(count) for name, _, count in pairs} or None


def table_writer(path: Path) -> Callable[[pl.DataFrame], None]:
    """What writes a table to a path, whole or not at all, in the format that its ending names.

    Raises:
        InputError: no table has that ending.
    """
    from mixlaw.files import replacing

    writers = {".csv": "csv", ".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson"}
    if path.suffix.lower() not in writers:
        raise InputError(f"cannot write {str(path)!r}: tables end in {', '.join(writers)}; name it so")

    def write(table: pl.DataFrame) -> None:
        with replacing(path) as temporary:
            getattr(table, f"write_{writers[path.suffix.lower()]}")(temporary)

    return write


def print_file(path: Path, as_json: bool, rows: int | None = None) -> None:
    """A file that was written, and its rows if it is a table."""
    if as_json:
        print(json.dumps({"path": str(path), **({} if rows is None else {"rows": rows})}))
    else:
        print(f"wrote {path}" + ("" if rows is None else f", {rows:,} rows"))


def print_result(result: Any, as_json: bool) -> None:
    """The result on stdout: as text, or as one JSON document; of several results, one after the other or merged."""
    results = result if isinstance(result, list) else [result]
    result = results[0]
    if as_json:
        merged = {key: value for one in results for key, value in one.as_json().items()}
        print(json.dumps(merged, indent=1, ensure_ascii=False), flush=True)
    elif len(results) > 1:
        print("\n\n".join(map(str, results)), flush=True)
    elif sys.stdout.isatty() and isinstance(result, Printable):
        from rich.console import Console

        Console(highlight=False).print(result, soft_wrap=True)
    else:
        print(result, flush=True)
