"""The D-CPT law: continual pretraining on a share r of a domain (Que et al. 2024)."""

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

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        share = mixture(design.aligned(design.phases, self.domains)) @ torch.tensor(self.weight, dtype=torch.float64)
        capacity = self.a * design.params**-self.alpha
        data = self.b * share**self.eta * design.total**-self.beta
        return self.floor + capacity + data + self.c * (share + self.eps) ** -self.gamma

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return DCPTForm(design)


class DCPTForm(BlockForm):
    """theta = (floor, capacity, data, share terms at the centre; exponents; eps; weights), logarithms."""

    def __init__(self, design: Design) -> None:
        one_size, one_budget = spread(design.params) < 0.01, spread(design.total) < 0.01
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            a=Parameter("capacity", *TERM_PRIOR, held=one_size),
            b=Parameter("data", *TERM_PRIOR),
            c=Parameter("share", math.log(0.1), 0.8),
            alpha=Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_size),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_budget),
            eta=Parameter("eta", math.log(0.1), 0.7, SHAPE_BETWEEN),
            gamma=Parameter("gamma", math.log(0.5), 0.7, SHAPE_BETWEEN),
            eps=Parameter("eps", math.log(0.05), 1.0, SHAPE_BETWEEN),
            weight=per_domain("weight", design, 0.0, 1.5, 1.0),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        floor, a, b, c, alpha, beta, eta, gamma, eps = theta[:, :9, None].unbind(1)
        share = self.block(theta, "weight").softmax(1) @ mixture(design).T
        capacity = a - alpha.exp() * (design.params.log() - self.log_n)
        data = b + eta.exp() * share.log() - beta.exp() * (design.total.log() - self.log_d)
        mixed = c - gamma.exp() * (share + eps.exp()).log()
        return torch.stack([floor.expand_as(data), capacity.expand_as(data), data, mixed]).logsumexp(0)

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        alpha, beta, eta, gamma, eps = theta[:, 4:9, None].exp().unbind(1)
        weight, shares = self.block(theta, "weight").softmax(1), mixture(design).T
        share = weight @ shares
        by_alpha = -alpha * (design.params.log() - self.log_n)
        by_beta, by_eta = -beta * (design.total.log() - self.log_d), eta * share.log()
        by_gamma = -gamma * (share + eps).log()
        floor, a, b, c = theta[:, :4, None].unbind(1)
        terms = [floor, a + by_alpha, b + by_eta + by_beta, c + by_gamma]
        value, (rest, capacity, data, mixed) = softmax_parts(terms)
        falling = -gamma / (share + eps)  # d log share term / d share
        by_share = data * (eta / share)[:, None] + mixed * falling[:, None]
        blocks = {"floor": rest, "a": capacity, "b": data, "c": mixed, "eps": mixed * (falling * eps)[:, None]}
        blocks |= {"alpha": capacity * by_alpha[:, None], "beta": data * by_beta[:, None]}
        blocks |= {"eta": data * by_eta[:, None], "gamma": mixed * by_gamma[:, None]}
        return value, blocks | {"weight": by_share * weight[..., None] * (shares - share[:, None])}

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        alpha, beta, eta, gamma, eps = theta[4:9].exp().tolist()
        floor, a, b, c = (theta[:4] + log_scale).tolist()
        weight = tuple(theta[self.at["weight"]].softmax(0).tolist())
        a, b = math.exp(a + alpha * self.log_n), math.exp(b + beta * self.log_d)
        return DCPT(math.exp(floor), a, alpha, b, beta, eta, math.exp(c), gamma, eps, weight, self.domains)
