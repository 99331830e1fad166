"""D-optimal choice of runs: those that narrow most what is not known, for their price."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mixlaw.optimizer.next_runs.costs import Prices
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
    found = [_greedy(rows, prices, count, budget, given, alone * place) for place in PLACES]
    chosen = max(found, key=lambda some: log_det(torch.cat([given, rows[some]])))
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
        score = torch.log1p(_left(rows, torch.cat([given, rows[chosen]]))) / (price + place)
        score[chosen] = -math.inf
        score[price > budget * (1 + 1e-9) - spent] = -math.inf
        best = int(score.argmax())
        if score[best] == -math.inf:
            break
        spent += float(price[best])
        chosen.append(best)
    return chosen


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
