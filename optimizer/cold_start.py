"""Cold start: the first proxies, before there is anything to learn from.

A Bayesian D-optimal design (DuMouchel & Jones 1994, doi:10.1080/00401706.1994.10485819) from recipes spread over what
the target allows: shares of every phase are to be told apart first, curvature of the whole mixture and size after that.
Some places are kept for what no determinant asks for: the same recipe under another seed, for the noise floor, and
pairs with the same totals in the other order of phases, so that an effect of the phase cannot hide in the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.optimizer.constraints import Feasible
from mixlaw.optimizer.pairs import swapped_pairs
from mixlaw.optimizer.pool import Candidate, at_size, scaled
from mixlaw.optimizer.proxies import Prices, Proxies
from mixlaw.optimizer.search import random_starts
from mixlaw.recipe import Recipe

#: Recipes spread over the limits, at every size.
SPREAD = 48
#: Standard deviations of effects in units of the noise of a run: of a phase's shares, curvature of the mixture, size.
SHARES, CURVATURE, SIZE = 10.0, 3.0, 10.0
#: One repeat, and one pair in the other order, for so many runs.
EVERY = 8
#: Share of the budget that the same recipe at the largest size may take.
LARGEST = 0.3
#: Rounds of exchange after the greedy choice.
ROUNDS = 2
#: Rows that are tried in each exchange, those that widen the design most.
TRIED = 32
#: Points whose mean is the centre, and steps and rate of the search for their weights.
MEAN, STEPS, RATE = 512, 300, 1.0


def short_of_runs(measured: Sequence[Recipe], phases: Sequence[str], domains: Sequence[str]) -> bool:
    """Whether there are no more different recipes than a straight line through every phase's shares has numbers."""
    different = {(recipe.params, recipe.phases) for recipe in measured}
    return len(different) <= len(phases) * (len(domains) - 1) + 1


def cold_start(allowed: Feasible, proxies: Proxies, budget: float, count: int, seed: int = 0) -> list[Candidate]:
    """Choose up to `count` first proxies within a budget in FLOPs, the most useful first.

    What is measured or queued already counts as chosen. Runs share trunks where the phases before the last are alike.
    """
    smallest = min(proxies.sizes)
    chosen: list[Candidate] = []
    bought: list[Recipe] = []
    for candidate in _kept(allowed, proxies, budget, count, smallest):
        price = sum(proxies.cost(recipe, bought[:i]) for i, recipe in enumerate([*bought, candidate.recipe]))
        if len(chosen) < count and price <= budget and candidate.recipe not in {*bought, *proxies.known}:
            chosen.append(candidate)
            bought.append(candidate.recipe)
    given = [*proxies.known, *bought]
    pool = [c for c in _spread(allowed, proxies, seed) if c.recipe not in set(given)]
    recipes = [c.recipe for c in pool]
    rows = features([*given, *recipes], allowed)
    prices = Prices(replace(proxies, queued=(*proxies.queued, *bought)), recipes)
    spent = sum(proxies.cost(recipe, bought[:i]) for i, recipe in enumerate(bought))
    picks = d_optimal(rows[len(given) :], prices, count - len(chosen), budget - spent, rows[: len(given)])
    return [*chosen, *(pool[i] for i in picks)]


def features(recipes: Sequence[Recipe], allowed: Feasible) -> Tensor:
    """What the expected loss of recipes is linear in, scaled by the prior spread of the effects over noise, (R, F)."""
    names, phases = [d.name for d in allowed.domains], allowed.target.all_phases
    least = min(recipe.params for recipe in recipes)
    rows = []
    for recipe in recipes:
        by_phase = {phase.name: phase.mixture for phase in recipe.phases}
        shares = [[by_phase[p].share(n) if p in by_phase else 0.0 for n in names] for p in phases]
        length = [sum(p.tokens for p in recipe.phases if p.name == name) / recipe.tokens for name in phases]
        whole = [recipe.mixture.share(n) for n in names]
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

    Places are scarce as well: each counts like the cheapest row bought alone, or branches of one trunk would take all.
    The exchange (Fedorov 1972) swaps a chosen row for another where that widens the design at no higher cost.
    """
    chosen: list[int] = []
    spent, place = 0.0, float(prices([]).min()) if len(rows) else 0.0
    while len(chosen) < count:
        price = prices(chosen)
        score = torch.log1p(_left(rows, torch.cat([given, rows[chosen]]))) / (price + place)
        score[chosen] = -math.inf
        score[price > budget * (1 + 1e-9) - spent] = -math.inf
        best = int(score.argmax())
        if score[best] == -math.inf:
            break
        spent += float(price[best])
        chosen.append(best)
    for _ in range(ROUNDS):
        for place in range(len(chosen)):
            chosen = _exchanged(rows, prices, chosen, place, given)
    return chosen


def log_det(rows: Tensor) -> float:
    """log det(1 + X X') of rows (R, F): information of a design in units of the noise of a run."""
    return float(torch.logdet(torch.eye(len(rows), dtype=torch.float64) + rows @ rows.T))


def _left(rows: Tensor, design: Tensor) -> Tensor:
    """Variance of what rows (C, F) show, in units of the noise, once a design (D, F) was measured, (C,)."""
    inner = torch.eye(len(design), dtype=torch.float64) + design @ design.T
    cross = design @ rows.T
    left: Tensor = rows.square().sum(1) - (cross * torch.linalg.solve(inner, cross)).sum(0)
    return left.clamp_min(0)


def _exchanged(rows: Tensor, prices: Prices, chosen: list[int], place: int, given: Tensor) -> list[int]:
    """The choice with another row in one place, if that widens the design and costs no more."""
    others = [index for i, index in enumerate(chosen) if i != place]
    left = _left(rows, torch.cat([given, rows[others]]))
    left[others] = -math.inf
    limit = prices.total(chosen) * (1 + 1e-9)
    for index in left.argsort(descending=True)[:TRIED].tolist():
        if left[index] <= left[chosen[place]] * (1 + 1e-9):
            break
        swapped = [*chosen[:place], index, *chosen[place + 1 :]]
        if prices.total(swapped) <= limit:
            return swapped
    return chosen


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
        for seed in range(1, many + 1)
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


def _spread(allowed: Feasible, proxies: Proxies, seed: int) -> list[Candidate]:
    """Recipes spread over the limits, corners too, at every size, with branches."""
    points = random_starts(allowed, 4 * SPREAD, seed)
    far = points.tokens.flatten(1) - torch.tensor(allowed.centre[0]).flatten()
    order = far.square().sum(1).argsort(descending=True)
    kept = torch.cat([order[: SPREAD // 2], order[SPREAD // 2 :: 7][: SPREAD // 2]])
    wanted = [Candidate(allowed.recipe(points[i[None]]), "tells the domains and phases apart") for i in kept]
    found: list[Candidate] = []
    for params, tokens in sorted(proxies.sizes.items()):
        found += at_size(allowed, proxies, wanted, params, tokens)
    return list({c.recipe: c for c in reversed(found)}.values())[::-1]
