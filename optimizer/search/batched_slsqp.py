"""Searches that walk in step: when all of them have asked for a value, one look at a batch answers them all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Asked = Callable[[Floats], Any]  # what a walk is given: the answer for a point (n,)


class _Ended(Exception):
    """Another walk failed, or the look did."""


def in_step(look: Callable[[Floats], list[Any]], walk: Callable[[Asked, Floats], Floats], starts: Floats) -> Floats:
    """Where walks from starts (R, n) end, (R, n).

    Args:
        look: answers for points (R, n), row by row; those of walks that have ended stay where they were.
        walk: goes from a start (n,) to an end (n,), and asks on its way; it runs in a thread of its own.
        starts: a row for every walk.
    """
    asked: SimpleQueue[tuple[int, Floats | None]] = SimpleQueue()
    answers: list[SimpleQueue[Any]] = [SimpleQueue() for _ in starts]

    def run(row: int) -> Floats:
        def ask(point: Floats) -> Any:
            asked.put((row, point))
            answer = answers[row].get()
            if answer is _Ended:
                raise _Ended
            return answer

        try:
            return walk(ask, starts[row])
        finally:
            asked.put((row, None))

    with ThreadPoolExecutor(len(starts)) as pool:
        walks: list[Future[Floats]] = [pool.submit(run, row) for row in range(len(starts))]
        try:
            _answer(look, asked, answers, starts.copy())
        except BaseException:
            for each in answers:
                each.put(_Ended)
            raise
    return np.stack([each.result() for each in walks])


def _answer(
    look: Callable[[Floats], list[Any]],
    asked: SimpleQueue[tuple[int, Floats | None]],
    answers: list[SimpleQueue[Any]],
    points: Floats,
) -> None:
    """Answer until every walk has ended."""
    walking, waiting = set(range(len(points))), set[int]()
    while walking:
        row, point = asked.get()
        if point is None:
            walking.discard(row)
        else:
            points[row] = point
            waiting.add(row)
        if walking and waiting == walking:
            found = look(points)
            for row in waiting:
                answers[row].put(found[row])
            waiting = set()
