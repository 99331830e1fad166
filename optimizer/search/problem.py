"""Ground: everything against which recipes for one target are measured, made once and searched many times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.baselines import DEFAULTS, Baselines, baselines_of
from mixlaw.optimizer.goal.evidence import near_runs, radius_of
from mixlaw.optimizer.goal.gains import Guarded, Objective
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.policy import CAUTION
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.schedule import keep_schedule
from mixlaw.optimizer.target.target import Guard, Target
from mixlaw.recipe import Domain, Recipe


@dataclass(frozen=True, eq=False)
class Problem:
    """Where the recipes for a target are compared.

    Attributes:
        objectives: what recipes are worth in all draws, for each branch of the target.
        runs: names of the measured neighbours, for each branch.
        references: baselines, and which of them gains refer to.
    """

    objectives: tuple[Objective, ...]
    runs: tuple[tuple[str, ...], ...]
    references: Baselines

    @property
    def baselines(self) -> list[Recipe]:
        """The recipes to beat."""
        return [entry.recipe for entry in self.references.entries.values()]


def problem_of(
    posterior: Posterior,
    target: Target,
    domains: Sequence[Domain],
    *,
    goal: Goal | None = None,
    baselines: Sequence[str] | Mapping[str, Recipe] = DEFAULTS,
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
    variants = [feasible(target.on(branch), domains) for branch in target.branches] or [feasible(target, domains)]
    utility, every = utility_of(goal or Goal(), posterior), torch.arange(distinct(posterior, draws))
    references = baselines_of(posterior, variants, utility, baselines, len(every))
    guarded = guarded_by(target.guard, references, posterior.tasks)

    def objective(allowed: Feasible) -> tuple[Objective, tuple[str, ...]]:
        near, runs = near_runs(allowed, measured)
        baseline = references.losses[references.best]
        made = Objective(posterior, allowed, utility, baseline, every, caution, near, radius_of(near))
        return replace(made, guarded=guarded), tuple(runs)

    objectives, runs = zip(*map(objective, variants), strict=True)
    return Problem(objectives, runs, references)


def distinct(posterior: Posterior, draws: int) -> int:
    """Draws to consult: no more than there are, an even number, so that no draw is on both sides."""
    if draws < 8:
        raise InputError(f"draws must be at least 8, got {draws}; intervals need draws to differ")
    there = min(len(m.draws) for m in posterior.members) if isinstance(posterior, Surfaces) else draws
    return min(draws, there) // 2 * 2


def guarded_by(guard: Guard | None, references: Baselines, tasks: Sequence[str]) -> Guarded | None:
    """A target's guard on the axes of the tasks.

    Raises:
        InputError: an unknown baseline or task.
    """
    if guard is None:
        return None
    than = guard.than or references.best
    if than not in references.losses:
        raise InputError(
            f"the guard names baseline {than!r}, compared are {', '.join(references.losses)}; name one of them"
        )
    most = guard.most if isinstance(guard.most, Mapping) else dict.fromkeys(tasks, guard.most)
    unknown = [task for task in most if task not in tasks]
    if unknown:
        raise InputError(f"the guard names task {unknown[0]!r}, fitted are {', '.join(tasks)}; rename it")
    limits = torch.tensor([float(most.get(task, math.inf)) for task in tasks], dtype=torch.float64)
    return Guarded(references.losses[than], limits, guard.sure, than)
