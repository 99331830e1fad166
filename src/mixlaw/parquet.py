"""Parquet files of others, read by a process of their own: a damaged one makes the reader panic, print or abort.

`frames` asks the process, `python -m mixlaw.parquet`; it serves one file after another, and ends with its parent.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from mixlaw.errors import InputError

_AGAIN = "; fetch or export it again"
_DAMAGED = "it is damaged" + _AGAIN
_idle: dict[int, subprocess.Popen[bytes]] = {}  # by the process that started it, of which a fork is another


def frames(path: Path, column: str | None = None, between: tuple[float, float] = (0.0, 1.0)) -> Iterator[pl.DataFrame]:
    """A file as data frames: whole, or of one column those rows that lie between two shares of it, in batches.

    Of a column, the first frame has no rows, but tells its type.

    Raises:
        InputError: the file cannot be read; says why.
    """
    process = _idle.pop(os.getpid(), None)
    if process is None or process.poll() is not None:
        process = _started()
    assert process.stdin is not None
    assert process.stdout is not None
    answer: Any = _DAMAGED
    try:
        pickle.dump((os.path.abspath(path), column, between), process.stdin)
        process.stdin.flush()
        while isinstance(answer := pickle.load(process.stdout), pl.DataFrame):
            yield answer
    except (EOFError, OSError, pickle.UnpicklingError):
        answer = _DAMAGED
    finally:  # what panicked, ended, or was left in the middle of a file serves no other
        if isinstance(answer, pl.DataFrame) or answer == _DAMAGED or _idle.setdefault(os.getpid(), process) != process:
            process.kill()
            process.communicate()
    if answer is not None:
        what = "as parquet" if column is None else f"for the column {column!r}"
        raise InputError(f"{path} cannot be read {what}: {answer}")


def _started() -> subprocess.Popen[bytes]:
    """A process that reads; what it prints of a file is lost."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "mixlaw.parquet"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)


def _serve() -> None:
    """Answer each request on standard input with frames and None, or with a sentence in place of None."""
    while True:
        try:
            path, column, between = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: Any = None
        try:
            for frame in _whole(path) if column is None else _column(path, column, between):
                pickle.dump(frame, sys.stdout.buffer)
        except pl.exceptions.PanicException:
            answer = _DAMAGED
        except pl.exceptions.ColumnNotFoundError:
            columns = ", ".join(pl.read_parquet_schema(path))
            answer = f"it has no such column, but {columns:.200}: name another as path#column"
        except (pl.exceptions.PolarsError, OSError) as error:
            answer = str(error).partition("\n")[0].rstrip(".") + _AGAIN
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.flush()


def _whole(path: str) -> Iterator[pl.DataFrame]:
    with open(path, "rb") as file:  # one file, whatever brackets and stars its name has
        yield pl.read_parquet(file)


def _column(path: str, column: str, between: tuple[float, float]) -> Iterator[pl.DataFrame]:
    frame = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(column)
    yield pl.DataFrame(schema=frame.collect_schema())
    rows = int(frame.select(pl.len()).collect().item())
    first, last = (round(share * rows) for share in between)
    yield from frame.slice(first, last - first).collect_batches()


if __name__ == "__main__":
    _serve()
