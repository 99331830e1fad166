"""Trees of recipes that share their first phases: a branch costs only what comes after the point where it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe

#: About so many recipes are made.
MANY = 1000
#: Share of the tokens by which whole batches may move the end of a phase.
ROUNDING = 0.01


def branched(allowed: Feasible, stems: Sequence[Recipe], others: Sequence[Recipe], seed: int = 0) -> list[Recipe]:
    """Recipes of one size and branches of them that the target allows.

    From the second phase of the target on, every recipe so far is also made with what some of the others, drawn at
    random, have in this phase. With three phases every first phase has several second ones, and each of these several
    last ones.

    Args:
        allowed: the recipes of the target; limits count at the size of the target.
        stems: recipes with all phases of the target.
        others: recipes whose mixtures and last phases are used; as long before the last phase as the stems.
        seed: of the choice.
    """
    later = range(-len(allowed.target.phases) + 1, 0)
    each = round((MANY / max(len(stems), 1)) ** (1 / max(len(later), 1))) - 1
    generator = torch.Generator().manual_seed(seed)
    found = list(stems)
    for index in later:
        for recipe in tuple(found):
            drawn = torch.randperm(len(others), generator=generator)[: max(each, 1)].tolist()
            found += [_with(recipe, index, others[i]) for i in drawn]
    return kept_by(allowed, list(dict.fromkeys(found)))


def kept_by(allowed: Feasible, recipes: Sequence[Recipe]) -> list[Recipe]:
    """Those of some proxies, with all phases of the target, whose like the limits allow at the size of the target.

    Lengths that whole tokens or batches moved a little out of their ranges are taken as if they were at their ends.
    """
    if not recipes:
        return []
    points = allowed.read(recipes)
    low, high = torch.tensor(allowed.ranges, dtype=torch.float64).reshape(-1, 2).unbind(1)
    free = points.lengths[:, list(allowed.affine.free)]
    inside = free.clamp(low, high)
    keeps = allowed.keeps(allowed.complete(points.shares, allowed.lengths(inside)))
    keeps &= ((free - inside).abs() <= ROUNDING).all(1)
    return [recipe for recipe, fine in zip(recipes, keeps.tolist(), strict=True) if fine]


def _with(recipe: Recipe, index: int, other: Recipe) -> Recipe:
    """The recipe with the mixture of another in one phase; the last phase is also as long as there."""
    phases, its = list(recipe.phases), other.phases[index]
    phases[index] = its if index == -1 else replace(phases[index], mixture=its.mixture)
    return replace(recipe, phases=tuple(phases))
