"""The best recipe of an objective: from many starts in few worlds to one start in all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.search.climb import Value, climb, random_starts, refine
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.recipe import Recipe

FEW = 24  # worlds that tell good starts from bad ones
ENOUGH = 64  # worlds that a search needs: more would move the optimum by less than it is uncertain


def best_points(
    objective: Objective, parts: Sequence[Tensor], baselines: Sequence[Recipe], starts: int, seed: int
) -> list[tuple[Points, float]]:
    """For each part of the worlds the best recipe found from baselines, measured recipes and random points.

    All parts climb in one batch, in a few worlds; then the best of each is refined in all of its worlds.

    Args:
        objective: in all worlds.
        parts: indices into them.
        baselines: recipes to start from, too.
        starts: points that climb, for each part.
        seed: of the random points.

    Returns:
        For each part one point and its value.
    """
    few, some = objective.within(objective.worlds[:FEW]), [part[part < FEW] for part in parts]
    points = _promising(few, some, candidates(objective, baselines, starts, seed), starts)
    points, values = climb(_by_part(few, some), few.allowed, points, steps=40)
    best = _leading(values, len(parts), 1)
    pairs = zip(parts, best, strict=True)
    return [
        refine(objective.within(objective.worlds[part]).value, objective.allowed, points[i[None]]) for part, i in pairs
    ]


def _promising(objective: Objective, parts: Sequence[Tensor], points: Points, count: int) -> Points:
    """The best `count` points for each part of the worlds, group by group."""
    with torch.no_grad():
        losses = objective.losses(points)
        values = [objective.within(objective.worlds[part]).judge(points, losses[part]) for part in parts]
    return Points.cat([points[each.argsort(descending=True)[:count]] for each in values])


def _by_part(objective: Objective, parts: Sequence[Tensor]) -> Value:
    """The value of recipes in as many equal groups as there are parts of the worlds, each in its own worlds."""

    def value(points: Points) -> Tensor:
        losses, rows = objective.losses(points), len(points) // len(parts)
        found = []
        for i, part in enumerate(parts):
            group = slice(i * rows, (i + 1) * rows)
            found.append(objective.within(objective.worlds[part]).judge(points[group], losses[part, group]))
        return torch.cat(found)

    return value


def _leading(values: Tensor, groups: int, count: int) -> Tensor:
    """Indices of the greatest `count` values of every group, group by group."""
    by_group = values.reshape(groups, -1)
    order = by_group.argsort(1, descending=True)[:, :count]
    return (order + by_group.shape[1] * torch.arange(groups)[:, None]).flatten()


def candidates(objective: Objective, baselines: Sequence[Recipe], starts: int, seed: int) -> Points:
    """Random points, measured recipes and baselines, all drawn inside the limits."""
    allowed, first = objective.allowed, len(objective.allowed.target.prefix)
    groups = [random_starts(allowed, starts, seed)]
    seen = objective.near[:, first:]
    lengths = seen.sum(-1)
    whole = lengths.amin(1) > 1e-6  # measured runs of all phases that are still to be trained
    if bool(whole.any()):
        seen, lengths = seen[whole], lengths[whole]
        groups.append(allowed.complete(seen / lengths[..., None], lengths / lengths.sum(1, keepdim=True)))
    names = allowed.target.phases
    same = [recipe for recipe in baselines if tuple(p.name for p in recipe.phases[-len(names) :]) == names]
    groups += [allowed.read(same)] if same else []
    return allowed.drawn(Points.cat(groups))


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
        found, value = refine(fixed.value, fixed.allowed, fixed.allowed.drawn(start))
        tried.append((value, fixed, found))
    _, best, found = max(tried, key=lambda each: each[0] if math.isfinite(each[0]) else -math.inf)
    return best, found
