"""The state of a run: which segments are ready, done or failed, and which are blocked behind a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixlaw.printable import Printable
from mixlaw.runner.plan.devices import Needs, Place
from mixlaw.runner.plan.placement import Queue, Requirement
from mixlaw.runner.plan.tree import Segment

TRIES = 3  # deaths of workers over a segment from one checkpoint; a segment that fails with an error is not tried again


@dataclass(frozen=True)
class RunProgress:
    """State of a run, for a progress display.

    Attributes:
        done, total: FLOPs of training done, and of all that this call trains.
        segments_done, segments: the same as numbers of segments.
        training: worker number -> its segment and the tokens done.
        speeds: worker number -> tokens per second, as soon as it is known.
    """

    done: float
    total: float
    segments_done: int
    segments: int
    training: Mapping[int, tuple[Segment, int]]
    speeds: Mapping[int, float]


@dataclass(frozen=True)
class RunOutcome(Printable):
    """How a run ended: lineages that are done, those that failed with the reason, and those blocked by a failure.

    `unmeasured` holds, of those that are done, the tasks that could not be measured with the reason, and `queued` the
    jobs of lineages that wait in a cluster's queue.
    """

    done: tuple[str, ...]
    failed: Mapping[str, str]
    blocked: tuple[str, ...]
    unmeasured: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    queued: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        unmeasured = {lineage: dict(tasks) for lineage, tasks in self.unmeasured.items()}
        return {
            "done": list(self.done),
            "failed": dict(self.failed),
            "blocked": list(self.blocked),
            "unmeasured": unmeasured,
            "queued": dict(self.queued),
        }

    def __str__(self) -> str:
        if self.queued:
            return (
                f"{len(self.queued)} segments are in Slurm's queue; `squeue --me` lists them, repeat this once they end"
            )
        if not (self.done or self.failed or self.blocked or self.unmeasured):
            return "nothing to do: all segments are trained and measured"
        lines = [f"{lineage} failed: {why}" for lineage, why in self.failed.items()]
        behind = [f"{len(self.blocked)} segments behind it wait; fix the cause and run again"] if self.blocked else []
        lines += [
            f"{lineage} has no value of {task}: {why}; the next `mixlaw run` measures it"
            for lineage, tasks in self.unmeasured.items()
            for task, why in tasks.items()
        ]
        return "\n".join([f"{len(self.done)} segments done, {len(self.failed)} failed", *lines, *behind])


class RunQueue(Queue):
    """The segments of a run: waiting, done, failed, or blocked by a failure.

    Args:
        segments: parents before children.
        flops: lineage -> FLOPs.
        needs: devices that each size takes.
    """

    def __init__(self, segments: Sequence[Segment], flops: Mapping[str, float], needs: Mapping[int, Needs]) -> None:
        self.segments, self.flops = {segment.lineage: segment for segment in segments}, flops
        requirements = {}
        for segment in segments:
            need = needs[segment.recipe.params]
            # FLOPs stand for seconds: only their ratios count.
            seconds = flops[segment.lineage] / need.devices
            requirements[segment.lineage] = Requirement(segment.parent, need.devices, seconds, need.widest, need.share)
        super().__init__(requirements)
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}
        self._unmeasured: dict[str, Mapping[str, str]] = {}
        self._blocked: list[str] = []

    def finish(self, lineage: str, unmeasured: Mapping[str, str] | None = None) -> None:
        """Count a segment as done: its children are ready; `unmeasured` says which tasks have no value, and why."""
        super().finish(lineage)
        self._done.add(lineage)
        if unmeasured:
            self._unmeasured[lineage] = unmeasured

    def remaining(self, segment: Segment, tokens: int, place: Place) -> float:
        """What a segment that is trained in a place has still to do, in the unit of `Requirement.seconds`."""
        whole = self.requirements[segment.lineage].seconds_on(place.width)
        return whole * (1 - tokens / segment.tokens)

    def retry(self, lineage: str, beginning: str, reason: str) -> None:
        """The worker of a segment died: it is tried again, unless that happened TRIES times from this beginning."""
        self._deaths[lineage, beginning] += 1
        if self._deaths[lineage, beginning] < TRIES:
            self.add(lineage)
        else:
            self.fail(lineage, f"its worker died {TRIES} times, last {reason}")

    def fail(self, lineage: str, reason: str) -> None:
        """Give up a segment, and everything behind it."""
        self._failed[lineage] = reason
        self._blocked += self.behind(lineage)

    def progress(self, training: Mapping[int, tuple[Segment, int]], speeds: Mapping[int, float]) -> RunProgress:
        """State of the run, given what each worker trains and how fast."""
        part = sum(self.flops[s.lineage] * tokens / s.tokens for s, tokens in training.values())
        done = sum(self.flops[lineage] for lineage in self._done) + part
        return RunProgress(done, sum(self.flops.values()), len(self._done), len(self.segments), training, speeds)

    @property
    def outcome(self) -> RunOutcome:
        """What is done and what is not, in the order of the tree."""
        done, blocked = ([name for name in self.segments if name in names] for names in (self._done, self._blocked))
        return RunOutcome(tuple(done), dict(self._failed), tuple(blocked), dict(self._unmeasured))
