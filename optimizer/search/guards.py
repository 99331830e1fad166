"""Guards: no task may lose more than so much against a baseline, with a stated probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.values import probability
from mixlaw.optimizer.policy import GUARD_TOLERANCE
from mixlaw.optimizer.search.climb import Value, candidates, refine_each
from mixlaw.optimizer.target.points import Points
from mixlaw.recipe import Recipe

#: Recipes that are tried where the best one breaks a guard, and how many of them a search starts from besides it.
TRIED, STARTS = 128, 3


def kept(objective: Objective, losses: Tensor) -> dict[str, float]:
    """Probability by task that a guard holds for log losses (S, T); nothing where there is no guard."""
    guarded = objective.guarded
    if guarded is None:
        return {}
    gains = objective.utility.by_task(losses[:, None], guarded.losses[objective.draws])[:, 0] + guarded.most
    tasks = enumerate(objective.posterior.tasks)
    return {task: probability(gains[:, t]) for t, task in tasks if bool(guarded.most[t].isfinite())}


def keep_guard(objective: Objective, point: Points, baselines: Sequence[Recipe]) -> Points:
    """The point where it keeps the guard; else the best one that does, of those that a few searches find.

    Where none keeps it, the one that exceeds it least. The guard's own baseline keeps it, where the target and the
    trust radius allow that.
    """
    guarded = objective.guarded
    if guarded is None or float(excess(objective, point)) <= GUARD_TOLERANCE:
        return point
    starts = _starts(objective, point, baselines)
    safe = _least_excess(objective, starts)
    beyond = excess(objective, safe)
    if not len(safe_points := safe[beyond <= GUARD_TOLERANCE]):
        return safe[beyond.argmin()[None]]
    # The plain penalty gives a little of the guard away for the gain; a steep one alone gets stuck on its kinks.
    strict = replace(objective, guarded=replace(guarded, bite=10 * guarded.bite))
    plain = _refined(objective, objective.value, Points.cat([starts[:1], safe_points]))
    optima = Points.cat([safe_points, plain, _refined(strict, strict.value, plain)])
    optima = optima[excess(objective, optima) <= GUARD_TOLERANCE]
    with torch.no_grad():
        return optima[objective.value(optima).argmax()[None]]


def _starts(objective: Objective, point: Points, baselines: Sequence[Recipe]) -> Points:
    """The point itself, and of baselines, random and measured recipes those that exceed the guard least."""
    others = candidates(objective, baselines, TRIED, 0)
    with torch.no_grad():
        value = _harmless(objective, others)
    return Points.cat([objective.allowed.project(point), others[value.argsort(descending=True)[:STARTS]]])


def excess(objective: Objective, points: Points) -> Tensor:
    """By how much recipes exceed the guard at the worst task, in percent of loss, (R,)."""
    with torch.no_grad():
        return (objective.over_guard(objective.losses(points)) / objective.task_percent).amax(-1)


def _least_excess(objective: Objective, starts: Points) -> Points:
    """The recipes near these that exceed the guard least, trust radius kept."""
    return _refined(objective, partial(_harmless, objective), starts)


def _harmless(objective: Objective, points: Points) -> Tensor:
    """Minus what recipes exceed the guard and the trust radius by, (R,)."""
    beyond = objective.over_guard(objective.losses(points)) / objective.task_percent
    return -beyond.sum(-1) - objective.charges(points)


def _refined(objective: Objective, value: Value, starts: Points) -> Points:
    """Each start by itself at its best."""
    return refine_each(value, objective.allowed, starts)[0]
