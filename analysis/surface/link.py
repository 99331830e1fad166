"""The accuracy link: accuracy as a curve of the loss on the same task, fitted across sizes (Bhagia et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Observed, from_log_loss, higher_is_better, to_log_loss
from mixlaw.analysis.fitting.draws import run_weights
from mixlaw.analysis.fitting.engine import HUBER, Problems, solve
from mixlaw.analysis.fitting.pooling import Prior, first
from mixlaw.analysis.laws.base import Curve, Parameter
from mixlaw.errors import InputError

#: Scatter about a link expected before any fit, that of a thousand questions, and its weight in rows.
SCATTER, SCATTER_ROWS = 1000**-0.5, 2.0
#: Starts of a fit; steepness and middle of a partly observed curve have local optima.
STARTS = 6
#: Rows that measure both tasks that a link needs.
FEWEST = 4


@dataclass(frozen=True)
class AccuracyLink:
    """Accuracy of a model whose loss on the task is L.

        accuracy = chance + (ceiling - chance) sigmoid(k (middle - L))

    Attributes:
        chance, ceiling: accuracy at very high and at very low loss.
        k: steepness, per unit of loss.
        middle: the loss halfway between them.

    Source: Bhagia et al. 2024, arXiv:2412.04403, equation 3, there as a / (1 + exp(-k (x - x0))) + b with k < 0.

    Example:
        >>> float(AccuracyLink(chance=0.25, ceiling=0.95, k=5.0, middle=0.8)(0.8))
        0.6
    """

    chance: float
    ceiling: float
    k: float
    middle: float

    def __call__(self, loss: Tensor | float) -> Tensor:
        """Accuracy at a loss, of the shape of `loss`."""
        loss = torch.as_tensor(loss, dtype=torch.float64)
        return self.chance + (self.ceiling - self.chance) * torch.sigmoid(self.k * (self.middle - loss))


class LinkCurve(Curve):
    """theta = (logit chance, logit of the ceiling's share of the rest, log steepness, middle) over R measured losses.

    Losses are standardised, so that one prior serves every task. Predictions are log losses of the accuracy, for any
    design.
    """

    def __init__(self, loss: Tensor, chance: float | None) -> None:
        self.centre, self.unit = float(loss.mean()), float(loss.std(correction=0).clamp(min=1e-6))
        self.x = (loss - self.centre) / self.unit
        given = None if chance is None else min(max(chance, 1e-4), 1 - 1e-4)
        self.parameters = (
            # If chance is not given, four choices are most likely; two and many are possible.
            Parameter("chance", math.log(1 / 3), 1.0) if given is None else _fixed(math.log(given / (1 - given))),
            Parameter("ceiling", 2.5, 1.0),
            Parameter("k", 0.0, 0.7),
            Parameter("middle", -1.0, 2.0),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log of -log accuracy at the measured losses, (B, R)."""
        return torch.log(-torch.log(self._accuracy(theta)[0]))

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R), in closed form."""
        accuracy, slopes = self._accuracy(theta)
        log_accuracy = torch.log(accuracy)
        return torch.log(-log_accuracy), (slopes / (accuracy * log_accuracy)[:, None])[:, self.free]

    def _accuracy(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Accuracy (B, R) and its derivative by all entries (B, 4, R)."""
        chance, rest, log_k, middle = theta[:, :, None].unbind(1)
        low, share, k = chance.sigmoid(), rest.sigmoid(), log_k.exp()
        curve = torch.sigmoid(k * (middle - self.x))
        bend = (1 - low) * share * curve * (1 - curve) * k
        by_low = low * (1 - low) * (1 - share * curve)
        by_share = (1 - low) * share * (1 - share) * curve
        return low + (1 - low) * share * curve, torch.stack([by_low, by_share, bend * (middle - self.x), bend], 1)

    def natural(self, theta: Tensor) -> Tensor:
        """Chance, ceiling, k and middle in the loss' own unit, (..., 4)."""
        chance, rest, log_k, middle = theta.unbind(-1)
        low = chance.sigmoid()
        ceiling = low + (1 - low) * rest.sigmoid()
        return torch.stack([low, ceiling, log_k.exp() / self.unit, self.centre + middle * self.unit], -1)


