"""What a recommendation depends on: weights of tasks, and how many unique tokens there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mixlaw.errors import InputError
from mixlaw.numbers import percent, size
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.references import with_schedule
from mixlaw.optimizer.goal.values import Interval, interval
from mixlaw.optimizer.search.climb import one_thread, refine
from mixlaw.optimizer.search.problem import Problem, variants_of
from mixlaw.optimizer.target.points import Points
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Recipe
from mixlaw.tables import Cell, Column, Table, number

#: Share of the tokens that has to change before a recommendation is another one.
CHANGED = 0.1
#: Factors by which a weight moves.
FACTORS = (0.25, 0.5, 2.0, 4.0)
#: Draws in which optima are compared, and weights that are moved at most.
DRAWS, MOST = 24, 8
#: Domains that are seen more often than this may gain from more unique tokens.
EPOCHS = 0.5


@dataclass(frozen=True)
class Weighting:
    """How far the weight of a task or group may move.

    Attributes:
        name: of the group, or of a task in none.
        changed: by factor on its weight, the share of the tokens that the best recipe then has elsewhere.
    """

    name: str
    changed: Mapping[float, float]

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest factor tried up to which no more than a tenth of the tokens changes; 1 where none."""
        low = high = 1.0
        for factor in sorted((f for f in self.changed if f < 1), reverse=True):
            if self.changed[factor] > CHANGED:
                break
            low = factor
        for factor in sorted(f for f in self.changed if f > 1):
            if self.changed[factor] > CHANGED:
                break
            high = factor
        return low, high


@dataclass(frozen=True)
class MoreTokens:
    """What more unique tokens of a domain would bring.

    Attributes:
        domain, tokens: what is added.
        epochs: how often the recommendation sees the domain now.
        gain: of the best recipe with them over the recommendation, in the unit of the goal.
        changed: share of the tokens that the best recipe then has elsewhere.
    """

    domain: str
    tokens: int
    epochs: float
    gain: Interval
    changed: float


