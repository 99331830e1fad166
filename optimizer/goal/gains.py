"""What a recipe is worth: its gain over a reference, in posterior draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.goal.goal import Utility
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.values import Interval, interval, probability
from mixlaw.optimizer.policy import GUARD_PRICE, NEGLIGIBLE, RADIUS_PRICE
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.history import PrefixHistory, history_of, with_histories
from mixlaw.optimizer.target.points import Points
from mixlaw.recipe import Recipe

#: Widths in which a search rounds the kinks of what guard (percent of loss) and trust radius (share of a phase) charge.
ROUND_PERCENT, ROUND_SHARE = 0.1, 0.005
MOST_COMPARED = 2**22  # phases of a recipe and a measured one that are compared at once: 32 MiB for each matrix


@dataclass(frozen=True, eq=False)
class Guarded:
    """What no task may lose against a baseline.

    Attributes:
        losses: of the baseline in every draw, (count, T).
        most: by how much each task may be worse, in the unit of the gains, infinite where it is not guarded, (T,).
        sure: probability over draws with which it has to hold.
        than: name of the baseline.
        bite: percent of gain that a percent of loss beyond the guard costs in a search.
    """

    losses: Tensor
    most: Tensor
    sure: float
    than: str
    bite: float = GUARD_PRICE


@dataclass(frozen=True, eq=False)
class Objective:
    """Gains over a reference, in the unit of the goal.

    Attributes:
        posterior: what predicts.
        allowed: the recipes of the target.
        utility: what gains count together.
        baseline: log losses of the recipe to beat in every draw, (count, T).
        draws: indices of the draws that count, (S,).
        caution: standard deviations of the gain over draws that are taken off its mean.
        near: mixtures of measured recipes in the phases still to be trained, (M, P, K); empty where none is known.
        radius: distance from them that is free of charge.
        guarded: what no task may lose.
        on_step: called before every look at the draws; what it raises ends a search.
    """

    posterior: Posterior
    allowed: Feasible
    utility: Utility
    baseline: Tensor
    draws: Tensor
    caution: float
    near: Tensor
    radius: float
    guarded: Guarded | None = None
    on_step: Callable[[], None] = lambda: None

    @cached_property
    def percent(self) -> float:
        """What it is worth to be better by 1 % of loss at every task, in the unit of the goal."""
        better = (self.baseline - 0.01)[:, None]
        return float(self.utility.total(better, self.baseline).abs().mean())

    @cached_property
    def task_percent(self) -> Tensor:
        """What 1 % of loss is in the unit of each task's gains, (T,)."""
        better = (self.baseline - 0.01)[:, None]
        return self.utility.by_task(better, self.baseline).mean((0, 1)).clamp_min(1e-9)

    def within(self, draws: Tensor) -> Objective:
        """The same in other draws."""
        return replace(self, draws=draws)

    @cached_property
    def history(self) -> PrefixHistory:
        """What has been trained already."""
        return history_of(self.allowed)

    @property
    def reference(self) -> Tensor:
        """Log losses of the recipe to beat in the draws that count, (S, T)."""
        return self.baseline[self.draws]

    def losses(self, points: Points) -> Tensor:
        """Log losses in the draws that count, (S, R, T)."""
        self.on_step()
        count = int(self.draws.max()) + 1
        design = self.history.design(self.allowed, points)
        return self.history.by_draw(log_losses(self.posterior, design, count))[self.draws]

    def by_task(self, points: Points) -> Tensor:
        """Gain of every task in every draw, (S, R, T)."""
        return self.utility.by_task(self.losses(points), self.reference)

    def gains(self, points: Points) -> Tensor:
        """What the gains are worth in every draw, (S, R)."""
        return self.utility.total(self.losses(points), self.reference)

    def value(self, points: Points) -> Tensor:
        """Lower confidence bound of the gain in percent, less what the trust radius and the guard charge, (R,)."""
        return self.judge(points, self.losses(points))

    def smooth(self, points: Points) -> Tensor:
        """The same with rounded kinks, for a search by slopes: on a kink it stops wherever it happens to be, (R,)."""
        return self.judge(points, self.losses(points), smooth=True)

    def own(self, points: Points) -> Tensor:
        """Gain of each recipe in a draw of its own, the r-th in draw r, less what the radius charges, rounded, (R,)."""
        self.on_step()
        rows, design = torch.arange(len(points)), self.history.design(self.allowed, points)
        losses = self.history.by_draw(log_losses(self.posterior, design, len(points), running=True))[rows, rows]
        return self.utility.total(losses[:, None], self.baseline[rows])[:, 0] / self.percent - self.charges(
            points, smooth=True
        )

    def judge(self, points: Points, losses: Tensor, smooth: bool = False) -> Tensor:
        """The same where the log losses in the draws that count (S, R, T) are at hand, (R,)."""
        bound = lower_bound(self.utility.total(losses, self.reference), self.caution) / self.percent
        return bound - self.charges(points, smooth) - self._guard_price(losses, smooth)

    def charges(self, points: Points, smooth: bool = False) -> Tensor:
        """Price of the distance beyond the trust radius, (R,)."""
        if not len(self.near) or math.isinf(self.radius):
            return torch.zeros(len(points), dtype=torch.float64)
        return RADIUS_PRICE * above(self.distance(points)[0] - self.radius, ROUND_SHARE if smooth else 0.0)

    def _guard_price(self, losses: Tensor, smooth: bool) -> Tensor:
        """Price of what log losses (S, R, T) lose beyond the guard, (R,)."""
        if self.guarded is None:
            return torch.zeros(losses.shape[1], dtype=torch.float64)
        percent = self._beyond_guard(losses) / self.task_percent
        return self.guarded.bite * above(percent, ROUND_PERCENT if smooth else 0.0).sum(-1)

    def over_guard(self, losses: Tensor) -> Tensor:
        """By how much tasks of log losses (S, R, T) are worse than a guard allows, (R, T)."""
        if self.guarded is None:
            return torch.zeros(losses.shape[1:], dtype=torch.float64)
        return self._beyond_guard(losses).clamp_min(0)

    def _beyond_guard(self, losses: Tensor) -> Tensor:
        """The same, negative where the guard has room, (R, T)."""
        assert self.guarded is not None
        gains = self.utility.by_task(losses, self.guarded.losses[self.draws])
        return -lower_bound(gains, NormalDist().inv_cdf(self.guarded.sure)) - self.guarded.most

    def distance(self, points: Points) -> tuple[Tensor, Tensor]:
        """Share of a phase's tokens that differ from the nearest measured recipe, and its index; (R,) each."""
        if not len(self.near):
            return torch.zeros(len(points), dtype=torch.float64), torch.zeros(len(points), dtype=torch.long)
        with torch.no_grad():
            parts = torch.split(points.shares, max(1, MOST_COMPARED // (len(self.near) * self.near.shape[1])))
            nearest = torch.cat([apart(part, self.near).argmin(1) for part in parts])
        return 0.5 * (points.shares - self.near[nearest]).abs().sum(2).amax(1), nearest


def above(excess: Tensor, width: float = 0.0) -> Tensor:
    """What is above zero, of any shape; half a width to both sides of it a parabola rounds the kink."""
    if not width:
        return excess.clamp_min(0)
    inside = excess.clamp(-width / 2, width / 2) + width / 2
    return inside.square() / (2 * width) + (excess - width / 2).clamp_min(0)


def lower_bound(gains: Tensor, caution: float) -> Tensor:
    """Mean of gains (S, ...) over draws, less `caution` standard deviations, (...)."""
    if len(gains) < 2:
        return gains.mean(0)
    return gains.mean(0) - caution * torch.sqrt(gains.var(0) + 1e-12)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Share of its tokens by which the phase differs that differs most, (R, P, K), (M, P, K) -> (R, M).

    Both are mixtures of phases; how long a phase is, and what came before, makes no difference.
    """
    return 0.5 * torch.cdist(one.transpose(0, 1), other.transpose(0, 1), p=1).amax(0)


def recipes_losses(posterior: Posterior, allowed: Feasible, recipes: Sequence[Recipe], count: int) -> Tensor:
    """Log losses of whole recipes in `count` draws, each with a history of its own, (count, R, T)."""
    history = history_of(allowed)
    return history.by_draw(log_losses(posterior, recipes_design(posterior, allowed, recipes), count))


def recipes_design(posterior: Posterior, allowed: Feasible, recipes: Sequence[Recipe]) -> Design:
    """Recipes on the axes of the posterior, with the unique tokens of the target; a row per history and recipe.

    Where the mixture of the prefix is not known, recipes are what is still to be trained, and every history is put
    before it.
    """
    unique = {domain.name: float(domain.unique_tokens) for domain in allowed.domains}
    return design_of(with_histories(allowed, recipes), posterior.phases, posterior.domains, unique)


@dataclass(frozen=True)
class Gain:
    """What a recipe gains over a baseline; every command that names two recipes reports this.

    Attributes:
        total: of all tasks together, in the unit of the goal.
        by_task, by_group: of each task, and of the mean over each group.
        probability: that the total is positive.
        better, better_groups: the same by task, and by group.
        parts: what each task contributes to the mean of the total; empty where the goal is no weighted sum.
        without: the total if the task did not count, for every task that counts.
    """

    total: Interval
    by_task: Mapping[str, Interval]
    probability: float
    better: Mapping[str, float]
    by_group: Mapping[str, Interval] = field(default_factory=dict)
    better_groups: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    without: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def losing(self) -> tuple[str, ...]:
        """Tasks that are expected to lose more than what makes no difference, the worst first."""
        worse = [task for task, gain in self.by_task.items() if gain.mean < -NEGLIGIBLE]
        return tuple(sorted(worse, key=lambda task: self.by_task[task].mean))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gain:
        """Read what `asdict` gave."""
        several = {n: {k: Interval(**v) for k, v in data[n].items()} for n in ("by_task", "by_group", "without")}
        return cls(**{**data, "total": Interval(**data["total"]), **several})


def gain_of(utility: Utility, losses: Tensor, baseline: Tensor) -> Gain:
    """The gain of one recipe over another in the same posterior draws.

    Args:
        utility: the goal on the axes of the tasks.
        losses, baseline: log losses of both recipes in every draw, (S, T).
    """
    total, by_task = utility.total(losses[:, None], baseline)[:, 0], utility.by_task(losses[:, None], baseline)[:, 0]
    groups = {name: by_task @ weights for name, weights in utility.groups.items()}
    columns = dict(zip(utility.tasks, by_task.unbind(1), strict=True))
    fewer = {task: utility.without(task) for task, w in zip(utility.tasks, utility.weights.tolist(), strict=True) if w}
    without = {task: rest.total(losses[:, None], baseline)[:, 0] for task, rest in fewer.items() if rest}
    parts = (by_task.mean(0) * utility.weights).tolist() if utility.is_sum else []
    return Gain(
        total=interval(total),
        by_task={task: interval(values) for task, values in columns.items()},
        probability=probability(total),
        better={task: probability(values) for task, values in columns.items()},
        by_group={name: interval(values) for name, values in groups.items()},
        better_groups={name: probability(values) for name, values in groups.items()},
        parts={task: part for task, part in zip(utility.tasks, parts, strict=False) if part},
        without={task: interval(values) for task, values in without.items()},
    )
