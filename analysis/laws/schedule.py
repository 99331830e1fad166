"""The schedule term: what peak rate, length, shape and end of the decays change, whatever the law beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.rates import NOISE, rate_sums
from mixlaw.analysis.laws.base import FittedLaw, Form, Parameter
from mixlaw.analysis.laws.identify import SAME_RATE

#: Exponent of the rate-weighted tokens, as in the paper (.43 to .51). From 10 and 22 to 40 and 80 tokens for each
#: parameter .33 % of loss; with .3 .47, and with .6 .28 but worse at 124M (dev/LOG.md).
REACH = 0.45
#: Cost of a small sum of rates and of unsettled noise, as shares of the loss: .04 and .05 at 124M (Schaipp et al.
#: 2025), .05 to .08 and .04 to .08 at 25M to 400M (Luo et al. 2025), .10 and .09 at 25 thousand parameters.
TRAVEL_PRIOR, NOISE_PRIOR, BETWEEN = (math.log(0.07), 0.6), (math.log(0.07), 0.5), 0.3
#: Cost of an e-fold from the best peak rate at the reference schedule: .01 at 124M, .025 at 25 thousand parameters; and
#: the logarithm of that rate over the rule's, -.3 and .4 there.
RATE_PRIOR, BEST_PRIOR = (math.log(0.01), 1.0), (0.0, 0.5)
#: Power of the size by which both costs grow, as shares of the loss: .3 and .5 from 25 to 101 thousand parameters, and
#: about -.1 from there to 124M.
GROWTH_PRIOR = (0.0, 0.2)
#: Schedules that differ by less than this in both sums are one schedule.
SAME_SCHEDULE = 2e-3


@dataclass(frozen=True)
class ScheduleEffect:
    """Log of the factor on the loss by which a schedule differs from the reference schedule.

        effect = travel (lr ratio / home)**-REACH (mean**-REACH - reference_mean**-REACH) (N / size)**travel_growth
               + noise (left - lr**NOISE reference_noise) (N / size)**noise_growth
               + rate (log(lr / best)**2 - log(best)**2)                 ratio = tokens for each parameter

    `mean` and `left` are the sums of `rate_sums`. At the reference schedule and the rule's rate it is exactly 0, so
    level, size and tokens are those of the law that it multiplies; a decay is worth more at a higher peak rate. Source:
    the multi-power law, arXiv:2503.12811, as a difference.

    Attributes:
        travel: share of the loss that a small sum of learning rates costs, at `home` tokens for each parameter.
        noise: share of the loss that the noise of the rule's rate costs before any decay.
        rate: cost of an e-fold from the best peak rate.
        best: peak rate over the rule's that is best at the reference schedule.
        travel_growth, noise_growth: powers of the size by which the two costs grow.
        size: parameters at which they are stated.
        home: tokens for each parameter at which `travel` is stated.
        reference_mean, reference_noise: sums of the reference schedule.
    """

    travel: float
    noise: float
    rate: float
    best: float
    travel_growth: float
    noise_growth: float
    size: float
    home: float
    reference_mean: float
    reference_noise: float

    def __call__(self, design: Design) -> Tensor:
        """Effect on the log loss of every recipe, (R,)."""
        travel, noise = _terms(design, self.home, self.reference_mean, self.reference_noise)
        rate = design.lr.log() * (design.lr / self.best**2).log()
        larger = design.params / self.size
        by_size = self.travel * larger**self.travel_growth * travel + self.noise * larger**self.noise_growth * noise
        return by_size + self.rate * rate


@dataclass(frozen=True)
class ScheduledLaw:
    """A law at the reference schedule, times what another schedule changes; `scheduled` makes its form from any law's.

    Attributes:
        main: the law.
        schedule: the effect of schedules.
    """

    main: FittedLaw
    schedule: ScheduleEffect

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        return self.main(design) * self.schedule(design).exp()


class Scheduled(Form):
    """A law's form with the logarithms of travel, noise, rate and best, and both growths, behind its own entries.

    The reference is the median schedule of the design. What the runs do not vary is held and drawn from its prior.

    Attributes:
        main: the form of the law.
        varied: whether the runs differ in their decays.
    """

    def __init__(self, main: Form, design: Design) -> None:
        self.main = main
        self.phases, self.domains, self.log_n, self.log_d = main.phases, main.domains, main.log_n, main.log_d
        self.at, self.parameters = dict(main.at), main.parameters
        sums = rate_sums(replace(design, lr=torch.ones_like(design.lr)))
        self.home = math.exp(self.log_d - self.log_n)
        self.reference_mean, self.reference_noise = float(sums.mean.median()), float(sums.noise.median())
        self.varied = schedules_vary(design)
        held, steady = not self.varied, not rates_vary(design)
        by_size = [torch.nonzero(design.size_index == i).squeeze(1) for i in range(design.sizes)]
        one_size = sum(schedules_vary(design.select(rows)) for rows in by_size) < 2
        self.extend(
            travel=Parameter("travel", *TRAVEL_PRIOR, BETWEEN, held and steady, loose=True),
            unsettled=Parameter("unsettled", *NOISE_PRIOR, BETWEEN, held and steady, loose=True),
            rate=Parameter("rate", *RATE_PRIOR, BETWEEN, steady, loose=True),
            best=Parameter("best rate", *BEST_PRIOR, BETWEEN, steady, loose=True),
            travel_growth=Parameter("travel growth", *GROWTH_PRIOR, BETWEEN, one_size, loose=True),
            noise_growth=Parameter("unsettled growth", *GROWTH_PRIOR, BETWEEN, one_size, loose=True),
        )
        self.notes = (*main.notes, *schedule_notes(design))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        count = len(self.main.parameters)
        return self.main.log_loss(theta[:, :count], design) + self._parts(theta, design)[:, :3].sum(1)

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R): the law's own, then those of the term."""
        count = len(self.main.parameters)
        value, slopes = self.main.jacobian(theta[:, :count], design)
        parts = self._parts(theta, design)
        free = [i for i, parameter in enumerate(self.parameters[count:]) if not parameter.held]
        return value + parts[:, :3].sum(1), torch.cat([slopes, parts[:, free]], 1)

    def law(self, theta: Tensor, log_scale: float) -> ScheduledLaw:
        """The law of one vector with its schedule term."""
        count = len(self.main.parameters)
        costs = dict(zip(("travel", "noise", "rate", "best"), theta[count : count + 4].exp().tolist(), strict=True))
        effect = ScheduleEffect(
            **costs,
            travel_growth=float(theta[count + 4]),
            noise_growth=float(theta[count + 5]),
            size=math.exp(self.log_n),
            home=self.home,
            reference_mean=self.reference_mean,
            reference_noise=self.reference_noise,
        )
        return ScheduledLaw(self.main.law(theta[:count], log_scale), effect)

    def _parts(self, theta: Tensor, design: Design) -> Tensor:
        """Travel, noise and rate, their own slopes, and the slopes by the best rate and both growths, (B, 6, R)."""
        travel, noise, rate, best, more_travel, more_noise = theta[:, len(self.main.parameters) :, None].unbind(1)
        by_travel, by_noise = _terms(design, self.home, self.reference_mean, self.reference_noise)
        lr, larger = design.lr.log(), design.params.log() - self.log_n
        by_travel = (travel + more_travel * larger).exp() * by_travel
        by_noise = (noise + more_noise * larger).exp() * by_noise
        apart, by_best = rate.exp() * lr * (lr - 2 * best), -2 * rate.exp() * lr
        return torch.stack([by_travel, by_noise, apart, by_best, larger * by_travel, larger * by_noise], 1)


