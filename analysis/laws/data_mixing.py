"""The data mixing law: an exponential of a linear function of the shares (Ye et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law
from mixlaw.analysis.laws.blocks import mixture
from mixlaw.analysis.laws.log_linear import LogLinearForm


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

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        shares = mixture(design.aligned(design.phases, self.domains))
        return self.c + self.k * torch.exp(shares @ torch.tensor(self.t, dtype=torch.float64))

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return DataMixingForm(design)


class DataMixingForm(LogLinearForm):
    """The log-linear vector, read as c, k and t."""

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        a = self.numbers(theta, "a")
        middle = sum(a) / len(a)
        c, k = math.exp(self.numbers(theta, "c")[0] + log_scale), math.exp(middle + log_scale)
        return DataMixing(c, k, tuple(x - middle for x in a), self.domains)
