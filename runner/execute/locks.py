"""One driver at a time in a study, and none beside workers that an earlier one left."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixlaw.errors import InputError


@contextmanager
def exclusive(runs: Path) -> Iterator[int]:
    """Hold the locks of a study's runs; yields the file descriptor that workers inherit.

    The system releases a lock when the last process that holds it dies. The workers' lock is waited for: after a driver
    was killed, its workers hold it for some seconds, until they have noticed and saved a checkpoint.

    Raises:
        InputError: another driver holds the first lock.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("w") as drivers, (runs / ".workers").open("w") as workers:
        try:
            fcntl.flock(drivers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another `mixlaw run` is at work in {runs}; wait for it, or stop it and repeat") from None
        try:
            fcntl.flock(workers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for workers that an earlier `mixlaw run` left in {runs} to save and end", file=sys.stderr)
            fcntl.flock(workers, fcntl.LOCK_EX)
        yield workers.fileno()
