"""Learn the kernel of the residual process from the residuals of a fitted law."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Floats
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.engine import single_thread
from mixlaw.analysis.fitting.estimate import LawFit
from mixlaw.analysis.residual.process import MASKED, Kernel

#: Rows used to learn the kernel; more only cost time. MANY tasks share much of it and use fewer.
ROWS, ROWS_OF_MANY, MANY = 192, 112, 24
#: Prior of log length scales: of a group of coordinates, in standard units, and of a coordinate about its group.
GROUP_LENGTH, GROUP_SPREAD, OWN_SPREAD = 2.0, 0.7, 0.5
#: Prior spread of the log signal, and of how log noise changes over one standard deviation of the law's log loss.
SIGNAL_SPREAD, RISE_SPREAD = 1.0, 0.5
#: The signal is expected at this many standard deviations of the law's residuals.
SIGNAL = 2.0
#: Most iterations of the search for a task's kernel, and the relative decrease at which it ends.
STEPS, TOLERANCE = 150, 1e-7
#: Most prior standard deviations that an entry may be away from its mean.
LARGEST = 6.0


def residual_kernel(fit: LawFit, observed: Observed, generator: torch.Generator, start: Kernel | None = None) -> Kernel:
    """Kernel of the residuals of a fitted law, learned on at most ROWS rows."""
    form, prior, theta, sigma = fit.form, fit.prior, fit.theta, fit.sigma
    features = Features.of(observed.design)
    most = ROWS if len(observed.tasks) < MANY else ROWS_OF_MANY
    rows = torch.randperm(len(observed.design), generator=generator)[:most].sort().values
    design = observed.design.select(rows)
    value, jacobian = form.jacobian(theta, design)
    seen = observed.seen[:, rows]
    spread = torch.sqrt(prior.spread**2 + prior.mean_error**2)
    # The law linearised: data minus its value at the prior mean is law uncertainty + residual process + noise.
    shift = (prior.mean - theta)[:, form.free, None]
    residual = observed.target[:, rows] - value - (jacobian * shift).sum(1)
    scaled = jacobian * spread[form.free, None]
    law_covariance = torch.where(seen[:, :, None] & seen[:, None, :], scaled.transpose(1, 2) @ scaled, 0.0)
    variance = torch.where(seen, observed.variance[:, rows], torch.full_like(residual, MASKED))
    known = ~observed.noise.isnan()
    guess = torch.where(known, observed.noise, sigma / 2).log()
    trust = torch.where(known, observed.noise_error, torch.full_like(guess, 0.7))
    evidence = Evidence(
        x=features(design),
        groups=features.groups,
        law=value,
        residual=torch.where(seen, residual, 0.0),
        law_covariance=law_covariance,
        variance=variance,
        noise=guess,
        noise_error=trust,
        signal=(SIGNAL * sigma).log(),
    )
    with single_thread():
        return learn_kernel(evidence, start)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Data from which kernels of T tasks are learned.

    Attributes:
        x: coordinates of R rows, (R, F).
        groups: of coordinates with similar length scales.
        law: log loss that the law expects, about the task's centre, (T, R).
        residual: data minus the law linearised at its prior mean, 0 where not measured, (T, R).
        law_covariance: prior covariance of the linearised law, (T, R, R).
        variance: measured noise variance, NaN where unknown, MASKED where there is no value, (T, R).
        noise, noise_error: log of a guess of the standard deviation of a run, and its standard error, (T,).
        signal: log of a guess of the standard deviation of the process, (T,).
    """

    x: Tensor
    groups: tuple[slice, ...]
    law: Tensor
    residual: Tensor
    law_covariance: Tensor
    variance: Tensor
    noise: Tensor
    noise_error: Tensor
    signal: Tensor

    def task(self, number: int) -> Evidence:
        """The data on one task."""
        one = {f.name: getattr(self, f.name)[number, None] for f in fields(self) if f.name not in ("x", "groups")}
        return replace(self, **one)

    def covariance(self, kernel: Kernel) -> Tensor:
        """Covariance of `residual` under a kernel: law, residual process and noise, (T, R, R).

        The law's own uncertainty is part of it, so that what the law has absorbed is not counted twice (restricted
        likelihood).
        """
        row = torch.where(torch.isnan(self.variance), kernel.noise_at(self.law) ** 2, self.variance)
        return kernel(self.x, self.x) + self.law_covariance + torch.diag_embed(row + 1e-10)


