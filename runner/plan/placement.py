"""Which segment is trained where and when: one queue for a real run, and the same queue played through for a plan."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixlaw.runner.plan.devices import Machine, Place, Pool


@dataclass(frozen=True)
class Requirement:
    """What a segment requires: its parent to be done, this many devices of one machine, for this long."""

    parent: str | None
    devices: int
    seconds: float


@dataclass(frozen=True)
class Slot:
    """A segment in its place, from `begin` to `end` seconds after the start."""

    lineage: str
    place: Place
    begin: float
    end: float


class Queue:
    """Segments to be trained, each after its parent, those with the longest path of descendants first.

    If the first one finds too few free devices, the others wait with it: small segments cannot hold a wide one up.

    Args:
        requirements: by lineage, parents before children.
    """

    def __init__(self, requirements: Mapping[str, Requirement]) -> None:
        self.requirements = requirements
        self._priority = {lineage: -length for lineage, length in critical_paths(requirements).items()}
        self._position = {lineage: index for index, lineage in enumerate(requirements)}
        self._children: dict[str | None, list[str]] = {}
        for lineage, requirement in requirements.items():
            parent = requirement.parent if requirement.parent in requirements else None
            self._children.setdefault(parent, []).append(lineage)
        self._ready: list[tuple[float, int, str]] = []
        for lineage in self._children.get(None, []):
            self.add(lineage)

    @property
    def first(self) -> str | None:
        """The segment to train next; None if none is ready."""
        return self._ready[0][2] if self._ready else None

    def take(self) -> str:
        """Remove the first one, to be trained."""
        return heapq.heappop(self._ready)[2]

    def add(self, lineage: str) -> None:
        """Make a segment ready, at first or once more."""
        heapq.heappush(self._ready, (self._priority[lineage], self._position[lineage], lineage))

    def finish(self, lineage: str) -> None:
        """Count a segment as trained: its children are ready."""
        for child in self._children.get(lineage, []):
            self.add(child)

    def behind(self, lineage: str) -> list[str]:
        """Segments that need this one, directly or not."""
        below = [lineage]
        for name in below:
            below.extend(self._children.get(name, []))
        return below[1:]


def schedule(requirements: Mapping[str, Requirement], machines: Sequence[Machine]) -> list[Slot]:
    """Play a run through: segments in their places, by the time at which they begin."""
    queue, pool, slots, now = Queue(requirements), Pool(machines), list[Slot](), 0.0
    running: list[tuple[float, int, Slot]] = []
    while queue.first or running:
        while queue.first and (place := pool.take(requirements[queue.first].devices)) is not None:
            lineage = queue.take()
            slots.append(Slot(lineage, place, now, now + requirements[lineage].seconds))
            heapq.heappush(running, (slots[-1].end, len(slots), slots[-1]))
        now, _, done = heapq.heappop(running)
        pool.give(done.place)
        queue.finish(done.lineage)
    return slots


def critical_paths(requirements: Mapping[str, Requirement]) -> dict[str, float]:
    """Seconds from the beginning of each segment to the end of its longest line of descendants.

    Example:
        >>> trunk, long, short = (Requirement(p, 1, s) for p, s in ((None, 3.0), ("trunk", 2.0), ("trunk", 1.0)))
        >>> critical_paths({"trunk": trunk, "long": long, "short": short})
        {'trunk': 5.0, 'long': 2.0, 'short': 1.0}
    """
    ahead = {lineage: requirement.seconds for lineage, requirement in requirements.items()}
    for lineage, requirement in reversed(list(requirements.items())):  # children before their parents
        if requirement.parent in ahead:
            parent = requirements[requirement.parent]
            ahead[requirement.parent] = max(ahead[requirement.parent], parent.seconds + ahead[lineage])
    return ahead