def _fixed(value: float) -> Parameter:
    return Parameter("chance", value, 1e-6, held=True)


@dataclass(frozen=True, eq=False)
class FittedLink:
    """A link with its evidence, on the log-loss scale of both tasks.

    Attributes:
        source: name of the task whose loss it follows.
        unit: of that loss.
        best: chance, ceiling, k and middle, (4,).
        draws: of their posterior, (S, 4).
        noise: standard deviation of one run's accuracy about the link, as a multiple of sqrt(p (1 - p)): that of
            1 / noise**2 questions.
    """

    source: str
    unit: str
    best: Tensor
    draws: Tensor
    noise: float

    @property
    def link(self) -> AccuracyLink:
        """The link in natural units."""
        return AccuracyLink(*self.best.tolist())

    def follow(self, log_loss: Tensor, parameters: Tensor) -> Tensor:
        """Log loss of the accuracy where the source has this log loss, under parameters (..., 4), broadcast."""
        chance, ceiling, k, middle = parameters.unbind(-1)
        loss = from_log_loss(log_loss, self.unit)
        accuracy = chance + (ceiling - chance) * torch.sigmoid(k * (middle - loss))
        return to_log_loss(accuracy, "accuracy")

    def run_noise(self, log_loss: Tensor, source: Tensor, noise: Tensor) -> Tensor:
        """Standard deviation of one run's log loss: its questions, and the noise of the source's loss, (...)."""
        steps = self.follow(source + noise, self.best) - self.follow(source - noise, self.best)
        return torch.hypot(self.noise * binomial(log_loss), steps / 2)

    def moments(self, log_loss: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a new run's log loss where the source's is normal, (Q,) each."""
        levels = torch.linspace(0.5, len(self.draws) - 0.5, len(self.draws), dtype=torch.float64) / len(self.draws)
        # Golden-ratio order pairs the quantiles of the source evenly with the draws of the link.
        order = torch.argsort((torch.arange(len(self.draws), dtype=torch.float64) * 0.6180339887498949) % 1)
        quantiles = torch.special.ndtri(levels)[order]
        samples = self.follow(log_loss + deviation * quantiles[:, None], self.draws[:, None])
        mean = self.follow(log_loss, self.best)
        return mean, torch.sqrt((samples - mean).square().mean(0) + (self.noise * binomial(mean)) ** 2)


def binomial(log_loss: Tensor) -> Tensor:
    """Standard deviation of log(-log p) for one question answered right with probability p."""
    loss = log_loss.exp()
    return torch.sqrt(torch.expm1(loss)) / loss


def measured_both(observed: Observed, task: str, source: str) -> Tensor:
    """Numbers of the rows that measure two tasks."""
    t, s = observed.tasks.index(task), observed.tasks.index(source)
    return torch.nonzero(observed.seen[t] & observed.seen[s]).squeeze(1)


def through(
    links: Mapping[str, FittedLink], observed: Observed, mean: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a new run in log loss about the centres, (R, T) each, with links for direct fits."""
    means, deviations = list(mean.unbind(-1)), list(deviation.unbind(-1))
    for task, link in links.items():
        t, s = observed.tasks.index(task), observed.tasks.index(link.source)
        middle, deviations[t] = link.moments(means[s] + observed.centre[s], deviations[s])
        means[t] = middle - observed.centre[t]
    return torch.stack(means, -1), torch.stack(deviations, -1)


def followed(
    links: Mapping[str, FittedLink], observed: Observed, log_loss: Tensor, samples: Tensor | None = None
) -> Tensor:
    """Log losses (R, T), or in the posterior samples of these numbers (S, R, T), with links in place of direct fits."""
    columns = list(log_loss.unbind(-1))
    for task, link in links.items():
        t, s = observed.tasks.index(task), observed.tasks.index(link.source)
        parameters = link.best if samples is None else link.draws[samples % len(link.draws)][:, None]
        columns[t] = link.follow(columns[s] + observed.centre[s], parameters) - observed.centre[t]
    return torch.stack(columns, -1)


def fit_links(
    observed: Observed, links: Mapping[str, str], chance: Mapping[str, float], resamples: int, seed: int
) -> dict[str, FittedLink]:
    """Fit every link to the rows that measure both of its tasks.

    Args:
        observed: the rows.
        links: score -> the loss that it follows.
        chance: score -> accuracy of guessing, where known; else it is fitted.
        resamples: posterior draws.
        seed: of the draws.

    Raises:
        InputError: a task of a link is not measured or has the wrong kind of unit, or too few rows measure both.
    """
    return {
        task: _fit_link(observed, task, source, chance.get(task), resamples, seed) for task, source in links.items()
    }


def _fit_link(
    observed: Observed, task: str, source: str, chance: float | None, resamples: int, seed: int
) -> FittedLink:
    t, s = _pair(observed, task, source)
    rows = measured_both(observed, task, source)
    form = LinkCurve(observed.value[s, rows], chance)
    target = observed.target[t, rows] + observed.centre[t]
    generator = torch.Generator().manual_seed(seed)
    known = float(observed.noise[t]) / float(binomial(observed.centre[t]))
    guess = SCATTER if math.isnan(known) else known
    prior, scatter, shape = first(form), 2 * guess, binomial(target)
    start = prior.perturbed((STARTS, 1), generator)[0][:, 0]
    start[0] = prior.mean
    for _ in range(3):
        solution = solve(form, observed.design, _problems(target, prior, scatter * shape, start), tolerance=1e-6)
        start = solution.theta[solution.cost.argmin()][None]
        fitted = form.log_loss(start, observed.design)[0]
        shape = binomial(fitted)
        scatter = _scatter((target - fitted) / shape, len(form.free), scatter, guess)
    # Posterior draws: runs reweighted by a Bayesian bootstrap under redrawn prior means.
    count = max(resamples, 1)
    weight = run_weights(observed.design, count, generator)[:, rows]
    mean = prior.perturbed((count, 1), generator)[0][:, 0]
    plain = _problems(target, prior, scatter * shape, start.expand(count, -1))
    draws = solve(form, observed.design, replace(plain, weight=weight, mean=mean), tolerance=1e-6).theta
    return FittedLink(source, observed.units[s], form.natural(start[0]), form.natural(draws), scatter)


def _pair(observed: Observed, task: str, source: str) -> tuple[int, int]:
    """Numbers of the two tasks of a link."""
    for name in (task, source):
        if name not in observed.tasks:
            raise InputError(f"the link of {task!r} to {source!r} needs {name!r}, which no run measures; remove it")
    t, s = observed.tasks.index(task), observed.tasks.index(source)
    if not higher_is_better(observed.units[t]) or higher_is_better(observed.units[s]):
        raise InputError(
            f"{task!r} [{observed.units[t]}] cannot be linked to {source!r} [{observed.units[s]}]; "
            "link a score to a loss in nats/token or bits/byte"
        )
    both = len(measured_both(observed, task, source))
    if both < FEWEST:
        raise InputError(f"{both} rows measure both {task!r} and {source!r}; a link needs {FEWEST}: remove it")
    return t, s


def _problems(target: Tensor, prior: Prior, sigma: Tensor, start: Tensor) -> Problems:
    count = len(start)
    return Problems(
        target=target.expand(count, -1),
        weight=torch.ones(count, len(target), dtype=torch.float64),
        sigma=sigma.expand(count, -1),
        start=start,
        mean=prior.mean.expand(count, -1),
        spread=prior.spread.expand(count, -1),
    )


def _scatter(residual: Tensor, used: int, before: float, guess: float) -> float:
    """Spread of scaled residuals by Huber's proposal 2, shrunk to its guess where rows are few."""
    scatter = float(residual.abs().clamp(max=HUBER * before).square().sum()) / 0.7102  # mean square of a clipped normal
    freedom = max(len(residual) - used, 1)
    return max(math.sqrt((scatter + SCATTER_ROWS * guess**2) / (freedom + SCATTER_ROWS)), 1e-4)
