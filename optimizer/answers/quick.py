"""Assess: what a recipe brings to a target, at once and without a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.propose import assessed
from mixlaw.optimizer.goal.evidence import forecasts_of
from mixlaw.optimizer.goal.gains import Objective, recipes_design, recipes_losses
from mixlaw.optimizer.goal.values import Forecast, Interval
from mixlaw.optimizer.search.climb import one_thread
from mixlaw.optimizer.search.problem import Problem
from mixlaw.optimizer.search.support import evidence_of
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe


@dataclass(frozen=True)
class Assessment:
    """What one recipe brings to a target.

    Attributes:
        recipe: what was weighed.
        against: the best baseline, which gains refer to.
        unit: of gains.
        gain: what the gains over it are worth together.
        gains: the same by task.
        beats: probability that it beats the best baseline.
        forecasts: what one run of it would measure, by task.
        guarded: probability by task that the guard of the target holds.
        broken: limits of the target that it does not keep, in words.
        distance: as of a proposal; None for other phases.
        nearest: name of that run.
        supported: whether the data support recommending it over the best baseline.
        sentence: the one that matters.
        same: whether it is the baseline.
    """

    recipe: Recipe
    against: str
    unit: str
    gain: Interval
    gains: Mapping[str, Interval]
    beats: float
    forecasts: tuple[Forecast, ...]
    guarded: Mapping[str, float]
    broken: tuple[str, ...]
    distance: float | None
    nearest: str
    supported: bool
    sentence: str
    same: bool = False


def assess(problem: Problem, recipes: Mapping[str, Recipe], measured: Design | None = None) -> dict[str, Assessment]:
    """Predict what recipes gain, by name: those for the target, or others of phases and domains that were measured.

    Each is compared with the baseline of its own schedule; `measured` are the runs behind the posterior, for what is
    extrapolated.
    """
    assessments = {}
    for name, recipe in recipes.items():
        index = _branch(problem, recipe)
        allowed = problem.objectives[index].allowed
        own = problem.scheduled(recipe) if _has_phases(allowed, recipe) else problem
        assessments[name] = _assessment(own, own.objectives[index], own.runs[index], recipe, name, measured)
    return assessments


def as_proposal(problem: Problem, recipe: Recipe) -> Proposal:
    """The same as a proposal of just this recipe; without a search, optima and equivalent shares are empty."""
    index = _branch(problem, recipe)
    own = problem.scheduled(recipe) if _has_phases(problem.objectives[index].allowed, recipe) else problem
    posterior = own.objectives[index].posterior
    measured = posterior.observed.design if isinstance(posterior, Surfaces) else None
    with one_thread():
        return assessed(own, own.objectives[index], recipe, measured, own.runs[index])


def _assessment(
    problem: Problem,
    objective: Objective,
    runs: Sequence[str],
    recipe: Recipe,
    name: str,
    measured: Design | None,
) -> Assessment:
    with torch.no_grad():
        design = recipes_design(objective.posterior, objective.allowed, [recipe])
    losses = recipes_losses(objective.posterior, objective.allowed, [recipe], len(objective.baseline))[:, 0]
    evidence, nearest = evidence_of(problem, objective, recipe, losses, measured, runs)
    return Assessment(
        recipe=recipe,
        against=evidence.against,
        unit=evidence.unit,
        gain=evidence.gain.total,
        gains=evidence.gain.by_task,
        beats=evidence.gain.probability,
        forecasts=tuple(forecasts_of(objective.posterior, design, [name])),
        guarded=evidence.guarded or {},
        broken=tuple(evidence.limits),
        distance=evidence.distance,
        nearest=nearest,
        supported=evidence.supported,
        sentence=evidence.sentence,
        same=evidence.same,
    )


def _has_phases(allowed: Feasible, recipe: Recipe) -> bool:
    """Whether a recipe ends with the phases of the target."""
    return tuple(phase.name for phase in recipe.phases[-len(allowed.target.phases) :]) == allowed.target.phases


def adapt_recipe(problem: Problem, recipe: Recipe) -> Recipe:
    """A recipe at the size, tokens and limits of a target: as it is where it keeps them all, else drawn inside.

    A guard is not looked at: that takes a search.
    """
    allowed = problem.objectives[_branch(problem, recipe)].allowed
    if _fits(allowed, recipe):
        return recipe
    names = tuple(phase.name for phase in recipe.phases[-len(allowed.target.phases) :])
    if names != allowed.target.phases:
        recipe = problem.references.entries[problem.references.against].recipe
    return allowed.recipe(allowed.project(allowed.read([recipe])))


def _fits(allowed: Feasible, recipe: Recipe) -> bool:
    """Whether a recipe is one of the target: its size and tokens, its phases, its limits."""
    history = () if allowed.target.known else tuple(part.phase for part in allowed.target.prefix)
    if (*history, *(phase.name for phase in recipe.phases)) != allowed.target.all_phases:
        return False
    low, high = allowed.sizes
    if not low - 0.5 <= recipe.params <= high + 0.5:
        return False
    target = allowed.target.at(recipe.params)
    tokens = recipe.tokens + (0 if target.known else target.trained)
    return tokens == target.tokens and not allowed.violations(recipe)


def _branch(problem: Problem, recipe: Recipe) -> int:
    """The branch of the target that a recipe resumes from; the first where that cannot be told."""
    for index, objective in enumerate(problem.objectives):
        prefix = objective.allowed.target.prefix
        known = objective.allowed.target.known
        if known and recipe.phases[: len(prefix)] == tuple(part.as_phase() for part in prefix):
            return index
    return 0
