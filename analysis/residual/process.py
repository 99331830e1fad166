"""What the law leaves over: a Gaussian process on log exposures that interpolates near runs and is silent far away."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Random Fourier features of a prior draw.
WAVES = 256
#: Rows used to learn the kernel; more only cost time. With MANY tasks, which share much of it, fewer have to do.
ROWS, ROWS_OF_MANY, MANY = 192, 112, 24
#: Variance that takes a masked row out of the process.
MASKED = 1e6
#: Prior of log length scales: of a group of coordinates about that many standard units, of a coordinate in its group.
GROUP_LENGTH, GROUP_SPREAD, OWN_SPREAD = 2.0, 0.7, 0.5
#: Prior spread of the log signal, and of how log noise changes over one standard deviation of the law's log loss.
SIGNAL_SPREAD, RISE_SPREAD = 1.0, 0.5
#: Steps of the search for the kernel, and its rate; fewer from a kernel that is good already.
STEPS, WARM_STEPS, RATE = 60, 20, 0.15


@dataclass(frozen=True, eq=False)
class Kernel:
    """Matern-5/2 kernels of T tasks, a length scale per coordinate, and the noise of a run.

        k(r) = signal**2 (1 + sqrt(5) r + 5/3 r**2) exp(-sqrt(5) r),   r**2 = sum_f (x_f - x'_f)**2 / length_f**2
        noise(l) = noise exp(rise l),   l = the law's log loss about the task's centre, kept inside `span`

    Attributes:
        signal, noise: standard deviations in log loss, (T,).
        length: length scales, (T, F).
        rise: of log noise by log loss, (T,).
        span: least and largest log loss that the law gives a measured run, (T, 2).
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
        """Standard deviation of one run where the law gives these log losses, (T, R) for (T, R)."""
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


@dataclass(frozen=True, eq=False)
class Evidence:
    """What kernels of T tasks are learned from.

    Attributes:
        x: coordinates of R rows, (R, F).
        groups: of coordinates whose length scales are alike.
        law: log loss that the law expects, about the task's centre, (T, R).
        left: data minus the law linearised at its prior mean, 0 where not measured, (T, R).
        law_covariance: prior covariance of the linearised law, (T, R, R).
        variance: measured noise variance, NaN where unknown, MASKED where there is no value, (T, R).
        noise, doubt: log of a guess of the standard deviation of a run, and how far it may be off, (T,).
    """

    x: Tensor
    groups: tuple[slice, ...]
    law: Tensor
    left: Tensor
    law_covariance: Tensor
    variance: Tensor
    noise: Tensor
    doubt: Tensor

    def covariance(self, kernel: Kernel) -> Tensor:
        """Covariance of `left` under a kernel: law, residual process and noise, (T, R, R).

        The law's own uncertainty is part of it, so that what the law has already absorbed is not counted twice
        (restricted likelihood).
        """
        row = torch.where(torch.isnan(self.variance), kernel.noise_at(self.law) ** 2, self.variance)
        return kernel(self.x, self.x) + self.law_covariance + torch.diag_embed(row + 1e-10)


def learn_kernel(evidence: Evidence, start: Kernel | None = None) -> Kernel:
    """Kernels of greatest posterior density; `start`, learned from more or other rows, saves most of the search."""
    scale = _Scale(evidence)
    free = torch.zeros_like(scale.centre) if start is None else scale.free(start)
    mean, square, rate = torch.zeros_like(free), torch.zeros_like(free), RATE if start is None else RATE / 3
    # Adam (Kingma and Ba 2015) by hand: the first step of torch's own loads a compiler, which takes as long as a fit.
    for step in range(1, 1 + (STEPS if start is None else WARM_STEPS)):
        free = free.detach().requires_grad_()
        covariance = evidence.covariance(scale.kernel(free))
        with torch.no_grad():
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
            solved = inverse @ evidence.left[..., None]
            # Derivative of -log density by the covariance; far cheaper than going back through the factor.
            slope = 0.5 * (inverse - solved @ solved.transpose(1, 2))
        (way,) = torch.autograd.grad((slope * covariance).sum() + 0.5 * free.square().sum(), free)
        mean, square = 0.9 * mean + 0.1 * way, 0.999 * square + 0.001 * way.square()
        free = free - rate * mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    with torch.no_grad():
        return scale.kernel(free)


class _Scale:
    """Kernels as vectors of standard normal numbers: signal, noise, rise, length by group, length by coordinate."""

    def __init__(self, evidence: Evidence) -> None:
        self.groups, noise = evidence.groups, evidence.noise
        self.span = torch.stack([evidence.law.amin(1), evidence.law.amax(1)], 1)
        width = torch.tensor([g.stop - g.start for g in self.groups], dtype=torch.float64)
        group = torch.log(GROUP_LENGTH * width.sqrt()).expand(len(noise), -1)
        own = torch.zeros(len(noise), evidence.x.shape[1], dtype=torch.float64)
        rise = RISE_SPREAD / evidence.law.std(1, correction=0).clamp(min=1e-3)
        self.centre = torch.cat([torch.stack([noise, noise, torch.zeros_like(noise)], 1), group, own], 1)
        shape = [torch.full_like(group, GROUP_SPREAD), torch.full_like(own, OWN_SPREAD)]
        self.spread = torch.cat(
            [torch.stack([torch.full_like(noise, SIGNAL_SPREAD), evidence.doubt, rise], 1), *shape], 1
        )

    def kernel(self, free: Tensor) -> Kernel:
        """The kernels that vectors (T, 3 + G + F) stand for."""
        value = self.centre + self.spread * free
        first = 3 + len(self.groups)
        group = [value[:, 3 + i, None].expand(-1, g.stop - g.start) for i, g in enumerate(self.groups)]
        length = torch.exp(torch.cat(group, 1) + value[:, first:])
        return Kernel(value[:, 0].exp(), value[:, 1].exp(), length, value[:, 2], self.span)

    def free(self, kernel: Kernel) -> Tensor:
        """A vector that stands for these kernels."""
        length = kernel.length.log()
        group = torch.stack([length[:, g].mean(1) for g in self.groups], 1)
        own = torch.cat([length[:, g] - group[:, i, None] for i, g in enumerate(self.groups)], 1)
        parts = torch.stack([kernel.signal.log(), kernel.noise.log(), kernel.rise], 1)
        return (torch.cat([parts, group, own], 1) - self.centre) / self.spread


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (..., R, Q) between x (..., R, F) and y (..., Q, F)."""
    product = x @ y.transpose(-1, -2)
    return (x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * product).clamp(min=0)
