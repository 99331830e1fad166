"""Contenders: the recipes that might turn out to be best for a target, once more is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.optimizer.goal.baselines import DEFAULTS
from mixlaw.optimizer.goal.evidence import near_runs
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.references import Compared, references_of
from mixlaw.optimizer.policy import DRAW_GUARD_PRICE
from mixlaw.optimizer.search.climb import climb, random_starts
from mixlaw.optimizer.search.problem import guarded_by
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.points import Points

#: Draws whose own optimum is searched for; the other draws choose among what these find.
CLIMBED = 24
#: Points spread over the limits, from which searches start.
SPREAD = 160
#: Starts of the search for the optimum on average.
MIDDLE = 3
STEPS = 40


@dataclass(frozen=True, eq=False)
class Recommendations:
    """M recipes for a target in S draws.

    Attributes:
        spaces: what each branch of the target allows, and what it is worth.
        branch: index of the space that each recipe is in, (M,).
        points: the recipes.
        gains: see `gains_of`, (S, M).
        task_gains: what the gain of each owes to its log loss at every task, (S, M, T); see `stakes_of`.
    """

    spaces: tuple[Objective, ...]
    branch: Tensor
    points: Points
    gains: Tensor
    task_gains: Tensor

    @property
    def leader(self) -> int:
        """The recipe of greatest expected gain: the recommendation as things stand."""
        return int(self.gains.mean(0).argmax())

    @property
    def chances(self) -> Tensor:
        """Share of the draws in which each is best, (M,)."""
        return torch.bincount(self.gains.argmax(1), minlength=len(self.points)).double() / len(self.gains)

    def space(self, index: int) -> Objective:
        """What holds for one recipe."""
        return self.spaces[int(self.branch[index])]

    def point(self, index: int) -> Points:
        """One recipe."""
        return self.points[torch.tensor([index])]


def recommendations_of(
    posterior: Posterior,
    variants: Sequence[Feasible],
    goal: Goal,
    draws: int,
    seed: int,
    baselines: Compared = DEFAULTS,
    against: str = "",
) -> Recommendations:
    """Find in every branch the optimum of many draws, the optimum on average, and points spread over what is allowed.

    Raises:
        InputError: an unknown task or baseline in the goal or the guard.
    """
    utility = utility_of(goal, posterior)
    references = references_of(posterior, variants, utility, baselines, draws, against)
    baseline, guarded = references.baseline, guarded_by(variants[0].target.guard, references, utility)
    every, (none, _) = torch.arange(draws), near_runs(variants[0], None)  # proxies may go where no run has been
    spaces = tuple(Objective(posterior, a, utility, baseline, every, 0.0, none, math.inf, guarded) for a in variants)
    contenders = [_candidates_of(space, seed) for space in spaces]
    branch = torch.cat([torch.full((len(points),), i) for i, points in enumerate(contenders)])
    with torch.no_grad():
        losses = [space.losses(points) for space, points in zip(spaces, contenders, strict=True)]
    gains = torch.cat([gains_by_draw(*pair) for pair in zip(spaces, losses, strict=True)], 1)
    task_gains = torch.cat([task_gains_of(*pair) for pair in zip(spaces, losses, strict=True)], 1)
    return Recommendations(spaces, branch, Points.cat(contenders), gains, task_gains)


def gains_by_draw(space: Objective, losses: Tensor) -> Tensor:
    """Gain of recipes in every draw, in percent of loss at all tasks, from their log losses (S, R, T), (S, R).

    A guard holds with a probability over draws; in a single draw, what a task loses beyond it has a price, so high
    that it is not worth paying in more than the draws in which the guard may break.
    """
    gains = space.utility.total(losses, space.reference) / space.percent
    if space.guarded is None:
        return gains
    guard = space.guarded
    beyond = -space.utility.by_task(losses, guard.losses[space.draws]) - guard.most
    return gains - DRAW_GUARD_PRICE / (1 - guard.sure) * (beyond.clamp_min(0) / space.task_percent).sum(-1)


def task_gains_of(space: Objective, losses: Tensor) -> Tensor:
    """Linear part of every task in the gains that log losses (S, R, T) bring, percent, up to a constant, (S, R, T).

    Mean slope over draws times log loss: its covariance with anything normal is that of the gain (Stein 1981,
    doi:10.1214/aos/1176345632), whether the gain is a weighted sum, the worst task, guarded or a user's function.
    """
    losses = losses.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(gains_by_draw(space, losses).sum(), losses)
    return slopes.mean(0) * losses.detach()


def _candidates_of(space: Objective, seed: int) -> Points:
    """Optima of the first draws and on average, then the points they were found from."""
    spread = random_starts(space.allowed, SPREAD, seed)
    with torch.no_grad():
        gains = gains_by_draw(space, space.losses(spread))
    few = min(CLIMBED, len(gains))
    starts = torch.cat([gains[:few].argmax(1), gains.mean(0).argsort(descending=True)[:MIDDLE]])
    some = space.within(torch.arange(few))

    def value(points: Points) -> Tensor:
        own = gains_by_draw(some, some.losses(points))
        return torch.cat([own[:, :few].diagonal(), own[:, few:].mean(0)])

    best, _ = climb(value, space.allowed, spread[starts], steps=STEPS)
    return Points.cat([best, spread])
