"""Contenders: the recipes that might turn out to be best for a target, once more is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.constraints import Feasible
from mixlaw.optimizer.objective import log_losses
from mixlaw.optimizer.past import past_of
from mixlaw.optimizer.points import Points
from mixlaw.optimizer.search import climb, random_starts

#: Worlds whose own optimum is searched for; the other worlds choose among what these find.
CLIMBED = 24
#: Points spread over the limits, from which searches start.
SPREAD = 160
#: Starts of the search for the optimum on average.
MIDDLE = 3
STEPS = 40


@dataclass(frozen=True, eq=False)
class Contest:
    """M recipes for a target in S worlds.

    Attributes:
        points: the recipes.
        stakes: part of every task in their gain, percent, (S, M, T).
    """

    points: Points
    stakes: Tensor

    @property
    def gains(self) -> Tensor:
        """Weighted gains, percent, up to a constant, (S, M)."""
        return self.stakes.sum(-1)

    @property
    def leader(self) -> int:
        """The recipe of greatest expected gain: the recommendation as things stand."""
        return int(self.gains.mean(0).argmax())

    @property
    def chances(self) -> Tensor:
        """Share of the worlds in which each is best, (M,)."""
        return torch.bincount(self.gains.argmax(1), minlength=len(self.points)).double() / len(self.stakes)


def contest_of(beliefs: Beliefs, allowed: Feasible, task: Tensor, worlds: int, seed: int) -> Contest:
    """Find the optimum of many worlds, the optimum on average, and points spread over what is allowed; weights (T,)."""
    spread = random_starts(allowed, SPREAD, seed)
    with torch.no_grad():
        gains = stakes_of(beliefs, allowed, spread, task, worlds).sum(-1)
    few = min(CLIMBED, worlds)
    starts = torch.cat([gains[:few].argmax(1), gains.mean(0).argsort(descending=True)[:MIDDLE]])

    def value(points: Points) -> Tensor:
        own = stakes_of(beliefs, allowed, points, task, few).sum(-1)
        return torch.cat([own[:, :few].diagonal(), own[:, few:].mean(0)])

    best, _ = climb(value, allowed, spread[starts], steps=STEPS)
    points = Points.cat([best, spread])
    with torch.no_grad():
        return Contest(points, stakes_of(beliefs, allowed, points, task, worlds))


def stakes_of(beliefs: Beliefs, allowed: Feasible, points: Points, task: Tensor, worlds: int) -> Tensor:
    """Part of every task in the gain of each recipe, percent, up to a constant, (S, M, T); differentiable."""
    past = past_of(allowed)
    losses = past.believed(log_losses(beliefs, past.design(allowed, points), worlds))
    return -100 * losses * task
