"""The laws of Shukor et al. 2025: the mixture adds a term (Additive), or sets how capacity and data help (Joint)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import SHAPE_BETWEEN, TERM_PRIOR, ClosedForm, Form, Parameter, per_domain
from mixlaw.analysis.laws.chinchilla import scale_blocks, scale_coefficients
from mixlaw.analysis.laws.identify import mixtures_vary_at_sizes, one_size
from mixlaw.analysis.laws.phases import Retained, phase_blocks, retained, weighted
from mixlaw.analysis.laws.terms import REPEATS_PRIOR, ces, fresh, log_sum, row, softmax_parts

#: From almost none, as in Shukor et al., to the exponents of data terms.
SHRINK_PRIOR = (math.log(0.15), 0.8)


@dataclass(frozen=True)
class Additive:
    """Loss of a recipe with N parameters and t_pj tokens of domain j in phase p.

        d_j = exposure to domain j, repeats saturating, as in the exposure law
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
        evenness: power with which a domain's shares of the phases add up.
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
    evenness: float
    repeats: float
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        design = design.aligned(self.phases, self.domains)
        d = weighted(row(self.retention), self.evenness, design.tokens)
        d = d * fresh(design.tokens.sum(1), design.unique, row((self.repeats,)))[0]
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

    exposure: Retained
    share: Tensor  # of what is retained and fresh
    log_total: Tensor  # over the centre, (B, R)


class AdditiveForm(ClosedForm):
    """theta = logarithms of floor, capacity and data terms, alpha, beta, shrink, retention, repeats, c and g."""

    def __init__(self, design: Design) -> None:
        held = not mixtures_vary_at_sizes(design)
        super().__init__(
            design,
            **scale_blocks(design),
            shrink=Parameter("shrink", *SHRINK_PRIOR, SHAPE_BETWEEN, held=held, loose=True),
            **phase_blocks(design),
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
        a, b = self.blocks(theta, "a", "b")
        beta, shrink = (x.exp()[..., None] for x in self.blocks(theta, "beta", "shrink"))
        by_c, by_g, by_share = self._by_mixture(theta, amounts, mixed, powers)
        slopes = {
            "floor": floor,
            "a": capacity,
            "b": data,
            "alpha": capacity * (terms[2] - a)[:, None],
            "beta": data * (terms[3] - b)[:, None],
            "shrink": -mixed * shrink * amounts.log_total[:, None],
            "c": by_c,
            "g": by_g,
        }
        if "retention" in self.free_in:
            by_total = by_share.sum(1, keepdim=True) + data * beta + mixed * shrink
            slopes |= amounts.exposure.by_phase(by_share - by_total * amounts.share)
        return value, slopes

    def _amounts(self, theta: Tensor, design: Design) -> _Amounts:
        z = retained(self.blocks(theta, "retention", "evenness"), design.tokens)
        d = (
            z.exposure
            * fresh(design.tokens.sum(1).T, design.unique.T, self.block(theta, "repeats").exp()[..., None])[0]
        )
        total = d.sum(1)
        return _Amounts(z, d / total[:, None], total.log() - self.log_d)

    def _terms(self, theta: Tensor, amounts: _Amounts, design: Design) -> tuple[tuple[Tensor, ...], Tensor]:
        """Logarithms of floor, mixture, capacity and data (B, R) or (B, 1), and of the mixture's sum, (B, K, R)."""
        floor, a, b = self.blocks(theta, "floor", "a", "b")
        alpha, beta, shrink = (x.exp() for x in self.blocks(theta, "alpha", "beta", "shrink"))
        powers = self._powers(theta, amounts)
        mixed = -powers.logsumexp(1) - shrink * amounts.log_total
        capacity = a - alpha * (design.params.log() - self.log_n)
        return (floor, mixed, capacity, b - beta * amounts.log_total), powers

    def _powers(self, theta: Tensor, amounts: _Amounts) -> Tensor:
        """log(c_j h_j**g_j), minus infinity for a domain without tokens, (B, K, R)."""
        c, g = self.blocks(theta, "c", "g")
        seen = amounts.share > 0
        powers = c[..., None] + g.exp()[..., None] * torch.where(seen, amounts.share, 1.0).log()
        return powers.masked_fill(~seen, -torch.inf)

    def _by_mixture(self, theta: Tensor, amounts: _Amounts, mixed: Tensor, powers: Tensor) -> tuple[Tensor, ...]:
        """Derivatives of the log loss by c, by g and by log shares through the mixture's term, (B, K, R) each."""
        c, g = self.blocks(theta, "c", "g")
        by_c = -mixed * torch.exp(powers - powers.logsumexp(1)[:, None])
        by_g = by_c * (powers - c[..., None]).masked_fill(amounts.share == 0, 0.0)
        return by_c, by_g, by_c * g.exp()[..., None]

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
            evenness=self.natural(theta, "evenness")[0],
            repeats=self.natural(theta, "repeats")[0],
            phases=self.phases,
            domains=self.domains,
        )


