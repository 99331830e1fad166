"""What counts as better: gains per task in a unit, and what they are worth together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

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
        weights: of tasks, or of groups, which share theirs out evenly among their tasks; a task without weight does not
            count. Where not given, groups count alike, and tasks in no group together as one more; without groups all
            tasks alike.
            A name of both means the group.
        groups: name -> tasks.
        without_signal: tasks that count only where `weights` names them: what cannot be told from seed noise.
        measure: unit of the gains.
        worst: take the least gain of the tasks that have a weight, instead of the weighted sum.
        value: function of predicted values, whose differences are the gain; instead of weights.
    """

    weights: Mapping[str, float] | None = None
    measure: Measure = Measure.PERCENT
    worst: bool = False
    value: Value | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without_signal: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """How gains are told."""
        return "of the given value" if self.value else self.measure.value


@dataclass(frozen=True, eq=False)
class Utility:
    """A goal on the axes of a posterior.

    Attributes:
        goal: what it was made from.
        tasks, units: names and units, T each.
        weights: summing to 1, (T,).
        noise: standard deviation of one run's log losses, (T,).
    """

    goal: Goal
    tasks: tuple[str, ...]
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

    @property
    def is_sum(self) -> bool:
        """Whether the total is a weighted sum over tasks."""
        return self.goal.value is None and not self.goal.worst

    def without(self, task: str) -> Utility | None:
        """The same where a task does not count; None where nothing else would, or the goal is no weighted sum."""
        if not self.is_sum:
            return None
        rest = self.weights * torch.tensor([float(name != task) for name in self.tasks], dtype=torch.float64)
        return replace(self, weights=rest / rest.sum()) if float(rest.sum()) > 0 else None

    @cached_property
    def groups(self) -> dict[str, Tensor]:
        """Weights of the tasks of each group, those of the goal or else equal, summing to 1, (T,) each."""
        weights = {}
        for name, members in self.goal.groups.items():
            inside = torch.tensor([float(task in members) for task in self.tasks], dtype=torch.float64)
            if float(inside.sum()):
                own = inside * self.weights
                weights[name] = own / own.sum() if float(own.sum()) > 0 else inside / inside.sum()
        return weights

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
    units = tuple(posterior.units[task] for task in posterior.tasks)
    weights = torch.tensor([*weights_by_task(goal, posterior.tasks).values()], dtype=torch.float64)
    losses = [t for t, u, w in zip(posterior.tasks, units, weights, strict=True) if w > 0 and not higher_is_better(u)]
    if goal.measure is Measure.POINTS and losses:
        raise InputError(
            f"gains of {losses[0]!r} have no accuracy points, it is a loss in {posterior.units[losses[0]]}; "
            "ask for percent or noise units, or give weights to scores alone"
        )
    return Utility(goal, tuple(posterior.tasks), units, weights, posterior.log_noise)


def task_weights(posterior: Posterior, weights: Mapping[str, float] | None) -> Tensor:
    """Weights of all tasks, equal where none are given, summing to 1, (T,).

    Raises:
        InputError: an unknown task, or weights that are negative or all zero.
    """
    return torch.tensor([*weights_by_task(Goal(weights), posterior.tasks).values()], dtype=torch.float64)


def weights_by_task(goal: Goal, tasks: Sequence[str]) -> dict[str, float]:
    """What each task counts, summing to 1: see `Goal.weights`.

    Raises:
        InputError: an unknown task, weights that are negative or all zero, or no task with a signal.
    """
    signal = [task for task in tasks if task not in goal.without_signal]
    if goal.weights is None:
        if not signal:
            raise InputError(
                f"no task has a signal above seed noise ({', '.join(tasks)}): nothing can be optimised; repeat runs "
                "with other seeds or train larger ones, or name tasks under weights to count them all the same"
            )
        weights = _even(signal, goal.groups)
    else:
        weights = _shared_out(goal, tasks, signal)
    return {task: weights.get(task, 0.0) / sum(weights.values()) for task in tasks}


def _even(tasks: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Groups count alike, and tasks in no group together as one more."""
    members = [[task for task in tasks if task in group] for group in groups.values()]
    members.append([task for task in tasks if not any(task in group for group in groups.values())])
    weights = dict.fromkeys(tasks, 0.0)
    for group in members:
        for task in group:
            weights[task] += 1 / len(group)
    return weights


def _shared_out(goal: Goal, tasks: Sequence[str], signal: Sequence[str]) -> dict[str, float]:
    """Weights of tasks from those of tasks and groups; a group's go evenly to its members with a signal."""
    weights, by_task = goal.weights or {}, dict[str, float]()
    unknown = [name for name in weights if name not in tasks and name not in goal.groups]
    if unknown:
        groups = f", groups are {', '.join(goal.groups)}" if goal.groups else ""
        raise InputError(f"no task is called {unknown[0]!r}, fitted are {', '.join(tasks)}{groups}; rename the weight")
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise InputError(f"weights must be >= 0 and not all 0, got {dict(weights)}; leave a task out to ignore it")
    for name, weight in weights.items():
        members = [task for task in goal.groups[name] if task in signal] if name in goal.groups else [name]
        if weight > 0 and not members:
            raise InputError(
                f"group {name!r} has a weight, but none of its tasks {', '.join(goal.groups[name])} has a signal above "
                "seed noise; leave it out, or name the tasks that count"
            )
        for task in members:
            by_task[task] = by_task.get(task, 0.0) + weight / len(members)
    return by_task