def learn_kernel(evidence: Evidence, start: Kernel | None = None) -> Kernel:
    """Maximum a posteriori kernels by L-BFGS-B, task by task; `start` is where the search begins."""
    scale = _Scale(evidence)
    first = torch.zeros_like(scale.centre) if start is None else scale.free(start)
    found = [_search(evidence.task(t), vector.numpy()) for t, vector in enumerate(first)]
    return scale.kernel(torch.tensor(np.array(found)))


def _search(evidence: Evidence, start: Floats) -> Floats:
    """The vector of the kernel of one task."""
    scale = _Scale(evidence)

    def objective(vector: Floats) -> tuple[float, Floats]:
        """Minus the log posterior density and its slope; infinite where the covariance has no Cholesky factor."""
        free = torch.tensor(vector)[None].requires_grad_()
        covariance = evidence.covariance(scale.kernel(free))
        with torch.no_grad():
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if bool(failed):
                return math.inf, np.zeros_like(vector)
            inverse = torch.cholesky_inverse(factor)
            solved = inverse @ evidence.residual[..., None]
            fit = 0.5 * float(evidence.residual @ solved[0]) + float(factor[0].diagonal().log().sum())
            # Derivative of -log density by the covariance; far cheaper than going back through the factor.
            slope = 0.5 * (inverse - solved @ solved.transpose(1, 2))
        penalty = 0.5 * free.square().sum()
        (gradient,) = torch.autograd.grad((slope * covariance).sum() + penalty, free)
        return fit + float(penalty.detach()), gradient[0].numpy()

    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LARGEST, LARGEST)] * len(start),
        options={"maxiter": STEPS, "ftol": TOLERANCE},
    )
    return np.asarray(result.x)


class _Scale:
    """Kernels as vectors of standard normal numbers: signal, noise, rise, length by group, length by coordinate."""

    def __init__(self, evidence: Evidence) -> None:
        self.groups, noise = evidence.groups, evidence.noise
        self.span = torch.stack([evidence.law.amin(1), evidence.law.amax(1)], 1)
        width = torch.tensor([g.stop - g.start for g in self.groups], dtype=torch.float64)
        group = torch.log(GROUP_LENGTH * width.sqrt()).expand(len(noise), -1)
        own = torch.zeros(len(noise), evidence.x.shape[1], dtype=torch.float64)
        rise = RISE_SPREAD / evidence.law.std(1, correction=0).clamp(min=1e-3)
        self.centre = torch.cat([torch.stack([evidence.signal, noise, torch.zeros_like(noise)], 1), group, own], 1)
        shape = [torch.full_like(group, GROUP_SPREAD), torch.full_like(own, OWN_SPREAD)]
        self.spread = torch.cat(
            [torch.stack([torch.full_like(noise, SIGNAL_SPREAD), evidence.noise_error, rise], 1), *shape], 1
        )

    def kernel(self, free: Tensor) -> Kernel:
        """Kernels of vectors (T, 3 + G + F)."""
        value = self.centre + self.spread * free
        first = 3 + len(self.groups)
        group = [value[:, 3 + i, None].expand(-1, g.stop - g.start) for i, g in enumerate(self.groups)]
        length = torch.exp(torch.cat(group, 1) + value[:, first:])
        return Kernel(value[:, 0].exp(), value[:, 1].exp(), length, value[:, 2], self.span)

    def free(self, kernel: Kernel) -> Tensor:
        """The vector of these kernels."""
        length = kernel.length.log()
        group = torch.stack([length[:, g].mean(1) for g in self.groups], 1)
        own = torch.cat([length[:, g] - group[:, i, None] for i, g in enumerate(self.groups)], 1)
        parts = torch.stack([kernel.signal.log(), kernel.noise.log(), kernel.rise], 1)
        return (torch.cat([parts, group, own], 1) - self.centre) / self.spread
