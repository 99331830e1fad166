"""Which segment is trained where and when: the executors' order, played through with the time each segment takes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixlaw.runner.execute.machines import Machine, Place, Pool
from mixlaw.runner.execute.queue import critical_paths


@dataclass(frozen=True)
class Job:
    """Something to be done after its parent: on so many devices of one machine, for so long."""

    parent: str | None
    devices: int
    seconds: float


@dataclass(frozen=True)
class Slot:
    """A job in its place, from `begin` to `end` seconds after the start."""

    job: str
    place: Place
    begin: float
    end: float


def placed(jobs: Mapping[str, Job], machines: Sequence[Machine]) -> list[Slot]:
    """Hand jobs out as the executors do: the longest way to go first, as soon as parent and devices are ready.

    A job that finds too few free devices is waited for, so that small jobs behind it cannot hold a wide one up.
    """
    ahead = critical_paths({name: (job.parent, job.seconds) for name, job in jobs.items()})
    children: dict[str | None, list[str]] = {}
    for name, job in jobs.items():
        children.setdefault(job.parent if job.parent in jobs else None, []).append(name)
    ready = [(-ahead[name], name) for name in children.get(None, [])]
    heapq.heapify(ready)
    running: list[tuple[float, str, Place]] = []
    slots, now, pool = [], 0.0, Pool(machines)
    while ready or running:
        while ready and (place := pool.take(jobs[ready[0][1]].devices)) is not None:
            _, name = heapq.heappop(ready)
            slots.append(Slot(name, place, now, now + jobs[name].seconds))
            heapq.heappush(running, (slots[-1].end, name, place))
        now, finished, place = heapq.heappop(running)
        pool.give(place)
        for name in children.get(finished, []):
            heapq.heappush(ready, (-ahead[name], name))
    return slots


def makespan(jobs: Mapping[str, tuple[str | None, float]], workers: int) -> float:
    """Time until all jobs are done, given (parent, duration) of each; a job starts after its parent (list scheduling).

    Example:
        >>> makespan({"a": (None, 1.0), "b": ("a", 2.0), "c": ("a", 2.0)}, workers=2)
        3.0
    """
    whole = {name: Job(parent, 1, seconds) for name, (parent, seconds) in jobs.items()}
    return max((slot.end for slot in placed(whole, [Machine("", workers)])), default=0.0)
