"""The data-constrained law: repeated tokens, and parameters beyond the data, saturate (Muennighoff et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.chinchilla import SHAPE_BETWEEN, ChinchillaForm

#: Muennighoff et al. 2023: the repeats after which a token has given almost all it can; log normal.
REPEATS_PRIOR = (math.log(15.4), 0.5)
#: The same for parameters beyond what the unique tokens can feed.
EXCESS_PRIOR = (math.log(5.3), 0.5)


def saturate(amount: Tensor, base: Tensor, scale: Tensor | float) -> Tensor:
    """Effective amount when what exceeds `base` is worth less and less.

        amount                                          if amount <= base
        base + base R (1 - exp(-(amount/base - 1)/R))   otherwise, R = scale

    Slope 1 at the base, then falling as exp(-excess / R); `base` may be infinite. All arguments broadcast.
    """
    finite = torch.where(torch.isfinite(base), base, torch.ones_like(base))
    excess = torch.where(torch.isfinite(base), amount / finite - 1, torch.zeros_like(amount)).clamp(min=0)
    return torch.where(excess > 0, finite * (1 - torch.expm1(-excess / scale) * scale), amount)


@dataclass(frozen=True)
class DataConstrained:
    """Loss of N parameters on D tokens of which U are unique.

        L = floor + a / N_eff**alpha + b / D_eff**beta
        D_eff = saturate(D, U, repeats)          summed over domains
        N_eff = saturate(N, N_opt(U), excess)    N_opt(U): the compute-optimal size for U tokens

    Attributes:
        floor: irreducible loss, nats per token.
        a, alpha, b, beta: capacity and data terms as in Chinchilla, N in parameters and D in tokens.
        repeats: R*_D, epochs beyond the first that make repeated tokens worth 1 - 1/e of their limit.
        excess: R*_N, the same for parameters beyond N_opt(U).

    Source: Muennighoff et al. 2023, arXiv:2305.16264, equations 5 and 6.

    Example:
        >>> round(float(MUENNIGHOFF_2023.at(2.8e9, 55e9, 55e9)), 2)
        2.35
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    repeats: float
    excess: float

    def at(self, params: Tensor | float, tokens: Tensor | float, unique: Tensor | float) -> Tensor:
        """Loss at N parameters, D tokens and U unique tokens of one corpus, broadcast."""
        n, d, u = (torch.as_tensor(x, dtype=torch.float64) for x in (params, tokens, unique))
        return self._loss(n, saturate(d, u, self.repeats), torch.minimum(d, u))

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,); repeats count per domain."""
        tokens = design.tokens.sum(1)
        effective = saturate(tokens, design.unique, self.repeats).sum(1)
        return self._loss(design.params, effective, torch.minimum(tokens, design.unique).sum(1))

    def _loss(self, n: Tensor, effective: Tensor, unique: Tensor) -> Tensor:
        log_g = (math.log(self.alpha * self.a) - math.log(self.beta * self.b)) / (self.alpha + self.beta)
        fed = torch.exp(log_g + (unique.log() + log_g) * self.beta / self.alpha)
        capacity = saturate(n, fed, self.excess)
        return self.floor + self.a * capacity**-self.alpha + self.b * effective**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law around the centre of the measured sizes and budgets."""
        return DataConstrainedForm(design)


#: Muennighoff et al. 2023, arXiv:2305.16264, C4, appendix A: alpha = beta imposed.
MUENNIGHOFF_2023 = DataConstrained(
    floor=math.exp(0.6254804),
    a=math.exp(6.255335),
    alpha=0.3526596,
    b=math.exp(7.3049974),
    beta=0.3526596,
    repeats=15.387756,
    excess=5.309743,
)


class DataConstrainedForm(ChinchillaForm):
    """theta = Chinchilla's five, then log repeats and log excess."""

    def __init__(self, design: Design) -> None:
        super().__init__(design)
        once = not bool((design.tokens.sum(1) > design.unique).any())
        self.parameters += (
            Parameter("repeats", *REPEATS_PRIOR, between=SHAPE_BETWEEN, held=once),
            Parameter("excess", *EXCESS_PRIOR, between=SHAPE_BETWEEN, held=once),
        )
        if once:
            self.notes += ("No domain is repeated: what a repeat is worth comes from the literature (R* about 15).",)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log of the three terms' sum, (B, R)."""
        floor, a, b, log_alpha, log_beta, repeats, excess = (column[:, None] for column in theta.unbind(1))
        alpha, beta = log_alpha.exp(), log_beta.exp()
        tokens = design.tokens.sum(1)
        effective = saturate(tokens, design.unique, repeats.exp()[..., None]).sum(-1)
        # log G of the compute-optimal frontier, from coefficients in natural units.
        log_a, log_b = a + alpha * self.log_n, b + beta * self.log_d
        log_g = (log_alpha + log_a - log_beta - log_b) / (alpha + beta)
        unique = torch.minimum(tokens, design.unique).sum(1)
        fed = torch.exp(log_g + (unique.log() + log_g) * beta / alpha)
        size = saturate(design.params.expand_as(fed), fed, excess.exp())
        capacity = a - alpha * (size.log() - self.log_n)
        data = b - beta * (effective.log() - self.log_d)
        return torch.stack([floor.expand_as(data), capacity, data]).logsumexp(0)

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """Data-constrained coefficients in natural units."""
        plain = self.coefficients(theta[:5], log_scale)
        repeats, excess = theta[5:].exp().tolist()
        return DataConstrained(plain.floor, plain.a, plain.alpha, plain.b, plain.beta, repeats, excess)
