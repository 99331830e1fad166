"""Estimate one law on all tasks: best parameters with partial pooling, their prior and the residual spread."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.engine import HUBER, Problems, Solution, solve
from mixlaw.analysis.fitting.pooling import Prior, first, learn
from mixlaw.analysis.fitting.published import flat, published_fit
from mixlaw.analysis.laws.base import Form, Procedure

#: Starts drawn from the prior, the first at its mean; the best is used for each task.
STARTS = 6
#: Rounds of fitting, residual spread and pooling.
ROUNDS = 4
#: No law is right over all sizes and predictions are for large ones: with runs to spare, rows are weighted by compute
#: to this power.
FRONTIER = 0.2
#: Residual spread expected before any fit, as a share of the loss, and its weight in rows.
SPREAD, SPREAD_ROWS = 0.02, 0.2


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law fitted to T tasks, in log loss relative to the tasks' centres.

    Attributes:
        form: its shape over the measured design.
        theta: best parameters, (T, n).
        sigma: standard deviation of the law's residuals, (T,).
        prior: what tasks share, as learned.
        converged: (T,).
        procedure: that of the law's authors, where the law was fitted as they do.
    """

    form: Form
    theta: Tensor
    sigma: Tensor
    prior: Prior
    converged: Tensor
    procedure: Procedure | None

    def correlation(self, observed: Observed) -> Tensor:
        """Correlation of the tasks' residuals over rows, shrunk by Ledoit and Wolf's rule, (T, T).

        What one task's fit misses the next often misses too, and a good seed is good for many tasks: uncertainty
        drawn task by task would cancel in a mean over tasks.
        """
        residual = (observed.target - self.form.log_loss(self.theta, observed.design)) * observed.seen
        scaled = residual / residual.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
        covariance = shrunk_covariance(scaled.T)
        scale = covariance.diagonal().clamp(min=1e-12).rsqrt()
        return covariance * scale[:, None] * scale


def shrunk_covariance(centred: Tensor) -> Tensor:
    """Covariance of N rows of T columns of mean zero, shrunk towards a multiple of the identity, (T, T).

    Ledoit and Wolf (2004, doi:10.1016/S0047-259X(03)00096-4). That of scikit-learn takes a second to import.
    """
    rows, columns = centred.shape
    covariance = centred.T @ centred / rows
    square, mean = covariance.square().sum(), covariance.trace() / columns
    distance = square - columns * mean**2  # between the covariance and the multiple of the identity
    error = (centred.square().sum(1).square().sum() / rows - square) / rows  # of the covariance, both squared
    share = float(error / distance) if distance > error else float(distance > 0)
    return covariance.lerp(mean * torch.eye(columns, dtype=centred.dtype), share)


def estimate(
    form: Form,
    observed: Observed,
    generator: torch.Generator,
    start: LawFit | None = None,
    procedure: Procedure | None = None,
) -> LawFit:
    """Fit a form to all tasks; `start`, a fit to more or other rows of the same tasks, is where the search begins.

    What that fit learned from its rows, prior and residual spread, is learned anew: kept, it would let held-out rows
    into a fit that is to predict them. With the `procedure` of the law's authors there are neither priors nor pooling.
    """
    if procedure is not None:
        theta, converged = published_fit(form, observed, procedure, generator, None if start is None else start.theta)
        return LawFit(form, theta, _middle(form, observed, theta), flat(form, theta), converged, procedure)
    prior = first(form)
    sigma = torch.full((len(observed.tasks),), 2.5 * SPREAD, dtype=torch.float64)
    if start is None:
        theta = _search(form, observed, prior, sigma, generator)
    else:
        theta = torch.where(prior.spread > 0, start.theta, prior.mean)
    for _ in range(ROUNDS):
        solution = solve(form, observed.design, problems(form, observed, prior, sigma, theta[None]), tolerance=1e-6)
        theta = solution.theta
        sigma = _spread(form, observed, solution, sigma)
        prior = learn(form, prior, theta, solution.covariance)
    solution = solve(form, observed.design, problems(form, observed, prior, sigma, theta[None]))
    return LawFit(form, solution.theta, sigma, prior, solution.converged, None)


def _search(form: Form, observed: Observed, prior: Prior, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Best of several starts for each task, (T, n)."""
    tasks = len(observed.tasks)
    starts, _ = prior.perturbed((STARTS, tasks), generator)
    starts[0] = prior.mean
    starts = torch.where(prior.spread > 0, starts, prior.mean)
    tried = solve(form, observed.design, problems(form, observed, prior, sigma, starts), steps=60, tolerance=1e-4)
    best = tried.cost.view(STARTS, tasks).argmin(0)
    return tried.theta.view(STARTS, tasks, -1)[best, torch.arange(tasks)]


def row_weight(form: Form, observed: Observed) -> Tensor:
    """Weight of each row in a fit, mean 1, 0 where not measured, (T, R); equal where runs are scarce."""
    runs = len(set(observed.design.runs))
    power = FRONTIER * max(0.0, 1 - len(form.free) / runs)
    compute = (observed.design.params * observed.design.total).detach()
    near = (compute / compute.max()) ** power
    return observed.seen * (near / near.mean())


def problems(form: Form, observed: Observed, prior: Prior, sigma: Tensor, starts: Tensor) -> Problems:
    """Problems of S x T fits to all rows from starts (S, T, n)."""
    count, tasks, n = starts.shape
    return Problems(
        target=observed.target.repeat(count, 1),
        weight=row_weight(form, observed).repeat(count, 1),
        sigma=sigma.repeat(count)[:, None],
        start=starts.reshape(-1, n),
        mean=prior.mean.expand(count * tasks, n),
        spread=prior.spread.expand(count * tasks, n),
    )


def _spread(form: Form, observed: Observed, solution: Solution, sigma: Tensor) -> Tensor:
    """Residual spread of each task by Huber's proposal 2, with the fit's degrees of freedom taken off."""
    residual = observed.target - form.log_loss(solution.theta, observed.design)
    clipped = row_weight(form, observed) * torch.minimum(residual.abs(), HUBER * sigma[:, None]) ** 2
    used = torch.einsum("tij,tji->t", solution.covariance, solution.information)
    freedom = (observed.seen.sum(1) - used).clamp(min=1.0)
    scatter = clipped.sum(1) / 0.7102  # the mean square of a clipped standard normal
    return torch.sqrt((scatter + SPREAD_ROWS * SPREAD**2) / (freedom + SPREAD_ROWS)).clamp(min=1e-4)


def _middle(form: Form, observed: Observed, theta: Tensor) -> Tensor:
    """Residual spread of each task from the median size of its residuals, (T,)."""
    size = (observed.target - form.log_loss(theta, observed.design)).abs()
    count = observed.seen.sum(1)
    freedom = (count - len(form.free)).clamp(min=1)
    middle = torch.where(observed.seen, size, torch.nan).nanmedian(1).values * 1.4826  # of a normal distribution
    return torch.sqrt((count * middle**2 + SPREAD_ROWS * SPREAD**2) / (freedom + SPREAD_ROWS)).clamp(min=1e-4)
