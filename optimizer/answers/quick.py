"""Revise: what a recipe brings to a target, and the best one near it, while somebody moves sliders and waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.optimizer.goal.evidence import forecasts_of, sentence_of
from mixlaw.optimizer.goal.gains import Objective, gain_of, recipes_losses
from mixlaw.optimizer.goal.values import Forecast, Interval
from mixlaw.optimizer.policy import BEYOND_RADIUS, GUARD_TOLERANCE, SURE
from mixlaw.optimizer.search.climb import best_points, on_ladder, one_thread
from mixlaw.optimizer.search.guards import excess, keep_guard, kept
from mixlaw.optimizer.search.problem import Problem
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe

QUICK = 24  # draws that a quick search uses, at most half of them: enough to tell good recipes from bad ones
STARTS = 6  # points that climb: steps cost little more for many of them than for one


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
        distance: share of its tokens that differ from the nearest measured recipe; None for other phases.
        nearest: name of that run.
        supported: whether the data support recommending it over the best baseline.
        sentence: the one that matters.
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


def assess(problem: Problem, recipes: Mapping[str, Recipe]) -> dict[str, Assessment]:
    """Predict what recipes gain, by name: those for the target, or others of phases and domains that were measured."""
    assessments = {}
    for index in sorted({_branch(problem, recipe) for recipe in recipes.values()}):
        some = {name: recipe for name, recipe in recipes.items() if _branch(problem, recipe) == index}
        objective = problem.objectives[index]
        posterior, names, allowed = objective.posterior, list(some), objective.allowed
        with torch.no_grad():
            losses = recipes_losses(posterior, allowed, list(some.values()), len(objective.baseline)).unbind(1)
        forecasts, count = tuple(forecasts_of(posterior, allowed, some)), len(posterior.tasks)
        for r, name in enumerate(names):
            own_forecasts = forecasts[r * count : (r + 1) * count]
            assessments[name] = _weighed(problem, objective, problem.runs[index], some[name], losses[r], own_forecasts)
    return {name: assessments[name] for name in recipes}


def _weighed(
    problem: Problem,
    objective: Objective,
    runs: Sequence[str],
    recipe: Recipe,
    losses: Tensor,
    forecasts: tuple[Forecast, ...],
) -> Assessment:
    """One recipe of log losses (S, T) in all draws."""
    allowed, against = objective.allowed, problem.references.best
    gain = gain_of(objective.utility, losses, objective.baseline, objective.posterior.tasks)
    same = tuple(phase.name for phase in recipe.phases[-len(allowed.target.phases) :]) == allowed.target.phases
    far, neighbour = (float(part[0]) for part in objective.distance(allowed.read([recipe]))) if same else (None, 0)
    beats, unit = gain.probability, objective.utility.goal.unit
    supported = beats >= SURE and far is not None and far <= objective.radius + BEYOND_RADIUS
    return Assessment(
        recipe=recipe,
        against=against,
        unit=unit,
        gain=gain.total,
        gains=gain.by_task,
        beats=beats,
        forecasts=forecasts,
        guarded=kept(objective, losses),
        broken=allowed.violations(recipe) if same else (),
        distance=far,
        nearest=runs[int(neighbour)] if runs and same else "",
        supported=supported,
        sentence=sentence_of(supported, gain.total, f" {unit}", against, beats, len(problem.references.entries)),
    )


def adapt_recipe(problem: Problem, recipe: Recipe) -> Recipe:
    """A recipe at the size, tokens and limits of a target: as it is where it keeps them all, else drawn inside.

    A guard is not looked at: that takes a search.
    """
    allowed = problem.objectives[_branch(problem, recipe)].allowed
    if _fits(allowed, recipe):
        return recipe
    names = tuple(phase.name for phase in recipe.phases[-len(allowed.target.phases) :])
    if names != allowed.target.phases:
        recipe = problem.references.entries[problem.references.best].recipe
    return allowed.recipe(allowed.project(allowed.read([recipe])))


def quick_search(
    problem: Problem, start: Recipe, *, seed: int = 0, on_step: Callable[[], None] = lambda: None
) -> Recipe:
    """The best recipe for a target, searched for in few draws from one that is at hand: a quick `propose`.

    Limits, guard and trust radius are kept as there. What is within 0.01 % of the best that is found is left alone, so
    that asking again gives the same recipe.

    Args:
        problem: of the target.
        start: a recipe of the target's phases, for any size and tokens.
        seed: of the random points that are tried besides it, the baselines and the measured recipes.
        on_step: called at every step; what it raises ends the search.

    Raises:
        Infeasible: the guard cannot be kept.
    """
    start, tried = adapt_recipe(problem, start), []
    with one_thread():
        for objective in problem.objectives:
            few = objective.draws[: min(QUICK, len(objective.draws) // 2)]
            search = replace(objective.within(few), on_step=on_step)
            recipes = [start, *problem.baselines]
            point, value = best_points(search, recipes, STARTS, seed)
            tried.append((value, search, point))
        value, search, point = max(tried, key=lambda each: each[0])
        search, point = on_ladder(search, point)
        return start if _as_good(search, start, value) else search.allowed.recipe(keep_guard(search, point))


def _as_good(objective: Objective, recipe: Recipe, value: float) -> bool:
    """Whether a recipe keeps everything and is worth as much as the search has found, but for a trifle."""
    if not _fits(objective.allowed, recipe):
        return False
    point = objective.allowed.read([recipe])
    with torch.no_grad():
        return (
            float(objective.value(point)) >= value - GUARD_TOLERANCE
            and float(excess(objective, point)) <= GUARD_TOLERANCE
        )


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
