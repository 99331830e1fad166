"""What surrounds a recommendation: the optima of single worlds, of a free hand, and of smaller models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from mixlaw.optimizer.answers.proposal import Step
from mixlaw.optimizer.goal.gains import Objective, recipes_losses
from mixlaw.optimizer.search.climb import refine, refine_each
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Span, Target
from mixlaw.recipe import Recipe

Spread = dict[str, dict[str, Span]]

#: Sizes of Aryabumi et al. 2024 (arXiv:2408.10914), the first two steps on the way to a large target.
PAPER_SIZES = (470_000_000, 2_800_000_000)
WORLDS = 24  # that are asked about other sizes and a free hand
OWN = 12  # worlds whose own optima are looked for, in a few steps from the recommendation
FEW_STEPS = 8


def spread(objective: Objective, point: Points) -> tuple[Spread, Span]:
    """Where single worlds have their optima: 5 % and 95 % points of shares by phase and domain, and of the cooldown."""
    worlds = len(objective.worlds[:OWN])
    best, _ = refine_each(objective.own, objective.allowed, point.repeat(worlds), FEW_STEPS)
    levels = torch.tensor([0.05, 0.95], dtype=torch.float64)
    ends, length = torch.quantile(best.shares, levels, dim=0), torch.quantile(best.lengths[:, -1], levels)
    names, phases = [d.name for d in objective.allowed.domains], objective.allowed.target.phases
    found = {
        phase: {name: (float(ends[0, p, j]), float(ends[1, p, j])) for j, name in enumerate(names)}
        for p, phase in enumerate(phases)
    }
    return found, (float(length[0]), float(length[1]))


def unconstrained(objective: Objective, point: Points) -> tuple[Objective, Points]:
    """The optimum for the same tokens without bounds, repetition limits, guards and trust region."""
    target = objective.allowed.target
    free = replace(target, floors={}, caps={}, max_epochs=1e9, domain_epochs={}, phase_epochs={}, guard=None)
    allowed = feasible(free, objective.allowed.domains)
    bare = replace(objective.within(objective.worlds[:WORLDS]), allowed=allowed, radius=math.inf, guarded=None)
    found, _ = refine(bare.value, allowed, allowed.drawn(point))
    return bare, found


def way(objective: Objective, point: Points, rival: Recipe, sizes: Sequence[int]) -> tuple[Step, ...]:
    """How the optimum moves with size: the best recipe at every size and at the target, in order of size."""
    target, few = objective.allowed.target, objective.within(objective.worlds[:WORLDS])
    size = float(point.params[0])
    found, here = [], point
    for params in sorted(sizes, reverse=True):
        scale = params / size
        smaller = _scaled(few, target.at(size), rival, scale)
        start = replace(here, params=torch.full((1,), float(params), dtype=torch.float64))
        here, _ = refine(smaller.value, smaller.allowed, smaller.allowed.drawn(start))
        found.append(_step(smaller.allowed, smaller.allowed.recipe(here)))
    return (*reversed(found), _step(objective.allowed, objective.allowed.recipe(point)))


def sizes_on_the_way(target: Target, size: int, measured: Sequence[float]) -> tuple[int, ...]:
    """Sizes to show before a target: those of the paper where it is larger, else the largest measured one."""
    if target.prefix or target.under_way:
        return ()  # its size is what it is
    paper = [s for s in PAPER_SIZES if s < size]
    smaller = [round(s) for s in measured if s < size / 1.2]
    return tuple(paper or ([max(smaller)] if smaller else []))


def _scaled(objective: Objective, target: Target, rival: Recipe, scale: float) -> Objective:
    """The objective for a smaller model and as many fewer tokens, unique ones too."""
    domains = [replace(d, unique_tokens=max(1, round(d.unique_tokens * scale))) for d in objective.allowed.domains]
    size = max(1, round(target.params * scale))
    allowed = feasible(replace(target, params=size, tokens=round(target.tokens * scale), guard=None), domains)
    phases = tuple(replace(phase, tokens=max(1, round(phase.tokens * scale))) for phase in rival.phases)
    losses = recipes_losses(
        objective.beliefs, allowed, [replace(rival, params=size, phases=phases)], len(objective.rival)
    )
    return replace(objective, allowed=allowed, rival=losses[:, 0], guarded=None)


def _step(allowed: Feasible, recipe: Recipe) -> Step:
    kinds = list(dict.fromkeys(d.kind for d in allowed.domains))
    shares = {
        phase.name: {k.value: sum(phase.mixture.share(d.name) for d in allowed.domains if d.kind is k) for k in kinds}
        for phase in recipe.phases
    }
    return Step(recipe.params, recipe.tokens, shares)
