"""The additive law: the mixture adds a term that no scale removes (Shukor et al. 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.blocks import BlockForm, mixture, per_domain, softmax_parts
from mixlaw.analysis.laws.chinchilla import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, spread
from mixlaw.analysis.laws.exposure import ces


@dataclass(frozen=True)
class Additive:
    """Loss of a recipe with N parameters, D tokens and shares h.

        L = floor + 1 / sum_j c_j h_j**g_j + a / N**alpha + b / D**beta

    Attributes:
        floor: irreducible loss.
        c, g: weight and exponent of each domain in the mixture's term, (K,).
        a, alpha, b, beta: capacity and data terms as in Chinchilla.
        domains: names of the axis.

    Source: Shukor et al. 2025, arXiv:2507.09404, equation 4.
    """

    floor: float
    c: tuple[float, ...]
    g: tuple[float, ...]
    a: float
    alpha: float
    b: float
    beta: float
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        shares = mixture(design.aligned(design.phases, self.domains))
        log_c, g = (torch.tensor(x, dtype=torch.float64) for x in ([math.log(c) for c in self.c], self.g))
        mixed = torch.exp(-ces(log_c, shares, g))
        return self.floor + mixed + self.a * design.params**-self.alpha + self.b * design.total**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return AdditiveForm(design)


class AdditiveForm(BlockForm):
    """theta = (floor, capacity, data at the centre; alpha, beta; c; g), logarithms."""

    def __init__(self, design: Design) -> None:
        one_size, one_budget = spread(design.params) < 0.01, spread(design.total) < 0.01
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            a=Parameter("capacity", *TERM_PRIOR, held=one_size),
            b=Parameter("data", *TERM_PRIOR, held=one_budget),
            alpha=Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_size),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_budget),
            c=per_domain("c", design, math.log(3.0) - 0.5 * math.log(len(design.domains)), 1.5, 1.0),
            g=per_domain("g", design, math.log(0.5), 0.5, 0.3),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        floor, a, b, alpha, beta = theta[:, :5, None].unbind(1)
        log_c, g = self.block(theta, "c")[:, None], self.block(theta, "g").exp()[:, None]
        mixed = -ces(log_c, mixture(design)[None], g)
        capacity = a - alpha.exp() * (design.params.log() - self.log_n)
        data = b - beta.exp() * (design.total.log() - self.log_d)
        return torch.stack([floor.expand_as(mixed), mixed, capacity, data]).logsumexp(0)

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        shares, g = mixture(design).T, self.block(theta, "g").exp()[..., None]
        by_alpha = -self.block(theta, "alpha").exp() * (design.params.log() - self.log_n)
        by_beta = -self.block(theta, "beta").exp() * (design.total.log() - self.log_d)
        by_g = g * torch.where(shares > 0, shares, torch.ones_like(shares)).log()
        powers = (self.block(theta, "c")[..., None] + by_g).masked_fill(shares == 0, -torch.inf)
        total = powers.logsumexp(1)
        terms = [
            self.block(theta, "floor"),
            -total,
            self.block(theta, "a") + by_alpha,
            self.block(theta, "b") + by_beta,
        ]
        value, (floor, mixed, capacity, data) = softmax_parts(terms)
        by_c = -mixed * torch.exp(powers - total[:, None])
        blocks = {"floor": floor, "a": capacity, "b": data, "c": by_c, "g": by_c * by_g}
        return value, blocks | {"alpha": capacity * by_alpha[:, None], "beta": data * by_beta[:, None]}

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        floor, a, b = (theta[:3] + log_scale).tolist()
        alpha, beta = theta[3:5].exp().tolist()
        c = tuple((theta[self.at["c"]] - log_scale).exp().tolist())
        g = tuple(theta[self.at["g"]].exp().tolist())
        a, b = math.exp(a + alpha * self.log_n), math.exp(b + beta * self.log_d)
        return Additive(math.exp(floor), c, g, a, alpha, b, beta, self.domains)
