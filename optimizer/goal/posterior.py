"""What the optimizer asks of anything that predicts: fitted surfaces, or a simulation of known truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import to_log_loss


class Predicted(Protocol):
    """Predictions of R recipes for T tasks, in the units of the tasks."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Expected value, (R, T)."""

    @property
    def lo90(self) -> NDArray[np.float64]:
        """Lower end of the 90 % interval of a measured value, (R, T)."""

    @property
    def hi90(self) -> NDArray[np.float64]:
        """Upper end, (R, T)."""

    @property
    def law_only(self) -> NDArray[np.float64]:
        """What the law says without the measured runs nearby, (R, T)."""

    @property
    def distance(self) -> NDArray[np.float64]:
        """Distance to the nearest measured run, (R,)."""


class Posterior(Protocol):
    """Predicts values of tasks for recipes; `draws` are posterior draws."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each task."""

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases that can be predicted, in order."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains that can be predicted."""

    @property
    def calibration(self) -> Tensor:
        """Factor on the spread of draws that held-out runs ask for, (T,)."""

    @property
    def log_noise(self) -> Tensor:
        """Standard deviation of one run's log losses over seeds, (T,)."""

    def spread(self, design: Design) -> Tensor:
        """Standard deviation of the log losses of every recipe over seeds, (R, T)."""

    def predict(self, design: Design) -> Predicted:
        """Mean and interval for every recipe and task."""

    def draws(self, design: Design, count: int) -> Tensor:
        """Values in `count` draws, (S, R, T), differentiable; the same index is the same draw in every call."""


def log_losses(posterior: Posterior, design: Design, count: int, running: bool = False) -> Tensor:
    """Draws on the scale of log losses, as far apart as held-out runs have shown them to be, (S, R, T).

    They move away from the mean of all of them, or from that of each one and those before it where it is `running`.
    """
    values = posterior.draws(design.aligned(posterior.phases, posterior.domains), count)
    parts = [to_log_loss(values[..., t], posterior.units[task]) for t, task in enumerate(posterior.tasks)]
    losses = torch.stack(parts, -1)
    middle = losses.cumsum(0) / torch.arange(1, count + 1)[:, None, None] if running else losses.mean(0)
    return middle + posterior.calibration * (losses - middle)
