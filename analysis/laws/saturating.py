"""Saturating exposure with overload: every domain's epochs help less and less, then harm (Marin)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import ClosedForm, Form, Parameter, per_domain
from mixlaw.analysis.laws.phases import Retained, phase_blocks, retained, weighted
from mixlaw.analysis.laws.terms import row


@dataclass(frozen=True)
class Saturating:
    """Loss of a recipe at the exposure z of every domain, at one size.

        L = floor + sum_j a_j exp(-rate_j z_j) + sum_j harm_j softplus(log(1 + z_j) - onset_j)**2
        z_j = exposure to the domain as in the exposure law, over scale_j

    The authors write b0 - sum_j a_j (1 - exp(-rate_j z_j)); their b0 is floor + sum_j a_j.

    Attributes:
        floor: what remains after unlimited exposure to all, in the unit of the loss.
        a, rate: gain of each domain and how fast it comes, (K,).
        harm, onset: size and start of overload, (K,).
        retention: of tokens seen in each phase, (P,), the last 1.
        evenness: power with which a domain's shares of the phases add up.
        scale: tokens of one unit of exposure where unique tokens are not known, (K,); else it is an epoch.
        phases, domains: names of the axes.

    Source: marin-community/marin, experiments/domain_phase_mix (Apache-2.0).
    """

    floor: float
    a: tuple[float, ...]
    rate: tuple[float, ...]
    harm: tuple[float, ...]
    onset: tuple[float, ...]
    retention: tuple[float, ...]
    evenness: float
    scale: tuple[float, ...]
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        a, rate, harm, onset, retention = (row(x) for x in (self.a, self.rate, self.harm, self.onset, self.retention))
        design = design.aligned(self.phases, self.domains)
        z = weighted(retention, self.evenness, design.tokens) / _units(design, row(self.scale))
        over = softplus(torch.log1p(z) - onset) ** 2
        return self.floor + torch.exp(-rate * z) @ a + over @ harm

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`."""
        return SaturatingForm(design)


def _units(design: Design, scale: Tensor) -> Tensor:
    """Tokens of one unit of exposure, (R, K): the run's unique tokens, or `scale` where they are not known."""
    return torch.where(torch.isfinite(design.unique), design.unique, scale)


class SaturatingForm(ClosedForm):
    """theta = (floor, retention, a, rate, harm, onset), logarithms; onset is a logarithm of exposure already."""

    def __init__(self, design: Design) -> None:
        k = len(design.domains)
        super().__init__(
            design,
            floor=Parameter("floor", math.log(0.4), 0.8),
            **phase_blocks(design),
            a=per_domain("a", design, math.log(0.6 / k), 1.0, 0.7),
            rate=per_domain("rate", design, math.log(3.0), 1.0, 0.7),
            harm=per_domain("harm", design, math.log(0.01), 1.5, 1.0),
            onset=per_domain("onset", design, math.log(5.0), 0.5, 0.3),
        )
        self.scale = design.tokens.detach().sum(1).mean(0).clamp(min=1.0)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        _, _, gain, over = self._terms(theta, design)
        lost = self.block(theta, "harm").exp()[..., None] * over**2
        return torch.log(self.block(theta, "floor").exp() + (gain + lost).sum(1))

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        exposure, z, gain, over = self._terms(theta, design)
        rate, harm = (x.exp()[..., None] for x in self.blocks(theta, "rate", "harm"))
        steep = -2 * harm * over * torch.expm1(-over)  # the derivative of softplus is 1 - exp(-softplus)
        lost, floor = harm * over**2, self.block(theta, "floor").exp()
        loss = floor + (gain + lost).sum(1)
        by_log_z = steep * z / (1 + z) - rate * z * gain
        slopes = {"floor": floor.expand_as(loss)[:, None], "a": gain, "rate": -rate * z * gain}
        slopes |= {"harm": lost, "onset": -steep}
        slopes |= exposure.by_phase(by_log_z)
        return loss.log(), {name: slope / loss[:, None] for name, slope in slopes.items()}

    def _terms(self, theta: Tensor, design: Design) -> tuple[Retained, Tensor, Tensor, Tensor]:
        """Exposure, in tokens and in units, gain and overload beyond the onset by domain, (B, K, R) each."""
        retention, evenness, onset = self.blocks(theta, "retention", "evenness", "onset")
        a, rate = (x.exp()[..., None] for x in self.blocks(theta, "a", "rate"))
        exposure = retained((retention, evenness), design.tokens)
        z = exposure.exposure / _units(design, self.scale).T
        return exposure, z, a * torch.exp(-rate * z), softplus(torch.log1p(z) - onset[..., None])

    def law(self, theta: Tensor, log_scale: float) -> Saturating:
        """The law in natural units."""
        return Saturating(
            floor=self.natural(theta, "floor", log_scale)[0],
            a=self.natural(theta, "a", log_scale),
            rate=self.natural(theta, "rate"),
            harm=self.natural(theta, "harm", log_scale),
            onset=self.numbers(theta, "onset"),
            retention=(*self.natural(theta, "retention"), 1.0),
            evenness=self.natural(theta, "evenness")[0],
            scale=tuple(self.scale.tolist()),
            phases=self.phases,
            domains=self.domains,
        )
