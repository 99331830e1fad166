"""The schedule term: what peak rate, length, shape and end of the decays change, whatever the law beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.rates import rate_sums
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.identify import SAME_RATE

#: Exponent of the rate-weighted tokens, as in the paper (.43 to .51). From 10 and 22 to 40 and 80 tokens for each
#: parameter .33 % of loss; with .3 .47, and with .6 .28 but worse at 124M (dev/LOG.md).
REACH = 0.45
#: Cost of a small sum of rates and of unsettled noise, as shares of the loss: .04 and .05 at 124M (Schaipp et al.
#: 2025), .05 to .08 and .04 to .08 at 25M to 400M (Luo et al. 2025), .10 and .09 at 25 thousand parameters.
TRAVEL_PRIOR, NOISE_PRIOR, BETWEEN = (math.log(0.07), 0.6), (math.log(0.07), 0.5), 0.3
#: Cost of an e-fold from the rule's rate beyond what both terms say of it.
RATE_PRIOR = (math.log(0.01), 1.0)
#: Schedules that differ by less than this in both sums are one schedule.
SAME_SCHEDULE = 2e-3


@dataclass(frozen=True)
class ScheduleEffect:
    """Log of the factor on the loss by which a schedule differs from the reference schedule.

        effect = travel (ratio / home)**-REACH ((lr mean)**-REACH - reference_mean**-REACH)
               + noise (left - reference_noise) + rate log(lr)**2        ratio = tokens for each parameter

    `mean` and `left` are the sums of `rate_sums`. At the reference schedule it is exactly 0, so level, size and tokens
    are those of the law that it multiplies. Source: the multi-power law, arXiv:2503.12811, as a difference.

    Attributes:
        travel: share of the loss that a small sum of learning rates costs, at `home` tokens for each parameter.
        noise: share of the loss that the noise of the rule's rate costs before any decay.
        rate: cost of a peak rate off the rule's.
        home: tokens for each parameter at which `travel` is stated.
        reference_mean, reference_noise: sums of the reference schedule.
    """

    travel: float
    noise: float
    rate: float
    home: float
    reference_mean: float
    reference_noise: float

    def __call__(self, design: Design) -> Tensor:
        """Effect on the log loss of every recipe, (R,)."""
        travel, noise, rate = _terms(design, self.home, self.reference_mean, self.reference_noise)
        return self.travel * travel + self.noise * noise + self.rate * rate


@dataclass(frozen=True)
class ScheduledLaw:
    """A law at the reference schedule, times what another schedule changes.

    Attributes:
        main: the law.
        schedule: the effect of schedules.
    """

    main: Law
    schedule: ScheduleEffect

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        return self.main(design) * self.schedule(design).exp()

    @classmethod
    def form(cls, design: Design) -> Form:
        """It has none of its own: `scheduled` adds the effect to the form of any law."""
        raise NotImplementedError("call scheduled(law.form(design), design)")


class Scheduled(Form):
    """A law's form with the logarithms of travel, noise and rate behind its own entries.

    The reference is the median schedule of the design. What the runs do not vary is held and drawn from its prior.

    Attributes:
        main: the form of the law.
        varied: whether the runs differ in their decays.
    """

    def __init__(self, main: Form, design: Design) -> None:
        self.main = main
        self.phases, self.domains, self.log_n, self.log_d = main.phases, main.domains, main.log_n, main.log_d
        self.at, self.parameters = dict(main.at), main.parameters
        sums = rate_sums(design)
        self.home = math.exp(self.log_d - self.log_n)
        self.reference_mean, self.reference_noise = float(sums.mean.median()), float(sums.noise.median())
        self.varied = schedules_vary(design)
        held, steady = not self.varied, not rates_vary(design)
        self.extend(
            travel=Parameter("travel", *TRAVEL_PRIOR, BETWEEN, held and steady, loose=True),
            unsettled=Parameter("unsettled", *NOISE_PRIOR, BETWEEN, held and steady, loose=True),
            rate=Parameter("rate", *RATE_PRIOR, BETWEEN, steady, loose=True),
        )
        self.notes = (*main.notes, *schedule_notes(design))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        count = len(self.main.parameters)
        return self.main.log_loss(theta[:, :count], design) + theta[:, count:].exp() @ self._terms(design)

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R): the law's own, then those of the term."""
        count = len(self.main.parameters)
        value, slopes = self.main.jacobian(theta[:, :count], design)
        parts = theta[:, count:, None].exp() * self._terms(design)
        free = [i for i, parameter in enumerate(self.parameters[count:]) if not parameter.held]
        return value + parts.sum(1), torch.cat([slopes, parts[:, free]], 1)

    def law(self, theta: Tensor, log_scale: float) -> ScheduledLaw:
        """The law of one vector with its schedule term."""
        count = len(self.main.parameters)
        size = dict(zip(("travel", "noise", "rate"), theta[count:].exp().tolist(), strict=True))
        effect = ScheduleEffect(
            **size, home=self.home, reference_mean=self.reference_mean, reference_noise=self.reference_noise
        )
        return ScheduledLaw(self.main.law(theta[:count], log_scale), effect)

    def _terms(self, design: Design) -> Tensor:
        return torch.stack(_terms(design, self.home, self.reference_mean, self.reference_noise))


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


def _terms(design: Design, home: float, mean: float, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """What travel, noise and rate multiply, (R,) each; 0 at the reference schedule and rate."""
    sums, ratio = rate_sums(design), design.total / design.params / home
    travel = ratio**-REACH * ((design.lr * sums.mean) ** -REACH - mean**-REACH)
    return travel, sums.noise - noise, design.lr.log() ** 2
