"""The recipes that a target allows: a polytope of token shares (see `limits`), and a differentiable map onto it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.optimizer.target.limits import Limit, Rule, bounds_of, conflict, extreme, limits_of, shortfall
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.polytope import Polytope, centre_of
from mixlaw.optimizer.target.schedule import Lengths
from mixlaw.optimizer.target.target import Span, Target
from mixlaw.recipe import Domain, Mixture, Phase, Recipe

Floats = NDArray[np.float64]

SLACK = 1e-8  # share of all tokens by which limits are kept, so that a check in floating point agrees
#: Share of the tokens by which a recipe may be beyond a limit: a share that was written as .30000001.
ROUNDED = 1e-6
_SMALL = 1e-12
#: Limits that the map keeps by itself, before anything is drawn back.
_MAPPED = (Rule.FLOOR, Rule.LENGTH)


class Infeasible(InputError):
    """No recipe keeps all limits of the target."""


@dataclass(frozen=True, eq=False)
class Feasible:
    """The recipes a target allows; made by `feasible`.

    Attributes:
        target, domains: what it was made from.
        centre: the point in the middle, as token shares x (P, K) and free lengths g (G,).
        ranges: of the free lengths, as far as the other limits let them go.
        sizes: least and greatest size.
        limits: the inequalities apart from x >= 0, a hair inside.
    """

    target: Target
    domains: tuple[Domain, ...]
    centre: tuple[Floats, Floats]
    ranges: tuple[Span, ...]
    sizes: Span
    limits: tuple[Limit, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Phases still to be trained, and domains."""
        return len(self.target.phases), len(self.domains)

    @property
    def size(self) -> int:
        """Numbers that a search moves: a logit per phase and domain, and dials of free lengths, schedule and size."""
        return math.prod(self.shape) + len(self.ranges) + 2

    @property
    def cooldown(self) -> Span:
        """Least and greatest share of the last phase."""
        return self.ranges[-1] if self.ranges else (1.0, 1.0)

    def points(self, numbers: Tensor) -> Points:
        """Map any numbers (R, size) to recipes that keep every limit; differentiable almost everywhere.

        A softmax above the floors gives a point of the product of simplices, sigmoids what has a range; what breaks a
        limit is drawn back along the ray from the centre until it does not.
        """
        cells, free = math.prod(self.shape), len(self.ranges)
        dials, end, size = numbers[:, cells : cells + free], numbers[:, -2], numbers[:, -1]
        floor, movable = self._floors
        logits = numbers[:, :cells].reshape(-1, *self.shape).masked_fill(~movable, -torch.inf)
        params = self._params(size)
        g = self._lengths_inside(torch.sigmoid(dials))
        wanted = floor + (1 - floor.sum(-1, keepdim=True)) * torch.softmax(logits, -1)
        x, g = self.pull_to_centre(wanted * self.lengths(g)[..., None], g, params)
        low, high = self.target.lr_range
        ends = low + (high - low) * torch.sigmoid(end)
        return Points(x / x.sum(-1, keepdim=True), self.lengths(g), ends, params)

    def numbers(self, points: Points) -> Tensor:
        """Numbers that `points` maps close to these recipes (exactly, where they are strictly inside the limits)."""
        floor, _ = self._floors
        room = (1 - floor.sum(-1, keepdim=True)).clamp_min(_SMALL)
        logits = ((points.shares - floor) / room).clamp_min(1e-5).log()
        g = points.lengths[:, list(self.affine.free)]
        dials = [_dial(g[:, i], span) for i, span in enumerate(self.ranges)]
        logs = (math.log(self.sizes[0]), math.log(self.sizes[1]))
        rest = [_dial(points.lr_end, self.target.lr_range), _dial(points.params.log(), logs)]
        return torch.cat([logits.flatten(1), torch.stack([*dials, *rest], 1)], 1)

    def project(self, points: Points) -> Points:
        """The recipes within the limits that are closest to these, up to the ends of sigmoids."""
        return self.points(self.numbers(points)).detach()

    @property
    def movable(self) -> Tensor:
        """Which shares are free to move, (P, K)."""
        return self._floors[1]

    def tokens(self, params: Tensor) -> Tensor:
        """Tokens still to be trained at these sizes, (R,)."""
        if self.target.sizes is None:
            return torch.full_like(params, float(self.target.rest))
        return self.target.params * self.target.tokens / params

    def complete(self, shares: Tensor, lengths: Tensor) -> Points:
        """Recipes of these shares (R, P, K) and lengths (R, P), size and schedule in the middle of their ranges."""
        one = torch.ones(len(shares), dtype=torch.float64)
        middle = math.sqrt(self.sizes[0] * self.sizes[1])
        return Points(shares, lengths, one * sum(self.target.lr_range) / 2, one * middle)

    def read(self, recipes: Sequence[Recipe]) -> Points:
        """Recipes with the phases of the target as points."""
        names = [d.name for d in self.domains]
        last = [recipe.phases[-len(self.target.phases) :] for recipe in recipes]
        shares = [[[phase.mixture.share(name) for name in names] for phase in phases] for phases in last]
        lengths = [[phase.tokens / sum(p.tokens for p in phases) for phase in phases] for phases in last]
        ends = [phases[-1].lr_end or 0.0 for phases in last]
        sizes = [float(recipe.params) for recipe in recipes]
        return Points(*(torch.tensor(values, dtype=torch.float64) for values in (shares, lengths, ends, sizes)))

    def keeps(self, points: Points) -> Tensor:
        """Whether recipes keep every limit, (R,)."""
        limits = limits_of(self.target, self.domains)
        g = points.lengths[:, list(self.affine.free)]
        return (self._beyond(limits, points.tokens, g, points.params) <= SLACK).all(1)

    def violations(self, recipe: Recipe) -> tuple[str, ...]:
        """The limits that a recipe of the target's phases breaks, in words."""
        point, limits = self.read([recipe]), limits_of(self.target, self.domains)
        g = point.lengths[:, list(self.affine.free)]
        beyond = self._beyond(limits, point.tokens, g, point.params)[0].tolist()
        whole = len(self.target.phases) / float(self.tokens(point.params)[0])  # phases are whole tokens
        return tuple(
            x.words for x, far in zip(limits, beyond, strict=True) if far > ROUNDED * (1 + abs(x.bound)) + whole
        )

    def recipe(self, point: Points) -> Recipe:
        """One point as whole tokens and clean shares: rounded to 0.01 %, drawn inside where rounding left the limits.

        The known part of the prefix comes first; where its mixture is not known, the recipe is what is to be trained.
        """
        at = self if self.target.sizes is None else feasible(self.target.at(float(point.params[0])), self.domains)
        shares, tokens = at._round(point)
        names = [d.name for d in self.domains]
        ends = [1.0] * (len(tokens) - 1) + [round(float(point.lr_end[0]), 3)]
        phases = [
            Phase(name, count, Mixture.normalised(dict(zip(names, row.tolist(), strict=True))), end)
            for (name, count), row, end in zip(tokens.items(), shares, ends, strict=True)
        ]
        history = [part.as_phase() for part in self.target.prefix] if self.target.known else []
        return self.target.rates.applied(Recipe(at.target.params, (*history, *phases)), len(phases))

    def _round(self, point: Points) -> tuple[Floats, dict[str, int]]:
        """Clean shares (P, K) and whole tokens of one point, at one size."""
        rest = self.target.rest
        free = point.lengths[0, list(self.affine.free)].tolist()
        whole = np.array([_whole(g, span, rest) for g, span in zip(free, self.ranges, strict=True)]) / rest
        lengths = torch.tensor(self.affine(whole))
        floor, shares = self._floors[0].numpy(), point.shares[0].numpy()
        clean = np.maximum(np.round(np.where(shares < 5e-4, 0.0, shares), 4), floor)
        clean /= clean.sum(1, keepdims=True)
        g, params = torch.tensor(whole)[None], torch.tensor([float(self.target.params)], dtype=torch.float64)
        beyond = self._beyond(self.limits, torch.tensor(clean) * lengths[:, None], g, params)
        if bool((beyond > 0).any()):
            fixed = _with_centre(self.target, self.domains, tuple((v, v) for v in whole.tolist()), self.sizes)
            x = torch.tensor(shares) * lengths[:, None]
            clean = (fixed or self).pull_to_centre(x[None], g, params)[0][0].numpy()
            clean = clean / clean.sum(1, keepdims=True)
        return clean, self.target.split(lengths.tolist())

    @cached_property
    def affine(self) -> Lengths:
        """Lengths of the phases as a function of the free ones."""
        return Lengths.of(self.target)

    @cached_property
    def _floors(self) -> tuple[Tensor, Tensor]:
        """Floors (P, K), and which shares are free to move (P, K)."""
        floor, cap = bounds_of(self.target, self.domains)
        free = cap > floor
        free[~free.any(1)] = True  # floors that sum to one leave the softmax no weight, whatever it says
        return torch.tensor(floor), torch.tensor(free)

    @cached_property
    def _other_limits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, bounds and amounts of the limits that the map does not keep by itself."""
        return _matrix([limit for limit in self.limits if limit.rule not in _MAPPED], self.size - 2)

    def _params(self, dial: Tensor) -> Tensor:
        low, high = self.sizes
        if low == high:
            return torch.full_like(dial, low)
        return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * torch.sigmoid(dial))

    def lengths(self, g: Tensor) -> Tensor:
        """Length of each phase, (..., P), for free lengths (..., G)."""
        return torch.tensor(self.affine.base) + g @ torch.tensor(self.affine.step).T

    def _lengths_inside(self, part: Tensor) -> Tensor:
        """Free lengths (R, G) at a part of the way through their ranges, drawn back to leave enough for the others."""
        low, high = torch.tensor(self.ranges, dtype=torch.float64).reshape(-1, 2).unbind(1)
        g = low + (high - low) * part
        if len(self.ranges) < 2:
            return g
        cells = math.prod(self.shape)
        rows, bounds, _ = _matrix([x for x in self.limits if x.rule is Rule.LENGTH], self.size - 2)
        return _ray(g, torch.tensor(self.centre[1]), rows[:, cells:], bounds)

    def pull_to_centre(self, x: Tensor, g: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Pull token shares (R, P, K) and lengths (R, G) along the ray to the centre until all limits hold."""
        rows, bounds, amounts = self._other_limits
        if not len(rows):
            return x, g
        inner = torch.tensor(np.append(self.centre[0], self.centre[1]))
        most = bounds + amounts / self.tokens(params)[:, None]
        v = _ray(torch.cat([x.flatten(1), g], 1), inner, rows, most)
        return v[:, : -len(self.ranges) or None].reshape(-1, *self.shape), v[:, math.prod(self.shape) :]

    def _beyond(self, limits: Sequence[Limit], x: Tensor, g: Tensor, params: Tensor) -> Tensor:
        """How far token shares and lengths are beyond each limit, (R, L)."""
        rows, bounds, amounts = _matrix(limits, self.size - 2)
        if not len(rows):
            return torch.zeros(len(params), 0, dtype=torch.float64)
        v = torch.cat([x.reshape(len(params), -1), g], 1)
        return v @ rows.T - bounds - amounts / self.tokens(params)[:, None]


