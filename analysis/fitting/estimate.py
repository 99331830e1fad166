"""Estimate one law on all tasks: point estimates with partial pooling, posterior draws, residual process."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.fitting.engine import HUBER, Problems, Solution, single_thread, solve
from mixlaw.analysis.fitting.pooling import Prior, first, learn
from mixlaw.analysis.laws import Law
from mixlaw.analysis.laws.base import Form
from mixlaw.analysis.residual.process import MANY, MASKED, ROWS, ROWS_OF_MANY, Evidence, Kernel, learn_kernel
from mixlaw.analysis.surface.member import Member
from mixlaw.progress import Progress

#: Starts drawn from the prior, the first at its mean; of each task the best is kept.
STARTS = 6
#: Rounds of: fit, learn residual spread, learn what tasks share; fewer from a start that is good already.
ROUNDS, WARM_ROUNDS = 4, 2
#: No law is right over all sizes, and the largest are asked about: with runs to spare, rows count as compute to this
#: power.
FRONTIER = 0.4
#: Residual spread expected before any fit, as a share of the loss, and its weight in rows.
SPREAD, SPREAD_ROWS = 0.02, 2.0


def fit_member(
    law: type[Law], observed: Observed, resamples: int, seed: int, progress: Progress, start: Member | None = None
) -> Member:
    """Fit a law to all tasks; `start`, a fit to more or other rows of the same tasks, saves most of the search."""
    form = law.form(observed.design)
    generator = torch.Generator().manual_seed(seed)
    progress(0.0, "first fits")
    prior, sigma, found = _estimate(form, observed, generator, start)
    progress(0.1, "residual process")
    kernel = _kernel(form, observed, prior, sigma, found.theta, generator, start)
    none = found.theta.new_zeros(0, *found.theta.shape)
    member = Member(law, form, observed, found.theta, none, sigma, kernel, prior, found.converged, seed)
    return with_draws(member, resamples, lambda share, words: progress(0.2 + 0.8 * share, words))


def with_draws(member: Member, resamples: int, progress: Progress) -> Member:
    """The same fit with another number of posterior draws."""
    if resamples == len(member.draws):
        return member
    generator = torch.Generator().manual_seed(member.seed)
    draws = _draws(
        member.form, member.observed, member.prior, member.sigma, member.theta, resamples, generator, progress
    )
    return replace(member, draws=draws)


def _estimate(
    form: Form, observed: Observed, generator: torch.Generator, start: Member | None = None
) -> tuple[Prior, Tensor, Solution]:
    """Best parameters of all tasks with the prior and the residual spread they imply."""
    prior = first(form)
    if start is None:
        sigma = torch.full((len(observed.tasks),), 2.5 * SPREAD, dtype=torch.float64)
        theta = _search(form, observed, prior, sigma, generator)
    else:
        prior = start.prior.restricted(prior)
        theta, sigma = torch.where(prior.spread > 0, start.theta, prior.mean), start.sigma
    for _ in range(ROUNDS if start is None else WARM_ROUNDS):
        found = solve(form, observed.design, _problems(form, observed, prior, sigma, theta[None]), tolerance=1e-6)
        theta = found.theta
        sigma = _spread(form, observed, found, sigma)
        prior = learn(form, prior, theta, found.covariance)
    return prior, sigma, solve(form, observed.design, _problems(form, observed, prior, sigma, theta[None]))


def _search(form: Form, observed: Observed, prior: Prior, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Best of several starts for each task, (T, n)."""
    tasks = len(observed.tasks)
    starts, _ = prior.perturbed((STARTS, tasks), generator)
    starts[0] = prior.mean
    starts = torch.where(prior.spread > 0, starts, prior.mean)
    tried = solve(form, observed.design, _problems(form, observed, prior, sigma, starts), steps=60, tolerance=1e-4)
    best = tried.cost.view(STARTS, tasks).argmin(0)
    return tried.theta.view(STARTS, tasks, -1)[best, torch.arange(tasks)]


