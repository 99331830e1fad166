"""Progress of a preparation: stages with their shares of the time, each advancing with the bytes that are done."""

from __future__ import annotations

import threading

from mixlaw.progress import Progress

#: Share of the time that each stage takes of a large corpus on few cores.
STAGES = {"reading": 0.25, "comparing": 0.03, "tokenizer": 0.02, "tokenising": 0.65, "writing": 0.04, "items": 0.01}


class Stages:
    """Where a preparation is; never goes back, may be told by several threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self._start = self._length = self._told = 0.0
        self._shares: dict[int, float] = {}

    def begin(self, stage: str, what: str, done: float = 0.0) -> None:
        """Enter a stage, of which a share was done before."""
        names = list(STAGES)
        self._start = sum(STAGES[name] for name in names[: names.index(stage)])
        self._length, self._shares = STAGES[stage], {-1: done}
        self._tell(what)

    def tell(self, job: int, share: float, what: str) -> None:
        """So much of the stage is done by one of its jobs."""
        with self._lock:
            self._shares[job] = share
            self._tell(what)

    def end(self) -> None:
        """All is done."""
        self._progress(1.0, "done")

    def _tell(self, what: str) -> None:
        self._told = max(self._told, min(1.0, self._start + self._length * sum(self._shares.values())))
        self._progress(self._told, what)
