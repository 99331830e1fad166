"""Partial pooling: tasks share mean and spread of a parameter, both learned from all tasks (empirical Bayes)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.laws.base import Curve

#: Weight of the prior guess of the between-task spread, in tasks.
GUESS = 4.0


@dataclass(frozen=True, eq=False)
class Prior:
    """Normal prior of T tasks' parameters.

    Attributes:
        mean: common to all tasks, (n,).
        spread: of a task around it, (n,); 0 where held.
        mean_error: standard error of the common mean itself, (n,).
        loose: prior standard deviation of held entries that draws sample, (n,); 0 elsewhere.
    """

    mean: Tensor
    spread: Tensor
    mean_error: Tensor
    loose: Tensor

    def perturbed(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Prior means of S draws x T tasks, and offsets of the loose entries, each (S, T, n).

        A fit to resampled data under a resampled prior mean is a draw from the posterior (randomise, then optimise):
        where data are uninformative the draws have the spread of the prior.
        """
        draws, tasks = shape
        shared = torch.randn(draws, 1, len(self.mean), generator=generator, dtype=torch.float64)
        own = torch.randn(draws, tasks, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + shared * self.mean_error + own * self.spread, (shared * self.loose).expand_as(own)


def first(form: Curve) -> Prior:
    """The prior before any data: every task on its own."""
    mean = torch.tensor([p.mean for p in form.parameters], dtype=torch.float64)
    spread = torch.tensor([p.spread for p in form.parameters], dtype=torch.float64)
    held = torch.tensor([p.held for p in form.parameters])
    loose = held & torch.tensor([p.loose for p in form.parameters])
    zero = torch.zeros_like(spread)
    return Prior(mean, torch.where(held, zero, spread), zero, torch.where(loose, spread, zero))


def learn(form: Curve, before: Prior, theta: Tensor, covariance: Tensor) -> Prior:
    """One step of expectation-maximisation from the tasks' fits theta (T, n) and covariances (T, m, m)."""
    base = first(form)
    between = torch.tensor([p.between for p in form.parameters], dtype=torch.float64)
    pooled = (between > 0) & (base.spread > 0)
    tasks = theta.shape[0]
    variance = torch.zeros_like(theta)
    variance[:, form.free] = torch.diagonal(covariance, dim1=1, dim2=2)
    tau = torch.where(before.mean_error > 0, before.spread, between).clamp(min=1e-6)
    precision = tasks / tau**2 + base.spread.clamp(min=1e-6) ** -2
    mean = (theta.sum(0) / tau**2 + base.mean / base.spread.clamp(min=1e-6) ** 2) / precision
    scatter = ((theta - mean) ** 2 + variance).sum(0)
    spread = torch.sqrt((GUESS * between**2 + scatter) / (GUESS + tasks))
    mean_error = torch.rsqrt((1 / (spread**2 + variance)).sum(0) + base.spread.clamp(min=1e-6) ** -2)
    return Prior(
        torch.where(pooled, mean, base.mean),
        torch.where(pooled, torch.minimum(spread, base.spread * 2), base.spread),
        torch.where(pooled, mean_error, torch.zeros_like(mean_error)),
        base.loose,
    )