def scheduled(form: Form, design: Design) -> Scheduled:
    """The form of a law with the schedule term of a design."""
    return Scheduled(form, design)


def schedules_vary(design: Design) -> bool:
    """Whether runs differ in length, shape or end of their decays, or are measured before they are over."""
    sums = rate_sums(replace(design, lr=torch.ones_like(design.lr)))
    return max(_range(sums.mean), _range(sums.noise)) > SAME_SCHEDULE


def rates_vary(design: Design) -> bool:
    """Whether runs of one size differ in their peak rate."""
    rate = design.lr.detach().log()
    return any(_range(rate[design.size_index == size]) > SAME_RATE for size in range(design.sizes))


def schedule_notes(design: Design) -> tuple[str, ...]:
    """Say in words that the runs do not vary their schedule."""
    if schedules_vary(design):
        return ()
    return (
        "The learning-rate schedule never varies: what another length, shape or end of the decay changes comes from "
        "the literature, with its spread.",
    )


def _range(values: Tensor) -> float:
    return float((values.amax() - values.amin()).detach())


def _terms(design: Design, home: float, mean: float, noise: float) -> tuple[Tensor, Tensor]:
    """What travel and noise multiply, (R,) each; 0 at the reference schedule, whatever the peak rate."""
    sums, ratio = rate_sums(design), design.lr * design.total / design.params / home
    return ratio**-REACH * (sums.mean**-REACH - mean**-REACH), sums.noise - design.lr**NOISE * noise
