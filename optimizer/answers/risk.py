"""What it costs to be wrong: expected regret of the recommendation and of each baseline, and their worst cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.optimizer.goal.goal import Utility

WORST = 0.1  # share of the draws


@dataclass(frozen=True)
class Risk:
    """Of one recipe, in the unit of gains.

    Attributes:
        regret: what the best recipe of each draw gains over it, on average; the best of those that were found.
        worst: its mean gain over the baseline in the worst tenth of the draws.
    """

    regret: float
    worst: float


def risks_of(utility: Utility, options: Mapping[str, Tensor], optima: Tensor, baseline: Tensor) -> dict[str, Risk]:
    """What each option risks.

    Args:
        utility: the goal on the axes of the tasks.
        options: log losses of each in every draw, (S, T).
        optima: log losses of recipes that are best in single draws, (S, R, T).
        baseline: log losses of the recipe that gains refer to, (S, T).
    """
    gains = {name: utility.total(losses[:, None], baseline)[:, 0] for name, losses in options.items()}
    every = torch.cat([torch.stack([*gains.values()], 1), utility.total(optima, baseline)], 1)
    best, few = every.amax(1), max(1, round(WORST * len(baseline)))
    return {
        name: Risk(float((best - gain).mean()), float(gain.sort().values[:few].mean())) for name, gain in gains.items()
    }
