"""The limits of a target as inequalities, and which of them contradict each other.

With x_pj the share of phase p and domain j in the tokens still to be trained, and g the lengths that are free (see
`Lengths`), every limit is linear in v = (x flattened, g): floors and caps f l_p <= sum_j x_pj <= u l_p over the domains
of a name, repetition sum_p x_pj <= epochs_j unique_j / tokens, and ranges of lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from mixlaw.errors import InputError
from mixlaw.optimizer.target.schedule import Lengths
from mixlaw.optimizer.target.target import WHOLE, Span, Target
from mixlaw.recipe import Domain, Kind

Floats = NDArray[np.float64]

#: Share of the tokens below which a phase is none: limits that only its absence would keep contradict each other.
SHORTEST = 1e-3


class Rule(Enum):
    """What a limit is about."""

    LENGTH = "length of a phase"
    FLOOR = "least share of a domain"
    CAP = "greatest share of a domain"
    FIXED = "greatest share, equal to the least one"
    GROUP_FLOOR = "least share of several domains, or of the recipe"
    GROUP_CAP = "greatest share of several domains, or of the recipe"
    EPOCHS = "repetition"
    BEGUN = "what is trained already"


@dataclass(frozen=True)
class Limit:
    """One inequality row . v <= bound + amount / tokens, and how to say it.

    Attributes:
        rule: what it is about.
        words: how it is told.
        row: over v, (P K + G,).
        bound: what does not depend on the tokens.
        amount: tokens; `tokens` are those still to be trained.
        key: where the target says so: field, phase and name.
    """

    rule: Rule
    words: str
    row: Floats
    bound: float
    amount: float = 0.0
    key: tuple[str, str, str] = ("", "", "")

    def most(self, tokens: float) -> float:
        """Upper bound of row . v."""
        return self.bound + self.amount / tokens


def limits_of(target: Target, domains: Sequence[Domain]) -> list[Limit]:
    """All inequalities of a target apart from x >= 0, in the order in which a conflict prefers to blame them last."""
    lengths = Lengths.of(target)
    limits = [*_lengths(target, lengths, len(domains)), *_begun(target, domains, lengths)]
    limits += _shares(target, domains, lengths)
    return [*limits, *_whole(target, domains, lengths), *_epochs(target, domains, lengths)]


def bounds_of(target: Target, domains: Sequence[Domain]) -> tuple[Floats, Floats]:
    """Floors and caps of single domains in single phases, (P, K) each; what a group may not have, none of it may."""
    rows = [(target.floors.get(phase, {}), target.caps.get(phase, {})) for phase in target.phases]
    floor = np.array([[low.get(d.name, 0.0) for d in domains] for low, _ in rows], dtype=np.float64)
    cap = np.array([[high.get(d.name, 1.0) for d in domains] for _, high in rows], dtype=np.float64)
    for where, (low, high) in zip([*range(len(rows)), slice(None)], [*rows, _everywhere(target)], strict=True):
        for name in (name for name, most in high.items() if most <= 0):
            cap[where, members(name, domains)] = 0.0
        for name in (name for name, least in low.items() if least >= 1):
            cap[where, [j for j in range(len(domains)) if j not in members(name, domains)]] = 0.0
    return floor, cap


def _everywhere(target: Target) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Floors and caps of the recipe as far as they hold in each of its phases: those of a recipe without a past."""
    return ({}, {}) if target.prefix else (target.floors.get(WHOLE, {}), target.caps.get(WHOLE, {}))


def _lengths(target: Target, lengths: Lengths, domains: int) -> Iterator[Limit]:
    """Ranges of the free lengths, and of what they leave."""
    size = len(target.phases) * domains
    for g, (phase, (low, high)) in enumerate(zip(lengths.free, lengths.ranges, strict=True)):
        row = np.append(np.zeros(size), np.eye(len(lengths.free))[g])
        name = target.phases[phase]
        what = "a cooldown" if phase == len(target.phases) - 1 else name
        rest = "tokens still to be trained" if target.prefix else "tokens"
        yield Limit(Rule.LENGTH, f"{what} of at least {low:.3g} of the {rest}", -row, -low, key=("least", name, ""))
        yield Limit(Rule.LENGTH, f"{what} of at most {high:.3g} of the {rest}", row, high, key=("most", name, ""))
    if len(lengths.free) > 1:
        (low, high), names = lengths.remainder_range, " and ".join(target.phases[p] for p in lengths.remainder)
        row = np.append(np.zeros(size), np.ones(len(lengths.free)))
        yield Limit(Rule.LENGTH, f"at least {low:.3g} of the tokens for {names}", row, 1 - low)
        if high < 1:
            yield Limit(Rule.LENGTH, f"at most {high:.3g} of the tokens for {names}", -row, high - 1)


