"""Gradient search over recipes: many starts in few posterior draws, then the best of them in all draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.search.batched_slsqp import Ask, Coordinates, run_batched
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.recipe import Recipe

Floats = NDArray[np.float64]
Value = Callable[[Points], Tensor]  # R recipes -> (R,), to be maximised

#: Decay rates of Adam's moments (Kingma and Ba 2015), the second shorter than usual: there are a hundred steps.
BETA1, BETA2 = 0.9, 0.99
#: Percent of gain that is not worth another step.
SMALL = 1e-5


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: steps are small, and threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def climb(
    value: Value, allowed: Feasible, starts: Points, steps: int = 120, rate: float = 0.25
) -> tuple[Points, Tensor]:
    """Climb from R starts by Adam with a cosine rate, each row by itself, and keep the best point of each path.

    Args:
        value: what to maximise, row by row.
        allowed: where to stay.
        starts: R recipes.
        steps, rate: of Adam, in logits.

    Returns:
        The best recipes and their values, (R,).
    """
    numbers = allowed.numbers(starts).detach()
    mean, square = torch.zeros_like(numbers), torch.zeros_like(numbers)
    found, best = starts, torch.full((len(starts),), -math.inf, dtype=torch.float64)
    for step in range(steps + 1):
        numbers.requires_grad_()
        here = allowed.points(numbers)
        now = value(here)
        better = now.detach() > best
        found, best = here.detach().where(better, found), torch.where(better, now.detach(), best)
        if step == steps:
            break
        (slope,) = torch.autograd.grad(now.sum(), numbers)
        mean = BETA1 * mean + (1 - BETA1) * slope
        square = BETA2 * square + (1 - BETA2) * slope**2
        pace = rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        first, second = mean / (1 - BETA1 ** (step + 1)), square / (1 - BETA2 ** (step + 1))
        numbers = _held(allowed, numbers.detach() + pace * first / (second.sqrt() + 1e-8))
    return found, best


def refine(value: Value, allowed: Feasible, start: Points, steps: int = 60) -> tuple[Points, float]:
    """Continue from one good point by sequential quadratic programming, limits as linear constraints.

    Adam finds the hill but crawls along the edges of the polytope, where optima lie; this method walks on them.

    Returns:
        The best recipe, never worse than the start, and its value.
    """
    end, reached = refine_each(value, allowed, start, steps)
    return end, float(reached)


def refine_each(value: Value, allowed: Feasible, starts: Points, steps: int = 60) -> tuple[Points, Tensor]:
    """The same for R starts, each by itself; the r-th value may be that of an objective of its own.

    Returns:
        R recipes and their values, (R,).
    """
    chart = Coordinates(allowed)

    def look(u: Floats) -> list[tuple[float, Floats]]:
        """Minus the values of points (R, n) and their slopes."""
        at = torch.tensor(u).requires_grad_()
        now = value(chart.points(at))
        (slope,) = torch.autograd.grad(now.sum(), at)
        return list(zip((-now.detach()).tolist(), -np.nan_to_num(slope.numpy()), strict=True))

    rows = [starts[row : row + 1] for row in range(len(starts))]
    first = np.stack([chart.start(row) for row in rows])
    optima = torch.tensor(run_batched(look, partial(_walk, chart, steps), first))
    with torch.no_grad():
        most = value(starts)
        sound = optima.isfinite().all(1)
        ends = chart.project(torch.where(sound[:, None], optima, torch.tensor(first)))
        reached = value(ends)
    better = sound & (reached > most)
    return ends.where(better, starts), torch.where(better, reached, most)


def _walk(chart: Coordinates, steps: int, loss: Ask, start: Floats) -> Floats:
    solution = minimize(  # type: ignore[call-overload]
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=chart.bounds,
        constraints=chart.constraints,
        options={"maxiter": steps, "ftol": SMALL},
    )
    return np.asarray(solution.x)


def _held(allowed: Feasible, numbers: Tensor) -> Tensor:
    """Keep numbers where a step can be felt: a logit far below the others is as good as zero, and must come back."""
    phases, domains = allowed.shape
    logits = numbers[:, : phases * domains].reshape(-1, phases, domains)
    logits = logits.maximum(logits.amax(-1, keepdim=True) - 14.0)
    return torch.cat([logits.flatten(1), numbers[:, phases * domains :].clamp(-8.0, 8.0)], 1)


def random_starts(allowed: Feasible, count: int, seed: int) -> Points:
    """Recipes spread over the feasible set."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count, allowed.size, generator=generator, dtype=torch.float64)
    numbers[:, : math.prod(allowed.shape)] *= 1.5
    return allowed.points(numbers).detach()