@dataclass(frozen=True)
class Joint:
    """Loss of a recipe with N parameters, D tokens and shares h.

        L = floor + 1 / sum_j c_j h_j**g_j + (sum_j a_j h_j)**p / N**alpha + (sum_j b_j h_j)**q / D**beta

    h and D are shares and sum of the exposures d_j of `Additive`: with one phase and no repeats they are plain ones.

    Attributes:
        floor: irreducible loss.
        c, g: weight and exponent of each domain in the mixture's own term, (K,).
        a, p, alpha: weights (K,), exponent of the mixture and of N in the capacity term.
        b, q, beta: the same for the data term.
        retention: weight of the tokens of each phase, (P,); the last is 1.
        evenness: power with which a domain's shares of the phases add up.
        repeats: epochs beyond the first that make repeats worth 1 - 1/e of their limit.
        phases, domains: names of the axes.

    Source: Shukor et al. 2025, arXiv:2507.09404, equation 5.
    """

    floor: float
    c: tuple[float, ...]
    g: tuple[float, ...]
    a: tuple[float, ...]
    p: float
    alpha: float
    b: tuple[float, ...]
    q: float
    beta: float
    retention: tuple[float, ...]
    evenness: float
    repeats: float
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        design = design.aligned(self.phases, self.domains)
        d = weighted(row(self.retention), self.evenness, design.tokens)
        d = d * fresh(design.tokens.sum(1), design.unique, row((self.repeats,)))[0]
        total = d.sum(1)
        shares = d / total[:, None]
        mixed = torch.exp(-ces(row(self.c).log(), shares, row(self.g)))
        a, b = (shares @ row(x) for x in (self.a, self.b))
        return self.floor + mixed + a**self.p * design.params**-self.alpha + b**self.q * total**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`."""
        return JointForm(design)


class JointForm(AdditiveForm):
    """theta as in `AdditiveForm`, its a and b being the capacity and data term of each domain alone, and p, q."""

    def __init__(self, design: Design) -> None:
        super().__init__(design)
        size = one_size(design)
        capacity = Parameter("a", *TERM_PRIOR, held=size)
        self.replace(
            shrink=None,
            a=[capacity] * len(design.domains) if size else per_domain("a", design, *TERM_PRIOR, 0.5),
            b=per_domain("b", design, TERM_PRIOR[0], 1.5, 1.0),
        )
        self.extend(p=Parameter("p", 0.0, 0.5, SHAPE_BETWEEN, held=size), q=Parameter("q", 0.0, 0.5, SHAPE_BETWEEN))

    def _terms(self, theta: Tensor, amounts: _Amounts, design: Design) -> tuple[tuple[Tensor, ...], Tensor]:
        """Logarithms of floor, mixture, capacity and data (B, R) or (B, 1), and of the mixture's sum, (B, K, R)."""
        powers = self._powers(theta, amounts)
        alpha, beta = (x.exp() for x in self.blocks(theta, "alpha", "beta"))
        capacity = self._blend(theta, "a", "p", amounts)[0] - alpha * (design.params.log() - self.log_n)
        data = self._blend(theta, "b", "q", amounts)[0] - beta * amounts.log_total
        return (self.block(theta, "floor"), -powers.logsumexp(1), capacity, data), powers

    def _blend(self, theta: Tensor, name: str, power: str, amounts: _Amounts) -> tuple[Tensor, Tensor]:
        """power log sum_j exp(x_j / power) h_j, (B, R), and the weights of the domains in that sum, (B, K, R)."""
        exponent = self.block(theta, power).exp()[..., None]
        seen = amounts.share > 0
        each = self.block(theta, name)[..., None] / exponent + torch.where(seen, amounts.share, 1.0).log()
        each = each.masked_fill(~seen, -torch.inf)
        total = each.logsumexp(1)
        return exponent[..., 0] * total, torch.exp(each - total[:, None])

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        amounts = self._amounts(theta, design)
        terms, powers = self._terms(theta, amounts, design)
        value, (floor, mixed, capacity, data) = softmax_parts(*terms)
        by_c, by_g, by_share = self._by_mixture(theta, amounts, mixed, powers)
        slopes = {"floor": floor, "c": by_c, "g": by_g}
        alpha, beta = (x.exp()[..., None] for x in self.blocks(theta, "alpha", "beta"))
        size = (design.params.log() - self.log_n)[:, None].T
        slopes |= {"alpha": -capacity * alpha * size, "beta": -data * beta * amounts.log_total[:, None]}
        for name, power, part in (("a", "p", capacity), ("b", "q", data)):
            blend, weights = self._blend(theta, name, power, amounts)
            slopes[name] = part * weights
            slopes[power] = part * (blend - (weights * self.block(theta, name)[..., None]).sum(1))[:, None]
            by_share = by_share + part * weights * self.block(theta, power).exp()[..., None]
        if "retention" in self.free_in:
            by_amount = by_share - (by_share.sum(1, keepdim=True) + data * beta) * amounts.share
            slopes |= amounts.exposure.by_phase(by_amount)
        return value, slopes

    def law(self, theta: Tensor, log_scale: float) -> Joint:  # type: ignore[override]
        """The law in natural units."""
        p, q, alpha, beta = (self.natural(theta, name)[0] for name in ("p", "q", "alpha", "beta"))
        a = ((theta[self.at["a"]] + log_scale + alpha * self.log_n) / p).exp().tolist()
        b = ((theta[self.at["b"]] + log_scale + beta * self.log_d) / q).exp().tolist()
        return Joint(
            floor=self.natural(theta, "floor", log_scale)[0],
            c=self.natural(theta, "c", -log_scale),
            g=self.natural(theta, "g"),
            a=tuple(a),
            p=p,
            alpha=alpha,
            b=tuple(b),
            q=q,
            beta=beta,
            retention=(*self.natural(theta, "retention"), 1.0),
            evenness=self.natural(theta, "evenness")[0],
            repeats=self.natural(theta, "repeats")[0],
            phases=self.phases,
            domains=self.domains,
        )
