"""Sequential quadratic programming from many starts, whose points are evaluated in one batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.limits import Rule
from mixlaw.optimizer.target.points import Points

Floats = NDArray[np.float64]
Ask = Callable[[Floats], Any]  # what a walk is given: the answer for a point (n,)


class _Ended(Exception):
    """Another walk failed, or the look did."""


def run_batched(look: Callable[[Floats], list[Any]], walk: Callable[[Ask, Floats], Floats], starts: Floats) -> Floats:
    """Where walks from starts (R, n) end, (R, n).

    Args:
        look: answers for points (R, n), row by row; those of walks that have ended stay where they were.
        walk: goes from a start (n,) to an end (n,), and asks on its way; it runs in a thread of its own.
        starts: a row for every walk.
    """
    requests: SimpleQueue[tuple[int, Floats | None]] = SimpleQueue()
    answers: list[SimpleQueue[Any]] = [SimpleQueue() for _ in starts]

    def run(row: int) -> Floats:
        """One walk, to its end."""

        def ask(point: Floats) -> Any:
            """Wait until all walks have asked; `_Ended` ends this one."""
            requests.put((row, point))
            answer = answers[row].get()
            if answer is _Ended:
                raise _Ended
            return answer

        try:
            return walk(ask, starts[row])
        finally:
            requests.put((row, None))

    with ThreadPoolExecutor(len(starts)) as pool:
        walks: list[Future[Floats]] = [pool.submit(run, row) for row in range(len(starts))]
        try:
            _answer(look, requests, answers, starts.copy())
        except BaseException:
            for each in answers:
                each.put(_Ended)
            raise
    return np.stack([each.result() for each in walks])


def _answer(
    look: Callable[[Floats], list[Any]],
    requests: SimpleQueue[tuple[int, Floats | None]],
    answers: list[SimpleQueue[Any]],
    points: Floats,
) -> None:
    """Answer until every walk has ended."""
    walking, waiting = set(range(len(points))), set[int]()
    while walking:
        row, point = requests.get()
        if point is None:
            walking.discard(row)
        else:
            points[row] = point
            waiting.add(row)
        if walking and waiting == walking:
            values = look(points)
            for row in waiting:
                answers[row].put(values[row])
            waiting = set()


#: Least share of a domain that is not forbidden: logarithms stay finite, and a gradient can bring it back.
LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Variables u = (token shares x, free lengths g, learning rate at the end, size over the target's)."""

    allowed: Feasible

    def points(self, u: Tensor) -> Points:
        """Recipes for variables (R, n) that keep the equalities; differentiable."""
        x, g, end, size = self._parts(u)
        x = x.clamp_min(0)
        sums = x.sum(-1, keepdim=True).clamp_min(1e-12)
        low, high = self.allowed.sizes
        params = size * self.allowed.target.params if low < high else torch.full_like(size, low)
        return Points(x / sums, self.allowed.lengths(g), end, params)

    def project(self, u: Tensor) -> Points:
        """The same, and inside all limits to the last digit."""
        rough, (_, g, _, _) = self.points(u), self._parts(u)
        x = rough.shares * rough.lengths[..., None]
        x, g = self.allowed.pull_to_centre(x, g, rough.params)
        return Points(x / x.sum(-1, keepdim=True), self.allowed.lengths(g), rough.lr_end, rough.params)

    def start(self, point: Points) -> Floats:
        """Variables of one point."""
        free = point.lengths[0, list(self.allowed.affine.free)]
        rest = torch.stack([point.lr_end[0], point.params[0] / self.allowed.target.params])
        return torch.cat([point.tokens[0].flatten(), free, rest]).detach().numpy()

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Least and greatest value of every variable."""
        allowed = self.allowed
        sizes = allowed.sizes[0] / allowed.target.params, allowed.sizes[1] / allowed.target.params
        movable = allowed.movable.flatten().tolist()
        return [*((LEAST if free else 0.0, 1.0) for free in movable), *allowed.ranges, allowed.target.lr_range, sizes]

    @property
    def constraints(self) -> list[dict[str, Any]]:
        """Phases sum to their lengths; limits hold."""
        allowed, domains = self.allowed, len(self.allowed.domains)
        lengths, cells = allowed.affine, allowed.shape[0] * domains
        sums = np.kron(np.eye(allowed.shape[0]), np.ones(domains))
        equal = np.hstack([sums, -lengths.step, np.zeros((len(sums), 2))])
        inequalities = [limit for limit in allowed.limits if limit.rule is not Rule.LENGTH or len(allowed.ranges) > 1]
        rest = float(allowed.tokens(torch.tensor([float(allowed.target.params)]))[0])
        rows = np.array([[*limit.row, 0.0, 0.0] for limit in inequalities]).reshape(
            len(inequalities), cells + len(allowed.ranges) + 2
        )
        free_size = allowed.target.sizes is not None  # bound + amount / tokens is linear in the size: tokens ~ 1 / size
        rows[:, -1] = [-limit.amount / rest if free_size else 0.0 for limit in inequalities]
        most = np.array([limit.bound + (0.0 if free_size else limit.amount / rest) for limit in inequalities])
        conditions = [{"type": "eq", "fun": lambda u: equal @ u - lengths.base, "jac": lambda u: equal}]
        if inequalities:
            conditions.append({"type": "ineq", "fun": lambda u: most - rows @ u, "jac": lambda u: -rows})
        return conditions

    def _parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        allowed, cells = self.allowed, self.allowed.shape[0] * self.allowed.shape[1]
        return u[:, :cells].reshape(-1, *allowed.shape), u[:, cells:-2], u[:, -2], u[:, -1]
