"""What commands have in common: opening a study, reading groups, and printing a result as text or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError, printable
from mixlaw.printable import Page, Printable
from mixlaw.tables import Column, Table, number
from mixlaw.terminal import console_of, group_of, plain, width_of

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.study import Study

#: Of the JSON documents that have no number of their own; docs/json.md says what they hold.
FORMAT = 1
SHOWN = 40  # predictions that are printed


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
    from mixlaw.cells import csv_of
    from mixlaw.files import replacing

    writers: dict[str, Callable[[pl.DataFrame, Path], object]] = {
        ".csv": lambda table, to: to.write_text(csv_of(table), encoding="utf-8"),
        ".parquet": lambda table, to: table.write_parquet(to),
        ".ndjson": lambda table, to: table.write_ndjson(to),
        ".jsonl": lambda table, to: table.write_ndjson(to),
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"cannot write {str(path)!r}: tables end in {', '.join(writers)}; name it so")

    def write(table: pl.DataFrame) -> None:
        with replacing(path) as temporary:
            writers[path.suffix.lower()](table, temporary)

    return write


@dataclass(frozen=True)
class Printing:
    """How results are printed: as JSON, with everything or the answer alone."""

    as_json: bool = False
    everything: bool = False
    quiet: bool = False


_PRINTING: ContextVar[Printing | None] = ContextVar("printing", default=None)


def _how() -> Printing:
    return _PRINTING.get() or Printing()


@contextmanager
def printing(*, as_json: bool, quiet: bool, verbose: bool, everything: bool = False) -> Iterator[None]:
    """Let results and progress inside be printed in this way."""
    from mixlaw.progress import detail

    token = _PRINTING.set(Printing(as_json, everything, quiet))
    try:
        with detail(verbose - quiet):
            yield
    finally:
        _PRINTING.reset(token)


@dataclass(frozen=True)
class Written:
    """A file that was written, and its rows if it is a table."""

    path: Path
    rows: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"path": str(self.path), **({} if self.rows is None else {"rows": self.rows})}

    def __str__(self) -> str:
        return f"wrote {self.path}" + ("" if self.rows is None else f", {self.rows:,} rows")


@dataclass(frozen=True)
class Predictions(Printable):
    """Predictions for the recipes of a table: a table in a terminal, CSV in a pipe."""

    frame: pl.DataFrame

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"rows": self.frame.to_dicts()}

    def page(self) -> Page:
        """A row per row and task; 90 % intervals of one newly trained run."""
        values = {"mean": "value", "lo90": "from", "hi90": "to"}
        columns = [
            Column(values.get(name, name), name, kind.is_numeric(), name in ("progress", "law_only"))
            for name, kind in self.frame.schema.items()
        ]
        rows = [[number(c, ".4g") if isinstance(c, float) else str(c) for c in row] for row in self.frame.iter_rows()]
        return Page(f"{self.frame.height:,} predictions", tables=[Table("predictions", columns, rows, shown=SHOWN)])


def print_result(result: Any) -> None:
    """The result on stdout: as text, or as one JSON document; of several results, one after the other or merged."""
    results = result if isinstance(result, list) else [result]
    if _how().as_json:
        merged = {key: value for one in results for key, value in one.as_json().items()}
        print_json(merged)
        return
    for place, one in enumerate(results):
        if place:
            print()
        _print_one(one)
    sys.stdout.flush()


def print_json(document: Mapping[str, Any]) -> None:
    """One document on stdout, with the number of its format."""
    print(printable(json.dumps({"format": FORMAT, **document}, indent=1, ensure_ascii=False)), flush=True)


def _print_one(result: Any) -> None:
    how = _how()
    if not isinstance(result, Printable):
        print(printable(str(result)))
        return
    if isinstance(result, Predictions) and not sys.stdout.isatty():
        from mixlaw.cells import csv_of

        print(csv_of(result.frame), end="")
        return
    page = result.page()
    if how.quiet:
        page = Page(page.answer or page.head.partition("\n")[0], page.tone)
    if sys.stdout.isatty() or os.environ.get("FORCE_COLOR"):
        console = console_of(sys.stdout)
        console.print(group_of(page, console.width, everything=how.everything), crop=False)
    elif how.quiet:
        print(printable(page.answer))
    else:
        print(plain(page, everything=how.everything, width=width_of(sys.stdout)))


def print_warning(message: str) -> None:
    """What to look at, on stderr, where a table may go to stdout; nothing where the message is empty."""
    if message and not _how().quiet:
        print(f"mixlaw: warning: {printable(message)}", file=sys.stderr)


def print_error(message: str, as_json: bool) -> None:
    """What went wrong, on stderr; also as a JSON document on stdout where one was asked for."""
    if as_json:
        print_json({"error": message})
    if sys.stderr.isatty():
        from rich.text import Text

        console_of(sys.stderr).print(Text.assemble(("mixlaw: ", "bold red"), printable(message)))
    else:
        print(f"mixlaw: {printable(message)}", file=sys.stderr)
