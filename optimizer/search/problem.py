"""Problem: everything against which recipes for one target are measured, made once and searched many times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.evidence import near_runs, radius_of
from mixlaw.optimizer.goal.gains import Guarded, Objective, recipes_design
from mixlaw.optimizer.goal.goal import Goal, Utility, utility_of
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.references import Compared, References, is_scheduled, references_of, with_schedule
from mixlaw.optimizer.policy import CAUTION
from mixlaw.optimizer.search.climb import refined
from mixlaw.optimizer.search.guards import keep_guard
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.history import PrefixHistory, history_of
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.schedule import keep_schedule
from mixlaw.optimizer.target.target import DEFAULT_GUARD, Guard, Target
from mixlaw.recipe import Domain, Recipe


@dataclass(frozen=True)
class Problem:
    """Where the recipes for a target are compared.

    Attributes:
        objectives: what recipes are worth in all draws, for each branch of the target.
        runs: names of the measured neighbours, for each branch.
        references: baselines, and which of them gains refer to.
        target: what was asked for.
        compared: the baselines, as they were asked for.
    """

    objectives: tuple[Objective, ...]
    runs: tuple[tuple[str, ...], ...]
    references: References
    target: Target
    compared: Compared | None
    _by_schedule: dict[object, Problem] = field(default_factory=dict, repr=False, compare=False)

    @property
    def baselines(self) -> list[Recipe]:
        """The recipes to beat."""
        return [entry.recipe for entry in self.references.entries.values()]

    def scheduled(self, recipe: Recipe) -> Problem:
        """The same with baselines of the schedule of a recipe: its lengths of phases and learning rate at the end.

        So a gain is that of mixtures; what a schedule is worth is no gain over a baseline that could have it as well.
        """
        if is_scheduled(self.target):
            return self
        target = with_schedule(self.target, recipe)
        key = (*(phase.tokens for phase in recipe.phases[-len(target.phases) :]), target.lr_range)
        if key not in self._by_schedule:
            self._by_schedule[key] = self._with(target)
        return self._by_schedule[key]

    def _with(self, target: Target) -> Problem:
        """The same with baselines for a target of a fixed schedule."""
        one = self.objectives[0]
        references = references_of(
            one.posterior,
            variants_of(target, one.allowed.domains),
            one.utility,
            self.compared,
            len(one.baseline),
            self.references.against,
        )
        guarded = guarded_by(target.guard, references, one.utility)
        objectives = tuple(replace(o, baseline=references.baseline, guarded=guarded) for o in self.objectives)
        return Problem(objectives, self.runs, references, self.target, self.compared)

    def settled(self, index: int, search: Objective, point: Points) -> tuple[Problem, Objective, Points]:
        """The schedule of a point that a search has found, and the best mixture that keeps the guard with it.

        Returns:
            The problem with baselines of that schedule, the objective searched in, and its best point.
        """
        recipe = search.allowed.recipe(point)
        problem = self.scheduled(recipe)
        if problem is not self:
            target = with_schedule(search.allowed.target, recipe)
            allowed = feasible(target, search.allowed.domains)
            fixed = problem.objectives[index].within(search.draws)
            search = replace(fixed, allowed=allowed, on_step=search.on_step)
            point = refined(search, allowed.project(replace(allowed.read([recipe]), params=point.params)))[0]
        return problem, search, keep_guard(search, point, problem.baselines)


def without_past(problem: Problem | None, recipe: Recipe) -> Feasible | None:
    """What the target allows, where a recipe is what follows its past, whose mixture is not known; None elsewhere."""
    if problem is None:
        return None
    allowed = problem.objectives[0].allowed
    follows = tuple(phase.name for phase in recipe.phases) == allowed.target.phases
    return allowed if follows and not allowed.target.known else None


def design_and_history(
    posterior: Posterior, recipe: Recipe, domains: Sequence[Domain], past: Feasible | None
) -> tuple[Design, PrefixHistory | None]:
    """A whole recipe as a row, or what follows an unknown past as a row for each of the histories that it may have."""
    if past is not None:
        return recipes_design(posterior, past, [recipe]), history_of(past)
    unique = {domain.name: float(domain.unique_tokens) for domain in domains}
    return design_of([recipe], posterior.phases, posterior.domains, unique), None


def variants_of(target: Target, domains: Sequence[Domain]) -> list[Feasible]:
    """What a target allows, for each of its branches.

    Raises:
        Infeasible: limits that contradict each other.
    """
    return [feasible(target.on(branch), domains) for branch in target.branches] or [feasible(target, domains)]


def problem_of(
    posterior: Posterior,
    target: Target,
    domains: Sequence[Domain],
    *,
    goal: Goal | None = None,
    baselines: Compared | None = None,
    against: str = "",
    measured: Design | None = None,
    draws: int = 64,
    caution: float = CAUTION,
) -> Problem:
    """Lay the ground for a target; arguments as those of `propose`.

    Raises:
        InputError: unknown tasks, phases or domains.
        Infeasible: limits that contradict each other.
    """
    if measured is None and isinstance(posterior, Surfaces):
        measured = posterior.observed.design
    target = keep_schedule(target, measured).target
    variants = variants_of(target, domains)
    utility, every = utility_of(goal or Goal(), posterior), torch.arange(distinct(posterior, draws))
    references = references_of(posterior, variants, utility, baselines, len(every), against)
    guarded = guarded_by(target.guard, references, utility)

    def objective(allowed: Feasible) -> tuple[Objective, tuple[str, ...]]:
        near, runs = near_runs(allowed, measured)
        made = Objective(posterior, allowed, utility, references.baseline, every, caution, near, radius_of(near))
        return replace(made, guarded=guarded), tuple(runs)

    objectives, runs = zip(*map(objective, variants), strict=True)
    return Problem(objectives, runs, references, target, baselines)


def distinct(posterior: Posterior, draws: int) -> int:
    """Draws to consult: no more than there are, an even number."""
    if draws < 8:
        raise InputError(f"draws must be at least 8, got {draws}; intervals need draws to differ")
    there = min(len(m.draws) for m in posterior.members) if isinstance(posterior, Surfaces) else draws
    return min(draws, there) // 2 * 2


def guarded_by(guard: Guard | None, references: References, utility: Utility) -> Guarded | None:
    """A target's guard on the axes of the tasks.

    Raises:
        InputError: an unknown baseline or task.
    """
    if guard is None:
        return None
    tasks = utility.tasks
    than = guard.than or references.against
    if than not in references.losses:
        raise InputError(
            f"the guard names baseline {than!r}, compared are {', '.join(references.losses)}; name one of them"
        )
    losses = references.losses[than]
    if guard == DEFAULT_GUARD:
        return Guarded(losses, _default_limits(utility, losses), guard.sure, than)
    most = guard.most if isinstance(guard.most, Mapping) else dict.fromkeys(tasks, guard.most)
    unknown = [task for task in most if task not in tasks]
    if unknown:
        raise InputError(f"the guard names task {unknown[0]!r}, fitted are {', '.join(tasks)}; rename it")
    limits = torch.tensor([float(most.get(task, math.inf)) for task in tasks], dtype=torch.float64)
    return Guarded(losses, limits, guard.sure, than)


def _default_limits(utility: Utility, losses: Tensor) -> Tensor:
    """One percent of loss of every task that counts, in the unit of its gains; the others are not guarded, (T,)."""
    percent = utility.by_task((losses - 0.01)[:, None], losses).mean((0, 1))
    return torch.where(utility.weights > 0, percent, torch.full_like(percent, math.inf))
