"""The front between groups of tasks: recipes that no other beats for every group at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.phase_lines import phase_lines
from mixlaw.optimizer.goal.gains import Objective, lower_bound
from mixlaw.optimizer.goal.goal import Goal, Measure, task_weights
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.references import Compared, is_scheduled, with_schedule
from mixlaw.optimizer.goal.values import Interval, interval
from mixlaw.optimizer.policy import GUARD_TOLERANCE
from mixlaw.optimizer.search.climb import ENOUGH, best_points, candidates, one_thread, refine
from mixlaw.optimizer.search.guards import excess
from mixlaw.optimizer.search.optimum import Search
from mixlaw.optimizer.search.problem import Problem, problem_of
from mixlaw.optimizer.target.feasible import Infeasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Target
from mixlaw.printable import Page, Printable
from mixlaw.progress import Progress
from mixlaw.recipe import Domain, Recipe
from mixlaw.tables import Cell, Column, Rows, Table

Floats = NDArray[np.float64]

STEPS = 20  # of the gradient search for each weighting
STARTS = 40  # random, measured and baseline recipes that searches may begin at
SHOWN = 12  # recipes of a front that are told
ALIKE = 0.02  # of the length of a front, within which recipes are one to a person


@dataclass(frozen=True)
class Compromise:
    """A recipe on the front.

    Attributes:
        recipe: what would be trained.
        gains: of each group, the mean over its tasks, over the baseline, with its 90 % interval.
    """

    recipe: Recipe
    gains: Mapping[str, Interval]


@dataclass(frozen=True)
class Front(Printable):
    """Recipes between which only a preference can choose, from the best for the first group to that for the last.

    Attributes:
        groups: name -> tasks.
        against: the baseline that gains refer to.
        points: the front, ordered by the gain of the first group, greatest first.
        evaluations: recipes that were evaluated to find it.
        unit: of gains.
    """

    groups: Mapping[str, tuple[str, ...]]
    against: str
    points: tuple[Compromise, ...]
    evaluations: int
    unit: str = Measure.PERCENT.value

    def gains(self) -> Floats:
        """Mean gain of every recipe and group, (points, groups)."""
        return np.array([[point.gains[name].mean for name in self.groups] for point in self.points])

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        points = [
            {"recipe": point.recipe.as_json(), "gains": {name: asdict(gain) for name, gain in point.gains.items()}}
            for point in self.points
        ]
        groups = {name: list(tasks) for name, tasks in self.groups.items()}
        return {
            "groups": groups,
            "against": self.against,
            "unit": self.unit,
            "sentence": self.sentence,
            "evaluations": self.evaluations,
            "points": points,
        }

    @property
    def sentence(self) -> str:
        """What the table holds."""
        between = f"between {', '.join(self.groups)}"
        count = f"{len(self.points)} recipes {between}: none is beaten by another for every group"
        if len(self.points) == 1:
            count = f"1 recipe is best for all groups: there is nothing to choose {between}"
        return f"{count}. Gains over {self.against} in {self.unit} with 90 % intervals."

    def table(self) -> Table:
        """The gain of every recipe for each group, and its phases."""
        columns = [Column("", "recipe"), *(Column(name) for name in self.groups), "phases"]
        rows = [
            [
                Cell(str(i), i),
                *(point.gains[name].cell(None) for name in self.groups),
                "\n".join(phase_lines(point.recipe)),
            ]
            for i, point in enumerate(self.points, 1)
        ]
        return Table("front", columns, rows)

    def rows(self) -> Rows:
        """Cells of a table, heads first: the gain of every recipe for each group."""
        return [row[:-1] for row in self.table().cells()]

    def page(self) -> Page:
        """The front and what it is."""
        return Page(self.sentence, tables=[self.table()])


def pareto(
    posterior: Posterior,
    target: Target,
    domains: Sequence[Domain],
    groups: Mapping[str, Sequence[str]],
    *,
    measure: Measure = Measure.PERCENT,
    baselines: Compared | None = None,
    against: str = "",
    recipes: Sequence[Recipe] = (),
    measured: Design | None = None,
    draws: int = 64,
    evaluations: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Front:
    """Find the Pareto front between groups of tasks: the best recipes for weighted sums of groups, by gradients.

    Where the schedule is free, all recipes and the baseline have that which `propose` recommends for all groups.

    Args:
        posterior, target, domains, baselines, against, measured, draws, seed, progress: as in `propose`.
        groups: name -> tasks, for instance language, knowledge and code; two or more.
        measure: unit of gains, and of the target's guard.
        recipes: that are tried as well, for instance proposals; those of another target or schedule are left out.
        evaluations: recipes to evaluate besides the measured ones, steps of gradients included.

    Raises:
        InputError: fewer than two groups, an empty one, or an unknown task.
        Infeasible: limits that contradict each other, or guards that no recipe of the front keeps.
    """
    _check(groups, posterior.tasks)
    report = progress or (lambda _done, _what: None)
    weights = group_weights(posterior, groups)
    goal = Goal({task: 1.0 for tasks in groups.values() for task in tasks}, measure)
    problem = problem_of(
        posterior,
        target,
        domains,
        goal=goal,
        baselines=baselines,
        against=against,
        measured=measured,
        draws=draws,
    )
    problem = _with_one_schedule(problem, seed)
    spaces = problem.objectives
    searched = []
    with one_thread():
        for done, space in enumerate(spaces):
            report(0.05 + 0.9 * done / len(spaces), "searching between groups")
            some = space.within(space.draws[:ENOUGH])
            starts = candidates(space, [*problem.baselines, *recipes], 12, seed)
            best, _ = best_points(some, problem.baselines, 12, seed)  # the recommendation of `propose`
            share = evaluations // len(spaces)
            tried = Points.cat([best, gradient_optima(space, weights, Points.cat([best, starts]), share)])
            searched.append(_on_ladder(space, tried))
        points = sorted(compromises(searched, weights, list(groups)), key=lambda p: -p.gains[next(iter(groups))].mean)
    named = {name: tuple(tasks) for name, tasks in groups.items()}
    return Front(named, problem.references.against, tuple(points), evaluations, measure.value)


def _with_one_schedule(problem: Problem, seed: int) -> Problem:
    """The same with the size and the schedule that `propose` recommends: a gain is that of mixtures alone."""
    if is_scheduled(problem.target):
        return problem
    optimum = Search(problem, seed=seed).optimum()
    settled, recipe = optimum.problem, optimum.recipe

    def fixed(one: Objective) -> Objective:
        target = with_schedule(one.allowed.target.at(recipe.params), recipe)
        return replace(one, allowed=feasible(target, one.allowed.domains))

    return replace(settled, objectives=tuple(map(fixed, settled.objectives)))


def _check(groups: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> None:
    """Refuse what is no two groups of known tasks."""
    if len(groups) < 2 or not all(groups.values()):
        raise InputError(
            f"a front needs two groups of tasks or more, got {', '.join(groups) or 'none'}; write [groups] into "
            "study.toml, each with the names of its tasks, or give --group NAME=TASK,TASK for each"
        )
    for name, group in groups.items():
        unknown = [task for task in group if task not in tasks]
        if unknown:
            raise InputError(f"group {name!r} has a task {unknown[0]!r}, fitted are {', '.join(tasks)}; rename it")


def group_weights(posterior: Posterior, groups: Mapping[str, Sequence[str]]) -> Tensor:
    """Weights of the tasks in each group, equal within it, (G, T)."""
    return torch.stack([task_weights(posterior, dict.fromkeys(tasks, 1.0)) for tasks in groups.values()])


def _on_ladder(space: Objective, points: Points) -> tuple[Objective, Points]:
    """Points of free sizes at the nearest step of the ladder, as far as there is one."""
    low, high = space.allowed.sizes
    steps = [size for size in space.allowed.target.ladder if low <= size <= high]
    if not steps:
        return space, points
    ladder = torch.tensor(steps, dtype=torch.float64)
    nearest = (points.params.log()[:, None] - ladder.log()).abs().argmin(1)
    sized = replace(points, params=ladder[nearest])
    return space, replace(space.allowed.project(sized), params=sized.params)


def group_values(objective: Objective, weights: Tensor, points: Points) -> Tensor:
    """Lower bound of the gain of every group in percent, less what leaving measured recipes and breaking guards costs.

    Returns:
        (R, G); the bound is that of `propose`, by the caution of the objective.
    """
    losses, guarded = objective.losses(points), objective.guarded
    by_group = objective.utility.by_task(losses, objective.reference) @ weights.T
    gains = lower_bound(by_group, objective.caution) / objective.percent
    broken = guarded.bite * (objective.over_guard(losses) / objective.task_percent).sum(-1) if guarded else 0.0
    return gains - (objective.charges(points) + broken)[:, None]


def gradient_optima(objective: Objective, weights: Tensor, starts: Points, evaluations: int) -> Points:
    """The best of the starts, and the best recipes for weighted sums of groups, weights on an even lattice.

    Every search begins at the best recipe known so far for its weights; a gradient counts as two evaluations.
    """

    def values_of(points: Points) -> Tensor:
        with torch.no_grad():
            return group_values(objective, weights, points)

    values = values_of(starts)
    first = torch.tensor(np.argsort(dominated_by(values.numpy()), kind="stable")[:STARTS])
    starts, values = starts[first], values[first]
    for mix in _lattice(len(weights), (evaluations - len(starts)) // (2 * STEPS)):

        def one(points: Points, mix: Tensor = mix) -> Tensor:
            return group_values(objective, weights, points) @ mix

        best = (values @ mix).argmax()
        found, _ = refine(one, objective.allowed, starts[best[None]], steps=STEPS)
        starts, values = Points.cat([starts, found]), torch.cat([values, values_of(found)])
    return starts


def _lattice(groups: int, most: int) -> Tensor:
    """Weights of groups with equal steps between them, at most `most` of them, (L, G)."""
    steps = 1
    while len(_compositions(groups, steps + 1)) <= max(most, groups) and steps < 20:
        steps += 1
    return torch.tensor(_compositions(groups, steps), dtype=torch.float64) / steps


def _compositions(groups: int, total: int) -> list[tuple[int, ...]]:
    return [c for c in product(range(total + 1), repeat=groups) if sum(c) == total]


def dominated_by(values: Floats) -> NDArray[np.int64]:
    """How many other rows of (R, G) are at least as good in every column and better in one, (R,)."""
    one, other = values[:, None], values[None]
    return np.asarray((np.all(one <= other, -1) & np.any(one < other, -1)).sum(1), dtype=np.int64)


def leading(values: Floats) -> list[int]:
    """Indices of the rows (R, G) that no other row dominates."""
    return [int(i) for i in np.flatnonzero(dominated_by(values) == 0)]


def compromises(
    searched: Sequence[tuple[Objective, Points]], weights: Tensor, names: Sequence[str]
) -> Iterator[Compromise]:
    """The recipes that lead, as whole recipes in all draws, no more of them than a person can look at.

    Raises:
        Infeasible: no recipe that was tried keeps the guard.
    """
    safe, values = [], []
    with torch.no_grad():
        for space, points in searched:
            holds = torch.nonzero(excess(space, points) <= GUARD_TOLERANCE).flatten()
            values.append(group_values(space, weights, points[holds]).numpy())
            safe += [(space, points[i[None]]) for i in holds]
        if not safe:
            raise Infeasible("no recipe that was tried keeps the guard; `propose` has the one that exceeds it least")
        rounded = [_rounded(*safe[i], weights) for i in leading(np.concatenate(values))]
        means = np.array([gains.mean(0).tolist() for _, gains in rounded])
        first = leading(means)  # as they are told: whole recipes, by their mean gains in all draws
        for i in (first[j] for j in _spread_out(means[first])):
            recipe, gains = rounded[i]
            yield Compromise(recipe, {name: interval(gains[:, g]) for g, name in enumerate(names)})


def _rounded(space: Objective, point: Points, weights: Tensor) -> tuple[Recipe, Tensor]:
    """A point as a whole recipe, and the gains of the groups in all draws, (S, G)."""
    recipe = space.allowed.recipe(point)
    whole = replace(space.allowed.read([recipe]), params=point.params)
    return recipe, (space.by_task(whole) @ weights.T)[:, 0]


def _spread_out(values: Floats) -> list[int]:
    """At most `SHOWN` rows that lie far from each other, the best of every column among them."""
    unit = (values - values.min(0)) / np.maximum(np.ptp(values, axis=0), 1e-12)
    chosen = list(dict.fromkeys(int(i) for i in values.argmax(0)))
    while len(chosen) < min(SHOWN, len(values)):
        far = np.linalg.norm(unit[:, None] - unit[chosen][None], axis=-1).min(1)
        if far.max() <= ALIKE:
            break
        chosen.append(int(far.argmax()))
    return chosen
