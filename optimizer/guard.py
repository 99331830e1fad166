"""Guards: no task may lose more than so much against a baseline, with a stated probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.optimizer.constraints import Infeasible, feasible
from mixlaw.optimizer.judge import chance
from mixlaw.optimizer.limits import Limit, without
from mixlaw.optimizer.objective import Guarded, Objective
from mixlaw.optimizer.points import Points
from mixlaw.optimizer.rivals import Rivals
from mixlaw.optimizer.search import refine
from mixlaw.optimizer.target import Guard

#: Excess over a guard, in percent of loss, that is put down to the search.
TRIFLE = 0.01


def guarded_by(guard: Guard | None, rivals: Rivals, tasks: Sequence[str]) -> Guarded | None:
    """A target's guard on the axes of the tasks.

    Raises:
        InputError: an unknown baseline or task.
    """
    if guard is None:
        return None
    than = guard.than or rivals.best
    if than not in rivals.losses:
        raise InputError(
            f"the guard names baseline {than!r}, compared are {', '.join(rivals.losses)}; name one of them"
        )
    most = guard.most if isinstance(guard.most, Mapping) else dict.fromkeys(tasks, guard.most)
    unknown = [task for task in most if task not in tasks]
    if unknown:
        raise InputError(f"the guard names task {unknown[0]!r}, fitted are {', '.join(tasks)}; rename it")
    limits = torch.tensor([float(most.get(task, math.inf)) for task in tasks], dtype=torch.float64)
    return Guarded(rivals.losses[than], limits, guard.sure, than)


def kept(objective: Objective, losses: Tensor) -> dict[str, float]:
    """Probability by task that a guard holds for log losses (S, T); nothing where there is no guard."""
    guarded = objective.guarded
    if guarded is None:
        return {}
    gains = objective.worth.by_task(losses[:, None], guarded.losses[objective.worlds])[:, 0] + guarded.most
    tasks = enumerate(objective.beliefs.tasks)
    return {task: chance(gains[:, t]) for t, task in tasks if bool(guarded.most[t].isfinite())}


def holding(objective: Objective, point: Points) -> Points:
    """The point where it keeps the guard, else the best one near it that does.

    Raises:
        Infeasible: the guard cannot be kept; a smallest set of guarded tasks and limits that contradict each other.
    """
    guarded = objective.guarded
    if guarded is None or float(excess(objective, point)) <= TRIFLE:
        return point
    least, safe = _least_excess(objective, point)
    if least > TRIFLE:
        objective = _fewest_tasks(objective, safe)
        words = [*_words(objective), *(limit.words for limit in _needed_limits(objective, safe))]
        raise Infeasible(f"no recipe keeps all of: {'; '.join(words)}; loosen one of them")
    # The search gave a little of the guard away for the gain.
    strict = replace(objective, guarded=replace(guarded, bite=10 * guarded.bite))
    found, _ = refine(strict.value, strict.allowed, safe)
    return found if float(excess(objective, found)) <= TRIFLE else safe


def _fewest_tasks(objective: Objective, point: Points) -> Objective:
    """Deletion filter (Chinneck 1991) over guarded tasks."""
    for t in range(len(objective.beliefs.tasks)):
        assert objective.guarded is not None
        most = objective.guarded.most.clone()
        most[t] = math.inf
        rest = replace(objective, guarded=replace(objective.guarded, most=most))
        if _least_excess(rest, point)[0] > TRIFLE:
            objective = rest
    return objective


def _needed_limits(objective: Objective, point: Points) -> list[Limit]:
    """Of the limits that hold the least bad recipe back those without which the guard could be kept."""
    needed, target = [], objective.allowed.target
    for limit in objective.allowed.active(point):
        fewer = without(target, limit)
        rest = replace(objective, allowed=feasible(fewer, objective.allowed.domains))
        if _least_excess(rest, point)[0] > TRIFLE:
            target, objective = fewer, rest
        else:
            needed.append(limit)
    return needed


def excess(objective: Objective, points: Points) -> Tensor:
    """By how much recipes pass the guard at the task where they do most, in percent of loss, (R,)."""
    with torch.no_grad():
        return (objective.over_guard(objective.losses(points)) / objective.task_percent).amax(-1)


def _least_excess(objective: Objective, point: Points) -> tuple[float, Points]:
    """The least that any recipe near this one exceeds the guard by, trust radius kept, and that recipe."""

    def value(points: Points) -> Tensor:
        beyond = objective.over_guard(objective.losses(points)) / objective.task_percent
        return -beyond.sum(-1) - objective.charges(points)

    allowed = objective.allowed
    found, _ = refine(value, allowed, allowed.drawn(point))
    return float(excess(objective, found)), found


def _words(objective: Objective) -> list[str]:
    guarded, unit = objective.guarded, objective.worth.goal.measure.value
    assert guarded is not None
    return [
        f"{task} at most {most:g} {unit} worse than {guarded.than} with {guarded.sure:.0%}"
        for task, most in zip(objective.beliefs.tasks, guarded.most.tolist(), strict=True)
        if math.isfinite(most)
    ]
