"""Which segment is trained where and when: one queue for a real run, and the same queue played through for a plan."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixlaw.runner.plan.devices import PARTS, Machine, Place, Pool


@dataclass(frozen=True)
class Requirement:
    """What a segment requires: its parent to be done, this many devices, for this long.

    They are of one machine, or of several where none has that many.

    On devices that are idle it may be trained on up to `widest`, in proportionally less time. Where devices are short,
    `share` such segments are trained on one device, each in the same time.
    """

    parent: str | None
    devices: int
    seconds: float
    widest: int = 1
    share: int = 1

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
    """A segment to begin, on how many devices, of one of these machines, and how many may share one."""

    lineage: str
    devices: int
    machines: tuple[str, ...]
    share: int = 1


def _reservation(wanted: Requirement, pool: Pool, busy: Sequence[tuple[Place, float]]) -> tuple[Sequence[str], float]:
    """The machines with room for a segment soonest, and the seconds until then; none where none ever has."""
    whole, part = {name: len(devices) for name, devices in pool.free.items()}, PARTS // wanted.share
    parts = {(name, device): n for name, devices in pool.parts.items() for device, n in devices.items()}
    for place, seconds in sorted(busy, key=lambda item: item[1]):
        for each in place.by_machine:
            if each.machine not in whole:
                continue
            key, room = (each.machine, each.devices[0]), PARTS
            if each.share > 1:
                room = parts[key] = parts.get(key, 0) + PARTS // each.share
            if room == PARTS:
                whole[each.machine] += len(each.devices)
            if whole[each.machine] >= wanted.devices or part <= room < PARTS:
                return [each.machine], seconds
        if sum(whole.values()) >= wanted.devices > pool.largest:
            return [name for name, devices in whole.items() if devices], seconds
    return [], math.inf


class Queue:
    """Segments to be trained, each after its parent, those with the longest path of descendants first.

    If the first one finds too few free devices, a machine is kept for it, the one where they are free soonest, or those
    together that have them soonest; others begin where they do not hold it up (EASY backfill, Lifka 1995): on other
    machines, or if they end before. Devices
    that no ready segment needs widen the one that begins; where there are too few for all that are ready, small ones
    share a device.

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

    def choose(self, pool: Pool, busy: Sequence[tuple[Place, float]]) -> Choice | None:
        """The segment to begin now, and where; None if there is none, or no room.

        Args:
            pool: the devices that are free.
            busy: the places in use, with the seconds until they are free.
        """
        if self.first is None:
            return None
        first, spare = self.requirements[self.first], pool.whole - self._wanted
        share = 1 if spare >= 0 else first.share
        if pool.fits(first.devices, share):
            width = self._width(first, pool, spare) if share == 1 else 1
            return Choice(self.first, width, tuple(pool.free), share)
        if not pool.whole and not any(pool.parts.values()):
            return None
        kept, soonest = _reservation(first, pool, busy)
        others = [name for name in pool.free if name not in kept]
        rooms: dict[int, tuple[int, int]] = {}  # by share, elsewhere and on machines that are kept
        for _, _, lineage in self._ready[1:]:
            other = self.requirements[lineage]
            if other.share not in rooms:
                rooms[other.share] = pool.room(others, other.share), pool.room(kept, other.share)
            elsewhere, here = rooms[other.share]
            before = other.seconds <= soonest  # over before the kept ones are wanted
            if other.devices <= max(elsewhere, here if before else 0):
                return Choice(lineage, other.devices, tuple(pool.free) if before else tuple(others), other.share)
        return None

    def _width(self, first: Requirement, pool: Pool, spare: int) -> int:
        """Devices for a segment that begins: those that it needs, doubled while no other ready segment wants them."""
        most, width = min(first.widest, pool.room(pool.free, 1), first.devices + spare), first.devices
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
            busy = [(slot.place, slot.end - now) for _, _, slot in running]
            choice = queue.choose(pool, busy)
            if choice is None or (place := pool.take(choice.devices, choice.machines, choice.share)) is None:
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
