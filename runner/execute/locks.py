"""One driver at a time in a study, or one for each of several segments, and none beside workers left earlier."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixlaw.errors import InputError


@contextmanager
def exclusive(runs: Path, segment: str | None = None) -> Iterator[int]:
    """Hold the locks of a study's runs; yields the file descriptor that workers inherit.

    The system releases a lock when the last process that holds it dies. The workers' lock is waited for: after a driver
    was killed, its workers hold it for some seconds, until they have noticed and saved a checkpoint.

    Args:
        runs: folder of the study's runs.
        segment: lineage of the one that is trained here, beside drivers of others; all of them if None.

    Raises:
        InputError: another driver holds the first lock.
    """
    runs.mkdir(parents=True, exist_ok=True)
    how, own = (fcntl.LOCK_EX, ".lock") if segment is None else (fcntl.LOCK_SH, f".{segment}.lock")
    with (runs / ".lock").open("a") as drivers, (runs / ".workers").open("a") as workers, (runs / own).open("a") as one:
        try:
            fcntl.flock(drivers, how | fcntl.LOCK_NB)
            if segment is not None:
                fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another `mixlaw run` is at work in {runs}; wait for it, or stop it and repeat") from None
        try:
            fcntl.flock(workers, how | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for workers that an earlier `mixlaw run` left in {runs} to save and end", file=sys.stderr)
            fcntl.flock(workers, how)
        yield workers.fileno()
