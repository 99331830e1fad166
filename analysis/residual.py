"""What the law leaves over: a Gaussian process on log exposures that interpolates near runs and is silent far away."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.features import Features

#: Random Fourier features of a prior draw.
WAVES = 256
#: Rows used to learn the kernel; more only cost time.
ROWS = 192
#: Variance that takes a masked row out of the process.
MASKED = 1e6


@dataclass(frozen=True, eq=False)
class Kernel:
    """Matern-5/2 kernels of T tasks, a length scale per group of coordinates.

        k(r) = signal**2 (1 + sqrt(5) r + 5/3 r**2) exp(-sqrt(5) r),   r**2 = sum_g |x_g - x'_g|**2 / length_g**2

    Attributes:
        signal, noise: standard deviations in log loss, (T,).
        length: length scales, (T, G).
        groups: the coordinates of each group.
    """

    signal: Tensor
    noise: Tensor
    length: Tensor
    groups: tuple[slice, ...]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Covariances between recipes x (R, F) and y (Q, F) for every task, (T, R, Q)."""
        squared = torch.stack([_squared(x[:, g], y[:, g]) for g in self.groups])
        return self.from_squared(squared)

    def from_squared(self, squared: Tensor) -> Tensor:
        """Covariances from squared distances by group (G, R, Q), (T, R, Q)."""
        r2 = torch.einsum("grq,tg->trq", squared, self.length**-2)
        r = torch.sqrt(5 * r2 + 1e-12)  # the offset keeps the gradient finite on a run
        return self.signal[:, None, None] ** 2 * (1 + r + r**2 / 3) * torch.exp(-r)

    def waves(self, generator: torch.Generator, coordinates: int) -> tuple[Tensor, Tensor]:
        """Frequencies (T, F, WAVES) and phases (WAVES,) whose cosines make prior draws: a Student t with 5 degrees."""
        normal = torch.randn(coordinates, WAVES, generator=generator, dtype=torch.float64)
        chi = torch.randn(5, WAVES, generator=generator, dtype=torch.float64).square().sum(0)
        scale = torch.zeros(len(self.signal), coordinates, dtype=torch.float64)
        for i, group in enumerate(self.groups):
            scale[:, group] = 1 / self.length[:, i, None]
        turn = 2 * math.pi * torch.rand(WAVES, generator=generator, dtype=torch.float64)
        return scale[..., None] * normal * torch.sqrt(5 / chi), turn


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

    def weights(self, left: Tensor, factor: Tensor) -> Tensor:
        """Row weights (T, R, S) that make `at` interpolate what the law left over, left (T, R, S), NaN-free."""
        solved: Tensor = torch.cholesky_solve(left, factor)
        return solved

    def at(self, x: Tensor, weights: Tensor) -> Tensor:
        """Posterior mean at coordinates x (Q, F) for row weights (T, R, S): (T, Q, S)."""
        found: Tensor = self.kernel(x, self.x) @ weights
        return found

    def deviation(self, x: Tensor, factor: Tensor) -> Tensor:
        """Posterior standard deviation at x (Q, F), noise of a run not included, (T, Q)."""
        cross = self.kernel(self.x, x)
        explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(1)
        left: Tensor = self.kernel.signal[:, None] ** 2 - explained
        return left.clamp(min=0).sqrt()


def learn_kernel(
    features: Features, x: Tensor, left: Tensor, law_covariance: Tensor, variance: Tensor, noise: tuple[Tensor, Tensor]
) -> Kernel:
    """Kernels of greatest posterior density for T tasks.

    The law's own uncertainty enters the covariance, so that what the law has already absorbed is not counted twice
    (restricted likelihood).

    Args:
        features: groups of coordinates.
        x: coordinates, (R, F).
        left: data minus the law linearised at its prior mean, 0 where not measured, (T, R).
        law_covariance: prior covariance of the linearised law, (T, R, R).
        variance: measured noise variance, NaN where unknown, MASKED where there is no value, (T, R).
        noise: log of a guess of the standard deviation of a run, and how far it may be off, (T,) each.
    """
    groups = features.groups
    squared = torch.stack([_squared(x[:, g], x[:, g]) for g in groups])
    width = torch.tensor([math.sqrt(g.stop - g.start) for g in groups], dtype=torch.float64)
    guess, trust = noise
    lengths = torch.log(2 * width).expand(len(guess), -1)
    centre = torch.cat([guess[:, None], guess[:, None], lengths], 1)
    spread = torch.cat([torch.full_like(guess, 1.0)[:, None], trust[:, None], torch.full_like(lengths, 0.7)], 1)
    free = torch.zeros_like(centre, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.15)

    def kernel() -> Kernel:
        signal, sigma, *length = (centre + spread * free).unbind(1)
        return Kernel(signal.exp(), sigma.exp(), torch.stack(length, 1).exp(), groups)

    for _ in range(60):
        optimizer.zero_grad()
        now = kernel()
        row = torch.where(torch.isnan(variance), now.noise[:, None] ** 2, variance)
        covariance = now.from_squared(squared) + law_covariance + torch.diag_embed(row + 1e-10)
        factor = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(factor, left[..., None], upper=False).squeeze(-1)
        log_det = torch.diagonal(factor, dim1=1, dim2=2).log().sum(1)
        loss = (0.5 * white.square().sum(1) + log_det).sum() + 0.5 * free.square().sum()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return kernel()


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (R, Q)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
