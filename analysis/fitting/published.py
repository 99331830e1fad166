"""Published laws fitted as their authors do: Huber loss, every task by itself, no prior, the best of many starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.engine import HUBER, Problems, solve
from mixlaw.analysis.fitting.pooling import Prior, first
from mixlaw.analysis.laws.base import Curve, Form, Procedure

#: Starts of every fit. Hoffmann et al. take the best of a grid of 4,500; all but a few of them end at one optimum.
STARTS = 24
#: Standard deviation of the prior in place of none: entries are logarithms, so it allows any number.
FLAT = 30.0
#: Logarithm of a limit that nothing measured comes near: the term is not there.
NO_LIMIT = 18.0


class Restricted(Curve):
    """A form of which a fit moves some blocks only, and of these some together with another.

    Attributes:
        form: the whole form.
        tied: entry -> the entry that it follows.
    """

    def __init__(self, form: Form, procedure: Procedure, moved: Collection[str]) -> None:
        self.form = form
        self.tied = {form.at[name].start: form.at[other].start for name, other in procedure.tied.items()}
        free = {i for name in moved for i in range(form.at[name].start, form.at[name].stop)} - set(self.tied)
        self.parameters = tuple(
            replace(parameter, held=parameter.held or i not in free) for i, parameter in enumerate(form.parameters)
        )

    def whole(self, theta: Tensor) -> Tensor:
        """The vectors (B, n) with tied entries where the others are."""
        theta = theta.clone()
        for entry, other in self.tied.items():
            theta[:, entry] = theta[:, other]
        return theta

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        return self.form.log_loss(self.whole(theta), design)

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the moved entries (B, m, R), tied entries moving along."""
        value, slopes = self.form.jacobian(self.whole(theta), design)
        follows = torch.tensor([self.tied.get(i, i) for i in self.form.free.tolist()])
        return value, torch.einsum("bkr,km->bmr", slopes, (follows[:, None] == self.free).to(slopes.dtype))


def flat(form: Form, theta: Tensor) -> Prior:
    """A prior about vectors (T, n) that says nothing about the entries that are fitted."""
    prior = first(form)
    spread = torch.where(prior.spread > 0, FLAT, 0.0).to(torch.float64)
    return Prior(theta.mean(0), spread, torch.zeros_like(spread), prior.loose)


def published_fit(
    form: Form, observed: Observed, procedure: Procedure, generator: torch.Generator, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Best parameters of every task (T, n), and whether their search converged (T,).

    Args:
        form: the law's shape.
        observed: the measured rows.
        procedure: the authors'.
        generator: of the starts.
        start: vectors (T, n) fitted to other rows, one more start in place of most of the others.
    """
    prior, tasks = first(form), len(observed.tasks)
    starts, _ = prior.perturbed((STARTS if start is None else STARTS // 6, tasks), generator)
    starts[0] = prior.mean if start is None else start
    starts = torch.where(prior.spread > 0, starts, prior.mean).flatten(0, 1)
    weight = torch.ones(1, len(observed.design), dtype=torch.float64)
    theta, cost, converged = refit(form, observed, procedure, weight, starts)
    best = cost.view(-1, tasks).argmin(0) * tasks + torch.arange(tasks)
    return theta[best], converged[best]


def refit(
    form: Form, observed: Observed, procedure: Procedure, weight: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The authors' fit of S x T problems: vectors (S T, n), cost and convergence (S T,).

    Args:
        form: the law's shape.
        observed: the measured rows.
        procedure: the authors'.
        weight: of every row, (S, R) or (1, R).
        starts: first guesses, (S T, n), tasks running fastest.
    """
    later = set(procedure.after_repeats)
    once = torch.nonzero((observed.design.tokens.sum(1) <= observed.design.unique).all(1)).squeeze(1)
    every = torch.arange(len(observed.design))
    stages = [(set(form.at), every)]
    if later and len(form.parameters) < len(once) < len(every):
        stages = [(set(form.at) - later, once), (later, every)]
    theta, cost, converged = starts, starts.new_zeros(len(starts)), torch.ones(len(starts), dtype=torch.bool)
    for moved, rows in stages:
        still = [form.at[name] for name in later - moved]
        for entries in still:
            theta = theta.index_fill(1, torch.arange(entries.start, entries.stop), NO_LIMIT)
        curve = Restricted(form, procedure, moved)
        problems = _problems(observed.select(rows), procedure, weight[:, rows], theta)
        solution = solve(curve, observed.design.select(rows), problems, steps=400, tolerance=1e-10)
        theta, cost, converged = curve.whole(solution.theta), solution.cost, converged & solution.converged
        for entries in still:
            theta[:, entries] = starts[:, entries]
    return theta, cost, converged


def _problems(observed: Observed, procedure: Procedure, weight: Tensor, starts: Tensor) -> Problems:
    sets = len(starts) // len(observed.tasks)
    # The engine's residuals count linearly from HUBER sigma on: this sigma makes that the authors' delta.
    sigma = torch.full_like(observed.target, procedure.delta / HUBER)
    if procedure.of_loss:
        sigma = sigma / torch.exp(observed.target + observed.centre[:, None])
    each = weight.expand(sets, -1).repeat_interleave(len(observed.tasks), 0)
    return Problems(
        target=observed.target.repeat(sets, 1),
        weight=observed.seen.repeat(sets, 1) * each,
        sigma=sigma.repeat(sets, 1),
        start=starts,
        mean=starts,
        spread=torch.full_like(starts, FLAT),
    )
