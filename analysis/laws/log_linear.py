"""Laws exponential in the shares over a floor: LogLinear of Olmix (Chen et al. 2026), DataMixing (Ye et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import FittedLaw, Form, Parameter, Procedure, per_domain
from mixlaw.analysis.laws.terms import row


@dataclass(frozen=True)
class LogLinear:
    """Loss at shares p of the domains, at one size and budget.

        y(p) = exp(c) + exp(sum_j a_j p_j)

    Attributes:
        c: log of the irreducible loss.
        a: log excess loss of training on each domain alone, (K,).
        domains: names of the axis.

    Source: Chen et al. 2026, arXiv:2602.12237.
    """

    c: float
    a: tuple[float, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        shares = design.aligned(design.phases, self.domains).mixture
        return math.exp(self.c) + torch.exp(shares @ row(self.a))

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return LogLinearForm(design)


@dataclass(frozen=True)
class DataMixing:
    """Loss of one validation domain at shares r, at one size and budget.

        L(r) = c + k exp(sum_j t_j r_j)

    Attributes:
        c: irreducible part, in the unit of the loss.
        k: scale of the mixture's part.
        t: effect of each domain's share, (K,); their mean is 0, k takes the rest.
        domains: names of the axis.

    Source: Ye et al. 2024, arXiv:2403.16952, equation 6. With sum r_j = 1 it is the family of `LogLinear`.
    """

    c: float
    k: float
    t: tuple[float, ...]
    domains: tuple[str, ...]

    #: The authors' code: residuals of the loss itself.
    procedure: ClassVar[Procedure] = Procedure(delta=0.01, of_loss=True)

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        shares = design.aligned(design.phases, self.domains).mixture
        return self.c + self.k * torch.exp(shares @ row(self.t))

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return DataMixingForm(design)


class LogLinearForm(Form):
    """theta = (c, a): starts where the authors look for c, log losses apart by a few units."""

    def __init__(self, design: Design) -> None:
        floor = Parameter("c", math.log(0.4), 1.0)
        super().__init__(design, c=floor, a=per_domain("a", design, math.log(0.6), 1.5, 1.0))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        return torch.logaddexp(self.block(theta, "c"), self.block(theta, "a") @ design.mixture.T)

    def law(self, theta: Tensor, log_scale: float) -> FittedLaw:
        """The law in natural units; scaling a loss shifts every coefficient."""
        shifted = theta + log_scale
        return LogLinear(self.numbers(shifted, "c")[0], self.numbers(shifted, "a"), self.domains)


class DataMixingForm(LogLinearForm):
    """The log-linear vector, read as c, k and t."""

    def law(self, theta: Tensor, log_scale: float) -> FittedLaw:
        """The law in natural units."""
        a = self.numbers(theta, "a")
        middle = sum(a) / len(a)
        c, k = math.exp(self.numbers(theta, "c")[0] + log_scale), math.exp(middle + log_scale)
        return DataMixing(c, k, tuple(x - middle for x in a), self.domains)