def feasible(target: Target, domains: Sequence[Domain]) -> Feasible:
    """Find the recipes that a target allows.

    Raises:
        Infeasible: the limits contradict each other; the message names a smallest set that does.
        InputError: a limit names an unknown domain.
    """
    unknown = [n for n in target.domain_epochs if ":" not in n and n not in {d.name for d in domains}]
    if unknown:
        names = ", ".join(sorted(d.name for d in domains))
        raise InputError(f"a limit names domain {unknown[0]!r}, the domains are {names}; rename it")
    sizes = _sizes(target, domains)
    target = target if target.sizes is None else target.changed(sizes=sizes)
    limits, count = limits_of(target, domains), len(domains)
    if extreme(limits, target, count) is None:
        clash = conflict(limits, target, count)
        beside = [limit for limit in limits if limit.rule is Rule.LENGTH or limit in clash]
        short = min(shortfall(limit, beside, target, count) for limit in clash)
        names = "; ".join(limit.words for limit in clash)
        by = f" by {short:.2g} of the tokens" if np.isfinite(short) else ""
        raise Infeasible(f"no recipe keeps all of: {names}; loosen one of them{by}, or give fewer tokens")
    free = range(len(Lengths.of(target).free))
    inner = _with_margin(target, domains)
    if extreme(inner, target, count) is None:  # limits that touch leave no room for a margin
        inner = limits
    ends = [[extreme(inner, target, count, i, sign) for sign in (1.0, -1.0)] for i in free]
    first = len(target.phases) * count
    ranges = tuple((float(low[first + i]), float(high[first + i])) for i, (low, high) in enumerate(ends))  # type: ignore[index]
    result = _with_centre(target, domains, ranges, sizes)
    assert result is not None, "the ranges have been found possible"
    return result