FEW = 24  # draws that tell good starts from bad ones
ENOUGH = 64  # draws that a search needs: more would move the optimum by less than it is uncertain


def best_points(objective: Objective, baselines: Sequence[Recipe], starts: int, seed: int) -> tuple[Points, float]:
    """The best recipe found from baselines, measured recipes and random points, and its value.

    The most promising points climb; then the best is refined in all draws.

    Args:
        objective: in all draws.
        baselines: recipes to start from, too.
        starts: points that climb.
        seed: of the random points.
    """
    points, values = climbed(objective, baselines, starts, seed)
    return refined(objective, points[values.argmax()[None]])


def refined(objective: Objective, start: Points) -> tuple[Points, float]:
    """The best recipe near a start, never worse than it, and its value: past rounded kinks first, then as they are."""
    smoothed, _ = refine(objective.smooth, objective.allowed, start)
    with torch.no_grad():
        before = float(objective.value(start))
    point, value = refine(objective.value, objective.allowed, smoothed)
    return (point, value) if value >= before else refine(objective.value, objective.allowed, start)


def climbed(objective: Objective, baselines: Sequence[Recipe], starts: int, seed: int) -> tuple[Points, Tensor]:
    """Where the most promising points end that climb in one batch, in a few draws, and their values there, (R,)."""
    few = objective.within(objective.draws[:FEW])
    points = candidates(few, baselines, starts, seed)
    with torch.no_grad():
        points = points[few.value(points).argsort(descending=True)[:starts]]
    return climb(few.smooth, few.allowed, points, steps=40)


def candidates(objective: Objective, baselines: Sequence[Recipe], starts: int, seed: int) -> Points:
    """Random points, measured recipes and baselines, all drawn inside the limits."""
    allowed, near = objective.allowed, objective.near
    groups = [random_starts(allowed, starts, seed)]
    middle = torch.tensor(allowed.affine(np.array([sum(span) / 2 for span in allowed.ranges])))
    groups += [allowed.complete(near, middle.expand(len(near), -1))] if len(near) else []
    names = allowed.target.phases
    same = [recipe for recipe in baselines if tuple(p.name for p in recipe.phases[-len(names) :]) == names]
    groups += [allowed.read(same)] if same else []
    return allowed.project(Points.cat(groups))


def on_ladder(objective: Objective, point: Points) -> tuple[Objective, Points]:
    """Round a free size to the ladder: of the two steps around it the one whose best recipe is better."""
    target = objective.allowed.target
    low, high = objective.allowed.sizes
    steps = sorted(size for size in target.ladder if low <= size <= high)
    if not steps:
        return objective, point
    size = float(point.params[0])
    around = [
        max((s for s in steps if s <= size), default=steps[0]),
        min((s for s in steps if s >= size), default=steps[-1]),
    ]
    tried = []
    for step in dict.fromkeys(around):
        fixed = replace(objective, allowed=feasible(target.at(step), objective.allowed.domains))
        start = replace(point, params=torch.full((1,), float(step), dtype=torch.float64))
        optimum, value = refined(fixed, fixed.allowed.project(start))
        tried.append((value, fixed, optimum))
    _, best, optimum = max(tried, key=lambda each: each[0] if math.isfinite(each[0]) else -math.inf)
    return best, optimum
