"""Cold start: the first proxies, before there is anything to learn from.

A Bayesian D-optimal design (DuMouchel & Jones 1994, doi:10.1080/00401706.1994.10485819) from trees of recipes spread
over what the target allows: shares of every phase are to be distinguished first, curvature of the whole mixture and
size after that. Some places are kept for what no determinant asks for: the same recipe under another seed, for the
noise floor, and pairs with the same totals in the other order of phases, so that an effect of the phase cannot hide in
the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mixlaw.optimizer.next_runs.candidates import (
    Candidate,
    apart,
    branched,
    resized,
    scaled,
    swapped_pairs,
    with_lengths,
)
from mixlaw.optimizer.next_runs.costs import Prices, Proxies, usual_seed
from mixlaw.optimizer.policy import EXPLORED, RATE_CHECK, REPEATED, REPEATED_RUNS
from mixlaw.optimizer.search.climb import random_starts
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.target import LEAST
from mixlaw.recipe import Recipe

#: Standard deviations of effects in units of the noise of a run: of a phase's shares, curvature of the mixture, size.
SHARES, CURVATURE, SIZE = 10.0, 3.0, 10.0
#: The same of a factor e in the length of the last phase: own runs with a cooldown of 10 % lost 1 % to those with 30 %.
LENGTH = 3.0
#: What a place among the runs may count for, in prices of a run that shares nothing. Less than the first, and branches
#: of few trunks take all: a wider design of this linear kind, but of no more different totals.
PLACES = (0.5, 1.0, 4.0)
#: Rounds of exchange after the greedy choice.
ROUNDS = 2
#: Rows that are tried in each exchange, those that widen the design most.
TRIED = 32


def features(recipes: Sequence[Recipe], allowed: Feasible, centre: float = 0.0, between: float = 0.0) -> Tensor:
    """What the expected loss of recipes is linear in, scaled by the prior spread of the effects over noise, (R, F).

    Args:
        recipes: with phases of the target, of any size.
        allowed: the recipes of the target.
        centre: size at which effects of shares are what they are; the smallest of the recipes where 0.
        between: how much effects of shares may change with a factor e of size, over themselves; above 0 the length of
            the last phase has an effect as well.
    """
    names, phases = [d.name for d in allowed.domains], allowed.target.all_phases
    centre = centre or min((recipe.params for recipe in recipes), default=1)
    rows = []
    for recipe in recipes:
        by_phase = {phase.name: phase.mixture for phase in recipe.phases}
        shares = [[by_phase[p].share(n) if p in by_phase else 0.0 for n in names] for p in phases]
        length = [sum(p.tokens for p in recipe.phases if p.name == name) / recipe.tokens for name in phases]
        mixture, size = recipe.mixture, math.log(recipe.params / centre)
        whole = [mixture.share(n) for n in names]
        first = [
            SHARES * (s - 1 / len(names)) * math.sqrt(part)
            for row, part in zip(shares, length, strict=True)
            for s in row
        ]
        second = [CURVATURE * a * b for i, a in enumerate(whole) for b in whole[: i + 1]]
        grown = [between * size * x for x in first] if between else []
        ending = [LENGTH * math.log(max(length[-1], LEAST))] if between else []
        rows.append([SHARES, *first, *second, SIZE * size / math.log(8), *grown, *ending])
    return torch.tensor(rows, dtype=torch.float64)


def d_optimal(rows: Tensor, prices: Prices, count: int, budget: float, given: Tensor) -> list[int]:
    """Rows (C, F) that most increase log det(1 + X X') per cost beside the given rows (G, F); then exchange some.

    Places are scarce as well, or branches of one trunk would take all: designs are made with several prices of a place,
    and the widest is kept. The exchange (Fedorov 1972) swaps a chosen row for another where that widens the design at
    no higher cost.
    """
    if not len(rows):
        return []
    alone = float(prices([]).median())
    designs = [_greedy(rows, prices, count, budget, given, alone * place) for place in PLACES]
    chosen = max(designs, key=lambda some: log_det(torch.cat([given, rows[some]])))
    for _ in range(ROUNDS):
        for place in range(len(chosen)):
            chosen = _exchanged(rows, prices, chosen, place, given)
    return chosen


def log_det(rows: Tensor) -> float:
    """log det(1 + X X') of rows (R, F): information of a design in units of the noise of a run."""
    return float(torch.logdet(torch.eye(len(rows), dtype=torch.float64) + rows @ rows.T))


def _greedy(rows: Tensor, prices: Prices, count: int, budget: float, given: Tensor, place: float) -> list[int]:
    """The row that brings most for its price and that of its place, again and again, until budget or count is spent."""
    chosen: list[int] = []
    spent = 0.0
    while len(chosen) < count:
        price = prices(chosen)
        score = torch.log1p(_remaining_variance(rows, torch.cat([given, rows[chosen]]))) / (price + place)
        score[chosen] = -math.inf
        score[price > budget * (1 + 1e-9) - spent] = -math.inf
        best = int(score.argmax())
        if score[best] == -math.inf:
            break
        spent += float(price[best])
        chosen.append(best)
    return chosen


def _remaining_variance(rows: Tensor, design: Tensor) -> Tensor:
    """Variance of what rows (C, F) show, in units of the noise, once a design (D, F) was measured, (C,)."""
    inner = torch.eye(len(design), dtype=torch.float64) + design @ design.T
    cross = design @ rows.T
    variance: Tensor = rows.square().sum(1) - (cross * torch.linalg.solve(inner, cross)).sum(0)
    return variance.clamp_min(0)


def _exchanged(rows: Tensor, prices: Prices, chosen: list[int], place: int, given: Tensor) -> list[int]:
    """The choice with another row in one place, if that widens the design and costs no more."""
    others = [index for i, index in enumerate(chosen) if i != place]
    variance = _remaining_variance(rows, torch.cat([given, rows[others]]))
    variance[others] = -math.inf
    limit = prices.total(chosen) * (1 + 1e-9)
    for index in variance.argsort(descending=True)[:TRIED].tolist():
        if variance[index] <= variance[chosen[place]] * (1 + 1e-9):
            break
        swapped = [*chosen[:place], index, *chosen[place + 1 :]]
        if prices.total(swapped) <= limit:
            return swapped
    return chosen


#: Recipes spread over the limits, which trees are made of; measured or queued ones that may get branches.
SPREAD, KNOWN = 24, 24
#: Spread recipes whose first phase is also cooled down at once.
EARLY = 6
#: What speaks for the recipes that a determinant asks for.
APART = "tells the domains and phases apart"
#: The same for the recipes that are repeated at a larger size.
AGAIN = "a recipe of the smallest size again: what grows with size"
#: Peak rates of the rate check, over the rule's.
RATES = (0.5, 2.0)
#: One repeat, and one pair in the other order, per this many runs; most repeats.
EVERY, REPEATS = 8, 2
#: Points whose mean is the centre, and steps and rate of the search for their weights.
MEAN, STEPS, RATE = 512, 300, 1.0


def short_of_runs(measured: Sequence[Recipe], phases: Sequence[str], domains: Sequence[str]) -> bool:
    """Whether there are no more different recipes than a straight line through every phase's shares has numbers."""
    different = {(recipe.params, recipe.phases) for recipe in measured}
    return len(different) <= len(phases) * (len(domains) - 1) + 1


def first_design(
    allowed: Feasible, proxies: Proxies, budget: float, count: int, seed: int = 0, *, repeat: bool = True
) -> list[Candidate]:
    """Choose up to `count` first proxies within a budget in FLOPs, the most useful first.

    What is measured or queued already counts as chosen. Runs share their first phases wherever that teaches more per
    FLOP than runs of their own. Recipes of the smallest size are repeated at the larger ones, for a part of the budget:
    only the same recipes at several sizes show how much what they differ by grows. Not so without `repeat`.
    """
    smallest, larger = min(proxies.sizes), sorted(proxies.sizes)[1:] if repeat else []
    usual = usual_seed(proxies.known)
    share = REPEATED if larger else 0.0
    design = _Design(proxies, budget * (1 - share), count - int(REPEATED_RUNS * count) * bool(larger))
    design.take(_kept(allowed, proxies, budget, count, smallest))
    given = [*proxies.known, *design.recipes]
    recipes = [recipe for recipe in _forest(allowed, proxies, design.recipes, seed) if recipe not in set(given)]
    design.widen(recipes, features([*given, *recipes], allowed), APART)
    for done, size in enumerate(larger):
        places, left = count - len(design.chosen), budget - design.spent
        part = replace(design, budget=design.spent + left / (len(larger) - done))
        part = replace(part, count=len(design.chosen) + max(1, places // (len(larger) - done)) if places > 0 else 0)
        times = proxies.sizes[size] / proxies.sizes[smallest]
        smaller = [r for r in (*proxies.known, *design.recipes) if r.params == smallest and _plain(r, usual)]
        again = list(
            dict.fromkeys(proxies.adopt(resized(recipe, size, round(recipe.tokens * times))) for recipe in smaller)
        )
        again = [recipe for recipe in again if recipe not in {*proxies.known}]
        there = [recipe for recipe in proxies.known if recipe.params == size]
        part.widen(again, features([*there, *again], allowed), AGAIN)
        design = part
    design = replace(design, budget=budget, count=count)
    others = [recipe for recipe in recipes if recipe not in {*design.recipes}]
    design.widen(others, features([*proxies.known, *design.recipes, *others], allowed), APART)
    return design.chosen


def unexplored(known: Sequence[Recipe], allowed: Feasible) -> float:
    """Share of the budget that goes on with the first design: draws of few runs hardly know what they do not know.

    From all of it without runs to nothing where there are `EXPLORED` times as many different recipes as a straight line
    through the shares of every phase has numbers.
    """
    phases, domains = allowed.shape
    numbers = phases * (domains - 1) + 1
    return max(0.0, 1 - len({(recipe.params, recipe.phases) for recipe in known}) / (EXPLORED * numbers))


@dataclass
class _Design:
    """A growing list of runs within a budget and a number of places."""

    proxies: Proxies
    budget: float
    count: int
    chosen: list[Candidate] = field(default_factory=list)
    spent: float = 0.0

    @property
    def recipes(self) -> list[Recipe]:
        """What is chosen."""
        return [candidate.recipe for candidate in self.chosen]

    def take(self, candidates: Sequence[Candidate]) -> None:
        """Add those that budget and places allow, in their order."""
        for candidate in candidates:
            price = self.proxies.cost(candidate.recipe, self.recipes)
            known = candidate.recipe in {*self.recipes, *self.proxies.known}
            if len(self.chosen) < self.count and self.spent + price <= self.budget and not known:
                self.chosen.append(candidate)
                self.spent += price

    def widen(self, recipes: Sequence[Recipe], rows: Tensor, why: str) -> None:
        """Add the D-optimal ones of some recipes; `rows` (G + R, F) begin with those of what is given."""
        prices = Prices(replace(self.proxies, queued=(*self.proxies.queued, *self.recipes)), recipes)
        given, new = rows[: len(rows) - len(recipes)], rows[len(rows) - len(recipes) :]
        picks = d_optimal(new, prices, self.count - len(self.chosen), self.budget - self.spent, given)
        self.spent += prices.total(picks)
        self.chosen += [Candidate(recipes[i], why) for i in picks]


def _plain(recipe: Recipe, usual: int) -> bool:
    """Whether a recipe is neither a repeat under another seed than the usual one nor a check of the rate."""
    return recipe.seed == usual and recipe.lr == 1


def _kept(allowed: Feasible, proxies: Proxies, budget: float, count: int, params: int) -> list[Candidate]:
    """What no determinant asks for: the centre, pairs in the other order, repeats, other lengths of cooldown, rates."""
    many = max(1, count // EVERY)
    middle = centre(allowed)
    first = proxies.adopt(scaled(allowed, middle, params, proxies.sizes[params]))
    pairs = [
        Candidate(recipe, why)
        for pair in swapped_pairs(allowed, first)[:many]
        for recipe, why in zip(
            pair, ("one order of phases", "the same totals in the other order of phases"), strict=True
        )
    ]
    repeats = [
        Candidate(replace(first, seed=seed), "the centre with another seed: the noise floor")
        for seed in range(first.seed + 1, first.seed + min(many, REPEATS) + 1)
    ]
    lengths = [
        Candidate(proxies.adopt(recipe), "the centre with another length of the cooldown")
        for recipe in with_lengths(allowed, middle, params, proxies.sizes[params])
    ]
    rates = _rate_check(allowed, proxies, first)
    cost = sum(proxies.flops(c.recipe.params, c.recipe.tokens) for c in rates)
    afford = cost <= RATE_CHECK * budget and len(rates) <= RATE_CHECK * count
    return [Candidate(first, "the centre of what the target allows"), *pairs, *repeats, *lengths, *(rates * afford)]


def _rate_check(allowed: Feasible, proxies: Proxies, middle: Recipe) -> list[Candidate]:
    """The centre and two recipes far from it and from each other, at half and twice the peak rate: do ranks move?"""
    size, tokens = middle.params, proxies.sizes[middle.params]
    spread = [proxies.adopt(scaled(allowed, recipe, size, tokens)) for recipe in _spread(allowed, 0)]
    one = max(spread, key=lambda recipe: apart(recipe, middle))
    two = max(spread, key=lambda recipe: min(apart(recipe, one), apart(recipe, middle)))
    checked = (("the centre", middle), ("a far recipe", one), ("another far recipe", two))
    return [
        Candidate(replace(recipe, lr=rate), f"rate check: {name} at {rate:g} times the peak rate")
        for rate in (1.0, *RATES)
        for name, recipe in checked
    ][1:]  # the centre itself is there


def centre(allowed: Feasible) -> Recipe:
    """The most even recipe that the target allows: of greatest entropy among means of points inside the limits."""
    points = random_starts(allowed, MEAN, 0)
    tokens = points.tokens.flatten(1)
    weights = torch.full((len(tokens),), 1 / len(tokens), dtype=torch.float64)
    for _ in range(STEPS):  # mirror ascent keeps the weights on their simplex, and what is allowed is convex
        slope = -tokens @ (weights @ tokens).clamp_min(1e-9).log()
        weights = torch.softmax(weights.clamp_min(1e-300).log() + RATE * slope, 0)
    mean = (weights @ tokens).reshape(1, *allowed.shape)
    lengths = mean.sum(-1)
    return allowed.recipe(allowed.complete(mean / lengths[..., None], lengths))


def _forest(allowed: Feasible, proxies: Proxies, chosen: Sequence[Recipe], seed: int) -> list[Recipe]:
    """Recipes of the smallest size to choose from: spread over the limits, and branches of them and of known ones."""
    params = min(proxies.sizes)
    known = [r for r in proxies.known if tuple(p.name for p in r.phases) == allowed.target.all_phases][:KNOWN]
    wanted = [scaled(allowed, recipe, params, proxies.sizes[params]) for recipe in _spread(allowed, seed)]
    stems = [r for r in (*chosen, *known) if r.params == params and len(r.phases) == len(allowed.target.all_phases)]
    forest = branched(allowed, [*wanted, *stems], wanted, seed)
    forest += [_early(recipe) for recipe in wanted[:EARLY] if len(allowed.target.phases) > 2]
    return list(dict.fromkeys(proxies.adopt(recipe) for recipe in forest))


def _early(recipe: Recipe) -> Recipe:
    """The recipe with its last phase straight after the first."""
    return replace(recipe, phases=(*recipe.phases[:1], recipe.phases[-1]))


def _spread(allowed: Feasible, seed: int) -> list[Recipe]:
    """Recipes for the target that are spread over the limits, half of them far from the centre."""
    points = random_starts(allowed, 8 * SPREAD, seed)
    far = points.tokens.flatten(1) - torch.tensor(allowed.centre[0]).flatten()
    order = far.square().sum(1).argsort(descending=True)
    half = SPREAD // 2
    return [allowed.recipe(points[i[None]]) for i in torch.cat([order[:half], order[half :: len(order) // half]])]