def unlimited(allowed: Feasible) -> Feasible:
    """The same target without bounds of shares and repetition."""
    target = allowed.target.changed(floors={}, caps={}, max_epochs=1e9, domain_epochs={}, phase_epochs={}, guard=None)
    return feasible(target, allowed.domains)


def _sizes(target: Target, domains: Sequence[Domain]) -> Span:
    """Sizes at which the limits can be kept: a small model of many tokens may run out of unique ones."""
    if target.sizes is None:
        return float(target.params), float(target.params)
    low, high = target.sizes

    def possible(size: float) -> bool:
        fixed = target.at(size)
        return extreme(limits_of(fixed, domains), fixed, len(domains)) is not None

    if possible(low) or not possible(high):
        return low, high
    bad, good = math.log(low), math.log(high)
    for _ in range(30):
        middle = (bad + good) / 2
        bad, good = (bad, middle) if possible(math.exp(middle)) else (middle, good)
    return math.exp(good), high


def _with_margin(target: Target, domains: Sequence[Domain]) -> list[Limit]:
    """All limits, caps a hair inside; those on repetition by one more token for each phase that is rounded.

    What no share can move stays as it is.
    """
    spare = min(len(target.phases) / target.rest, 1e-3)
    floor, cap = bounds_of(target, domains)
    stuck = np.append((cap <= floor).ravel(), np.ones(len(Lengths.of(target).free), bool))
    shrunk = []
    for limit in limits_of(target, domains):
        none = limit.bound == 0 and limit.amount == 0  # nothing is left of it, so nothing is inside by a hair
        moves = limit.rule not in _MAPPED and not none and bool(limit.row[~stuck].any())
        amount = limit.amount * (1 - spare) if limit.rule is Rule.EPOCHS else limit.amount
        shrunk.append(replace(limit, bound=limit.bound - SLACK * moves, amount=amount))
    return shrunk


