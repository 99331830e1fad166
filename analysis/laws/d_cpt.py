"""The D-CPT law: continual pretraining on a share r of a domain (Que et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, Form, Parameter, Procedure, per_domain
from mixlaw.analysis.laws.chinchilla import scale_coefficients
from mixlaw.analysis.laws.identify import one_budget, one_size
from mixlaw.analysis.laws.terms import log_sum, row


@dataclass(frozen=True)
class DCPT:
    """Loss of a task at N parameters, D tokens and the share r of its domain.

        L = floor + a / N**alpha + b r**eta / D**beta + c / (r + eps)**gamma,   r = sum_j weight_j h_j

    The authors fit one law per corpus with r its share; a task that is no domain's has a weighted share.

    Attributes:
        floor: irreducible loss.
        a, alpha, b, beta: capacity and data terms as in Chinchilla.
        eta, c, gamma, eps: how the share enters.
        weight: of the domains in r, (K,), summing to 1.
        domains: names of the axis.

    Source: Que et al. 2024, arXiv:2406.01375, equation 6.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    eta: float
    c: float
    gamma: float
    eps: float
    weight: tuple[float, ...]
    domains: tuple[str, ...]

    #: As Hoffmann et al. fit theirs.
    procedure: ClassVar[Procedure] = Procedure(delta=1e-3)

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        share = design.aligned(design.phases, self.domains).mixture @ row(self.weight)
        capacity = self.a * design.params**-self.alpha
        data = self.b * share**self.eta * design.total**-self.beta
        return self.floor + capacity + data + self.c * (share + self.eps) ** -self.gamma

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return DCPTForm(design)


class DCPTForm(Form):
    """theta = (floor, capacity, data, share terms at the centre; exponents; eps; weights), logarithms."""

    def __init__(self, design: Design) -> None:
        size = one_size(design)
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            a=Parameter("capacity", *TERM_PRIOR, held=size),
            b=Parameter("data", *TERM_PRIOR),
            c=Parameter("share", math.log(0.1), 0.8),
            alpha=Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=size),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_budget(design)),
            eta=Parameter("eta", math.log(0.1), 0.7, SHAPE_BETWEEN),
            gamma=Parameter("gamma", math.log(0.5), 0.7, SHAPE_BETWEEN),
            eps=Parameter("eps", math.log(0.05), 1.0, SHAPE_BETWEEN),
            weight=per_domain("weight", design, 0.0, 1.5, 1.0),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        floor, a, b, c = self.blocks(theta, "floor", "a", "b", "c")
        alpha, beta, eta, gamma, eps = (x.exp() for x in self.blocks(theta, "alpha", "beta", "eta", "gamma", "eps"))
        share = self.block(theta, "weight").softmax(1) @ design.mixture.T
        capacity = a - alpha * (design.params.log() - self.log_n)
        data = b + eta * share.log() - beta * (design.total.log() - self.log_d)
        return log_sum(floor, capacity, data, c - gamma * (share + eps).log())

    def law(self, theta: Tensor, log_scale: float) -> DCPT:
        """The law in natural units."""
        floor, a, alpha, b, beta = scale_coefficients(self, theta, log_scale)
        eta, gamma, eps = (self.natural(theta, name)[0] for name in ("eta", "gamma", "eps"))
        weight = tuple(theta[self.at["weight"]].softmax(0).tolist())
        return DCPT(
            floor, a, alpha, b, beta, eta, self.natural(theta, "c", log_scale)[0], gamma, eps, weight, self.domains
        )
