"""The scale every task is fitted on: the logarithm of a positive loss, whatever the task's unit."""

from __future__ import annotations

import torch
from torch import Tensor

from mixlaw.records import Unit

#: Scores are probabilities p of success; 0 and 1 are moved this far inside before -log p is taken.
MARGIN = 1e-3


def higher_is_better(unit: str, task: str = "") -> bool:
    """Tell the direction of a task from its unit.

    Raises:
        InputError: the unit is unknown, so its direction is.
    """
    return not Unit.parse(unit, task).lower_is_better


def to_log_loss(value: Tensor, unit: str) -> Tensor:
    """Map values to log loss: log y for a loss y, log(-log p) for a score p in [0, 1].

    A score is the probability of success and -log p its loss in nats: positive, falling with ability, never below 0.
    """
    if not higher_is_better(unit):
        return torch.log(value)
    return torch.log(-torch.log(value.clamp(MARGIN, 1 - MARGIN)))


def from_log_loss(log_loss: Tensor, unit: str) -> Tensor:
    """Map log loss back to the unit of the task; the inverse of `to_log_loss`."""
    loss = torch.exp(log_loss)
    return torch.exp(-loss) if higher_is_better(unit) else loss


def slope(value: Tensor, unit: str) -> Tensor:
    """|d value / d log loss| at `value`: turns a spread in log loss into one in the unit of the task."""
    if not higher_is_better(unit):
        return value
    inside = value.clamp(MARGIN, 1 - MARGIN)
    return -inside * torch.log(inside)
