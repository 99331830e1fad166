"""The additive law: the mixture adds a term of its own (Shukor et al. 2025), here with phases and repeats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.blocks import BlockForm, per_domain, softmax_parts
from mixlaw.analysis.laws.chinchilla import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, spread
from mixlaw.analysis.laws.data_constrained import REPEATS_PRIOR, saturate
from mixlaw.analysis.laws.exposure import ces
from mixlaw.analysis.laws.exposure_form import saturated
from mixlaw.analysis.laws.exposure_priors import RETENTION_PRIOR, mixtures_vary_at_sizes, tells

#: From hardly at all, as in Shukor et al., to as fast as data terms fall.
SHRINK_PRIOR = (math.log(0.15), 0.8)


@dataclass(frozen=True)
class Additive:
    """Loss of a recipe with N parameters and t_pj tokens of domain j in phase p.

        d_j = saturate(sum_p retention_p t_pj, U_j, repeats)      as in the exposure law
        D   = sum_j d_j,  h_j = d_j / D
        L   = floor + (D / home)**-shrink / sum_j c_j h_j**g_j + a / N**alpha + b / D**beta

    With one phase, no repeats and shrink 0 it is equation 4 of Shukor et al. 2025, arXiv:2507.09404, in which no scale
    removes the mixture's term; RegMix's mixtures differ by less where there are more tokens.

    Attributes:
        floor: irreducible loss.
        c, g: weight and exponent of each domain in the mixture's term, (K,).
        shrink: exponent with which that term falls with tokens.
        home: tokens at which it is stated.
        a, alpha, b, beta: capacity and data terms as in Chinchilla.
        retention: of tokens seen in each phase, (P,); the last is 1.
        repeats: epochs beyond the first that make repeats worth 1 - 1/e of their limit.
        phases, domains: names of the axes.
    """

    floor: float
    c: tuple[float, ...]
    g: tuple[float, ...]
    shrink: float
    home: float
    a: float
    alpha: float
    b: float
    beta: float
    retention: tuple[float, ...]
    repeats: float
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        design = design.aligned(self.phases, self.domains)
        log_c, g, retention = (
            torch.tensor(x, dtype=torch.float64) for x in ([math.log(c) for c in self.c], self.g, self.retention)
        )
        d = saturate(torch.einsum("p,rpk->rk", retention, design.tokens), design.unique, self.repeats)
        total = d.sum(1)
        mixed = torch.exp(-ces(log_c, d / total[:, None], g)) * (total / self.home) ** -self.shrink
        return self.floor + mixed + self.a * design.params**-self.alpha + self.b * total**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`."""
        return AdditiveForm(design)


@dataclass(frozen=True)
class _Amounts:
    """Effective tokens; axes (B, K, R) or, where theta does not enter, (1, K, R)."""

    exposure: Tensor
    share: Tensor  # of what is retained and fresh
    log_total: Tensor  # over the centre, (B, R)
    decay: Tensor | None  # d log d / d log exposure, None where nothing repeats