def _with_centre(target: Target, domains: Sequence[Domain], ranges: tuple[Span, ...], sizes: Span) -> Feasible | None:
    """The feasible set for ranges of the free lengths, with its centre; None where there is nothing."""
    floor, cap = bounds_of(target, domains)
    lengths, limits = Lengths.of(target), tuple(_with_margin(target, domains))
    tokens = target.rest if target.sizes is None else target.at(sizes[0]).rest
    point = centre_of(_polytope(lengths, floor, cap, limits, ranges, tokens))
    if point is None:  # limits that touch
        point = centre_of(_polytope(lengths, floor, cap, limits_of(target, domains), ranges, tokens))
    if point is None:
        return None
    g = np.array([min(max(v, low), high) for v, (low, high) in zip(point[floor.size :], ranges, strict=True)])
    whole = lengths(g)[:, None]
    clean = np.where(cap > floor, np.maximum(point[: floor.size].reshape(floor.shape), floor * whole), floor * whole)
    clean = clean * whole / clean.sum(1, keepdims=True)
    return Feasible(target, tuple(domains), (clean, g), ranges, sizes, limits)


def _polytope(
    lengths: Lengths, floor: Floats, cap: Floats, limits: Sequence[Limit], ranges: tuple[Span, ...], tokens: float
) -> Polytope:
    """What v = (x flattened, g) may be: above the floors (P, K), phases of their lengths, within limits and ranges."""
    phases, domains = floor.shape
    size, free, width = floor.size, (cap > floor).ravel(), np.array([high - low for low, high in ranges])
    above = np.hstack([np.eye(size), -(floor[..., None] * lengths.step[:, None]).reshape(size, -1)])
    base, moving = (floor * lengths.base[:, None]).ravel(), width > _SMALL
    ends = np.hstack([np.zeros((len(ranges), size)), np.eye(len(ranges))])
    low, high = np.array(ranges, dtype=np.float64).reshape(-1, 2).T
    held = [x for x in limits if x.rule is not Rule.FLOOR and (x.rule is not Rule.LENGTH or bool(moving.any()))]
    held = [x for x in held if x.row[:size][free].any() or x.rule is Rule.LENGTH]
    rows = [-above[free], ends[moving], -ends[moving], *([np.stack([x.row for x in held])] if held else [])]
    bounds = [-base[free], high[moving], -low[moving], np.array([x.most(tokens) for x in held])]
    whole = np.hstack([np.kron(np.eye(phases), np.ones(domains)), -lengths.step])
    sums = np.vstack([whole, above[~free], ends[~moving]])
    return Polytope(
        np.vstack(rows), np.concatenate(bounds), sums, np.concatenate([lengths.base, base[~free], low[~moving]])
    )