def _begun(target: Target, domains: Sequence[Domain], lengths: Lengths) -> Iterator[Limit]:
    """What the phase under way holds already."""
    part = target.under_way
    if part is None or part.mixture is None:
        return
    for j, domain in enumerate(domains):
        tokens = part.tokens * part.mixture.share(domain.name)
        if tokens > 0:
            row = np.zeros(len(target.phases) * len(domains) + len(lengths.free))
            row[j] = -1.0
            words = f"{tokens:,.0f} tokens of {domain.name} in {part.phase} that are trained already"
            yield Limit(Rule.BEGUN, words, row, 0.0, -tokens)


def _shares(target: Target, domains: Sequence[Domain], lengths: Lengths) -> Iterator[Limit]:
    """Floors and caps within phases."""
    shape = len(target.phases), len(domains)
    for p, phase in enumerate(target.phases):
        low, high = target.floors.get(phase, {}), target.caps.get(phase, {})
        for name in dict.fromkeys([*low, *high]):
            one = np.zeros(shape)
            one[p, members(name, domains)] = 1.0
            least, most, single = low.get(name, 0.0), high.get(name, 1.0), ":" not in name
            where = f"{name} in {phase}"
            if least > 0:
                row = np.append(-one, least * lengths.step[p])
                rule = Rule.FLOOR if single else Rule.GROUP_FLOOR
                key = ("floors", phase, name)
                yield Limit(rule, f"at least {least:.3g} {where}", row, -least * lengths.base[p], key=key)
            if most < 1:
                row = np.append(one, -most * lengths.step[p])
                rule = (Rule.CAP if most > least else Rule.FIXED) if single else Rule.GROUP_CAP
                key = ("caps", phase, name)
                yield Limit(rule, f"at most {most:.3g} {where}", row, most * lengths.base[p], key=key)


def _whole(target: Target, domains: Sequence[Domain], lengths: Lengths) -> Iterator[Limit]:
    """Floors and caps over the whole recipe, a known prefix included."""
    history = spent(target, domains) if target.known else np.zeros(len(domains))
    for field, sign, bounds in (("floors", -1.0, target.floors), ("caps", 1.0, target.caps)):
        for name, share in bounds.get(WHOLE, {}).items():
            which = members(name, domains)
            row = np.zeros((len(target.phases), len(domains)))
            row[:, which] = sign
            rule, word = (Rule.GROUP_FLOOR, "least") if sign < 0 else (Rule.GROUP_CAP, "most")
            whole = np.append(row, np.zeros(len(lengths.free)))
            behind = sign * (share * history.sum() - history[which].sum())  # shares are of the prefix, too
            words = f"at {word} {share:.3g} {name} in the {WHOLE}"
            yield Limit(rule, words, whole, sign * share, behind, key=(field, WHOLE, name))


def _epochs(target: Target, domains: Sequence[Domain], lengths: Lengths) -> Iterator[Limit]:
    """Repetition over all phases, and within single ones."""
    shape, history = (len(target.phases), len(domains)), spent(target, domains)
    tokens = _most_tokens(target)
    for j, domain in enumerate(domains):
        most = max(target.epochs(domain) * domain.unique_tokens - history[j], 0.0)
        if most / tokens < 1:
            row = np.zeros(shape)
            row[:, j] = 1.0
            left = f"{most / tokens:.3g} of the tokens" if most else "none of it is left, after what is trained already"
            words = f"at most {target.epochs(domain):g} epochs of {domain.name} ({left})"
            whole = np.append(row, np.zeros(len(lengths.free)))
            yield Limit(Rule.EPOCHS, words, whole, 0.0, most, key=("domain_epochs", "", domain.name))
        for p, phase in enumerate(target.phases):
            most = target.phase_epochs.get(phase, np.inf) * domain.unique_tokens
            if most / tokens < 1:
                row = np.zeros(shape)
                row[p, j] = 1.0
                words = f"at most {target.phase_epochs[phase]:g} epochs of {domain.name} in {phase}"
                whole = np.append(row, np.zeros(len(lengths.free)))
                yield Limit(Rule.EPOCHS, words, whole, 0.0, most, key=("phase_epochs", phase, ""))


