"""The joint law: the mixture sets how much capacity and data help (Shukor et al. 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.blocks import BlockForm, mixture, per_domain, softmax_parts
from mixlaw.analysis.laws.chinchilla import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, spread


@dataclass(frozen=True)
class Joint:
    """Loss of a recipe with N parameters, D tokens and shares h.

        L = floor + (sum_j a_j h_j)**p / N**alpha + (sum_j b_j h_j)**q / D**beta

    The paper adds the mixture's own term of `Additive`; without it this is its mixture-dependent part.

    Attributes:
        floor: irreducible loss.
        a, p, alpha: weights (K,), exponent of the mixture and of N in the capacity term.
        b, q, beta: the same for the data term.
        domains: names of the axis.

    Source: Shukor et al. 2025, arXiv:2507.09404, equation 5.
    """

    floor: float
    a: tuple[float, ...]
    p: float
    alpha: float
    b: tuple[float, ...]
    q: float
    beta: float
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        shares = mixture(design.aligned(design.phases, self.domains))
        a, b = (shares @ torch.tensor(x, dtype=torch.float64) for x in (self.a, self.b))
        return self.floor + a**self.p * design.params**-self.alpha + b**self.q * design.total**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return JointForm(design)


class JointForm(BlockForm):
    """theta = (floor, p, q, alpha, beta; capacity and data term of each domain alone, at the centre), logarithms."""

    def __init__(self, design: Design) -> None:
        one_size = spread(design.params) < 0.01
        capacity = Parameter("a", *TERM_PRIOR, held=one_size)
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            p=Parameter("p", 0.0, 0.5, SHAPE_BETWEEN, held=one_size),
            q=Parameter("q", 0.0, 0.5, SHAPE_BETWEEN),
            alpha=Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_size),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=spread(design.total) < 0.01),
            a=[capacity] * len(design.domains) if one_size else per_domain("a", design, *TERM_PRIOR, 0.5),
            b=per_domain("b", design, TERM_PRIOR[0], 1.5, 1.0),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        floor, p, q, alpha, beta = theta[:, :5, None].unbind(1)
        shares = mixture(design).T
        mixed_a = (self.block(theta, "a") / p.exp()).exp() @ shares
        mixed_b = (self.block(theta, "b") / q.exp()).exp() @ shares
        capacity = p.exp() * mixed_a.log() - alpha.exp() * (design.params.log() - self.log_n)
        data = q.exp() * mixed_b.log() - beta.exp() * (design.total.log() - self.log_d)
        return torch.stack([floor.expand_as(data), capacity.expand_as(data), data]).logsumexp(0)

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        shares = mixture(design).T
        by_alpha = -self.block(theta, "alpha").exp() * (design.params.log() - self.log_n)
        by_beta = -self.block(theta, "beta").exp() * (design.total.log() - self.log_d)
        size, by_p, by_a = self._mixed(theta, "a", "p", shares)
        tokens, by_q, by_b = self._mixed(theta, "b", "q", shares)
        value, (floor, capacity, data) = softmax_parts([self.block(theta, "floor"), size + by_alpha, tokens + by_beta])
        blocks = {"floor": floor, "p": capacity * by_p, "q": data * by_q}
        blocks |= {"alpha": capacity * by_alpha[:, None], "beta": data * by_beta[:, None]}
        return value, {**blocks, "a": capacity * by_a, "b": data * by_b}

    def _mixed(self, theta: Tensor, name: str, power: str, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p log sum_j exp(a_j / p) h_j (B, R) for p = exp(power), and its derivative by power and by a."""
        p, a = self.block(theta, power).exp(), self.block(theta, name)
        weight = (a / p).exp()
        total = weight @ shares
        value = p * total.log()
        part = weight[..., None] * shares / total[:, None]
        return value, (value - (weight * a) @ shares / total)[:, None], part

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        p, q, alpha, beta = theta[1:5].exp().tolist()
        a = ((theta[self.at["a"]] + log_scale + alpha * self.log_n) / p).exp().tolist()
        b = ((theta[self.at["b"]] + log_scale + beta * self.log_d) / q).exp().tolist()
        return Joint(math.exp(float(theta[0]) + log_scale), tuple(a), p, alpha, tuple(b), q, beta, self.domains)
