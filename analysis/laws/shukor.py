"""The laws of Shukor et al. 2025: the mixture adds a term (Additive), or sets how capacity and data help (Joint)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, ClosedForm, Form, Parameter, per_domain
from mixlaw.analysis.laws.chinchilla import scale_blocks, scale_coefficients
from mixlaw.analysis.laws.identify import mixtures_vary_at_sizes, one_budget, one_size, phase_differs
from mixlaw.analysis.laws.terms import (
    REPEATS_PRIOR,
    RETENTION_PRIOR,
    by_retention,
    ces,
    log_sum,
    retained,
    row,
    saturate,
    saturated,
    softmax_parts,
)

#: From almost none, as in Shukor et al., to the exponents of data terms.
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
        d = saturate(torch.einsum("p,rpk->rk", row(self.retention), design.tokens), design.unique, self.repeats)
        total = d.sum(1)
        mixed = (
            torch.exp(-ces(row(self.c).log(), d / total[:, None], row(self.g))) * (total / self.home) ** -self.shrink
        )
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


class AdditiveForm(ClosedForm):
    """theta = logarithms of floor, capacity and data terms, alpha, beta, shrink, retention, repeats, c and g."""

    def __init__(self, design: Design) -> None:
        held = not mixtures_vary_at_sizes(design)
        super().__init__(
            design,
            **scale_blocks(design),
            shrink=Parameter("shrink", *SHRINK_PRIOR, SHAPE_BETWEEN, held=held, loose=True),
            retention=[
                Parameter(f"retention {p}", *RETENTION_PRIOR, SHAPE_BETWEEN, held=not phase_differs(design, i))
                for i, p in enumerate(design.phases[:-1])
            ],
            repeats=Parameter("repeats", *REPEATS_PRIOR, held=True),
            c=per_domain("c", design, math.log(3.0) - 0.5 * math.log(len(design.domains)), 1.5, 1.0),
            g=per_domain("g", design, math.log(0.5), 0.5, 0.3),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        return log_sum(*self._terms(theta, self._amounts(theta, design), design)[0])

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        amounts = self._amounts(theta, design)
        terms, powers = self._terms(theta, amounts, design)
        value, (floor, mixed, capacity, data) = softmax_parts(*terms)
        a, b, c, retention = self.blocks(theta, "a", "b", "c", "retention")
        beta, shrink, g = (x.exp()[..., None] for x in self.blocks(theta, "beta", "shrink", "g"))
        by_c = -mixed * torch.exp(powers - powers.logsumexp(1)[:, None])
        by_share = by_c * g
        slopes = {
            "floor": floor,
            "a": capacity,
            "b": data,
            "alpha": capacity * (terms[2] - a)[:, None],
            "beta": data * (terms[3] - b)[:, None],
            "shrink": -mixed * shrink * amounts.log_total[:, None],
            "c": by_c,
            "g": by_c * (powers - c[..., None]).masked_fill(amounts.share == 0, 0.0),
        }
        if "retention" in self.free_in:
            by_total = by_share.sum(1, keepdim=True) + data * beta + mixed * shrink
            by_amount = by_share - by_total * amounts.share
            by_exposure = by_amount if amounts.decay is None else by_amount * amounts.decay
            slopes["retention"] = by_retention(retention, design.tokens, amounts.exposure, by_exposure)
        return value, slopes

    def _amounts(self, theta: Tensor, design: Design) -> _Amounts:
        z = retained(self.block(theta, "retention"), design.tokens)
        d, decay, _ = saturated(z, design.unique.T, self.block(theta, "repeats").exp()[..., None])
        total = d.sum(1)
        return _Amounts(z, d / total[:, None], total.log() - self.log_d, decay)

    def _terms(self, theta: Tensor, amounts: _Amounts, design: Design) -> tuple[tuple[Tensor, ...], Tensor]:
        """Logarithms of floor, mixture, capacity and data (B, R) or (B, 1), and of the mixture's sum, (B, K, R)."""
        floor, a, b, c = self.blocks(theta, "floor", "a", "b", "c")
        alpha, beta, shrink, g = (x.exp() for x in self.blocks(theta, "alpha", "beta", "shrink", "g"))
        seen = amounts.share > 0
        powers = c[..., None] + g[..., None] * torch.where(seen, amounts.share, 1.0).log()
        powers = powers.masked_fill(~seen, -torch.inf)
        mixed = -powers.logsumexp(1) - shrink * amounts.log_total
        capacity = a - alpha * (design.params.log() - self.log_n)
        return (floor, mixed, capacity, b - beta * amounts.log_total), powers

    def law(self, theta: Tensor, log_scale: float) -> Additive:
        """The law in natural units."""
        floor, a, alpha, b, beta = scale_coefficients(self, theta, log_scale)
        return Additive(
            floor=floor,
            c=self.natural(theta, "c", -log_scale),
            g=self.natural(theta, "g"),
            shrink=self.natural(theta, "shrink")[0],
            home=math.exp(self.log_d),
            a=a,
            alpha=alpha,
            b=b,
            beta=beta,
            retention=(*self.natural(theta, "retention"), 1.0),
            repeats=self.natural(theta, "repeats")[0],
            phases=self.phases,
            domains=self.domains,
        )


@dataclass(frozen=True)
class Joint:
    """Loss of a recipe with N parameters, D tokens and shares h.

        L = floor + (sum_j a_j h_j)**p / N**alpha + (sum_j b_j h_j)**q / D**beta

    The paper also has the mixture's own term of `Additive`; this is the rest of it.

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
        shares = design.aligned(design.phases, self.domains).mixture
        a, b = (shares @ row(x) for x in (self.a, self.b))
        return self.floor + a**self.p * design.params**-self.alpha + b**self.q * design.total**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return JointForm(design)


class JointForm(Form):
    """theta = (floor, p, q, alpha, beta; capacity and data term of each domain alone, at the centre), logarithms."""

    def __init__(self, design: Design) -> None:
        size = one_size(design)
        capacity = Parameter("a", *TERM_PRIOR, held=size)
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            p=Parameter("p", 0.0, 0.5, SHAPE_BETWEEN, held=size),
            q=Parameter("q", 0.0, 0.5, SHAPE_BETWEEN),
            alpha=Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=size),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=one_budget(design)),
            a=[capacity] * len(design.domains) if size else per_domain("a", design, *TERM_PRIOR, 0.5),
            b=per_domain("b", design, TERM_PRIOR[0], 1.5, 1.0),
        )

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        a, b = self.blocks(theta, "a", "b")
        p, q, alpha, beta = (x.exp() for x in self.blocks(theta, "p", "q", "alpha", "beta"))
        mixed_a, mixed_b = ((x / power).exp() @ design.mixture.T for x, power in ((a, p), (b, q)))
        capacity = p * mixed_a.log() - alpha * (design.params.log() - self.log_n)
        return log_sum(
            self.block(theta, "floor"), capacity, q * mixed_b.log() - beta * (design.total.log() - self.log_d)
        )

    def law(self, theta: Tensor, log_scale: float) -> Joint:
        """The law in natural units."""
        floor = self.natural(theta, "floor", log_scale)[0]
        p, q, alpha, beta = (self.natural(theta, name)[0] for name in ("p", "q", "alpha", "beta"))
        a = ((theta[self.at["a"]] + log_scale + alpha * self.log_n) / p).exp().tolist()
        b = ((theta[self.at["b"]] + log_scale + beta * self.log_d) / q).exp().tolist()
        return Joint(floor, tuple(a), p, alpha, tuple(b), q, beta, self.domains)