def _most_tokens(target: Target) -> float:
    """Tokens still to be trained at the least size."""
    return target.rest if target.sizes is None else target.at(target.sizes[0]).rest


def spent(target: Target, domains: Sequence[Domain]) -> Floats:
    """Tokens of each domain in the known part of the prefix, (K,)."""
    known = [part for part in target.prefix if part.mixture is not None]
    return np.array([sum(p.tokens * p.mixture.share(d.name) for p in known if p.mixture) for d in domains], dtype=float)


def conflict(limits: Sequence[Limit], target: Target, domains: int) -> list[Limit]:
    """Deletion filter (Chinneck 1991): drop every limit without which the rest still contradict each other.

    What contradicts itself inside a phase does so at any length of it; only else do limits of lengths have part.
    """
    lengths: list[Span] | None = [(SHORTEST, 1 - SHORTEST)] * len(Lengths.of(target).free)
    needed = [limit for limit in limits if limit.rule is not Rule.LENGTH]
    if extreme(needed, target, domains, free=lengths) is not None:
        needed, lengths = list(limits), None
    for limit in tuple(needed):
        rest = [other for other in needed if other is not limit]
        if extreme(rest, target, domains, free=lengths) is None:
            needed = rest
    return needed


def shortfall(limit: Limit, others: Sequence[Limit], target: Target, domains: int) -> float:
    """By how much, as a share of the tokens, one limit would have to give for the others to be kept beside it."""
    lengths = Lengths.of(target)
    tokens, rest = _most_tokens(target), [other for other in others if other is not limit]
    rows, bounds = [other.row for other in rest], [other.most(tokens) for other in rest]
    point = solve(lengths, domains, limit.row, rows, bounds, [(0.0, 1.0)] * len(lengths.free))
    return np.inf if point is None else float(limit.row @ point) - limit.most(tokens)


def extreme(
    limits: Sequence[Limit],
    target: Target,
    domains: int,
    length: int | None = None,
    sign: float = 0.0,
    free: Sequence[Span] | None = None,
) -> Floats | None:
    """The point v that keeps the limits with the least sign * g[length]; None where nothing keeps them."""
    lengths = Lengths.of(target)
    size = len(target.phases) * domains
    cost = np.zeros(size + len(lengths.free))
    if length is not None:
        cost[size + length] = sign
    tokens = _most_tokens(target)
    rows, bounds = [limit.row for limit in limits], [limit.most(tokens) for limit in limits]
    return solve(lengths, domains, cost, rows, bounds, list(free or [(0.0, 1.0)] * len(lengths.free)))


def solve(
    lengths: Lengths,
    domains: int,
    cost: Floats,
    rows: Sequence[Floats],
    bounds: Sequence[float],
    others: Sequence[Span],
) -> Floats | None:
    """Minimise cost . v with rows . v <= bounds over v = (x >= 0 whose phases sum to their lengths, g, others)."""
    phases, free = lengths.step.shape
    sums = np.kron(np.eye(phases), np.ones(domains))
    unused = np.zeros((phases, len(others) - free))
    solution = linprog(
        cost,
        A_ub=np.stack(rows) if rows else None,
        b_ub=np.array(bounds) if rows else None,
        A_eq=np.hstack([sums, -lengths.step, unused]),
        b_eq=lengths.base,
        bounds=[*[(0.0, None)] * (phases * domains), *others],
        options={"primal_feasibility_tolerance": 1e-10},
    )
    return None if solution.x is None else np.asarray(solution.x, dtype=np.float64)


def members(name: str, domains: Sequence[Domain]) -> list[int]:
    """Indices of the domains that a name in a limit means: one domain, a kind, or all code or text.

    Raises:
        InputError: it means none of them.
    """
    group, _, what = name.partition(":")
    if not what:
        indices = [j for j, domain in enumerate(domains) if domain.name == name]
    elif group == "all" and what in ("code", "text"):
        indices = [j for j, domain in enumerate(domains) if domain.kind.is_code == (what == "code")]
    else:
        indices = [j for j, domain in enumerate(domains) if group == "kind" and domain.kind.value == what]
    if not indices:
        kinds = ", ".join(f"kind:{kind.value}" for kind in Kind)
        raise InputError(
            f"a limit names domain {name!r}, the domains are {', '.join(sorted(d.name for d in domains))}; "
            f"rename it, or name a kind that is there ({kinds}), all:code or all:text"
        )
    return indices
