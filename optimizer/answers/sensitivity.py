"""What surrounds a recommendation: ranges of equal gain, and optima by posterior draw, by size and without limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.numbers import percent, size
from mixlaw.optimizer.goal.gains import Objective, recipes_losses
from mixlaw.optimizer.policy import BEYOND_RADIUS, EQUIVALENT, GUARD_TOLERANCE, NEGLIGIBLE
from mixlaw.optimizer.search.climb import climb, climbed, refine, refine_each
from mixlaw.optimizer.target.feasible import Feasible, feasible, unlimited
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.schedule import Lengths
from mixlaw.optimizer.target.target import Span, Target
from mixlaw.recipe import Recipe

Floats = NDArray[np.float64]

GRID = 26  # points of a share between 0 and 1
ELSEWHERE = 4  # starts of the search without limits, besides the recommendation
WIDE = 0.08  # narrower ranges are not worth a sentence
NARROWER = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)  # parts of ranges that are tried, to hold together


@dataclass(frozen=True)
class Flat:
    """A range of one share, all else in proportion, statistically equivalent to the recommendation."""

    phase: str
    what: str  # a domain, `code` (`all code` where a domain has that name), or `length`
    low: float
    high: float
    at: float

    def __str__(self) -> str:
        length = (self.phase, "length")
        name, what = length if self.what == "length" else (f"{self.what} in {self.phase}", "share")
        return f"{name}: any {what} from {percent(self.low)} to {percent(self.high)} is statistically equivalent"


@dataclass(frozen=True)
class Free:
    """The optimum of a free hand, beside the one that keeps the limits.

    Attributes:
        recipe: what would be trained.
        gain: over the same baseline as the proposal.
        breaks: limits of the target that it does not keep, in words.
        distance: share of its tokens that differ from the nearest measured recipe.
    """

    recipe: Recipe
    gain: float
    breaks: tuple[str, ...]
    distance: float

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Free.from_json`."""
        plain = {"gain": self.gain, "distance": self.distance}
        return {"recipe": self.recipe.as_json(), "breaks": list(self.breaks), **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Free:
        """Read what `as_json` wrote."""
        return cls(**{**data, "recipe": Recipe.from_json(data["recipe"]), "breaks": tuple(data["breaks"])})


@dataclass(frozen=True)
class Step:
    """The best recipe at one size: tokens in proportion to parameters, domains repeated as often as at the target.

    Attributes:
        params, tokens: of this step.
        shares: phase -> kind -> share.
    """

    params: int
    tokens: int
    shares: Mapping[str, Mapping[str, float]]

    def __str__(self) -> str:
        parts = (
            f"{phase} " + " ".join(f"{kind} {percent(share)}" for kind, share in by.items() if share >= 0.005)
            for phase, by in self.shares.items()
        )
        return f"{size(self.params)} params: {'; '.join(parts)}"


def flat_directions(objective: Objective, point: Points) -> tuple[Flat, ...]:
    """Ranges that are statistically equivalent to a recommendation, one point, wherever in them all of it is at once.

    Noise is one standard deviation of the paired difference over draws, and a quarter of the gain at most. Per phase
    one share moves, that of code or else of the domain of the widest range, all else in proportion; then the length.
    Ranges keep limits, guard and trust radius, and are narrowed together until all their corners do.
    """
    allowed = objective.allowed
    code = torch.tensor([d.kind.is_code for d in allowed.domains])
    found: list[_Range] = []
    for p in range(len(allowed.target.phases)):
        ranges = [r for name, mask in _groups(allowed, code) if (r := _share_range(objective, point, p, name, mask))]
        both = [r for r in ranges if bool((r.mask == code).all())]
        if ranges:
            found.append((both or sorted(ranges, key=lambda r: r.low - r.high))[0])
    if (length := Lengths.of(allowed.target).free) and allowed.cooldown[1] - allowed.cooldown[0] > WIDE / 4:
        one = _length_range(objective, point, length[-1])
        found += [one] if one else []
    return tuple(r.flat(allowed.target.phases) for r in _jointly(objective, point, found) if r.high - r.low >= r.least)


def _groups(allowed: Feasible, code: Tensor) -> list[tuple[str, Tensor]]:
    """What may move in a phase: all code, where there is code and text, and single domains."""
    names = [d.name for d in allowed.domains]
    both = [("all code" if "code" in names else "code", code)] if bool(code.any()) and not bool(code.all()) else []
    singles = [(name, torch.arange(len(names)) == j) for j, name in enumerate(names)] if len(names) > 2 else []
    return [*both, *singles]


@dataclass(frozen=True, eq=False)
class _Range:
    """A range of the share of some domains (K,) in a phase, or of its length: no domains."""

    phase: int
    what: str
    mask: Tensor
    low: float
    high: float
    at: float
    least: float

    def flat(self, phases: Sequence[str]) -> Flat:
        return Flat(phases[self.phase], self.what, self.low, self.high, self.at)

    def narrowed(self, part: float) -> _Range:
        return replace(self, low=self.at + part * (self.low - self.at), high=self.at + part * (self.high - self.at))


def _jointly(objective: Objective, point: Points, ranges: Sequence[_Range]) -> list[_Range]:
    """The ranges, narrowed by the same part until every corner of all of them together is equivalent."""
    for part in NARROWER:
        narrowed = [r.narrowed(part) for r in ranges]
        ends = [(r.low, r.high) for r in narrowed]
        corners = [_moved(objective, point, narrowed, corner) for corner in product(*ends)]
        if bool(_equivalent(objective, point, Points.cat(corners)).all()):
            return narrowed
    return []


def _moved(objective: Objective, point: Points, ranges: Sequence[_Range], values: Sequence[float]) -> Points:
    """The point with a share of each range's domains, or a length, of these values."""
    shares, lengths = point.shares.clone(), point.lengths
    for r, value in zip(ranges, values, strict=True):
        if r.what == "length":
            lengths = _with_length(objective, point, torch.tensor([value], dtype=torch.float64))
        else:
            inside, outside = _sides(objective, point, r.phase, r.mask)
            shares[0, r.phase] = value * inside + (1 - value) * outside
    return replace(point, shares=shares, lengths=lengths)


def _share_range(objective: Objective, point: Points, phase: int, name: str, mask: Tensor) -> _Range | None:
    """Move the share of a group in one phase, keeping the proportions inside and outside of it."""
    here = float(point.shares[0, phase, mask].sum())
    grid = np.unique(np.append(np.linspace(0, 1, GRID), here))
    inside, outside = _sides(objective, point, phase, mask)
    shares = point.shares.repeat(len(grid), 1, 1)
    step = torch.tensor(grid)[:, None]
    shares[:, phase] = step * inside + (1 - step) * outside
    moved = replace(point.repeat(len(grid)), shares=shares)
    return _range(objective, point, moved, grid, _Range(phase, name, mask, here, here, here, WIDE))


def _length_range(objective: Objective, point: Points, phase: int) -> _Range | None:
    """Move the length of the last phase at the expense of those that have no range of their own."""
    here = float(point.lengths[0, phase])
    grid = np.unique(np.append(np.linspace(*objective.allowed.cooldown, GRID), here))
    moved = replace(point.repeat(len(grid)), lengths=_with_length(objective, point, torch.tensor(grid)))
    none = torch.zeros(len(objective.allowed.domains), dtype=torch.bool)
    return _range(objective, point, moved, grid, _Range(phase, "length", none, here, here, here, WIDE / 4))


def _with_length(objective: Objective, point: Points, values: Tensor) -> Tensor:
    """Lengths of phases (R, P) where the last free one is of these values (R,)."""
    lengths = Lengths.of(objective.allowed.target)
    free = np.tile(point.lengths[0, list(lengths.free)].numpy(), (len(values), 1))
    free[:, -1] = values.numpy()
    return torch.tensor(lengths(free))


def _sides(objective: Objective, point: Points, phase: int, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Proportions in a phase within a group of domains and outside of it, (K,) each."""
    unique = torch.tensor([float(d.unique_tokens) for d in objective.allowed.domains], dtype=torch.float64)
    shares = point.shares[0, phase]
    return _proportions(shares, unique, mask), _proportions(shares, unique, ~mask)


def _range(objective: Objective, point: Points, moved: Points, grid: Floats, empty: _Range) -> _Range | None:
    """The unbroken stretch of a grid around the point that is equivalent; None where it is too narrow."""
    fine, here = _equivalent(objective, point, moved), int(np.searchsorted(grid, empty.at))
    low = high = here
    while low > 0 and bool(fine[low - 1]):
        low -= 1
    while high + 1 < len(fine) and bool(fine[high + 1]):
        high += 1
    found = replace(empty, low=float(grid[low]), high=float(grid[high]))
    return found if found.high - found.low >= empty.least else None


def _equivalent(objective: Objective, point: Points, moved: Points) -> Tensor:
    """Whether recipes are statistically equivalent to a point, and keep limits, guard and trust radius, (R,)."""
    with torch.no_grad():
        losses = objective.losses(Points.cat([point, moved]))
        gains, beyond = objective.utility.total(losses, objective.reference), objective.over_guard(losses).sum(-1)
        near = (
            objective.distance(moved)[0] <= max(objective.radius, float(objective.distance(point)[0])) + BEYOND_RADIUS
        )
    loss = gains[:, :1] - gains[:, 1:]
    utility = EQUIVALENT * gains[:, 0].mean()  # what the data cannot tell may still be worth telling
    noise = loss.std(0).minimum(utility).clamp_min(NEGLIGIBLE * objective.percent)
    guarded = beyond[1:] <= beyond[0] + GUARD_TOLERANCE
    return (loss.mean(0) <= noise) & objective.allowed.keeps(moved) & near & guarded


def _proportions(shares: Tensor, unique: Tensor, mask: Tensor) -> Tensor:
    """Shares inside a group, summing to 1; by unique tokens where the group has none."""
    weights = torch.where(mask, shares, torch.zeros_like(shares))
    if float(weights.sum()) < 1e-9:
        weights = torch.where(mask, unique, torch.zeros_like(unique))
    return weights / weights.sum()


Spread = dict[str, dict[str, Span]]

#: Sizes of Aryabumi et al. 2024 (arXiv:2408.10914), the first two steps on the way to a large target.
PAPER_SIZES = (470_000_000, 2_800_000_000)
DRAWS = 24  # that are asked about other sizes and a free hand
#: Draws whose own optima are climbed to from the recommendation, and steps. All 64 draws and 120 steps make the ranges
#: of the demo's shares a tenth wider and the expected regret 5 % larger, in five times the time (dev/LOG.md).
OWN, STEPS = 32, 40


def optima_by_draw(objective: Objective, point: Points) -> Points:
    """Optima of single draws, climbed to from the recommendation."""
    draws = len(objective.draws[:OWN])
    return climb(objective.own, objective.allowed, point.repeat(draws), STEPS)[0]


def spread(allowed: Feasible, best: Points) -> tuple[Spread, Span]:
    """Where single draws have their optima: 5 % and 95 % points of shares by phase and domain, and of the cooldown."""
    levels = torch.tensor([0.05, 0.95], dtype=torch.float64)
    ends, length = torch.quantile(best.shares, levels, dim=0), torch.quantile(best.lengths[:, -1], levels)
    names, phases = [d.name for d in allowed.domains], allowed.target.phases
    shares = {
        phase: {name: (float(ends[0, p, j]), float(ends[1, p, j])) for j, name in enumerate(names)}
        for p, phase in enumerate(phases)
    }
    return shares, (float(length[0]), float(length[1]))


def unconstrained(objective: Objective, point: Points) -> tuple[Objective, Points]:
    """The greatest mean gain for the same tokens without bounds, repetition limits, guards, caution and trust region.

    A climb from the recommendation alone ends there where that is the baseline: so it starts elsewhere, too.
    """
    allowed, few = unlimited(objective.allowed), objective.within(objective.draws[:DRAWS])
    bare = replace(few, allowed=allowed, radius=math.inf, guarded=None, caution=0.0)
    points, values = climbed(bare, [], ELSEWHERE, 0)
    starts = Points.cat([allowed.project(point), points[values.argmax()[None]]])
    ends, reached = refine_each(bare.value, allowed, starts)
    return bare, ends[reached.argmax()[None]]


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
