"""The log-linear law of Olmix: exp of a linear function of the shares over a floor (Chen et al. 2026)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.blocks import BlockForm, mixture, per_domain, softmax_parts


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
        shares = mixture(design.aligned(design.phases, self.domains))
        return math.exp(self.c) + torch.exp(shares @ torch.tensor(self.a, dtype=torch.float64))

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return LogLinearForm(design)


class LogLinearForm(BlockForm):
    """theta = (c, a): starts where the authors look for c, log losses apart by a few units."""

    def __init__(self, design: Design) -> None:
        floor = Parameter("c", math.log(0.4), 1.0)
        super().__init__(design, c=floor, a=per_domain("a", design, math.log(0.6), 1.5, 1.0))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        return torch.logaddexp(self.block(theta, "c"), self.block(theta, "a") @ mixture(design).T)

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by c and a."""
        shares = mixture(design).T
        value, (floor, excess) = softmax_parts([self.block(theta, "c"), self.block(theta, "a") @ shares])
        return value, {"c": floor, "a": excess * shares}

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units; scaling a loss shifts every coefficient."""
        shifted = theta + log_scale
        return LogLinear(self.numbers(shifted, "c")[0], tuple(self.numbers(shifted, "a")), self.domains)