@dataclass(frozen=True)
class Dependence(Printable):
    """What a recommendation depends on.

    Attributes:
        recipe: the recommendation.
        unit: of gains.
        weights: how far each may move.
        tokens: what more unique tokens would bring, the most first.
    """

    recipe: Recipe
    unit: str
    weights: tuple[Weighting, ...]
    tokens: tuple[MoreTokens, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        weights = [
            {"name": w.name, "range": list(w.range), "changed": {str(f): c for f, c in w.changed.items()}}
            for w in self.weights
        ]
        return {
            "recipe": self.recipe.as_json(),
            "unit": self.unit,
            "weights": weights,
            "tokens": [asdict(more) for more in self.tokens],
        }

    def _tables(self) -> Iterator[Table]:
        if self.weights:
            columns = [
                "weight of",
                *(Column(f"x {f:g}") for f in FACTORS),
                f"up to {percent(CHANGED)} of tokens change",
            ]
            rows = [[w.name, *(number(w.changed[f], ".0%") for f in FACTORS), _span(*w.range)] for w in self.weights]
            title = "Share of the tokens that changes with the weight of a task or group:"
            yield Table("weights", columns, rows, title)
        if self.tokens:
            columns = [
                "domain",
                Column("more unique tokens", "tokens"),
                Column(f"gain, {self.unit}", "gain"),
                Column("epochs now", "epochs"),
                Column("tokens that change", "changed"),
            ]
            cells = [
                [
                    m.domain,
                    Cell(size(m.tokens), m.tokens),
                    m.gain.cell(None),
                    number(m.epochs, ".2f"),
                    number(m.changed, ".0%"),
                ]
                for m in self.tokens
            ]
            yield Table("tokens", columns, cells, "What more unique tokens would bring, with the best recipe for them:")

    @property
    def sentence(self) -> str:
        """What matters most."""
        if not self.weights and not self.tokens:
            return "Nothing to vary."
        firm = sum(w.range == (FACTORS[0], FACTORS[-1]) for w in self.weights)
        best = self.tokens[0] if self.tokens else None
        more = f"most from more tokens: {best.domain}, {best.gain.text()} {self.unit}" if best else ""
        held = (
            f"{firm} of {len(self.weights)} weights may change {FACTORS[-1]:g} times either way" if self.weights else ""
        )
        return "; ".join(filter(None, (held, more))) + "."

    def page(self) -> Page:
        """What moves the recommendation."""
        return Page(self.sentence, tables=list(self._tables()))


def _span(low: float, high: float) -> str:
    return "any change" if low == high == 1 else f"from {low:g} to {high:g} times"


def dependence_of(problem: Problem, recipe: Recipe, more: Mapping[str, int] | None = None) -> Dependence:
    """What a recommendation for a problem depends on.

    Args:
        problem: of the target.
        recipe: the recommendation.
        more: unique tokens to add by domain; as many as there are, of every domain that is seen about once, where None.

    Raises:
        InputError: an unknown domain.
    """
    problem = problem.scheduled(recipe)
    target = with_schedule(problem.target.at(recipe.params), recipe)
    domains = problem.objectives[0].allowed.domains
    history = recipe.phases[: -len(target.phases)]
    with one_thread():
        variants = variants_of(target, domains)
        begun = [tuple(p.as_phase() for p in v.target.prefix) if v.target.known else () for v in variants]
        index = begun.index(history) if history in begun else 0
        allowed = variants[index]
        objective = replace(problem.objectives[index], allowed=allowed)
        few = objective.within(objective.draws[:DRAWS])
        here = allowed.project(replace(allowed.read([recipe]), params=_one(recipe.params)))
        best = refine(few.value, allowed, here)[0]
        weights = tuple(_weightings(few, best))
        wanted = _wanted(objective, recipe) if more is None else more
        tokens = [_more(objective, best, recipe, name, count) for name, count in wanted.items()]
    ordered = sorted(tokens, key=lambda m: -m.gain.mean)
    return Dependence(recipe, objective.utility.goal.unit, weights, tuple(ordered))


def _one(value: float) -> torch.Tensor:
    return torch.tensor([float(value)], dtype=torch.float64)


def _weightings(objective: Objective, best: Points) -> Iterator[Weighting]:
    """Move the weight of each group, or of each task that is in none."""
    utility = objective.utility
    members = {name: weights > 0 for name, weights in utility.groups.items()}
    grouped = torch.stack([*members.values()]).any(0) if members else torch.zeros(len(utility.tasks), dtype=torch.bool)
    singles = [t for t in range(len(utility.tasks)) if not grouped[t]]
    members |= {utility.tasks[t]: torch.arange(len(utility.tasks)) == t for t in singles}
    counted = {name: mask & (utility.weights > 0) for name, mask in members.items()}
    counted = {name: mask for name, mask in counted.items() if bool(mask.any())}
    if len(counted) < 2 or not utility.is_sum:
        return
    for name, mask in list(counted.items())[:MOST]:
        changed = {}
        for factor in FACTORS:
            raw = utility.weights * torch.where(mask, factor, 1.0)
            other = replace(objective, utility=replace(utility, weights=raw / raw.sum()))
            changed[factor] = _apart(best, refine(other.value, other.allowed, best)[0])
        yield Weighting(name, changed)


def _wanted(objective: Objective, recipe: Recipe) -> dict[str, int]:
    """As many tokens again of every domain that is seen about once or more."""
    domains = objective.allowed.domains
    return {d.name: d.unique_tokens for d in domains if recipe.domain_tokens(d.name) > EPOCHS * d.unique_tokens}


def _more(objective: Objective, best: Points, recipe: Recipe, name: str, count: int) -> MoreTokens:
    """Search again with more unique tokens of a domain, from the optimum without them."""
    allowed = objective.allowed
    domains = [replace(d, unique_tokens=d.unique_tokens + (count if d.name == name else 0)) for d in allowed.domains]
    known = {d.name: d for d in allowed.domains}
    if name not in known:
        raise InputError(f"there is no domain {name!r}, but {', '.join(known)}; name one of them")
    (wider,) = variants_of(allowed.target, domains)
    richer = replace(objective, allowed=wider)
    few = richer.within(richer.draws[:DRAWS])
    point = refine(few.value, wider, wider.project(best))[0]
    with torch.no_grad():
        before, after = objective.losses(best), richer.losses(point)
    gain = interval(objective.utility.total(after, before[:, 0])[:, 0])
    epochs = recipe.domain_tokens(name) / known[name].unique_tokens
    return MoreTokens(name, count, epochs, gain, _apart(best, point))


def _apart(one: Points, other: Points) -> float:
    """Share of the tokens still to be trained that two recipes do not have in common."""
    return 0.5 * float((one.tokens - other.tokens).abs().sum())
