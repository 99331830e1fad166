"""The middle of a polytope: the point that maximises the product of its distances to all faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.optimize import linprog

Floats = NDArray[np.float64]

STEPS = 60
#: Slack that tells a face with room before it from one that all points lie on.
ROOM, NONE = 1e-7, 1e-9


@dataclass(frozen=True, eq=False)
class Polytope:
    """Points v (n,) with rows v <= bounds and sums v = totals.

    Attributes:
        rows, bounds: L inequalities, (L, n) and (L,).
        sums, totals: E equations, (E, n) and (E,).
    """

    rows: Floats
    bounds: Floats
    sums: Floats
    totals: Floats

    def slack(self, point: Floats) -> Floats:
        """How far a point is from each face, (L,)."""
        return np.asarray(self.bounds - self.rows @ point)


def centre_of(polytope: Polytope) -> Floats | None:
    """The analytic centre (Boyd & Vandenberghe 2004, section 8.5.3); None where there is no point at all.

    Inequalities that no point keeps with room to spare count as equations.
    """
    start = _interior(polytope)
    if start is None:
        return None
    slack = polytope.slack(start)
    if slack.size and slack.min() <= NONE:
        held = _held(polytope)
        polytope = Polytope(
            polytope.rows[~held],
            polytope.bounds[~held],
            np.vstack([polytope.sums, polytope.rows[held]]),
            np.append(polytope.totals, polytope.bounds[held]),
        )
        start = _interior(polytope)
    return start if start is None else _newton(polytope, start)


def _interior(polytope: Polytope) -> Floats | None:
    """The point of greatest distance to its nearest face."""
    size = polytope.rows.shape[1]
    solution = _solved(
        polytope,
        np.append(np.zeros(size), -1.0),
        np.ones((len(polytope.rows), 1)),
        [(0.0, 1.0)],
    )
    return None if solution is None else solution[:size]


def _held(polytope: Polytope) -> NDArray[np.bool_]:
    """Faces that all points lie on, (L,)."""
    count, size = polytope.rows.shape
    solution = _solved(polytope, np.append(np.zeros(size), -np.ones(count)), np.eye(count), [(0.0, ROOM)] * count)
    assert solution is not None, "a point has been found"
    return np.asarray(solution[size:] <= NONE)


def _solved(polytope: Polytope, cost: Floats, more: Floats, spans: list[tuple[float, float]]) -> Floats | None:
    """Minimise cost . (v, w) with rows v + more w <= bounds and w within spans."""
    solution = linprog(
        cost,
        A_ub=np.hstack([polytope.rows, more]),
        b_ub=polytope.bounds,
        A_eq=np.hstack([polytope.sums, np.zeros((len(polytope.sums), more.shape[1]))]),
        b_eq=polytope.totals,
        bounds=[*[(None, None)] * polytope.rows.shape[1], *spans],
        options={"primal_feasibility_tolerance": 1e-10},
    )
    return None if solution.x is None else np.asarray(solution.x, dtype=np.float64)


def _newton(polytope: Polytope, point: Floats) -> Floats:
    """Newton's method on the sum of log slacks, within the equations; every step stays inside."""
    ways = null_space(polytope.sums) if len(polytope.sums) else np.eye(len(point))
    rows = polytope.rows @ ways
    for _ in range(STEPS if rows.size else 0):
        slack = polytope.slack(point)
        if slack.min() <= 0:
            break
        scaled = rows / slack[:, None]
        slope = -scaled.sum(0)
        step = np.linalg.lstsq(scaled, -np.ones(len(slack)), rcond=None)[0]  # Gauss-Newton is Newton here
        gain = float(slope @ step)
        if gain <= 1e-12:
            break
        change = scaled @ step  # share of each slack that a whole step takes
        length = min(1.0, 0.95 / max(float(change.max()), 1e-12))
        while np.log1p(-length * change).sum() < 0.1 * length * gain and length > 1e-9:
            length /= 2
        point = point + length * (ways @ step)
    return point
