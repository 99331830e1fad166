"""Residual Gaussian process on log exposures: it interpolates near runs, and returns to 0 away from data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Random Fourier features of a prior draw.
WAVES = 256
#: Variance that takes a masked row out of the process.
MASKED = 1e6


@dataclass(frozen=True, eq=False)
class Kernel:
    """Matern-5/2 kernels of T tasks, a length scale per coordinate, and the noise of a run.

        k(r) = signal**2 (1 + sqrt(5) r + 5/3 r**2) exp(-sqrt(5) r),   r**2 = sum_f (x_f - x'_f)**2 / length_f**2
        noise(l) = noise exp(rise l),   l = the law's log loss about the task's centre, kept inside `span`

    Attributes:
        signal, noise: standard deviations in log loss, (T,).
        length: length scales, (T, F).
        rise: of log noise by log loss, (T,).
        span: least and largest log loss that the law predicts for a measured run, (T, 2).
    """

    signal: Tensor
    noise: Tensor
    length: Tensor
    rise: Tensor
    span: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Covariances between recipes x (R, F) and y (Q, F) for every task, (T, R, Q)."""
        r = torch.sqrt(5 * _squared(x / self.length[:, None], y / self.length[:, None]) + 1e-12)  # finite gradient at 0
        return self.signal[:, None, None] ** 2 * (1 + r + r**2 / 3) * torch.exp(-r)

    def noise_at(self, law: Tensor) -> Tensor:
        """Standard deviation of one run where the law predicts these log losses, (T, R) for (T, R)."""
        inside = torch.minimum(torch.maximum(law, self.span[:, :1]), self.span[:, 1:])
        return self.noise[:, None] * torch.exp(self.rise[:, None] * inside)

    def waves(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Frequencies (T, F, WAVES) and phases (WAVES,) whose cosines make prior draws: a Student t with 5 degrees."""
        normal = torch.randn(self.length.shape[1], WAVES, generator=generator, dtype=torch.float64)
        chi = torch.randn(5, WAVES, generator=generator, dtype=torch.float64).square().sum(0)
        turn = 2 * math.pi * torch.rand(WAVES, generator=generator, dtype=torch.float64)
        return normal * torch.sqrt(5 / chi) / self.length[..., None], turn


@dataclass(frozen=True, eq=False)
class Residual:
    """Gaussian processes of T tasks conditioned on rows at coordinates x.

    Attributes:
        kernel: of each task.
        x: coordinates of the measured rows, (R, F).
        variance: noise variance of each row, huge where it was not measured, (T, R).
    """

    kernel: Kernel
    x: Tensor
    variance: Tensor

    def cholesky(self) -> Tensor:
        """Factor of the rows' covariance, (T, R, R)."""
        factor: Tensor = torch.linalg.cholesky(self.kernel(self.x, self.x) + torch.diag_embed(self.variance + 1e-10))
        return factor

    def weights(self, residuals: Tensor, factor: Tensor) -> Tensor:
        """Row weights (T, R, S) that make `at` interpolate residuals (T, R, S), NaN-free."""
        solved: Tensor = torch.cholesky_solve(residuals, factor)
        return solved

    def at(self, x: Tensor, weights: Tensor) -> Tensor:
        """Posterior mean at coordinates x (Q, F) for row weights (T, R, S): (T, Q, S)."""
        mean: Tensor = self.kernel(x, self.x) @ weights
        return mean

    def deviation(self, x: Tensor, factor: Tensor) -> Tensor:
        """Posterior standard deviation at x (Q, F), noise of a run not included, (T, Q)."""
        cross = self.kernel(self.x, x)
        explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(1)
        variance: Tensor = self.kernel.signal[:, None] ** 2 - explained
        return variance.clamp(min=0).sqrt()


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (..., R, Q) between x (..., R, F) and y (..., Q, F)."""
    product = x @ y.transpose(-1, -2)
    return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * product).clamp(min=0)
