"""Processes that share the work on a corpus: they take jobs from the one that prepares it, and end when it ends.

A job is a function that can be pickled; it is called with a function that takes the share done. Processes are started
as `python -m mixlaw.runner.corpora.process_pool`: nothing of the caller is imported or forked, so that notebooks and
scripts of any form can prepare data, whatever threads run in them. Pickles on pipes pass between them, never files.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import IO, Any

from mixlaw.errors import InputError

Progress = Callable[[float], None]
Job = Callable[[Progress], Any]

#: Each process is one core's worth: the libraries below it would start as many threads as there are cores.
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
PAUSE = 0.2  # seconds between two messages of progress


class ProcessPool:
    """So many processes, or none: then jobs run here, one after another."""

    def __init__(self, processes: int) -> None:
        self._members = [_Member() for _ in range(processes)]
        self._free: SimpleQueue[_Member] = SimpleQueue()
        for member in self._members:
            self._free.put(member)

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.end()

    def run(self, jobs: Sequence[Job], tell: Callable[[int, float], None]) -> Iterator[tuple[int, Any]]:
        """Number and result of every job as it is done, in any order; `tell` takes a job's number and its share done.

        Raises:
            InputError: a job raised it.
            RuntimeError: a job failed, or a process died.
        """
        if not self._members:
            for number, job in enumerate(jobs):
                yield number, job(lambda share, number=number: tell(number, share))  # type: ignore[misc]
            return
        with ThreadPoolExecutor(len(self._members)) as threads:
            waiting = {threads.submit(self._call, n, job, tell): n for n, job in enumerate(jobs)}
            try:
                yield from _as_done(waiting)
            except BaseException:
                for future in waiting:
                    future.cancel()
                self.__exit__()  # a thread that waits for its process goes on
                raise

    def _call(self, number: int, job: Job, tell: Callable[[int, float], None]) -> Any:
        member = self._free.get()
        try:
            return member.call(job, lambda share: tell(number, share))
        finally:
            self._free.put(member)


def _as_done(waiting: dict[Future[Any], int]) -> Iterator[tuple[int, Any]]:
    left = set(waiting)
    while left:
        done, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)  # a wait without end would not hear Ctrl-C
        for future in done:
            yield waiting.pop(future), future.result()


class _Member:
    """One process, seen from the one that gives it jobs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mixlaw.runner.corpora.process_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def call(self, job: Job, tell: Progress) -> Any:
        """Run a job there and wait for its result."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            pickle.dump(job, self._process.stdin)
            self._process.stdin.flush()
            while (message := pickle.load(self._process.stdout))[0] == "share":
                tell(message[1])
        except (EOFError, OSError, ValueError) as error:
            raise RuntimeError(
                f"a process that prepared data ended with code {self._process.wait()}: what is done is kept, so run it "
                "again, with more memory where the system killed it"
            ) from error
        if message[0] == "input":
            raise InputError(message[1])
        if message[0] == "failed":
            raise RuntimeError(message[1])
        return message[1]

    def end(self) -> None:
        """Stop at once: files are whole or absent, so nothing is broken off."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert pipe
                pipe.close()


def _serve(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Run jobs until there are no more, or until the process that gives them is gone."""
    jobs: SimpleQueue[Job] = SimpleQueue()

    def listen() -> None:
        with suppress(EOFError):
            while True:
                jobs.put(_received(orders))
        os._exit(0)  # also in the middle of a job: nobody waits for it any more

    def answer(*message: object) -> None:
        pickle.dump(message, answers)
        answers.flush()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = jobs.get()
        try:
            answer("done", job(_seldom(lambda share: answer("share", share))))
        except InputError as error:
            answer("input", str(error))
        except Exception as error:
            answer("failed", f"{type(error).__name__}: {error}")


def _received(orders: IO[bytes]) -> Job:
    """The next job; where it cannot be read, one that says so."""
    try:
        job: Job = pickle.load(orders)
    except EOFError:
        raise
    except Exception as error:
        return partial(_refuse, f"a job cannot be read ({error}): its function must stand in a module")
    return job


def _refuse(message: str, tell: Progress) -> None:
    raise RuntimeError(message)


def _seldom(tell: Progress) -> Progress:
    last = time.monotonic()

    def told(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > PAUSE:
            last = time.monotonic()
            tell(share)

    return told


def main() -> None:
    """Serve; whatever prints goes to stderr, as stdout carries the answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the one that gives jobs decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
