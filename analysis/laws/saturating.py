"""Saturating exposure with overload: every domain's epochs help less and less, then harm (Marin)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.blocks import BlockForm, per_domain
from mixlaw.analysis.laws.chinchilla import SHAPE_BETWEEN


@dataclass(frozen=True)
class Saturating:
    """Loss of a recipe at the exposure z of every domain, at one size.

        L = floor + sum_j a_j exp(-rate_j z_j) + sum_j harm_j softplus(log(1 + z_j) - onset_j)**2
        z_j = (sum_p retention_p t_pj) / scale_j

    The authors write b0 - sum_j a_j (1 - exp(-rate_j z_j)); their b0 is floor + sum_j a_j.

    Attributes:
        floor: what remains after unlimited exposure to all, in the unit of the loss.
        a, rate: gain of each domain and how fast it comes, (K,).
        harm, onset: size and start of overload, (K,).
        retention: of tokens seen in each phase, (P,), the last 1.
        scale: tokens of one unit of exposure: an epoch where unique tokens are known, (K,).
        phases, domains: names of the axes.

    Source: marin-community/marin, experiments/domain_phase_mix (Apache-2.0).
    """

    floor: float
    a: tuple[float, ...]
    rate: tuple[float, ...]
    harm: tuple[float, ...]
    onset: tuple[float, ...]
    retention: tuple[float, ...]
    scale: tuple[float, ...]
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        a, rate, harm, onset, retention, scale = (
            torch.tensor(x, dtype=torch.float64)
            for x in (self.a, self.rate, self.harm, self.onset, self.retention, self.scale)
        )
        z = torch.einsum("p,rpk->rk", retention, design.aligned(self.phases, self.domains).tokens) / scale
        over = softplus(torch.log1p(z) - onset) ** 2
        return self.floor + torch.exp(-rate * z) @ a + over @ harm

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`."""
        return SaturatingForm(design)


class SaturatingForm(BlockForm):
    """theta = (floor, retention, a, rate, harm, onset), logarithms; onset is a logarithm of exposure already."""

    def __init__(self, design: Design) -> None:
        early = tuple(Parameter(f"retention {p}", math.log(0.7), 0.5, SHAPE_BETWEEN) for p in design.phases[:-1])
        k = len(design.domains)
        super().__init__(
            design,
            floor=Parameter("floor", math.log(0.4), 0.8),
            retention=early,
            a=per_domain("a", design, math.log(0.6 / k), 1.0, 0.7),
            rate=per_domain("rate", design, math.log(3.0), 1.0, 0.7),
            harm=per_domain("harm", design, math.log(0.01), 1.5, 1.0),
            onset=per_domain("onset", design, math.log(5.0), 0.5, 0.3),
        )
        fresh = design.tokens.detach().sum(1).mean(0).clamp(min=1.0)
        self.scale = torch.where(torch.isfinite(design.unique[0]), design.unique[0], fresh)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        early = torch.einsum("bp,rpk->brk", self.block(theta, "retention").exp(), design.tokens[:, :-1])
        z = (design.tokens[:, -1] + early) / self.scale
        a, rate, harm = (self.block(theta, name).exp()[:, None] for name in ("a", "rate", "harm"))
        gain = (a * torch.exp(-rate * z)).sum(-1)
        over = (harm * softplus(torch.log1p(z) - self.block(theta, "onset")[:, None]) ** 2).sum(-1)
        return torch.log(self.block(theta, "floor").exp() + gain + over)

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        retained = self.block(theta, "retention").exp()
        z = (design.tokens[:, -1].T + torch.einsum("bp,rpk->bkr", retained, design.tokens[:, :-1])) / self.scale[
            :, None
        ]
        a, rate, harm = (self.block(theta, name).exp()[..., None] for name in ("a", "rate", "harm"))
        gain = a * torch.exp(-rate * z)
        over = softplus(torch.log1p(z) - self.block(theta, "onset")[..., None])
        steep = -2 * harm * over * torch.expm1(-over)  # the derivative of softplus is 1 - exp(-softplus)
        lost, floor = harm * over**2, self.block(theta, "floor").exp()
        loss = floor + (gain + lost).sum(1)
        by_z = (steep / (1 + z) - rate * gain) / self.scale[:, None]
        by_retention = torch.einsum("bkr,rpk->bpr", by_z, design.tokens[:, :-1]) * retained[..., None]
        blocks = {"floor": floor.expand_as(loss)[:, None], "retention": by_retention, "a": gain}
        blocks |= {"rate": -rate * z * gain, "harm": lost, "onset": -steep}
        return loss.log(), {name: block / loss[:, None] for name, block in blocks.items()}

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        a, harm = (tuple((theta[self.at[n]] + log_scale).exp().tolist()) for n in ("a", "harm"))
        rate, retention = (tuple(theta[self.at[n]].exp().tolist()) for n in ("rate", "retention"))
        return Saturating(
            math.exp(float(theta[0]) + log_scale),
            a,
            rate,
            harm,
            tuple(self.numbers(theta, "onset")),
            (*retention, 1.0),
            tuple(self.scale.tolist()),
            self.phases,
            self.domains,
        )
