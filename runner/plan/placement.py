"""Which segment is trained where and when: one queue for a real run, and the same queue played through for a plan."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixlaw.runner.plan.devices import Machine, Place, Pool


@dataclass(frozen=True)
class Requirement:
    """What a segment requires: its parent to be done, this many devices of one machine, for this long.

    On devices that are idle it may be trained on up to `widest`, in proportionally less time.
    """

    parent: str | None
    devices: int
    seconds: float
    widest: int = 1

    def seconds_on(self, devices: int) -> float:
        """Seconds on this many devices."""
        return self.seconds * self.devices / devices


@dataclass(frozen=True)
class Slot:
    """A segment in its place, from `begin` to `end` seconds after the start."""

    lineage: str
    place: Place
    begin: float
    end: float


@dataclass(frozen=True)
class Choice:
    """A segment to begin, on how many devices, of one of these machines."""

    lineage: str
    devices: int
    machines: tuple[str, ...]


def _reservation(devices: int, free: Mapping[str, int], busy: Mapping[Place, float]) -> tuple[str | None, float]:
    """The machine that has this many devices free soonest, and the seconds until then; None where none ever has."""
    count = dict(free)
    for place, seconds in sorted(busy.items(), key=lambda item: item[1]):
        count[place.machine] = count.get(place.machine, 0) + len(place.devices)
        if place.machine in free and count[place.machine] >= devices:
            return place.machine, seconds
    return None, math.inf


class Queue:
    """Segments to be trained, each after its parent, those with the longest path of descendants first.

    If the first one finds too few free devices, a machine is kept for it, the one where they are free soonest; others
    begin where they do not hold it up (EASY backfill, Lifka 1995): on other machines, or if they end before. Devices
    that no ready segment needs widen the one that begins.

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
        self._ready: list[tuple[float, int, str]] = []  # in the order of training
        self._wanted = 0  # devices that these need
        for lineage in self._children.get(None, []):
            self.add(lineage)

    @property
    def first(self) -> str | None:
        """The segment to train next; None if none is ready."""
        return self._ready[0][2] if self._ready else None

    def take(self, lineage: str) -> str:
        """Remove a segment that is ready, to be trained."""
        del self._ready[bisect.bisect_left(self._ready, self._place(lineage))]
        self._wanted -= self.requirements[lineage].devices
        return lineage

    def choose(self, free: Mapping[str, int], busy: Mapping[Place, float]) -> Choice | None:
        """The segment to begin now, and where; None if there is none, or no room.

        Args:
            free: devices by machine.
            busy: the places in use, with the seconds until they are free.
        """
        if self.first is None or not any(free.values()):
            return None
        first = self.requirements[self.first]
        if any(first.devices <= count for count in free.values()):
            return Choice(self.first, self._width(first, free), tuple(free))
        machine, soonest = _reservation(first.devices, free, busy)
        elsewhere = max((count for name, count in free.items() if name != machine), default=0)
        for _, _, lineage in self._ready[1:]:
            other = self.requirements[lineage]
            before = other.seconds <= soonest  # over before the kept machine is wanted
            if other.devices <= max(elsewhere, free.get(machine or "", 0) if before else 0):
                return Choice(lineage, other.devices, tuple(name for name in free if before or name != machine))
        return None

    def _width(self, first: Requirement, free: Mapping[str, int]) -> int:
        """Devices for a segment that begins: those that it needs, doubled while no other ready segment wants them."""
        spare = sum(free.values()) - self._wanted
        most, width = min(first.widest, max(free.values()), first.devices + spare), first.devices
        while 2 * width <= most:
            width *= 2
        return width

    def add(self, lineage: str) -> None:
        """Make a segment ready, at first or once more."""
        bisect.insort(self._ready, self._place(lineage))
        self._wanted += self.requirements[lineage].devices

    def _place(self, lineage: str) -> tuple[float, int, str]:
        return self._priority[lineage], self._position[lineage], lineage

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
        while True:
            busy = {slot.place: slot.end - now for _, _, slot in running}
            choice = queue.choose({name: len(devices) for name, devices in pool.free.items()}, busy)
            if choice is None or (place := pool.take(choice.devices, choice.machines)) is None:
                break
            lineage = queue.take(choice.lineage)
            end = now + requirements[lineage].seconds_on(choice.devices)
            slots.append(Slot(lineage, place, now, end))
            heapq.heappush(running, (end, len(slots), slots[-1]))
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
