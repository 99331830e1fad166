"""What of a tree is still to do: which segments are ready, in what order, and what a failure leaves undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixlaw.printable import Printable
from mixlaw.runner.plan.tree import Segment

TRIES = 3  # of a segment from one checkpoint, its worker dying; a segment that fails with an error is not tried again


@dataclass(frozen=True)
class RunProgress:
    """State of a run, told to a progress display.

    Attributes:
        done, total: FLOPs of training finished and to be done in this call.
        segments_done, segments: the same in segments.
        doing: worker number -> segment and its tokens done.
        speeds: worker number -> tokens per second, of those that have told.
    """

    done: float
    total: float
    segments_done: int
    segments: int
    doing: Mapping[int, tuple[Segment, int]]
    speeds: Mapping[int, float]


@dataclass(frozen=True)
class Outcome(Printable):
    """What a run left: lineages that are done, those that failed with the reason, and those behind a failure."""

    done: tuple[str, ...]
    failed: Mapping[str, str]
    blocked: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"done": list(self.done), "failed": dict(self.failed), "blocked": list(self.blocked)}

    def __str__(self) -> str:
        lines = [f"{lineage} failed: {why}" for lineage, why in self.failed.items()]
        behind = [f"{len(self.blocked)} segments behind it wait; mend the cause and run again"] if self.blocked else []
        return "\n".join([f"{len(self.done)} segments done, {len(self.failed)} failed", *lines, *behind])


class Queue:
    """The segments of a run: waiting, done, failed, or blocked by a failure.

    Args:
        segments: parents before children.
        flops: lineage -> FLOPs.
        needs: lineage -> devices.
    """

    def __init__(self, segments: Sequence[Segment], flops: Mapping[str, float], needs: Mapping[str, int]) -> None:
        self.segments = {segment.lineage: segment for segment in segments}
        self.waiting = dict(self.segments)
        self.flops = flops
        seconds = {s.lineage: (s.parent, flops[s.lineage] / needs[s.lineage]) for s in segments}
        self._ahead = critical_paths(seconds)
        self._tries: Counter[tuple[str, str | None]] = Counter()
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}
        self._blocked: list[str] = []

    @property
    def ready(self) -> list[Segment]:
        """Segments that can be trained now, the longest way to go first."""
        found = (s for s in self.waiting.values() if s.parent not in self.segments or s.parent in self._done)
        return sorted(found, key=lambda s: -self._ahead[s.lineage])

    def take(self, segment: Segment) -> None:
        """A segment is being trained."""
        del self.waiting[segment.lineage]

    def finish(self, segment: Segment) -> None:
        """A segment is done: its children are ready."""
        self._done.add(segment.lineage)

    def died(self, segment: Segment, origin: str | None, why: str) -> None:
        """The worker of a segment died: it waits again, unless that happened too often from this checkpoint."""
        self._tries[segment.lineage, origin] += 1
        if self._tries[segment.lineage, origin] < TRIES:
            self.waiting[segment.lineage] = segment
        else:
            self.fail(segment, f"its worker died {TRIES} times, last {why}")

    def fail(self, segment: Segment, why: str) -> None:
        """Give a segment up, and everything behind it."""
        self._failed[segment.lineage] = why
        lost = {segment.lineage}
        for other in list(self.waiting.values()):
            if other.parent in lost:
                lost.add(other.lineage)
                self._blocked.append(other.lineage)
                del self.waiting[other.lineage]

    def progress(self, doing: Mapping[int, tuple[Segment, int]], speeds: Mapping[int, float]) -> RunProgress:
        """State of the run, given what each worker does and how fast."""
        part = sum(self.flops[s.lineage] * tokens / s.tokens for s, tokens in doing.values())
        done = sum(self.flops[lineage] for lineage in self._done) + part
        return RunProgress(done, sum(self.flops.values()), len(self._done), len(self.segments), doing, speeds)

    @property
    def outcome(self) -> Outcome:
        """What is done and what is not, in the order of the tree."""
        done = tuple(lineage for lineage in self.segments if lineage in self._done)
        return Outcome(done, dict(self._failed), tuple(self._blocked))


def critical_paths(jobs: Mapping[str, tuple[str | None, float]]) -> dict[str, float]:
    """Time from the start of each job to the end of its longest line of descendants, given (parent, duration).

    Example:
        >>> critical_paths({"trunk": (None, 3.0), "long": ("trunk", 2.0), "short": ("trunk", 1.0)})
        {'trunk': 5.0, 'long': 2.0, 'short': 1.0}
    """
    ahead = {job: length for job, (_, length) in jobs.items()}
    for job in _children_first(jobs):
        parent = jobs[job][0]
        if parent is not None and parent in ahead:
            ahead[parent] = max(ahead[parent], jobs[parent][1] + ahead[job])
    return ahead


def _children_first(jobs: Mapping[str, tuple[str | None, float]]) -> Iterable[str]:
    """Jobs, every one before its parent."""

    def depth(job: str) -> int:
        parent = jobs[job][0]
        return 1 + depth(parent) if parent is not None and parent in jobs else 0

    return sorted(jobs, key=lambda job: -depth(job))
