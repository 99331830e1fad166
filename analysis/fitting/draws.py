"""Posterior draws of a fitted law: a Bayesian bootstrap over runs under redrawn priors."""

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


def run_weights(design: Design, count: int, generator: torch.Generator) -> Tensor:
    """Weights of rows in `count` Bayesian bootstraps over runs, mean 1 over runs, (S, R).

    Exponential weights by run keep every run in play, so that few runs never lose a phase or a domain.
    """
    run = design.run_index
    weight = torch.empty(count, int(run.max()) + 1, dtype=torch.float64).exponential_(generator=generator)
    return (weight / weight.mean(1, keepdim=True))[:, run]


def posterior(fit: LawFit, observed: Observed, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Posterior draws (S, T, n): runs reweighted, prior means redrawn, each fit started from the best one."""
    tasks, n = fit.theta.shape
    if fit.procedure is not None:
        _, shift = fit.prior.perturbed((count, tasks), generator)
        weight, starts = run_weights(observed.design, count, generator), (fit.theta + shift).flatten(0, 1)
        return refit(fit.form, observed, fit.procedure, weight, starts)[0].view(count, tasks, n)
    mean, shift = fit.prior.perturbed((count, tasks), generator)
    plain = problems(fit.form, observed, fit.prior, fit.sigma, fit.theta + shift)
    weight = run_weights(observed.design, count, generator).repeat_interleave(tasks, 0) * plain.weight
    resampled = replace(plain, weight=weight, mean=mean.flatten(0, 1))
    return solve(fit.form, observed.design, resampled, tolerance=1e-6, progress=progress).theta.view(count, tasks, n)
