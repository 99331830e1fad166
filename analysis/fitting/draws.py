"""Posterior draws of a fitted law: data and prior means redrawn, and the law fitted again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.engine import solve
from mixlaw.analysis.fitting.estimate import LawFit, problems
from mixlaw.analysis.fitting.published import refit
from mixlaw.progress import Progress

#: Share of the cost that the last step of a draw may still gain, with up to MANY_ROWS and beyond: with 4,000 rows a
#: draw takes 12 steps in place of 28, and what draws cover does not change (dev/LOG.md).
TOLERANCE, TOLERANCE_OF_MANY, MANY_ROWS = 1e-6, 1e-5, 1000


def run_weights(design: Design, count: int, generator: torch.Generator) -> Tensor:
    """Weights of rows in `count` Bayesian bootstraps over runs, mean 1 over runs, (S, R).

    Exponential weights by run keep every run in play, so that few runs never lose a phase or a domain.
    """
    run = design.run_index
    weight = torch.empty(count, int(run.max()) + 1, dtype=torch.float64).exponential_(generator=generator)
    return (weight / weight.mean(1, keepdim=True))[:, run]


def posterior(fit: LawFit, observed: Observed, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Posterior draws (S, T, n) by randomise-then-optimise (Bardsley et al. 2014, doi:10.1137/140964023).

    Every draw is a fit to the data plus errors of the law's residual spread, correlated over tasks and shared by the
    checkpoints of a run, under prior means that are redrawn; it starts at the best fit. Residuals are not resampled:
    with nearly as many coefficients as runs they are too small.
    """
    tasks, n = fit.theta.shape
    if fit.procedure is not None:
        _, shift = fit.prior.perturbed((count, tasks), generator)
        weight, starts = run_weights(observed.design, count, generator), (fit.theta + shift).flatten(0, 1)
        return refit(fit.form, observed, fit.procedure, weight, starts)[0].view(count, tasks, n)
    mean, shift = fit.prior.perturbed((count, tasks), generator)
    plain = problems(fit.form, observed, fit.prior, fit.sigma, fit.theta + shift)
    run = observed.design.run_index
    error = torch.randn(count, tasks, int(run.max()) + 1, generator=generator, dtype=torch.float64)
    error = fit.sigma[:, None] * (torch.linalg.cholesky(fit.correlation(observed)) @ error)
    redrawn = replace(plain, target=plain.target + error[..., run].flatten(0, 1), mean=mean.flatten(0, 1))
    tolerance = TOLERANCE if len(observed.design) <= MANY_ROWS else TOLERANCE_OF_MANY
    return solve(fit.form, observed.design, redrawn, tolerance=tolerance, progress=progress).theta.view(count, tasks, n)
