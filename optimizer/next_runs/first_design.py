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
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.optimizer.next_runs.candidates import Candidate, branched, scaled, swapped_pairs
from mixlaw.optimizer.next_runs.costs import Prices, Proxies
from mixlaw.optimizer.policy import LARGEST
from mixlaw.optimizer.search.climb import random_starts
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe

#: Standard deviations of effects in units of the noise of a run: of a phase's shares, curvature of the mixture, size.
SHARES, CURVATURE, SIZE = 10.0, 3.0, 10.0
#: What a place among the runs may count for, in prices of a run that shares nothing. Less than the first, and branches
#: of few trunks take all: a wider design of this linear kind, but of no more different totals.
PLACES = (0.5, 1.0, 4.0)
#: Rounds of exchange after the greedy choice.
ROUNDS = 2
#: Rows that are tried in each exchange, those that widen the design most.
TRIED = 32


def features(recipes: Sequence[Recipe], allowed: Feasible) -> Tensor:
    """What the expected loss of recipes is linear in, scaled by the prior spread of the effects over noise, (R, F)."""
    names, phases = [d.name for d in allowed.domains], allowed.target.all_phases
    least = min((recipe.params for recipe in recipes), default=1)
    rows = []
    for recipe in recipes:
        by_phase = {phase.name: phase.mixture for phase in recipe.phases}
        shares = [[by_phase[p].share(n) if p in by_phase else 0.0 for n in names] for p in phases]
        length = [sum(p.tokens for p in recipe.phases if p.name == name) / recipe.tokens for name in phases]
        mixture = recipe.mixture
        whole = [mixture.share(n) for n in names]
        first = [
            SHARES * (s - 1 / len(names)) * math.sqrt(part)
            for row, part in zip(shares, length, strict=True)
            for s in row
        ]
        second = [CURVATURE * a * b for i, a in enumerate(whole) for b in whole[: i + 1]]
        rows.append([SHARES, *first, *second, SIZE * math.log(recipe.params / least) / math.log(8)])
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
#: One repeat, and one pair in the other order, per this many runs; most repeats.
EVERY, REPEATS = 8, 2
#: Points whose mean is the centre, and steps and rate of the search for their weights.
MEAN, STEPS, RATE = 512, 300, 1.0


def short_of_runs(measured: Sequence[Recipe], phases: Sequence[str], domains: Sequence[str]) -> bool:
    """Whether there are no more different recipes than a straight line through every phase's shares has numbers."""
    different = {(recipe.params, recipe.phases) for recipe in measured}
    return len(different) <= len(phases) * (len(domains) - 1) + 1


def first_design(allowed: Feasible, proxies: Proxies, budget: float, count: int, seed: int = 0) -> list[Candidate]:
    """Choose up to `count` first proxies within a budget in FLOPs, the most useful first.

    What is measured or queued already counts as chosen. Runs share their first phases wherever that teaches more per
    FLOP than runs of their own.
    """
    chosen: list[Candidate] = []
    bought: list[Recipe] = []
    spent = 0.0
    for candidate in _kept(allowed, proxies, budget, count, min(proxies.sizes)):
        price = proxies.cost(candidate.recipe, bought)
        known = candidate.recipe in {*bought, *proxies.known}
        if len(chosen) < count and spent + price <= budget and not known:
            chosen.append(candidate)
            bought.append(candidate.recipe)
            spent += price
    given = [*proxies.known, *bought]
    taken = set(given)
    recipes = [recipe for recipe in _forest(allowed, proxies, bought, seed) if recipe not in taken]
    rows = features([*given, *recipes], allowed)
    prices = Prices(replace(proxies, queued=(*proxies.queued, *bought)), recipes)
    picks = d_optimal(rows[len(given) :], prices, count - len(chosen), budget - spent, rows[: len(given)])
    return [*chosen, *(Candidate(recipes[i], "tells the domains and phases apart") for i in picks)]


def _kept(allowed: Feasible, proxies: Proxies, budget: float, count: int, params: int) -> list[Candidate]:
    """What no determinant asks for: the centre, pairs in the other order, repeats, the centre at the largest size."""
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
        for seed in range(1, min(many, REPEATS) + 1)
    ]
    large = [
        size
        for size, tokens in proxies.sizes.items()
        if size > params and proxies.flops(size, tokens) <= LARGEST * budget
    ]
    sizes = [
        Candidate(proxies.adopt(scaled(allowed, middle, size, proxies.sizes[size])), "the centre at the largest size")
        for size in sorted(large)[-1:]
    ]
    return [Candidate(first, "the centre of what the target allows"), *pairs, *repeats, *sizes]


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
    """Recipes to choose from: spread over the limits, at every size, and branches of those of the smallest size.

    What is chosen, measured or queued gets branches as well, whatever its size.
    """
    spread, forest = _spread(allowed, seed), []
    known = [r for r in proxies.known if tuple(p.name for p in r.phases) == allowed.target.all_phases][:KNOWN]
    for params, tokens in sorted(proxies.sizes.items()):
        wanted = [scaled(allowed, recipe, params, tokens) for recipe in spread]
        stems = [recipe for recipe in (*chosen, *known) if recipe.params == params]
        if params == min(proxies.sizes):
            forest += branched(allowed, [*wanted, *stems], wanted, seed)
            forest += [_early(recipe) for recipe in wanted[:EARLY] if len(allowed.target.phases) > 2]
        else:
            forest += [*wanted, *branched(allowed, stems, wanted, seed)]
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
