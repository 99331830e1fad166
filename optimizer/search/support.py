"""The evidence for one recipe of a problem."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.goal.evidence import directions_of, is_larger, size_gap
from mixlaw.optimizer.goal.gains import Objective, gain_of
from mixlaw.optimizer.goal.goal import Utility
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.values import probability
from mixlaw.optimizer.goal.verdict import Evidence
from mixlaw.optimizer.policy import SAME, SURE
from mixlaw.optimizer.search.guards import kept
from mixlaw.optimizer.search.problem import Problem
from mixlaw.recipe import Recipe


def evidence_of(
    problem: Problem, objective: Objective, recipe: Recipe, losses: Tensor, measured: Design | None, runs: Sequence[str]
) -> tuple[Evidence, str]:
    """What is known about a recipe beside the baseline, and the nearest measured run.

    Args:
        problem: with baselines of the recipe's schedule.
        objective: of the recipe's variant of the target.
        recipe: for the target, or of other phases that were measured.
        losses: its log losses in all draws, (S, T).
        measured: the runs behind the posterior.
        runs: names of the objective's measured neighbours.
    """
    posterior, utility, references = objective.posterior, objective.utility, problem.references
    phases = objective.allowed.target.phases
    for_target = tuple(phase.name for phase in recipe.phases[-len(phases) :]) == phases
    far, nearest = None, ""
    if for_target:
        distance, neighbour = objective.distance(objective.allowed.read([recipe]))
        far, nearest = float(distance), runs[int(neighbour)] if runs else ""
    if measured is None and isinstance(posterior, Surfaces):
        measured = posterior.observed.design
    audit = posterior.audit if isinstance(posterior, Surfaces) else None
    whole = objective.within(torch.arange(len(objective.baseline)))
    baseline = references.entries[references.against].recipe
    gains = {name: utility.total(losses[:, None], other) for name, other in references.losses.items()}
    own = gains.pop(references.against)
    evidence = Evidence(
        gain=gain_of(utility, losses, references.baseline),
        unit=utility.goal.unit,
        against=references.against,
        others={name: probability(gain) for name, gain in gains.items()},
        best=all(bool(own.mean() <= gain.mean()) for gain in gains.values()),
        same=for_target and is_same(recipe, baseline, len(phases)),
        distance=far,
        radius=objective.radius,
        directions=directions_of(audit, _that_count(utility), is_larger(recipe, measured)),
        size=size_gap(recipe, measured),
        guarded=kept(whole, losses),
        sure=objective.guarded.sure if objective.guarded else SURE,
        limits=objective.allowed.violations(recipe) if for_target else (),
    )
    return evidence, nearest


def doubts_of(posterior: Posterior, utility: Utility, recipe: Recipe) -> tuple[str, ...]:
    """Directions towards a recipe in which the audit is broken, and a size far beyond the measured ones, in words."""
    if not isinstance(posterior, Surfaces):
        return ()
    measured = posterior.observed.design
    directions = directions_of(posterior.audit, _that_count(utility), is_larger(recipe, measured))
    broken = [f"the audit is broken there: {direction}" for direction in directions if direction.broken]
    return tuple(filter(None, (*broken, size_gap(recipe, measured))))


def _that_count(utility: Utility) -> list[str]:
    return [task for task, weight in zip(utility.tasks, utility.weights.tolist(), strict=True) if weight > 0]


def is_same(one: Recipe, other: Recipe, last: int) -> bool:
    """Whether the last phases of two recipes have the same lengths and mixtures, within a percent of their tokens."""
    pairs = list(zip(one.phases[-last:], other.phases[-last:], strict=True))
    return abs(one.params / other.params - 1) < SAME and all(
        a.name == b.name
        and abs(a.tokens / b.tokens - 1) < SAME
        and sum(abs(a.mixture.share(d) - b.mixture.share(d)) for d in {*a.mixture, *b.mixture}) / 2 < SAME
        for a, b in pairs
    )
