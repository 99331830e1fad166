"""Processes that share the work on a corpus: loky's executor, with the progress of each job, ended with their parent.

Loky (of joblib) neither forks nor imports the caller's main module, so notebooks and scripts of any form can prepare
data, whatever threads run in them.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

import numpy as np

Report = Callable[[float], None]
Job = Callable[[Report], Any]

#: Each process uses one core: the libraries below it would start as many threads as there are cores.
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
PAUSE = 0.2  # seconds between two looks at progress, and at whether the parent is alive


class ProcessPool:
    """Runs jobs in processes; with 0 processes in this one, one job after another.

    A job can be pickled, and is called with a function that takes the share done, 0 to 1.
    """

    def __init__(self, processes: int) -> None:
        self._executor = None
        if processes:
            from joblib.externals.loky import ProcessPoolExecutor

            self._executor = ProcessPoolExecutor(
                processes, initializer=_end_with, initargs=(os.getpid(),), env=ENVIRONMENT
            )

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:  # files are whole or absent, so a killed job leaves nothing broken
            self._executor.shutdown(kill_workers=True)

    def run(self, jobs: Sequence[Job], report: Callable[[int, float], None]) -> Iterator[tuple[int, Any]]:
        """Number and result of every job as it is done, in any order; `report` takes a job's number and its share done.

        Raises:
            RuntimeError: a process died.
            Exception: whatever a job raised.
        """
        if self._executor is None:
            for number, job in enumerate(jobs):
                yield number, job(lambda share, number=number: report(number, share))  # type: ignore[misc]
        elif jobs:
            with tempfile.NamedTemporaryFile(prefix="mixlaw-") as file:
                shares = np.memmap(file.name, np.float64, "w+", shape=len(jobs))
                try:
                    yield from self._run(jobs, report, shares, file.name)
                except BaseException:
                    self.__exit__()
                    raise

    def _run(
        self, jobs: Sequence[Job], report: Callable[[int, float], None], shares: np.memmap[Any, Any], path: str
    ) -> Iterator[tuple[int, Any]]:
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        assert self._executor is not None
        numbers = {self._executor.submit(_call, job, number, path): number for number, job in enumerate(jobs)}
        reported = np.zeros(len(jobs))
        while numbers:
            done, _ = wait(numbers, timeout=PAUSE, return_when=FIRST_COMPLETED)
            for number in np.flatnonzero(shares != reported).tolist():
                reported[number] = shares[number]
                report(number, float(reported[number]))
            for future in done:
                try:
                    yield numbers.pop(future), future.result()
                except TerminatedWorkerError as error:
                    raise RuntimeError(
                        "a process that prepared data was killed: finished work is kept, so run it again, with more "
                        "memory where the system killed it"
                    ) from error


def _call(job: Job, number: int, path: str) -> Any:
    shares = np.memmap(path, np.float64, "r+")
    return job(lambda share: shares.__setitem__(number, share))


def _end_with(parent: int) -> None:
    """End this process, in the middle of a job or not, when its parent is gone; leave Ctrl-C to the parent.

    The parent may be gone already when this begins: its process ID is passed, not asked for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PAUSE)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
