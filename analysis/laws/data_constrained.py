"""The data-constrained law: repeated tokens, and parameters beyond the data, saturate (Muennighoff et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import SHAPE_BETWEEN, Form, Parameter, Procedure
from mixlaw.analysis.laws.chinchilla import scale_blocks, scale_coefficients
from mixlaw.analysis.laws.identify import NO_REPEATS, repeats
from mixlaw.analysis.laws.terms import REPEATS_PRIOR, log_sum, saturate

#: Parameters beyond what the unique tokens can feed after which one more gives almost nothing; log normal.
EXCESS_PRIOR = (math.log(5.3), 0.5)


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

    #: Appendix A: the terms of scale with alpha = beta on runs without repeats, then both limits on all runs.
    procedure: ClassVar[Procedure] = Procedure(delta=1e-3, tied={"beta": "alpha"}, after_repeats=("repeats", "excess"))

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


class DataConstrainedForm(Form):
    """theta = Chinchilla's five, then log repeats and log excess."""

    def __init__(self, design: Design) -> None:
        once = not repeats(design)
        super().__init__(
            design,
            **scale_blocks(design),
            repeats=Parameter("repeats", *REPEATS_PRIOR, SHAPE_BETWEEN, held=once),
            excess=Parameter("excess", *EXCESS_PRIOR, SHAPE_BETWEEN, held=once),
        )
        if once:
            self.notes += (NO_REPEATS,)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log of the three terms' sum, (B, R)."""
        floor, a, b, log_alpha, log_beta = self.blocks(theta, "floor", "a", "b", "alpha", "beta")
        repeats, excess = self.blocks(theta, "repeats", "excess")
        alpha, beta = log_alpha.exp(), log_beta.exp()
        tokens = design.tokens.sum(1)
        effective = saturate(tokens, design.unique, repeats.exp()[..., None]).sum(-1)
        # log G of the compute-optimal frontier, from coefficients in natural units.
        log_a, log_b = a + alpha * self.log_n, b + beta * self.log_d
        log_g = (log_alpha + log_a - log_beta - log_b) / (alpha + beta)
        unique = torch.minimum(tokens, design.unique).sum(1)
        fed = torch.exp(log_g + (unique.log() + log_g) * beta / alpha)
        size = saturate(design.params.expand_as(fed), fed, excess.exp())
        return log_sum(floor, a - alpha * (size.log() - self.log_n), b - beta * (effective.log() - self.log_d))

    def law(self, theta: Tensor, log_scale: float) -> DataConstrained:
        """Data-constrained coefficients in natural units."""
        repeats, excess = (self.natural(theta, name)[0] for name in ("repeats", "excess"))
        return DataConstrained(*scale_coefficients(self, theta, log_scale), repeats, excess)
