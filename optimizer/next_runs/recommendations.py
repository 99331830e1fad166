"""Contenders: the recipe that `propose` recommends, and those that might turn out better once more is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.references import Compared
from mixlaw.optimizer.policy import DRAW_GUARD_PRICE
from mixlaw.optimizer.search.climb import ENOUGH, best_points, candidates, climb, on_ladder
from mixlaw.optimizer.search.problem import problem_of
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Recipe

#: Starts of the search for the recommendation: as many as `propose` has.
STARTS = 12
#: Draws whose own optimum is searched for; the other draws choose among what these find.
CLIMBED = 24
#: Points spread over the limits, from which searches start.
SPREAD = 160
#: Starts of the search for the optimum on average.
MIDDLE = 3
STEPS = 40


@dataclass(frozen=True, eq=False)
class Recommendations:
    """M recipes for a target in S draws; the first is what `propose` recommends.

    Attributes:
        spaces: what each branch of the target allows, and what it is worth.
        branch: index of the space that each recipe is in, (M,).
        points: the recipes.
        gains: see `gains_by_draw`, less the price of the distance from measured runs, (S, M).
        task_gains: what the gain of each owes to its log loss at every task, (S, M, T); see `task_gains_of`.
        random: whether a recipe is there for its place alone, neither an optimum nor known, (M,).
    """

    spaces: tuple[Objective, ...]
    branch: Tensor
    points: Points
    gains: Tensor
    task_gains: Tensor
    random: Tensor

    @property
    def leader(self) -> int:
        """The recommendation as things stand."""
        return 0

    @property
    def handicap(self) -> Tensor:
        """What caution takes off each recipe: standard deviations of its gain over draws, (M,)."""
        return self.spaces[0].caution * self.gains.std(0)

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
    target: Target,
    domains: Sequence[Domain],
    goal: Goal,
    draws: int,
    seed: int,
    *,
    baselines: Compared | None = None,
    against: str = "",
    measured: Design | None = None,
    known: Sequence[Recipe] = (),
) -> Recommendations:
    """Find what `propose` recommends, and beside it in every branch the optimum of many draws, the optimum on average,
    measured runs, baselines and points spread over what is allowed.

    Args:
        posterior: what `propose` asks.
        target, domains, goal: as for `propose`.
        draws: to consult.
        seed: of the searches.
        baselines, against: as for `propose`.
        measured: runs behind the posterior.
        known: more recipes that contend: a frozen proposal.

    Raises:
        InputError: an unknown task or baseline in the goal or the guard.
        Infeasible: limits or a guard that no recipe keeps.
    """
    asked = problem_of(
        posterior, target, domains, goal=goal, baselines=baselines, against=against, measured=measured, draws=draws
    )
    objectives = [objective.within(objective.draws[:ENOUGH]) for objective in asked.objectives]
    best = [best_points(each, asked.baselines, STARTS, seed) for each in objectives]
    first = max(range(len(best)), key=lambda i: best[i][1])
    asked, _, recommended = asked.settled(first, *on_ladder(objectives[first], best[first][0]))
    order = [first, *(i for i in range(len(best)) if i != first)]
    spaces = tuple(asked.objectives[i] for i in order)
    contenders = [_candidates_of(space, [*asked.baselines, *known], seed) for space in spaces]
    points = [recommended, *(points for points, _ in contenders)]
    branch = torch.cat([torch.full((len(p),), max(i - 1, 0)) for i, p in enumerate(points)])
    random = torch.cat([torch.zeros(1, dtype=torch.bool), *(random for _, random in contenders)])
    points[:2] = [Points.cat(points[:2])]
    with torch.no_grad():
        losses = [space.losses(each) for space, each in zip(spaces, points, strict=True)]
        pairs = list(zip(spaces, losses, points, strict=True))
        gains = torch.cat([gains_by_draw(s, lost) - s.charges(each) for s, lost, each in pairs], 1)
    task_gains = torch.cat([task_gains_of(space, lost) for space, lost, _ in pairs], 1)
    return Recommendations(spaces, branch, Points.cat(points), gains, task_gains, random)


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


def _candidates_of(space: Objective, known: Sequence[Recipe], seed: int) -> tuple[Points, Tensor]:
    """Optima of the first draws and on average, then the points they were found from, and which of these are random."""
    spread = candidates(space, known, SPREAD, seed)
    with torch.no_grad():
        gains = gains_by_draw(space, space.losses(spread)) - space.charges(spread)
    few = min(CLIMBED, len(gains))
    starts = torch.cat([gains[:few].argmax(1), gains.mean(0).argsort(descending=True)[:MIDDLE]])
    some = space.within(torch.arange(few))

    def value(points: Points) -> Tensor:
        own = gains_by_draw(some, some.losses(points)) - some.charges(points)
        return torch.cat([own[:, :few].diagonal(), own[:, few:].mean(0)])

    best, _ = climb(value, space.allowed, spread[starts], steps=STEPS)
    random = torch.arange(len(best) + len(spread)) - len(best)
    return Points.cat([best, spread]), (random >= 0) & (random < SPREAD)