def _ray(v: Tensor, inner: Tensor, rows: Tensor, most: Tensor) -> Tensor:
    """The last point on the way from `inner` to v (R, n) that keeps rows . v <= most."""
    room = most - rows @ inner
    climb = (v - inner) @ rows.T
    reach = torch.where(climb > room, room.clamp_min(0) / climb.clamp_min(_SMALL), torch.ones_like(climb))
    return inner + reach.amin(-1, keepdim=True).clamp_max(1) * (v - inner)


def _matrix(limits: Sequence[Limit], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (L, size), bounds (L,) and amounts (L,) of limits."""
    rows = np.stack([x.row for x in limits]) if limits else np.zeros((0, size))
    return torch.tensor(rows), *(torch.tensor([float(v) for v in c], dtype=torch.float64) for c in _columns(limits))  # type: ignore[return-value]


def _columns(limits: Sequence[Limit]) -> tuple[list[float], list[float]]:
    return [x.bound for x in limits], [x.amount for x in limits]


def _dial(value: Tensor, span: Span) -> Tensor:
    """Number whose sigmoid is the place of a value within its range; the middle where there is no range."""
    low, high = span
    if high - low < _SMALL:
        return torch.zeros_like(value)
    return torch.logit(((value - low) / (high - low)).clamp(1e-3, 1 - 1e-3))


def _whole(value: float, span: Span, tokens: int) -> int:
    """The nearest number of whole tokens that is in range."""
    least, most = math.ceil(span[0] * tokens - _SMALL), math.floor(span[1] * tokens + _SMALL)
    return min(max(round(value * tokens), least), max(most, least))