def row_weight(form: Form, observed: Observed) -> Tensor:
    """How much each row counts in a fit, mean 1, 0 where not measured, (T, R); alike where runs are scarce."""
    runs = len(set(observed.design.runs))
    power = FRONTIER * max(0.0, 1 - len(form.free) / runs)
    compute = (observed.design.params * observed.design.total).detach()
    near = (compute / compute.max()) ** power
    return observed.seen * (near / near.mean())


def _problems(form: Form, observed: Observed, prior: Prior, sigma: Tensor, starts: Tensor) -> Problems:
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


def _draws(
    form: Form,
    observed: Observed,
    prior: Prior,
    sigma: Tensor,
    theta: Tensor,
    count: int,
    generator: torch.Generator,
    progress: Progress,
) -> Tensor:
    """Posterior draws (S, T, n): runs reweighted by a Bayesian bootstrap, prior means redrawn, warm starts.

    Exponential weights by run keep every run in play, so that few runs never lose a phase or a domain.
    """
    tasks, n = theta.shape
    mean, shift = prior.perturbed((count, tasks), generator)
    run = observed.run_index
    weight = torch.empty(count, int(run.max()) + 1, dtype=torch.float64).exponential_(generator=generator)
    weight = (weight / weight.mean(1, keepdim=True))[:, None, run] * row_weight(form, observed)
    problems = Problems(
        target=observed.target.repeat(count, 1),
        weight=weight.flatten(0, 1),
        sigma=sigma.repeat(count)[:, None],
        start=(theta + shift).flatten(0, 1),
        mean=mean.flatten(0, 1),
        spread=prior.spread.expand(count * tasks, n),
    )
    return solve(form, observed.design, problems, tolerance=1e-6, progress=progress).theta.view(count, tasks, n)


def _spread(form: Form, observed: Observed, found: Solution, sigma: Tensor) -> Tensor:
    """Residual spread of each task by Huber's proposal 2, with the fit's degrees of freedom taken off."""
    left = observed.target - form.log_loss(found.theta, observed.design)
    clipped = row_weight(form, observed) * torch.minimum(left.abs(), HUBER * sigma[:, None]) ** 2
    used = torch.einsum("tij,tji->t", found.covariance, found.information)
    freedom = (observed.seen.sum(1) - used).clamp(min=1.0)
    scatter = clipped.sum(1) / 0.7102  # the mean square of a clipped standard normal
    return torch.sqrt((scatter + SPREAD_ROWS * SPREAD**2) / (freedom + SPREAD_ROWS)).clamp(min=1e-4)


def _kernel(
    form: Form,
    observed: Observed,
    prior: Prior,
    sigma: Tensor,
    theta: Tensor,
    generator: torch.Generator,
    start: Member | None,
) -> Kernel:
    """Residual process learned on at most ROWS rows."""
    features = Features.of(observed.design)
    most = ROWS if len(observed.tasks) < MANY else ROWS_OF_MANY
    rows = torch.randperm(len(observed.design), generator=generator)[:most].sort().values
    design = observed.design.select(rows)
    value, jacobian = form.jacobian(theta, design)
    seen = observed.seen[:, rows]
    spread = torch.sqrt(prior.spread**2 + prior.doubt**2)
    # The law linearised: data minus its value at the prior mean is law uncertainty + residual process + noise.
    shift = (prior.mean - theta)[:, form.free, None]
    left = observed.target[:, rows] - value - (jacobian * shift).sum(1)
    scaled = jacobian * spread[form.free, None]
    law_covariance = torch.where(seen[:, :, None] & seen[:, None, :], scaled.transpose(1, 2) @ scaled, 0.0)
    variance = torch.where(seen, observed.variance[:, rows], torch.full_like(left, MASKED))
    known = ~observed.noise.isnan()
    guess = torch.where(known, observed.noise, sigma / 2).log()
    trust = torch.where(known, observed.doubt, torch.full_like(guess, 0.7))
    evidence = Evidence(
        x=features(design),
        groups=features.groups,
        law=value,
        left=torch.where(seen, left, 0.0),
        law_covariance=law_covariance,
        variance=variance,
        noise=guess,
        doubt=trust,
    )
    with single_thread():
        return learn_kernel(evidence, start.kernel if start else None)
