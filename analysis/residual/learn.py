"""Learn the kernel of the residual process from the residuals of a fitted law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from scipy.linalg.lapack import dpotrf, dpotri
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
#: The local part is expected at this share of that deviation, and to reach this far, in units of how far measured runs
#: are from their middle; and the spreads of both logs.
LOCAL, LOCAL_SPREAD = 0.5, 1.0
REACH, REACH_SPREAD = 0.6, 0.5
#: Most iterations of the search for a task's kernel, and the relative decrease at which it ends.
STEPS, TOLERANCE = 150, 1e-7
#: Most prior standard deviations that an entry may be away from its mean.
LARGEST = 6.0
#: Numbers of a kernel besides its length scales.
LEVELS = 5


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
        x=features.and_shares(design),
        groups=features.groups,
        law=value,
        residual=torch.where(seen, residual, 0.0),
        law_covariance=law_covariance,
        variance=variance,
        noise=guess,
        noise_error=trust,
        sigma=sigma.log(),
    )
    with single_thread():
        return learn_kernel(evidence, start)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Data from which kernels of T tasks are learned.

    Attributes:
        x: coordinates of R rows, and the shares after them, (R, F + P * D).
        groups: of coordinates with similar length scales.
        law: log loss that the law expects, about the task's centre, (T, R).
        residual: data minus the law linearised at its prior mean, 0 where not measured, (T, R).
        law_covariance: prior covariance of the linearised law, (T, R, R).
        variance: measured noise variance, NaN where unknown, MASKED where there is no value, (T, R).
        noise, noise_error: log of a guess of the standard deviation of a run, and its standard error, (T,).
        sigma: log of the standard deviation of the law's residuals, (T,).
    """

    x: Tensor
    groups: tuple[slice, ...]
    law: Tensor
    residual: Tensor
    law_covariance: Tensor
    variance: Tensor
    noise: Tensor
    noise_error: Tensor
    sigma: Tensor

    def task(self, number: int) -> Evidence:
        """The data on one task."""
        one = {f.name: getattr(self, f.name)[number, None] for f in fields(self) if f.name not in ("x", "groups")}
        return replace(self, **one)


def learn_kernel(evidence: Evidence, start: Kernel | None = None) -> Kernel:
    """Maximum a posteriori kernels by L-BFGS-B, task by task; `start` is where the search begins."""
    scale = _Scale(evidence)
    first = torch.zeros_like(scale.centre) if start is None else scale.free(start)
    found = [_search(evidence.task(t), vector.numpy()) for t, vector in enumerate(first)]
    return scale.kernel(torch.tensor(np.array(found)))


def _search(evidence: Evidence, start: Floats) -> Floats:
    """The vector of the kernel of one task."""
    from scipy.optimize import minimize  # a third of a second, which only fits take

    result = minimize(
        objective(evidence),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LARGEST, LARGEST)] * len(start),
        options={"maxiter": STEPS, "ftol": TOLERANCE},
    )
    return np.asarray(result.x)


