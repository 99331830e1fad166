"""What surrounds a recommendation: ranges of equal gain, and optima by posterior draw, by size and without limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.answers.proposal import Flat, Step
from mixlaw.optimizer.goal.gains import Objective, recipes_losses
from mixlaw.optimizer.policy import EQUIVALENT, NEGLIGIBLE
from mixlaw.optimizer.search.climb import refine, refine_each
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.schedule import Lengths
from mixlaw.optimizer.target.target import Span, Target
from mixlaw.recipe import Recipe

Floats = NDArray[np.float64]

GRID = 26  # points of a share between 0 and 1
WIDE = 0.08  # narrower ranges are not worth a sentence


def flat_directions(objective: Objective, point: Points, most: int = 3) -> tuple[Flat, ...]:
    """Ranges of a share statistically equivalent to a recommendation, one point: code by phase, length, domains.

    Noise is one standard deviation of the paired difference over draws, and a quarter of the gain at most. All else
    stays in proportion and limits are kept. Of single domains only the `most` widest are listed.
    """
    allowed = objective.allowed
    code = torch.tensor([d.kind.is_code for d in allowed.domains])
    phases = range(len(allowed.target.phases))
    ranges: list[Flat | None] = []
    if bool(code.any()) and not bool(code.all()):
        together = "all code" if any(d.name == "code" for d in allowed.domains) else "code"
        ranges += [_share_range(objective, point, p, together, code) for p in phases]
    if (length := Lengths.of(allowed.target).free) and allowed.cooldown[1] - allowed.cooldown[0] > WIDE / 4:
        ranges.append(_length_range(objective, point, length[-1]))
    alone = int(code.sum()) == 1  # the only domain of code has been told as code
    singles = [
        _share_range(objective, point, p, domain.name, torch.arange(len(allowed.domains)) == j)
        for p in phases
        for j, domain in enumerate(allowed.domains)
        if len(allowed.domains) > 2 and not (alone and domain.kind.is_code)
    ]
    widest = sorted((f for f in singles if f), key=lambda f: f.low - f.high)[:most]
    return tuple(f for f in [*ranges, *widest] if f)


def _share_range(objective: Objective, point: Points, phase: int, name: str, mask: Tensor) -> Flat | None:
    """Move the share of a group in one phase, keeping the proportions inside and outside of it."""
    here = float(point.shares[0, phase, mask].sum())
    grid = np.unique(np.append(np.linspace(0, 1, GRID), here))
    unique = torch.tensor([float(d.unique_tokens) for d in objective.allowed.domains], dtype=torch.float64)
    inside, outside = (_proportions(point.shares[0, phase], unique, part) for part in (mask, ~mask))
    shares = point.shares.repeat(len(grid), 1, 1)
    step = torch.tensor(grid)[:, None]
    shares[:, phase] = step * inside + (1 - step) * outside
    moved = replace(point.repeat(len(grid)), shares=shares)
    ends = _around(objective, point, moved, int(np.searchsorted(grid, here)))
    return _told(objective.allowed.target.phases[phase], name, grid, ends, here, WIDE)


def _length_range(objective: Objective, point: Points, phase: int) -> Flat | None:
    """Move the length of the last phase at the expense of those that have no range of their own."""
    lengths, here = Lengths.of(objective.allowed.target), float(point.lengths[0, phase])
    grid = np.unique(np.append(np.linspace(*objective.allowed.cooldown, GRID), here))
    free = np.tile(point.lengths[0, list(lengths.free)].numpy(), (len(grid), 1))
    free[:, -1] = grid
    moved = replace(point.repeat(len(grid)), lengths=torch.tensor(lengths(free)))
    ends = _around(objective, point, moved, int(np.searchsorted(grid, here)))
    return _told(objective.allowed.target.phases[phase], "length", grid, ends, here, WIDE / 4)


def _told(phase: str, what: str, grid: Floats, ends: tuple[int, int], here: float, wide: float) -> Flat | None:
    low, high = float(grid[ends[0]]), float(grid[ends[1]])
    return Flat(phase, what, low, high, here) if high - low >= wide else None


def _proportions(shares: Tensor, unique: Tensor, mask: Tensor) -> Tensor:
    """Shares inside a group, summing to 1; by unique tokens where the group has none."""
    weights = torch.where(mask, shares, torch.zeros_like(shares))
    if float(weights.sum()) < 1e-9:
        weights = torch.where(mask, unique, torch.zeros_like(unique))
    return weights / weights.sum()


def _around(objective: Objective, point: Points, moved: Points, here: int) -> tuple[int, int]:
    """First and last index of the unbroken stretch around `here` that keeps the limits and is equivalent."""
    with torch.no_grad():
        gains = objective.gains(Points.cat([point, moved]))
    loss = gains[:, :1] - gains[:, 1:]
    utility = EQUIVALENT * gains[:, 0].mean()  # what the data cannot tell may still be worth telling
    noise = loss.std(0).minimum(utility).clamp_min(NEGLIGIBLE * objective.percent)
    fine = (loss.mean(0) <= noise) & objective.allowed.keeps(moved)
    low = high = here
    while low > 0 and bool(fine[low - 1]):
        low -= 1
    while high + 1 < len(fine) and bool(fine[high + 1]):
        high += 1
    return low, high


Spread = dict[str, dict[str, Span]]

#: Sizes of Aryabumi et al. 2024 (arXiv:2408.10914), the first two steps on the way to a large target.
PAPER_SIZES = (470_000_000, 2_800_000_000)
DRAWS = 24  # that are asked about other sizes and a free hand
OWN = 12  # draws whose own optima are looked for, in a few steps from the recommendation
FEW_STEPS = 8


def spread(objective: Objective, point: Points) -> tuple[Spread, Span]:
    """Where single draws have their optima: 5 % and 95 % points of shares by phase and domain, and of the cooldown."""
    draws = len(objective.draws[:OWN])
    best, _ = refine_each(objective.own, objective.allowed, point.repeat(draws), FEW_STEPS)
    levels = torch.tensor([0.05, 0.95], dtype=torch.float64)
    ends, length = torch.quantile(best.shares, levels, dim=0), torch.quantile(best.lengths[:, -1], levels)
    names, phases = [d.name for d in objective.allowed.domains], objective.allowed.target.phases
    shares = {
        phase: {name: (float(ends[0, p, j]), float(ends[1, p, j])) for j, name in enumerate(names)}
        for p, phase in enumerate(phases)
    }
    return shares, (float(length[0]), float(length[1]))


def unconstrained(objective: Objective, point: Points) -> tuple[Objective, Points]:
    """The optimum for the same tokens without bounds, repetition limits, guards and trust region."""
    target = objective.allowed.target
    free = target.changed(floors={}, caps={}, max_epochs=1e9, domain_epochs={}, phase_epochs={}, guard=None)
    allowed = feasible(free, objective.allowed.domains)
    bare = replace(objective.within(objective.draws[:DRAWS]), allowed=allowed, radius=math.inf, guarded=None)
    best, _ = refine(bare.value, allowed, allowed.project(point))
    return bare, best


def way(objective: Objective, point: Points, baseline: Recipe, sizes: Sequence[int]) -> tuple[Step, ...]:
    """How the optimum moves with size: the best recipe at every size and at the target, in order of size."""
    target, few = objective.allowed.target, objective.within(objective.draws[:DRAWS])
    size = float(point.params[0])
    found, here = [], point
    for params in sorted(sizes, reverse=True):
        scale = params / size
        smaller = _scaled(few, target.at(size), baseline, scale)
        start = replace(here, params=torch.full((1,), float(params), dtype=torch.float64))
        here, _ = refine(smaller.value, smaller.allowed, smaller.allowed.project(start))
        found.append(_step(smaller.allowed, smaller.allowed.recipe(here)))
    return (*reversed(found), _step(objective.allowed, objective.allowed.recipe(point)))


def sizes_on_the_way(target: Target, size: int, measured: Sequence[float]) -> tuple[int, ...]:
    """Sizes to show before a target: those of the paper where it is larger, else the largest measured one."""
    if target.prefix or target.under_way:
        return ()  # its size is what it is
    paper = [s for s in PAPER_SIZES if s < size]
    smaller = [round(s) for s in measured if s < size / 1.2]
    return tuple(paper or ([max(smaller)] if smaller else []))


def _scaled(objective: Objective, target: Target, baseline: Recipe, scale: float) -> Objective:
    """The objective for a smaller model and as many fewer tokens, unique ones too."""
    domains = [replace(d, unique_tokens=max(1, round(d.unique_tokens * scale))) for d in objective.allowed.domains]
    size = max(1, round(target.params * scale))
    allowed = feasible(target.changed(params=size, tokens=round(target.tokens * scale), guard=None), domains)
    phases = tuple(replace(phase, tokens=max(1, round(phase.tokens * scale))) for phase in baseline.phases)
    losses = recipes_losses(
        objective.posterior, allowed, [replace(baseline, params=size, phases=phases)], len(objective.baseline)
    )
    return replace(objective, allowed=allowed, baseline=losses[:, 0], guarded=None)


def _step(allowed: Feasible, recipe: Recipe) -> Step:
    kinds = list(dict.fromkeys(d.kind for d in allowed.domains))
    shares = {
        phase.name: {k.value: sum(phase.mixture.share(d.name) for d in allowed.domains if d.kind is k) for k in kinds}
        for phase in recipe.phases
    }
    return Step(recipe.params, recipe.tokens, shares)
