"""BiMix: a power of the own domain's share times a power of the steps (Ge et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, ClosedForm, Form, Parameter, per_domain
from mixlaw.analysis.laws.identify import one_budget
from mixlaw.analysis.laws.terms import log_sum, row, softmax_parts


@dataclass(frozen=True)
class BiMix:
    """Loss of a task at the share r of its domain and s tokens.

        L = r**-alpha (b / s**beta + c),   r = sum_j weight_j h_j

    The authors' r is the share of the validation domain itself; a task that is no domain's has a weighted share.

    Attributes:
        alpha: exponent of the share.
        b, beta: scale and exponent of the data term, s in tokens (the authors' steps).
        c: what remains without a limit on tokens.
        weight: of the domains in r, (K,), summing to 1.
        domains: names of the axis.

    Source: Ge et al. 2024, arXiv:2405.14908.
    """

    alpha: float
    b: float
    beta: float
    c: float
    weight: tuple[float, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        share = design.aligned(design.phases, self.domains).mixture @ row(self.weight)
        return share**-self.alpha * (self.b * design.total**-self.beta + self.c)

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return BiMixForm(design)


class BiMixForm(ClosedForm):
    """theta = (log alpha, data, log beta, rest, weights): terms at the centre, weights before normalisation."""

    def __init__(self, design: Design) -> None:
        fixed = one_budget(design)
        super().__init__(
            design,
            alpha=Parameter("alpha", math.log(0.15), 0.7, SHAPE_BETWEEN),
            b=Parameter("data", *TERM_PRIOR, held=fixed),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=fixed),
            c=Parameter("rest", math.log(0.5), 0.8),
            weight=per_domain("weight", design, 0.0, 1.5, 1.0),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        share = self.block(theta, "weight").softmax(1) @ design.mixture.T
        alpha, beta = (x.exp() for x in self.blocks(theta, "alpha", "beta"))
        b, c = self.blocks(theta, "b", "c")
        return log_sum(b - beta * (design.total.log() - self.log_d), c) - alpha * share.log()

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by alpha, data, beta, rest and the weights."""
        weight, shares = self.block(theta, "weight").softmax(1), design.mixture.T
        share, alpha = weight @ shares, self.block(theta, "alpha").exp()
        by_alpha, by_beta = -alpha * share.log(), -self.block(theta, "beta").exp() * (design.total.log() - self.log_d)
        value, (data, rest) = softmax_parts(self.block(theta, "b") + by_beta, self.block(theta, "c"))
        own = weight[..., None] * (shares / share[:, None] - 1)  # d log share / d weights before normalisation
        by_weight = -alpha[..., None] * own
        blocks = {"alpha": by_alpha[:, None], "b": data, "beta": data * by_beta[:, None], "c": rest}
        return value + by_alpha, {**blocks, "weight": by_weight}

    def law(self, theta: Tensor, log_scale: float) -> BiMix:
        """The law in natural units."""
        alpha, beta = (self.natural(theta, name)[0] for name in ("alpha", "beta"))
        weight = tuple(theta[self.at["weight"]].softmax(0).tolist())
        b = self.natural(theta, "b", beta * self.log_d + log_scale)[0]
        return BiMix(alpha, b, beta, self.natural(theta, "c", log_scale)[0], weight, self.domains)
