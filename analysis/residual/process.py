"""Residual Gaussian process: a wide part on log exposures, and a local one, by which each mixture has its own luck."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

#: Random Fourier features of a prior draw.
WAVES = 256
#: Variance that takes a masked row out of the process.
MASKED = 1e6
#: Rows up to which the process is exact, and points through which it goes beyond. With 2,400 runs, errors on new ones
#: grow by 1 % with 1,000 points, by 4 % with 500, and by 12 % with 250 (dev/LOG.md).
MOST = 1000
#: Shares of a variance that are added, one after the other, to a matrix that rounding errors leave without a factor.
JITTER = (1e-8, 1e-6, 1e-4)


@dataclass(frozen=True, eq=False)
class Kernel:
    """Sums of two Matern-5/2 kernels for T tasks, and the noise of a run.

        k = signal**2 m(r) + local**2 m(q),   m(r) = (1 + sqrt(5) r + 5/3 r**2) exp(-sqrt(5) r)
        r**2 = sum_f (x_f - x'_f)**2 / length_f**2,   q = |s - s'| / reach
        noise(l) = noise exp(rise l),   l = the law's log loss about the task's centre, kept inside `span`

    x are a recipe's F coordinates, s its shares within each phase. The first part follows what a law gets wrong over
    the whole design. The second is what a mixture has for itself, at every size alike: runs far from it tell nothing of
    that, so that a proposal in their middle is less sure than the first part alone says.

    Attributes:
        signal, noise, local: standard deviations in log loss, (T,).
        length: length scales, (T, F).
        reach: of the shares, (T,).
        rise: of log noise by log loss, (T,).
        span: least and largest log loss that the law predicts for a measured run, (T, 2).
    """

    signal: Tensor
    noise: Tensor
    length: Tensor
    rise: Tensor
    span: Tensor
    local: Tensor
    reach: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Covariances between recipes x (R, F + P * D) and y (Q, F + P * D) for every task, (T, R, Q)."""
        first, length, reach = self.length.shape[1], self.length[:, None], self.reach[:, None, None]
        wide = _matern(x[:, :first] / length, y[:, :first] / length)
        local = _matern(x[:, first:] / reach, y[:, first:] / reach)
        return self.signal[:, None, None] ** 2 * wide + self.local[:, None, None] ** 2 * local

    def luck(self, shares: Tensor, task: int) -> Tensor:
        """Covariances of a task's local part at recipes with these shares (R, P * D), over a run's noise, (R, R)."""
        reached = shares / self.reach[task]
        return (self.local[task] / self.noise[task]) ** 2 * _matern(reached, reached)

    def noise_at(self, law: Tensor) -> Tensor:
        """Standard deviation of one run where the law predicts these log losses, (T, R) for (T, R)."""
        inside = torch.minimum(torch.maximum(law, self.span[:, :1]), self.span[:, 1:])
        return self.noise[:, None] * torch.exp(self.rise[:, None] * inside)

    def waves(self, generator: torch.Generator, shares: int) -> tuple[Tensor, Tensor]:
        """Frequencies (T, F + shares, 2 WAVES) and phases (2 WAVES,) whose cosines make prior draws of both parts.

        Those of a Matern-5/2 kernel are from a Student t with 5 degrees of freedom.
        """
        parts = []
        for length in (self.length, self.reach[:, None].expand(-1, shares)):
            normal = torch.randn(length.shape[1], WAVES, generator=generator, dtype=torch.float64)
            chi = torch.randn(5, WAVES, generator=generator, dtype=torch.float64).square().sum(0)
            parts.append(normal * torch.sqrt(5 / chi) / length[..., None])
        turn = 2 * math.pi * torch.rand(2 * WAVES, generator=generator, dtype=torch.float64)
        tasks, coordinates = self.length.shape
        frequency = torch.zeros(tasks, coordinates + shares, 2 * WAVES, dtype=torch.float64)
        frequency[:, :coordinates, :WAVES], frequency[:, coordinates:, WAVES:] = parts
        return frequency, turn


@dataclass(frozen=True, eq=False)
class Residual:
    """Gaussian processes of T tasks conditioned on rows at coordinates x.

    Up to MOST rows it is exact. Beyond, it is a process through M of them that lie far apart, conditioned on all rows
    (subset of regressors, doi:10.5555/1046920.1194909): cost and memory grow in proportion to rows.

    Attributes:
        kernel: of each task.
        x: coordinates and shares of the measured rows, (R, F + P * D).
        variance: noise variance of each row, huge where it was not measured, (T, R).
    """

    kernel: Kernel
    x: Tensor
    variance: Tensor

    @cached_property
    def points(self) -> Tensor:
        """Coordinates and shares through which the process goes, (M, F + P * D): all rows, or MOST of them."""
        if len(self.x) <= MOST:
            return self.x
        from sklearn.cluster import kmeans_plusplus  # half a second

        _, rows = kmeans_plusplus(self.x.numpy(), MOST, random_state=0)
        return self.x[torch.tensor(rows).sort().values]

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factor of the rows' covariance, or of the precision at the points, (T, M, M)."""
        matrix = self.kernel(self.points, self.points)
        if len(self.points) == len(self.x):
            matrix = matrix + torch.diag_embed(self.variance + 1e-10)
        else:
            matrix = matrix + torch.diag_embed(1e-8 * matrix.diagonal(dim1=1, dim2=2))
            for rows, across in self._blocks():
                matrix += (across / (self.variance[:, None, rows] + 1e-10)) @ across.transpose(1, 2)
        return _factor(matrix)

    def weights(self, residuals: Tensor) -> Tensor:
        """Weights of the points (T, M, S) that make `at` interpolate residuals (T, R, S), NaN-free."""
        if len(self.points) < len(self.x):
            scaled = residuals / (self.variance[..., None] + 1e-10)
            residuals = torch.stack([across @ scaled[:, rows] for rows, across in self._blocks()]).sum(0)
        solved: Tensor = torch.cholesky_solve(residuals, self.factor)
        return solved

    def at(self, x: Tensor, weights: Tensor) -> Tensor:
        """Posterior mean at coordinates x (Q, F) for weights (T, M, S): (T, Q, S)."""
        mean: Tensor = self.kernel(x, self.points) @ weights
        return mean

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows in blocks that bound memory, with their covariance with the points, (T, M, rows)."""
        for first in range(0, len(self.x), MOST):
            rows = slice(first, first + MOST)
            yield rows, self.kernel(self.points, self.x[rows])


def _factor(matrix: Tensor) -> Tensor:
    """Cholesky factors (T, M, M), those that rounding denies one with more on the diagonal.

    Values that are all but free of noise, at recipes that are all but one, leave no more than rounding errors.
    """
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    for share in JITTER:
        rows = failed.nonzero()[:, 0]
        if not len(rows):
            break
        more = torch.diag_embed(share * matrix[rows].diagonal(dim1=1, dim2=2))
        factor[rows], failed[rows] = torch.linalg.cholesky_ex(matrix[rows] + more)
    return torch.linalg.cholesky(matrix) if bool(failed.any()) else factor  # which raises


def _matern(x: Tensor, y: Tensor) -> Tensor:
    """m(r) of x (..., R, n) and y (..., Q, n) in units of the length scales, (..., R, Q)."""
    r = torch.sqrt(5 * _squared(x, y) + 1e-12)  # finite gradient at 0
    return (1 + r + r**2 / 3) * torch.exp(-r)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (..., R, Q) between x (..., R, F) and y (..., Q, F)."""
    product = x @ y.transpose(-1, -2)
    return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * product).clamp(min=0)
