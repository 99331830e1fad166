"""Progress of a preparation: stages with their shares of the time, each advancing with the bytes that are done."""

from __future__ import annotations

from mixlaw.progress import Progress

#: Share of the time that each stage takes of a large corpus on few cores.
STAGES = {
    "reading": 0.25,
    "comparing": 0.02,
    "cleaning": 0.01,  # most studies have none
    "tokenizer": 0.02,
    "tokenising": 0.65,
    "writing": 0.04,
    "items": 0.01,
}


class Stages:
    """Reports the share of all work that is done; it never decreases."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._reported = progress, 0.0
        self._start = self._length = 0.0
        self._shares: dict[int, float] = {}

    def begin(self, stage: str, message: str, done: float = 0.0) -> None:
        """Enter a stage, of which a share was done before."""
        names = list(STAGES)
        self._start = sum(STAGES[name] for name in names[: names.index(stage)])
        self._length, self._shares = STAGES[stage], {}
        self.report(-1, done, message)

    def report(self, job: int, share: float, message: str) -> None:
        """Set the share of the stage that one of its jobs has done."""
        self._shares[job] = share
        self._reported = max(self._reported, min(1.0, self._start + self._length * sum(self._shares.values())))
        self._progress(self._reported, message)

    def end(self) -> None:
        """All is done."""
        self._progress(1.0, "done")