class AdditiveForm(BlockForm):
    """theta = (floor, capacity, data at the centre; alpha, beta, shrink; retention of all phases but the last; repeats;

    c; g), logarithms.
    """

    def __init__(self, design: Design) -> None:
        one_size, one_budget = spread(design.params) < 0.01, spread(design.total) < 0.01
        early = design.phases[:-1]
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            a=Parameter("capacity", *TERM_PRIOR, held=one_size),
            b=Parameter("data", *TERM_PRIOR, held=one_budget),
            alpha=Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_size),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_budget),
            shrink=Parameter(
                "shrink", *SHRINK_PRIOR, SHAPE_BETWEEN, held=not mixtures_vary_at_sizes(design), loose=True
            ),
            retention=[
                Parameter(f"retention {p}", *RETENTION_PRIOR, SHAPE_BETWEEN, held=not tells(design, i))
                for i, p in enumerate(early)
            ],
            repeats=Parameter("repeats", *REPEATS_PRIOR, held=True),
            c=per_domain("c", design, math.log(3.0) - 0.5 * math.log(len(design.domains)), 1.5, 1.0),
            g=per_domain("g", design, math.log(0.5), 0.5, 0.3),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        parts, _ = self._terms(theta, self._amounts(theta, design), design)
        return softmax_parts(parts)[0]

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        amounts = self._amounts(theta, design)
        parts, powers = self._terms(theta, amounts, design)
        value, (floor, mixed, capacity, data) = softmax_parts(parts)
        beta, g = self.block(theta, "beta").exp(), self.block(theta, "g").exp()[..., None]
        by_c = -mixed * torch.exp(powers - powers.logsumexp(1)[:, None])
        by_g = by_c * (powers - self.block(theta, "c")[..., None]).masked_fill(amounts.share == 0, 0.0)
        by_alpha = capacity * (parts[2] - self.block(theta, "a"))[:, None]
        by_beta = data * (parts[3] - self.block(theta, "b"))[:, None]
        shrink = self.block(theta, "shrink").exp()
        by_shrink = -mixed * (shrink * amounts.log_total)[:, None]
        blocks = {"floor": floor, "a": capacity, "b": data, "alpha": by_alpha, "beta": by_beta, "c": by_c, "g": by_g}
        blocks["shrink"] = by_shrink
        if self.free_in["retention"]:
            by_share = by_c * g
            by_total = by_share.sum(1, keepdim=True) + data * beta[..., None] + mixed * shrink[..., None]
            by_amount = by_share - by_total * amounts.share
            blocks["retention"] = self._by_retention(theta, design, amounts, by_amount)
        return value, blocks

    def _amounts(self, theta: Tensor, design: Design) -> _Amounts:
        z = design.tokens[:, -1].T[None]
        if len(self.phases) > 1:
            z = z + torch.einsum("bp,rpk->bkr", self.block(theta, "retention").exp(), design.tokens[:, :-1])
        d, decay, _ = saturated(z, design.unique.T, self.block(theta, "repeats").exp()[..., None])
        total = d.sum(1)
        return _Amounts(z, d / total[:, None], total.log() - self.log_d, decay)

    def _terms(self, theta: Tensor, amounts: _Amounts, design: Design) -> tuple[list[Tensor], Tensor]:
        """Logarithms of the four terms (B, R) or (B, 1), and of those of the mixture's sum, (B, K, R)."""
        g, seen = self.block(theta, "g").exp()[..., None], amounts.share > 0
        powers = self.block(theta, "c")[..., None] + g * torch.where(seen, amounts.share, 1.0).log()
        powers = powers.masked_fill(~seen, -torch.inf)
        alpha, beta = self.block(theta, "alpha").exp(), self.block(theta, "beta").exp()
        capacity = self.block(theta, "a") - alpha * (design.params.log() - self.log_n)
        data = self.block(theta, "b") - beta * amounts.log_total
        mixed = -powers.logsumexp(1) - self.block(theta, "shrink").exp() * amounts.log_total
        return [self.block(theta, "floor"), mixed, capacity, data], powers

    def _by_retention(self, theta: Tensor, design: Design, amounts: _Amounts, by_amount: Tensor) -> Tensor:
        """Derivative by retention (B, P - 1, R) from that by log effective tokens, (B, K, R)."""
        z = amounts.exposure
        by_exposure = by_amount if amounts.decay is None else by_amount * amounts.decay
        relative = by_exposure / torch.where(z > 0, z, 1.0)
        early = torch.einsum("bkr,rpk->bpr", relative, design.tokens[:, :-1])
        return early * self.block(theta, "retention").exp()[..., None]

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        floor, a, b = (theta[:3] + log_scale).tolist()
        alpha, beta = theta[3:5].exp().tolist()
        return Additive(
            floor=math.exp(floor),
            c=tuple((theta[self.at["c"]] - log_scale).exp().tolist()),
            g=tuple(theta[self.at["g"]].exp().tolist()),
            shrink=float(theta[self.at["shrink"]].exp()),
            home=math.exp(self.log_d),
            a=math.exp(a + alpha * self.log_n),
            alpha=alpha,
            b=math.exp(b + beta * self.log_d),
            beta=beta,
            retention=(*theta[self.at["retention"]].exp().tolist(), 1.0),
            repeats=float(theta[self.at["repeats"]].exp()),
            phases=self.phases,
            domains=self.domains,
        )
