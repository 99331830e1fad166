"""The recipes that a target allows: a polytope of token shares, and a differentiable map onto it.

With x_pj the share of phase p and domain j in all tokens and c the share of the last phase, phase lengths l_p(c) are
affine in c and every limit is linear in (x, c): sum_j x_pj = l_p(c), floors and caps f l_p(c) <= x_pj <= u l_p(c), and
repetition sum_p x_pj <= epochs_j unique_j / tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.optimizer.target import Target
from mixlaw.recipe import Domain, Mixture, Phase, Recipe

Floats = NDArray[np.float64]

SLACK = 1e-8  # share of all tokens by which limits are kept, so that a check in floating point agrees
_SMALL = 1e-12


class Infeasible(InputError):
    """No recipe keeps all limits of the target."""


class Rule(Enum):
    """What a limit is about."""

    COOLDOWN = "length of the last phase"
    FLOOR = "least share"
    CAP = "greatest share"
    FIXED = "greatest share, equal to the least one"
    EPOCHS = "repetition"


@dataclass(frozen=True)
class Limit:
    """One inequality row . v <= bound over v = (x flattened, c), and how to say it."""

    rule: Rule
    words: str
    row: Floats
    bound: float


@dataclass(frozen=True, eq=False)
class Feasible:
    """The recipes a target allows; made by `feasible`.

    Attributes:
        target, domains: what it was made from.
        centre: a point well inside, as token shares x (P, K) and cooldown share c.
        limits: the inequalities apart from x >= 0, floors and the cooldown range, which the map keeps by itself.
    """

    target: Target
    domains: tuple[Domain, ...]
    centre: tuple[Floats, float]
    cooldown: tuple[float, float]
    limits: tuple[Limit, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Phases and domains."""
        return len(self.target.phases), len(self.domains)

    def shares(self, logits: Tensor, dial: Tensor) -> tuple[Tensor, Tensor]:
        """Map any numbers to a recipe that keeps every limit; differentiable almost everywhere.

        A softmax above the floors gives a point of the product of simplices, a sigmoid the cooldown; what breaks a
        limit is drawn back along the ray from the centre until it does not.

        Args:
            logits: (..., P, K).
            dial: (...,).

        Returns:
            Shares per phase (..., P, K), each row summing to 1, and the last phase's share of the tokens (...,).
        """
        floor, free = self._floors()
        inside = torch.softmax(logits.masked_fill(~free, -torch.inf), -1)
        low, high = self.cooldown
        c = low + (high - low) * torch.sigmoid(dial)
        wanted = floor + (1 - floor.sum(-1, keepdim=True)) * inside
        return self._drawn_back(wanted * self._lengths(c)[..., None], c)

    def token_shares(self, shares: Tensor, cooldown: Tensor) -> Tensor:
        """Share of each phase and domain in all tokens, (..., P, K), summing to 1 over both."""
        return shares * self._lengths(cooldown)[..., None]

    def inverse(self, shares: Tensor, cooldown: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers that `shares` maps close to this recipe (exactly, where it is strictly inside the limits)."""
        floor, _ = self._floors()
        room = (1 - floor.sum(-1, keepdim=True)).clamp_min(_SMALL)
        low, high = self.cooldown
        part = ((cooldown - low) / max(high - low, _SMALL)).clamp(1e-3, 1 - 1e-3)
        return ((shares - floor) / room).clamp_min(1e-5).log(), torch.logit(part)

    def recipe(self, shares: Floats, cooldown: float) -> Recipe:
        """Whole tokens and clean shares: rounded to 0.01 %, drawn inside the limits where rounding left them."""
        tokens = self.target.phase_tokens(self._whole(cooldown))
        exact = tokens[self.target.phases[-1]] / self.target.tokens
        fixed = _solve_centre(self.target, self.domains, (exact, exact))
        floor, _ = self._floors()
        rounded = np.maximum(np.round(np.where(shares < 5e-4, 0.0, shares), 4), floor.numpy())
        rounded /= rounded.sum(1, keepdims=True)
        if self._worst(rounded, exact) > 0:
            lengths = self._lengths(torch.tensor(exact, dtype=torch.float64))
            inside, _ = fixed._drawn_back(torch.tensor(shares) * lengths[:, None], torch.tensor(exact))
            rounded = inside.numpy()
        names = [d.name for d in self.domains]
        ends = [1.0] * (len(tokens) - 1) + [self.target.lr_end]
        phases = [
            Phase(name, count, Mixture.normalised(dict(zip(names, row.tolist(), strict=True))), end)
            for (name, count), row, end in zip(tokens.items(), rounded, ends, strict=True)
        ]
        return Recipe(self.target.params, tuple(phases))

    def keeps(self, shares: Tensor, cooldown: Tensor) -> Tensor:
        """Whether recipes, shares (R, P, K) and cooldown (R,), keep every limit, (R,)."""
        limits = _limits(self.target, self.domains)
        if not limits:
            return torch.ones(len(shares), dtype=torch.bool)
        v = torch.cat([self.token_shares(shares, cooldown).flatten(1), cooldown[:, None]], 1)
        rows = torch.tensor(np.stack([x.row for x in limits]))
        bounds = torch.tensor([float(x.bound) for x in limits], dtype=torch.float64)
        return (v @ rows.T <= bounds + SLACK).all(1)

    def violations(self, recipe: Recipe) -> tuple[str, ...]:
        """The limits that a recipe of the target's phases breaks, in words."""
        shares = np.array([[p.mixture.share(d.name) for d in self.domains] for p in recipe.phases])
        cooldown = recipe.phases[-1].tokens / recipe.tokens
        v = self._vector(shares, cooldown)
        return tuple(x.words for x in _limits(self.target, self.domains) if x.row @ v > x.bound * (1 + 1e-9) + 1e-9)

    def _whole(self, cooldown: float) -> float:
        """The nearest cooldown of whole tokens that is still in range."""
        all_tokens, (low, high) = self.target.tokens, self.cooldown
        least, most = math.ceil(low * all_tokens - _SMALL), math.floor(high * all_tokens + _SMALL)
        return min(max(round(cooldown * all_tokens), least), max(most, least)) / all_tokens

    def _vector(self, shares: Floats, cooldown: float) -> Floats:
        lengths = self._lengths(torch.tensor(cooldown, dtype=torch.float64)).numpy()
        return np.append(shares * lengths[:, None], cooldown)

    def _worst(self, shares: Floats, cooldown: float) -> float:
        v = self._vector(shares, cooldown)
        return max((float(x.row @ v - x.bound) for x in self.limits), default=-np.inf)

    def _lengths(self, c: Tensor) -> Tensor:
        """Length of each phase over all tokens, (..., P), for cooldown shares (...,)."""
        start, step = map(torch.tensor, _affine_lengths(self.target))
        return start + c[..., None] * step

    def _floors(self) -> tuple[Tensor, Tensor]:
        """Floors (P, K), and which shares are free to move (P, K)."""
        floor, cap = _bounds(self.target, self.domains)
        free = cap > floor
        free[~free.any(1)] = True  # floors that sum to one leave the softmax no weight, whatever it says
        return torch.tensor(floor), torch.tensor(free)

    def _drawn_back(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Pull token shares (..., P, K) and cooldowns (...,) along the ray to the centre until all limits hold."""
        inner = torch.tensor(np.append(self.centre[0], self.centre[1]))
        v = torch.cat([x.flatten(-2), c[..., None]], -1)
        if self.limits:
            rows = torch.tensor(np.stack([limit.row for limit in self.limits]))
            room = torch.tensor([limit.bound for limit in self.limits], dtype=torch.float64) - rows @ inner
            climb = (v - inner) @ rows.T
            reach = torch.where(climb > room, room.clamp_min(0) / climb.clamp_min(_SMALL), torch.ones_like(climb))
            v = inner + reach.amin(-1, keepdim=True).clamp_max(1) * (v - inner)
        tokens, c = v[..., :-1].reshape(*v.shape[:-1], *self.shape), v[..., -1]
        return tokens / tokens.sum(-1, keepdim=True), c


def feasible(target: Target, domains: Sequence[Domain]) -> Feasible:
    """Find the recipes that a target allows.

    Raises:
        Infeasible: there are none; the message names a smallest set of limits that contradict each other.
        InputError: a floor or cap names an unknown domain.
    """
    known = {domain.name for domain in domains}
    named = [d for by in (*target.floors.values(), *target.caps.values()) for d in by] + [*target.domain_epochs]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise InputError(f"a limit names domain {unknown[0]!r}, the domains are {', '.join(sorted(known))}; rename it")
    limits = _limits(target, domains)
    if _extreme(limits, target, domains, 0.0) is None:
        names = "; ".join(limit.words for limit in _conflict(limits, target, domains))
        raise Infeasible(f"no recipe keeps all of: {names}; loosen one of them, or give fewer tokens")
    inner = _tightened(target, domains)
    ends = [_extreme(inner, target, domains, sign) for sign in (1.0, -1.0)]
    if any(end is None for end in ends):  # limits that touch leave no room for a margin
        ends = [_extreme(limits, target, domains, sign) for sign in (1.0, -1.0)]
    low, high = (float(end[-1]) for end in ends if end is not None)
    return _solve_centre(target, domains, (low, high))


def _tightened(target: Target, domains: Sequence[Domain]) -> list[Limit]:
    """All limits, caps a hair inside; those on repetition by one more token for each phase that is rounded."""
    spare = min(len(target.phases) / target.tokens, 1e-3)
    margin = {Rule.CAP: (SLACK, 0.0), Rule.EPOCHS: (SLACK, spare)}
    found = []
    for limit in _limits(target, domains):
        absolute, relative = margin.get(limit.rule, (0.0, 0.0))
        found.append(replace(limit, bound=limit.bound - absolute - relative * limit.bound))
    return found


def _solve_centre(target: Target, domains: Sequence[Domain], cooldown: tuple[float, float]) -> Feasible:
    """The feasible set for a cooldown range that is known to be possible, with the point that has most room."""
    floor, cap = _bounds(target, domains)
    limits = tuple(x for x in _tightened(target, domains) if not x.words.startswith(("at least", "a cooldown")))
    start, step = _affine_lengths(target)
    size = floor.size
    free = (cap > floor).ravel()
    above = np.hstack([-np.eye(size), (floor * step[:, None]).reshape(-1, 1), free[:, None] / size])
    rows = [*above, *(np.append(x.row, 1.0 / len(domains)) for x in limits)]
    bounds = [*(-floor * start[:, None]).ravel(), *(x.bound for x in limits)]
    point = _solve(target, np.append(np.zeros(size + 1), -1.0), rows, bounds, [cooldown, (0.0, 1.0)])
    if point is None:  # limits that touch: no room for the margin
        point = _extreme(_limits(target, domains), target, domains, 0.0, cooldown)
    assert point is not None, "the caller has found the cooldown range possible"
    part = min(max(float(point[size]), cooldown[0]), cooldown[1])
    lengths = (start + part * step)[:, None]
    clean = np.where(cap > floor, np.maximum(point[:size].reshape(floor.shape), floor * lengths), floor * lengths)
    return Feasible(target, tuple(domains), (clean * lengths / clean.sum(1, keepdims=True), part), cooldown, limits)


def _conflict(limits: Sequence[Limit], target: Target, domains: Sequence[Domain]) -> list[Limit]:
    """Deletion filter (Chinneck 1991): drop every limit without which the rest still contradict each other."""
    kept = list(limits)
    for limit in limits:
        rest = [other for other in kept if other is not limit]
        if _extreme(rest, target, domains, 0.0) is None:
            kept = rest
    return kept


def _extreme(
    limits: Sequence[Limit],
    target: Target,
    domains: Sequence[Domain],
    sign: float,
    cooldown: tuple[float, float] | None = None,
) -> Floats | None:
    """The point (x, c) that keeps the limits with the least sign * c; None where nothing keeps them."""
    size = len(target.phases) * len(domains)
    rows, bounds = [limit.row for limit in limits], [limit.bound for limit in limits]
    return _solve(target, np.append(np.zeros(size), sign), rows, bounds, [cooldown or _all_cooldowns(target)])


def _all_cooldowns(target: Target) -> tuple[float, float]:
    """Any share of the last phase, before its limits; all tokens where it is the only one."""
    return (0.0, 1.0) if len(target.phases) > 1 else (1.0, 1.0)


def _solve(
    target: Target,
    cost: Floats,
    rows: Sequence[Floats],
    bounds: Sequence[float],
    others: Sequence[tuple[float, float]],
) -> Floats | None:
    """Minimise cost . v with rows . v <= bounds over v = (x >= 0 whose phases sum to their lengths, others)."""
    start, step = _affine_lengths(target)
    size = cost.size - len(others)
    sums = np.kron(np.eye(len(start)), np.ones(size // len(start)))
    unused = np.zeros((len(start), len(others) - 1))
    found = linprog(
        cost,
        A_ub=np.stack(rows) if rows else None,
        b_ub=np.array(bounds) if rows else None,
        A_eq=np.hstack([sums, -step[:, None], unused]),
        b_eq=start,
        bounds=[*[(0.0, None)] * size, *others],
        options={"primal_feasibility_tolerance": 1e-10},
    )
    return None if found.x is None else np.asarray(found.x, dtype=np.float64)


def _limits(target: Target, domains: Sequence[Domain]) -> list[Limit]:
    """All inequalities of a target apart from x >= 0, in the order in which a conflict prefers to blame them last."""
    shape = len(target.phases), len(domains)
    (floor, cap), (start, step) = _bounds(target, domains), _affine_lengths(target)
    found = []
    low, high = target.cooldown_range
    if len(target.phases) > 1:
        last = np.append(np.zeros(shape), 1.0)
        found += [Limit(Rule.COOLDOWN, f"a cooldown of at least {low:.3g} of the tokens", -last, -low)]
        found += [Limit(Rule.COOLDOWN, f"a cooldown of at most {high:.3g} of the tokens", last, high)]
    for p, phase in enumerate(target.phases):
        for j, domain in enumerate(domains):
            one = np.zeros(shape)
            one[p, j] = 1.0
            low, high, where = floor[p, j], cap[p, j], f"{domain.name} in {phase}"
            if low > 0:
                row = np.append(-one, low * step[p])
                found.append(Limit(Rule.FLOOR, f"at least {low:.3g} {where}", row, -low * start[p]))
            if high < 1:
                row = np.append(one, -high * step[p])
                rule = Rule.CAP if high > low else Rule.FIXED
                found.append(Limit(rule, f"at most {high:.3g} {where}", row, high * start[p]))
    for j, domain in enumerate(domains):
        most = target.epochs(domain.name) * domain.unique_tokens / target.tokens
        if most < 1:
            row = np.zeros(shape)
            row[:, j] = 1.0
            words = f"at most {target.epochs(domain.name):g} epochs of {domain.name} ({most:.3g} of the tokens)"
            found.append(Limit(Rule.EPOCHS, words, np.append(row, 0.0), most))
    return found


def _bounds(target: Target, domains: Sequence[Domain]) -> tuple[Floats, Floats]:
    """Floors and caps, (P, K) each."""
    rows = [(target.floors.get(phase, {}), target.caps.get(phase, {})) for phase in target.phases]
    floor = np.array([[low.get(d.name, 0.0) for d in domains] for low, _ in rows], dtype=np.float64)
    cap = np.array([[high.get(d.name, 1.0) for d in domains] for _, high in rows], dtype=np.float64)
    return floor, cap


def _affine_lengths(target: Target) -> tuple[Floats, Floats]:
    """Phase lengths as start + c step, (P,) each."""
    before = np.array(target.before)
    last = np.eye(len(before))[-1]
    return before, last - before
