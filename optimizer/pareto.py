"""The front between groups of tasks: recipes that no other beats for every group at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.constraints import feasible
from mixlaw.optimizer.genetic import evolved
from mixlaw.optimizer.goal import Goal, task_weights, worth_of
from mixlaw.optimizer.judge import interval
from mixlaw.optimizer.objective import Objective
from mixlaw.optimizer.optimize import candidates
from mixlaw.optimizer.points import Points
from mixlaw.optimizer.proposal import Interval
from mixlaw.optimizer.rivals import BASELINES, rivals_of
from mixlaw.optimizer.search import refine
from mixlaw.optimizer.target import Target
from mixlaw.optimizer.trust import near_runs, radius_of
from mixlaw.recipe import Domain, Recipe

Floats = NDArray[np.float64]

STEPS = 20  # of the gradient search for each weighting
SHOWN = 24  # recipes of a front that are told


@dataclass(frozen=True)
class Compromise:
    """A recipe on the front.

    Attributes:
        recipe: what would be trained.
        gains: of each group, the mean over its tasks in percent of loss over the baseline, with its 90 % interval.
    """

    recipe: Recipe
    gains: Mapping[str, Interval]


@dataclass(frozen=True)
class Front:
    """Recipes between which only a preference can choose, from the best for the first group to that for the last.

    Attributes:
        groups: name -> tasks.
        against: the baseline that gains refer to.
        points: the front, ordered by the gain of the first group, greatest first.
        evaluations: recipes that were evaluated to find it.
    """

    groups: Mapping[str, tuple[str, ...]]
    against: str
    points: tuple[Compromise, ...]
    evaluations: int

    def gains(self) -> Floats:
        """Mean gain of every recipe and group, percent, (points, groups)."""
        return np.array([[point.gains[name].mean for name in self.groups] for point in self.points])

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        points = [
            {"recipe": point.recipe.as_json(), "gains": {name: asdict(gain) for name, gain in point.gains.items()}}
            for point in self.points
        ]
        groups = {name: list(tasks) for name, tasks in self.groups.items()}
        return {"groups": groups, "against": self.against, "evaluations": self.evaluations, "points": points}

    def __str__(self) -> str:
        head = f"gain over {self.against} in percent of loss: {', '.join(self.groups)}"
        rows = ["; ".join(point.gains[name].text() for name in self.groups) for point in self.points]
        mixtures = [" / ".join(str(phase.mixture) for phase in point.recipe.phases) for point in self.points]
        return "\n".join([head, *(f"{row}: {mixture}" for row, mixture in zip(rows, mixtures, strict=True))])


def pareto(
    beliefs: Beliefs,
    target: Target,
    domains: Sequence[Domain],
    groups: Mapping[str, Sequence[str]],
    *,
    baselines: Sequence[str] | Mapping[str, Recipe] = BASELINES,
    measured: Design | None = None,
    draws: int = 64,
    evaluations: int = 2000,
    seeded: bool = True,
    seed: int = 0,
) -> Front:
    """Find the front between groups of tasks: gradients for weighted sums, then NSGA-II between what they found.

    Args:
        beliefs, target, domains, baselines, measured, draws, seed: as in `propose`.
        groups: name -> tasks, for instance language, knowledge and code; two or more.
        evaluations: recipes to evaluate in all, steps of gradients included.
        seeded: begin with gradients; without them it is plain NSGA-II (Deb et al. 2002) from random recipes.

    Raises:
        InputError: fewer than two groups, an empty one, or an unknown task; a target with branches.
    """
    if len(groups) < 2 or target.branches:
        raise InputError(
            f"a front needs two groups of tasks or more and one prefix, got {list(groups)} and "
            f"{len(target.branches)} branches; name the groups, and the branch"
        )
    if measured is None and isinstance(beliefs, Surfaces):
        measured = beliefs.observed.design
    allowed, worth = feasible(target, domains), worth_of(Goal(), beliefs)
    rivals, (near, _) = rivals_of(beliefs, [allowed], worth, baselines, draws), near_runs(allowed, measured)
    worlds, rival = torch.arange(draws), rivals.losses[rivals.best]
    objective = Objective(beliefs, allowed, worth, rival, worlds, 0.0, near, radius_of(near))
    weights = torch.stack([task_weights(beliefs, dict.fromkeys(tasks, 1.0)) for tasks in groups.values()])
    starts = candidates(objective, [entry.recipe for entry in rivals.entries.values()], 12, seed)
    spent, known = 0, starts
    if seeded:
        known, spent = gradient_optima(objective, weights, starts, evaluations // 2)
    found = evolved(allowed, lambda points: group_values(objective, weights, points), known, evaluations - spent, seed)
    return _front(
        objective, weights, found, {name: tuple(tasks) for name, tasks in groups.items()}, rivals.best, evaluations
    )


def group_values(objective: Objective, weights: Tensor, points: Points) -> Tensor:
    """Mean gain of every group less what leaving the measured recipes costs, percent, (R, G)."""
    return objective.by_task(points).mean(0) @ weights.T - objective.charges(points)[:, None]


def gradient_optima(objective: Objective, weights: Tensor, starts: Points, most: int) -> tuple[Points, int]:
    """Best recipes for weighted sums of groups, weights on an even lattice, and the evaluations that they took.

    Every search begins at the best recipe known so far for its weights; a slope counts like two evaluations.
    """
    with torch.no_grad():
        values = group_values(objective, weights, starts)
    used = len(starts)
    for mix in _lattice(len(weights), most // (2 * STEPS)):

        def one(points: Points, mix: Tensor = mix) -> Tensor:
            nonlocal used
            used += 2 * len(points)
            return group_values(objective, weights, points) @ mix

        best = (values @ mix).argmax()
        found, _ = refine(one, objective.allowed, starts[best[None]], steps=STEPS)
        with torch.no_grad():
            starts, values = Points.cat([starts, found]), torch.cat([values, group_values(objective, weights, found)])
    return starts, used


def _lattice(groups: int, most: int) -> Tensor:
    """Weights of groups with equal steps between them, at most so many of them, (L, G)."""
    steps = 1
    while len(_compositions(groups, steps + 1)) <= max(most, groups) and steps < 20:
        steps += 1
    return torch.tensor(_compositions(groups, steps), dtype=torch.float64) / steps


def _compositions(groups: int, total: int) -> list[tuple[int, ...]]:
    return [c for c in product(range(total + 1), repeat=groups) if sum(c) == total]


def leading(values: Floats) -> list[int]:
    """Indices of rows (R, G) that no other row beats in every column."""
    one, other = values[:, None], values[None]
    worse = np.logical_and(np.all(one <= other, axis=-1), np.any(one < other, axis=-1))
    return [int(i) for i in np.flatnonzero(~np.any(worse, axis=1))]


def hypervolume(values: Floats, floor: Floats) -> float:
    """Volume that rows (R, G) dominate above a floor (G,), by slicing along the first column (While et al. 2006)."""
    values = values[(values > floor).all(1)]
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(values.max() - floor[0])
    values, volume = values[values[:, 0].argsort()[::-1]], 0.0
    ends = np.append(values[1:, 0], floor[0])
    for i, end in enumerate(ends):
        if values[i, 0] > end:
            volume += (values[i, 0] - end) * hypervolume(values[: i + 1, 1:], floor[1:])
    return float(volume)


def _front(
    objective: Objective,
    weights: Tensor,
    found: Points,
    groups: Mapping[str, tuple[str, ...]],
    against: str,
    evaluations: int,
) -> Front:
    """The recipes that lead, as whole recipes in all worlds, no more of them than a person can look at."""
    with torch.no_grad():
        best = found[torch.tensor(leading(group_values(objective, weights, found).numpy()))]
        best = best[torch.tensor(_spread_out(group_values(objective, weights, best).numpy()))]
        recipes = [objective.allowed.recipe(best[i : i + 1]) for i in range(len(best))]
        rounded = replace(objective.allowed.read(recipes), params=best.params)
        gains = objective.by_task(rounded) @ weights.T  # (S, R, G)
    points = [
        Compromise(recipe, {name: interval(gains[:, i, g]) for g, name in enumerate(groups)})
        for i, recipe in enumerate(recipes)
    ]
    first = next(iter(groups))
    return Front(groups, against, tuple(sorted(points, key=lambda p: -p.gains[first].mean)), evaluations)


def _spread_out(values: Floats) -> list[int]:
    """At most `SHOWN` rows that lie far from each other, the best of every column among them."""
    unit = (values - values.min(0)) / np.maximum(np.ptp(values, axis=0), 1e-12)
    kept = list(dict.fromkeys(int(i) for i in values.argmax(0)))
    while len(kept) < min(SHOWN, len(values)):
        far = np.linalg.norm(unit[:, None] - unit[kept][None], axis=-1).min(1)
        if far.max() <= 1e-9:
            break
        kept.append(int(far.argmax()))
    return kept
