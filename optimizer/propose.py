"""Propose: the recipe for a target that is best in the light of the data, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.optimizer.baselines import named
from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.constraints import Feasible, feasible
from mixlaw.optimizer.flat import flat_directions
from mixlaw.optimizer.judge import judged
from mixlaw.optimizer.objective import LEASH, Objective, apart, log_losses, points_of, recipes_design, task_weights
from mixlaw.optimizer.proposal import PROPOSAL, Proposal
from mixlaw.optimizer.search import climb, random_starts
from mixlaw.optimizer.target import Target
from mixlaw.recipe import Domain, Recipe

Progress = Callable[[float, str], None]
Spread = dict[str, dict[str, tuple[float, float]]]
Span = tuple[float, float]

BASELINES = ("proportional", "text-only", "balanced->text")
#: Recipes that share this much of their tokens are taken to speak for each other, however dense the design is.
LEAST_RADIUS = 0.2


def propose(
    beliefs: Beliefs,
    target: Target,
    domains: Sequence[Domain],
    *,
    weights: Mapping[str, float] | None = None,
    baselines: Sequence[str] | Mapping[str, Recipe] = BASELINES,
    measured: Design | None = None,
    draws: int = 64,
    caution: float = 1.0,
    starts: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> Proposal:
    """Find the recipe that maximises mean - caution x sd of the weighted gain over the best baseline.

    Half of the draws steer the search, the other half judge what it found, so that the reported gain is not inflated by
    having been chosen. The search stays within a trust radius of measured recipes.

    Args:
        beliefs: fitted surfaces.
        target: size, tokens and limits.
        domains: what there is to train on; the order does not matter.
        weights: of tasks, equal where None.
        baselines: names, or recipes by name, for the target's size and tokens.
        measured: runs behind the beliefs; surfaces know theirs. Without any the beliefs are trusted everywhere.
        draws: worlds to consult, at least 8.
        caution: see above; 0 is the plain mean.
        starts: points that the search starts from.
        seed: of the random starts.
        progress: told the share done and what is being done.

    Raises:
        InputError: unknown tasks, phases or domains, or limits that contradict each other.
    """
    tell = progress or (lambda _done, _what: None)
    if draws < 8:
        raise InputError(f"draws must be at least 8, got {draws}; intervals need worlds to differ")
    if measured is None and isinstance(beliefs, Surfaces):
        measured = beliefs.observed.design
    allowed = feasible(target, domains)
    named_recipes = _baselines(baselines, target, domains, allowed)
    rivals = log_losses(beliefs, recipes_design(beliefs, allowed, list(named_recipes.values())), draws)
    task = task_weights(beliefs, weights)
    best = int((rivals.mean(0) @ task).argmin())
    near, runs = _near(allowed, measured)
    even, odd = torch.arange(0, draws, 2), torch.arange(1, draws, 2)
    objective = Objective(beliefs, allowed, task, rivals[even, best], even, draws, caution, near, _radius(near))
    tell(0.05, "searching")
    shares, cooldown = _search(objective, list(named_recipes.values()), starts, seed)
    recipe = allowed.recipe(shares.numpy(), float(cooldown))
    shares, cooldown = (part[0] for part in points_of(allowed, [recipe]))  # as it is after rounding
    tell(0.6, "finding the optimum of every world")
    spread, length = _spread(objective, shares, cooldown)
    tell(0.9, "looking for flat directions")
    judge = replace(objective, worlds=odd, reference=rivals[odd, best])
    flat = flat_directions(judge, shares, cooldown)
    verdict = judged(judge, recipe, named_recipes, list(named_recipes)[best], measured, runs)
    tell(1.0, "proposed")
    return replace(verdict, spread=spread, length=length, flat=flat)


def _baselines(
    wanted: Sequence[str] | Mapping[str, Recipe], target: Target, domains: Sequence[Domain], allowed: Feasible
) -> dict[str, Recipe]:
    """Recipes to beat, with a cooldown in the middle of what is allowed."""
    if isinstance(wanted, Mapping):
        found = dict(wanted)
    else:
        phases = target.phase_tokens(sum(allowed.cooldown) / 2)
        found = {name: named(name)(target.params, phases, domains, target.lr_end) for name in wanted}
    if not found or PROPOSAL in found:
        raise InputError(f"give at least one baseline, none called {PROPOSAL!r}; got {list(found)}")
    return found


def _radius(near: Tensor) -> float:
    """Distance up to which measured recipes (M, P, K) speak for each other: the widest gap between neighbours."""
    if not len(near):
        return math.inf
    gaps = apart(near, near) + torch.eye(len(near))
    return max(LEAST_RADIUS, float(gaps.min(1).values.max())) if len(near) > 1 else LEAST_RADIUS


def _near(allowed: Feasible, measured: Design | None) -> tuple[Tensor, list[str]]:
    """Token shares of the finished, distinct measured recipes on the target's axes (M, P, K), and their runs.

    A run that used a phase or domain that the target does not have is no neighbour.
    """
    phases, names = allowed.target.phases, [d.name for d in allowed.domains]
    if measured is None:
        return torch.zeros(0, *allowed.shape, dtype=torch.float64), []
    x = torch.zeros(len(measured), *allowed.shape, dtype=torch.float64)
    for p, phase in enumerate(phases):
        for j, name in enumerate(names):
            if phase in measured.phases and name in measured.domains:
                x[:, p, j] = measured.shares[:, measured.phases.index(phase), measured.domains.index(name)]
    kept = torch.nonzero((x.sum((1, 2)) > 1 - 1e-3) & (measured.progress >= 1)).flatten()
    _, first = np.unique(x[kept].round(decimals=3).flatten(1).numpy(), axis=0, return_index=True)
    rows = kept[torch.as_tensor(np.sort(first), dtype=torch.long)]
    return x[rows], [measured.runs[i] for i in rows.tolist()]


def _search(objective: Objective, baselines: Sequence[Recipe], starts: int, seed: int) -> tuple[Tensor, Tensor]:
    """Best shares (P, K) and cooldown share () found from baselines, measured recipes and random points."""
    allowed = objective.allowed
    same = [recipe for recipe in baselines if tuple(p.name for p in recipe.phases) == allowed.target.phases]
    lengths = objective.near.sum(-1)
    seen = (objective.near + 1e-9) / (lengths[..., None] + 1e-9 * allowed.shape[1])
    points = [
        random_starts(allowed, starts, seed),
        (seen, lengths[:, -1]),
        *([points_of(allowed, same)] if same else []),
    ]
    shares, parts = (torch.cat(group) for group in zip(*points, strict=True))
    shares, parts = allowed.shares(*allowed.inverse(shares, parts))
    with torch.no_grad():
        order = objective.value(shares, parts).argsort(descending=True)[:starts]
    shares, parts, values = climb(objective.value, allowed, shares[order], parts[order])
    best = values.argsort(descending=True)[:3]
    shares, parts, values = climb(objective.value, allowed, shares[best], parts[best], steps=60, rate=0.03)
    return shares[values.argmax()], parts[values.argmax()]


def _spread(objective: Objective, shares: Tensor, cooldown: Tensor, worlds: int = 24) -> tuple[Spread, Span]:
    """Where each world has its own optimum: 5 % and 95 % points of shares by phase and domain, and of the length."""
    worlds = min(worlds, len(objective.worlds))
    some = replace(objective, worlds=objective.worlds[:worlds], reference=objective.reference[:worlds])

    def own(shares: Tensor, parts: Tensor) -> Tensor:
        beyond = (some.distance(shares, parts)[0] - some.radius).clamp_min(0)
        return some.gains(shares, parts).diagonal() - LEASH * beyond

    best, parts, _ = climb(own, some.allowed, shares.repeat(worlds, 1, 1), cooldown.repeat(worlds), steps=60)
    levels = torch.tensor([0.05, 0.95], dtype=torch.float64)
    ends = torch.quantile(best, levels, dim=0)
    names, phases = [d.name for d in some.allowed.domains], some.allowed.target.phases
    length = torch.quantile(parts, levels)
    spread = {
        phase: {name: (float(ends[0, p, j]), float(ends[1, p, j])) for j, name in enumerate(names)}
        for p, phase in enumerate(phases)
    }
    return spread, (float(length[0]), float(length[1]))
