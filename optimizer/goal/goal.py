"""What counts as better: gains per task in a unit, and what they are worth together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from mixlaw.analysis.data.observed import from_log_loss, higher_is_better
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.posterior import Posterior

#: Predicted values (S, R, T) in the tasks' units, tasks in the order of the posterior -> (S, R), more is better.
Value = Callable[[Tensor], Tensor]


class Measure(Enum):
    """Unit of gains; the value is how it is told."""

    PERCENT = "% of loss"  # 100 (log loss of the reference - log loss); the loss of a score p is -log p
    NOISE = "standard deviations of a run"  # the same in units of what two runs of one recipe differ by
    POINTS = "accuracy points"  # 100 (p - p of the reference); for scores alone


@dataclass(frozen=True)
class Goal:
    """What to maximise: the weighted sum of gains over tasks, the worst of them, or a function of predicted values.

    Attributes:
        weights: of tasks, equal where not given; a task without weight does not count.
        measure: unit of the gains.
        worst: take the least gain of the tasks that have a weight, instead of the weighted sum.
        value: function of predicted values, whose differences are the gain; instead of weights.
    """

    weights: Mapping[str, float] | None = None
    measure: Measure = Measure.PERCENT
    worst: bool = False
    value: Value | None = None

    @property
    def unit(self) -> str:
        """How gains are told."""
        return "of the given value" if self.value else self.measure.value


@dataclass(frozen=True, eq=False)
class Utility:
    """A goal on the axes of a posterior.

    Attributes:
        goal: what it was made from.
        units: of the tasks.
        weights: summing to 1, (T,).
        noise: standard deviation of one run's log losses, (T,).
    """

    goal: Goal
    units: tuple[str, ...]
    weights: Tensor
    noise: Tensor

    def by_task(self, losses: Tensor, reference: Tensor) -> Tensor:
        """Gain of every task from log losses (S, R, T) over those of a reference (S, T), (S, R, T)."""
        if self.goal.measure is Measure.POINTS:
            return 100 * (self._scores(losses) - self._scores(reference)[:, None])
        gain = reference[:, None] - losses
        return 100 * gain if self.goal.measure is Measure.PERCENT else gain / self.noise

    def total(self, losses: Tensor, reference: Tensor) -> Tensor:
        """What the gains are worth together, (S, R)."""
        if self.goal.value is not None:
            return self.goal.value(self._values(losses)) - self.goal.value(self._values(reference[:, None]))
        gains = self.by_task(losses, reference)
        return gains[..., self.weights > 0].amin(-1) if self.goal.worst else gains @ self.weights

    def _values(self, losses: Tensor) -> Tensor:
        columns = losses.unbind(-1)
        return torch.stack([from_log_loss(c, unit) for c, unit in zip(columns, self.units, strict=True)], -1)

    def _scores(self, losses: Tensor) -> Tensor:
        """Values of scores; nothing for losses, whose gains have no points."""
        score = torch.tensor([float(higher_is_better(unit)) for unit in self.units], dtype=torch.float64)
        return self._values(losses) * score


def utility_of(goal: Goal, posterior: Posterior) -> Utility:
    """Put a goal on the axes of a posterior.

    Raises:
        InputError: an unknown task, weights that are negative or all zero, or points asked of a loss.
    """
    units, weights = tuple(posterior.units[task] for task in posterior.tasks), task_weights(posterior, goal.weights)
    losses = [t for t, u, w in zip(posterior.tasks, units, weights, strict=True) if w > 0 and not higher_is_better(u)]
    if goal.measure is Measure.POINTS and losses:
        raise InputError(
            f"gains of {losses[0]!r} have no accuracy points, it is a loss in {posterior.units[losses[0]]}; "
            "ask for percent or noise units, or give weights to scores alone"
        )
    return Utility(goal, units, weights, posterior.log_noise)


def task_weights(posterior: Posterior, weights: Mapping[str, float] | None) -> Tensor:
    """Weights of all tasks, equal where none are given, summing to 1, (T,).

    Raises:
        InputError: an unknown task, or weights that are negative or all zero.
    """
    if weights is None:
        weights = dict.fromkeys(posterior.tasks, 1.0)
    unknown = [task for task in weights if task not in posterior.tasks]
    if unknown:
        raise InputError(
            f"no task is called {unknown[0]!r}, fitted are {', '.join(posterior.tasks)}; rename the weight"
        )
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise InputError(f"weights must be >= 0 and not all 0, got {dict(weights)}; leave a task out to ignore it")
    raw = torch.tensor([float(weights.get(task, 0.0)) for task in posterior.tasks], dtype=torch.float64)
    return raw / raw.sum()