def objective(evidence: Evidence) -> Callable[[Floats], tuple[float, Floats]]:
    """Minus the log posterior density of one task's kernel, but for a constant, and its slope, by the vector.

    The law's own uncertainty is part of the covariance, so that what the law has absorbed is not counted twice
    (restricted likelihood). Infinite where the covariance has no Cholesky factor.
    """
    scale = _Scale(evidence)
    centre, spread, width = scale.centre[0].numpy(), scale.spread[0].numpy(), scale.groups[-1].stop
    x, shares = evidence.x[:, :width].numpy(), evidence.x[:, width:].numpy()
    apart = _squared(shares)
    law, residual, variance = evidence.law[0].numpy(), evidence.residual[0].numpy(), evidence.variance[0].numpy()
    fixed, unknown = evidence.law_covariance[0].numpy(), np.isnan(variance)
    group = np.repeat(np.arange(len(scale.groups)), [g.stop - g.start for g in scale.groups])
    first = LEVELS + len(scale.groups)

    def evaluate(vector: Floats) -> tuple[float, Floats]:
        """The density and its slope at one vector, in the order of `_Scale`."""
        value = centre + spread * vector
        z = x * np.exp(-value[LEVELS:first][group] - value[first:])
        r, q = (np.sqrt(5 * squared + 1e-12) for squared in (_squared(z), apart * math.exp(-2 * value[4])))
        near, close = math.exp(2 * value[0]) * np.exp(-r), math.exp(2 * value[3]) * np.exp(-q)
        process, local = near * (1 + r + r**2 / 3), close * (1 + q + q**2 / 3)
        noise = np.where(unknown, np.exp(2 * (value[1] + value[2] * law)), 0.0)
        covariance = process + local + fixed
        covariance.flat[:: len(x) + 1] += np.where(unknown, noise, variance) + 1e-10
        factor, failed = dpotrf(covariance, lower=1)
        if failed:
            return math.inf, np.zeros_like(vector)
        upper = dpotri(factor, lower=1)[0]
        inverse = np.tril(upper) + np.tril(upper, -1).T
        solved = inverse @ residual
        density = 0.5 * residual @ solved + np.log(factor.diagonal()).sum() + 0.5 * vector @ vector
        slope = 0.5 * (inverse - np.outer(solved, solved))  # of the density by the covariance
        by_noise = 2 * slope.diagonal() * noise
        pull = slope * near * (1 + r) * (5 / 3)  # of the density by squared distances along each coordinate
        by_length = 2 * (pull.sum(1) @ z**2 - (z * (pull @ z)).sum(0))
        by_group = np.bincount(group, by_length, len(scale.groups))
        by_local = [2 * (slope * local).sum(), (slope * close * (1 + q) * q**2 / 3).sum()]
        by_level = [2 * (slope * process).sum(), by_noise.sum(), by_noise @ law, *by_local]
        return float(density), np.concatenate([by_level, by_group, by_length]) * spread + vector

    return evaluate


def _squared(x: Floats) -> Floats:
    """Squared distances (R, R) between the rows of x (R, n)."""
    size = np.square(x).sum(1)
    squared: Floats = np.maximum(size[:, None] + size - 2 * x @ x.T, 0)
    return squared


class _Scale:
    """Kernels as vectors of standard normal numbers.

    Signal, noise, rise, local, reach (LEVELS of them), then a length by group, and one by coordinate.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.groups, sigma = evidence.groups, evidence.sigma
        self.span = torch.stack([evidence.law.amin(1), evidence.law.amax(1)], 1)
        width = torch.tensor([g.stop - g.start for g in self.groups], dtype=torch.float64)
        group = torch.log(GROUP_LENGTH * width.sqrt()).expand(len(sigma), -1)
        own = torch.zeros(len(sigma), self.groups[-1].stop, dtype=torch.float64)
        rise = RISE_SPREAD / evidence.law.std(1, correction=0).clamp(min=1e-3)
        signal, local = sigma + math.log(SIGNAL), sigma + math.log(LOCAL)
        reach = torch.full_like(sigma, math.log(REACH))
        centre = torch.stack([signal, evidence.noise, torch.zeros_like(sigma), local, reach], 1)
        signal, local, reach = (torch.full_like(sigma, s) for s in (SIGNAL_SPREAD, LOCAL_SPREAD, REACH_SPREAD))
        spread = torch.stack([signal, evidence.noise_error, rise, local, reach], 1)
        self.centre = torch.cat([centre, group, own], 1)
        self.spread = torch.cat([spread, torch.full_like(group, GROUP_SPREAD), torch.full_like(own, OWN_SPREAD)], 1)

    def kernel(self, free: Tensor) -> Kernel:
        """Kernels of vectors (T, LEVELS + G + F)."""
        value = self.centre + self.spread * free
        first = LEVELS + len(self.groups)
        group = [value[:, LEVELS + i, None].expand(-1, g.stop - g.start) for i, g in enumerate(self.groups)]
        length = torch.exp(torch.cat(group, 1) + value[:, first:])
        signal, noise, rise, local, reach = value[:, :LEVELS].unbind(1)
        return Kernel(signal.exp(), noise.exp(), length, rise, self.span, local.exp(), reach.exp())

    def free(self, kernel: Kernel) -> Tensor:
        """The vector of these kernels."""
        length = kernel.length.log()
        group = torch.stack([length[:, g].mean(1) for g in self.groups], 1)
        own = torch.cat([length[:, g] - group[:, i, None] for i, g in enumerate(self.groups)], 1)
        levels = [kernel.signal.log(), kernel.noise.log(), kernel.rise, kernel.local.log(), kernel.reach.log()]
        return (torch.cat([torch.stack(levels, 1), group, own], 1) - self.centre) / self.spread
