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
from mixlaw.analysis.laws.terms import (
    CONTRAST_BETWEEN,
    CONTRAST_PRIOR,
    REPEATS_PRIOR,
    ces,
    fresh,
    log_sum,
    row,
    softmax_parts,
)

#: From almost none, as in Shukor et al., to the exponents of data terms.
SHRINK_PRIOR = (math.log(0.15), 0.8)


@dataclass(frozen=True)
class Additive:
    """Loss of a recipe with N parameters and t_pj tokens of domain j in phase p.

        d_j = exposure to domain j, repeats saturating, as in the exposure law
        D   = sum_j d_j,  h_j = d_j / D
        M   = 1 / sum_j c_j h_j**g_j, M* that of the typical mixture
        L   = floor + (D / home)**-shrink M* (M / M*)**(contrast**log10(N / size)) + a / N**alpha + b / D**beta

    With one phase, no repeats, shrink 0 and contrast 1 it is equation 4 of Shukor et al. 2025, arXiv:2507.09404, in
    which no scale changes the mixture's term; RegMix's mixtures differ by less where there are more tokens, those of
    our ladder by more at larger sizes.

    Attributes:
        floor: irreducible loss.
        c, g: weight and exponent of each domain in the mixture's term, (K,).
        shrink: exponent with which that term falls with tokens.
        home: tokens at which it is stated.
        contrast: factor on what mixtures differ by, in the logarithm of that term, for every tenfold of the size.
        size: at which they differ as c and g say.
        typical: shares of the typical mixture, whose term has no contrast, (K,).
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
    contrast: float
    size: float
    typical: tuple[float, ...]
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
        mixed = _mixed(self, d / total[:, None], design.params) * (total / self.home) ** -self.shrink
        return self.floor + mixed + self.a * design.params**-self.alpha + self.b * total**-self.beta

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`."""
        return AdditiveForm(design)


def _mixed(law: Additive | Joint, shares: Tensor, params: Tensor) -> Tensor:
    """The mixture's own term for shares (R, K) at sizes (R,)."""
    own, typical = (-ces(row(law.c).log(), h, row(law.g)) for h in (shares, row(law.typical)[None]))
    return torch.exp(typical + (own - typical) * law.contrast ** (params / law.size).log10())


@dataclass(frozen=True)
class _Amounts:
    """Effective tokens; axes (B, K, R) or, where theta does not enter, (1, K, R)."""

    exposure: Retained
    share: Tensor  # of what is retained and fresh
    log_total: Tensor  # over the centre, (B, R)


@dataclass(frozen=True)
class _Mixed:
    """The mixture's term and what its derivatives need; axes (B, K, R), (B, R) or (B, K)."""

    powers: Tensor  # log(c_j h_j**g_j), minus infinity for a domain without tokens
    typical: Tensor  # the same of the typical mixture, (B, K)
    stretch: Tensor  # of differences from the typical mixture, (B, R)
    tenfolds: Tensor  # of the size, (R,)

    @property
    def away(self) -> Tensor:
        """Logarithm of the term over that of the typical mixture, at the home size, (B, R)."""
        return self.typical.logsumexp(1, keepdim=True) - self.powers.logsumexp(1)

    @property
    def log(self) -> Tensor:
        """Logarithm of the term, (B, R)."""
        return self.away * self.stretch - self.typical.logsumexp(1, keepdim=True)


class AdditiveForm(ClosedForm):
    """theta = logarithms of floor, capacity, data, alpha, beta, shrink, contrast, retention, repeats, c and g."""

    def __init__(self, design: Design) -> None:
        held = not mixtures_vary_at_sizes(design)
        super().__init__(
            design,
            **scale_blocks(design),
            shrink=Parameter("shrink", *SHRINK_PRIOR, SHAPE_BETWEEN, held=held, loose=True),
            contrast=Parameter("contrast", *CONTRAST_PRIOR, CONTRAST_BETWEEN, held=held, loose=True),
            **phase_blocks(design),
            repeats=Parameter("repeats", *REPEATS_PRIOR, held=True),
            c=per_domain("c", design, math.log(3.0) - 0.5 * math.log(len(design.domains)), 1.5, 1.0),
            g=per_domain("g", design, math.log(0.5), 0.5, 0.3),
        )
        self.typical = design.mixture.detach().mean(0)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        return log_sum(*self._terms(theta, self._amounts(theta, design), design)[0])

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        amounts = self._amounts(theta, design)
        terms, term = self._terms(theta, amounts, design)
        value, (floor, mixed, capacity, data) = softmax_parts(*terms)
        a, b = self.blocks(theta, "a", "b")
        beta, shrink = (x.exp()[..., None] for x in self.blocks(theta, "beta", "shrink"))
        by_mixture, by_share = self._by_mixture(theta, mixed, term)
        slopes = by_mixture | {
            "floor": floor,
            "a": capacity,
            "b": data,
            "alpha": capacity * (terms[2] - a)[:, None],
            "beta": data * (terms[3] - b)[:, None],
            "shrink": -mixed * shrink * amounts.log_total[:, None],
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

    def _terms(self, theta: Tensor, amounts: _Amounts, design: Design) -> tuple[tuple[Tensor, ...], _Mixed]:
        """Logarithms of floor, mixture, capacity and data, (B, R) or (B, 1), and the mixture's term."""
        floor, a, b = self.blocks(theta, "floor", "a", "b")
        alpha, beta, shrink = (x.exp() for x in self.blocks(theta, "alpha", "beta", "shrink"))
        term = self._mixed(theta, amounts, design)
        capacity = a - alpha * (design.params.log() - self.log_n)
        return (floor, term.log - shrink * amounts.log_total, capacity, b - beta * amounts.log_total), term

    def _mixed(self, theta: Tensor, amounts: _Amounts, design: Design) -> _Mixed:
        """The mixture's term."""
        tenfolds = (design.params.log() - self.log_n) / math.log(10)
        stretch = torch.exp(self.block(theta, "contrast") * tenfolds)
        typical = self._powers(theta, self.typical[None, :, None])[..., 0]
        return _Mixed(self._powers(theta, amounts.share), typical, stretch, tenfolds)

    def _powers(self, theta: Tensor, share: Tensor) -> Tensor:
        """log(c_j h_j**g_j) for shares (B, K, R), minus infinity for a domain without tokens."""
        c, g = self.blocks(theta, "c", "g")
        seen = share > 0
        powers = c[..., None] + g.exp()[..., None] * torch.where(seen, share, 1.0).log()
        return powers.masked_fill(~seen, -torch.inf)

    def _by_mixture(self, theta: Tensor, mixed: Tensor, term: _Mixed) -> tuple[dict[str, Tensor], Tensor]:
        """Derivatives of the log loss by contrast, c and g, and by log shares, through the mixture's term (B, 1, R)."""
        c, g = self.blocks(theta, "c", "g")
        here = -mixed * term.stretch[:, None] * torch.softmax(term.powers, 1)
        there = -mixed * (1 - term.stretch)[:, None] * torch.softmax(term.typical, 1)[..., None]
        own, typical = (
            torch.where(x.isinf(), 0.0, x - of) for x, of in ((term.powers, c[..., None]), (term.typical, c))
        )
        slopes = {
            "contrast": mixed * (term.away * term.stretch * term.tenfolds)[:, None],
            "c": here + there,
            "g": here * own + there * typical[..., None],
        }
        return slopes, here * g.exp()[..., None]

    def law(self, theta: Tensor, log_scale: float) -> Additive:
        """The law in natural units."""
        floor, a, alpha, b, beta = scale_coefficients(self, theta, log_scale)
        return Additive(
            floor=floor,
            c=self.natural(theta, "c", -log_scale),
            g=self.natural(theta, "g"),
            shrink=self.natural(theta, "shrink")[0],
            home=math.exp(self.log_d),
            contrast=self.natural(theta, "contrast")[0],
            size=math.exp(self.log_n),
            typical=tuple(self.typical.tolist()),
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

        L = floor + M* (M / M*)**(contrast**log10(N / size))
                  + (sum_j a_j h_j)**p / N**alpha + (sum_j b_j h_j)**q / D**beta

    h and D are shares and sum of the exposures d_j of `Additive`: with one phase and no repeats they are plain ones.
    M, M*, contrast, size and typical are as there; with contrast 1 it is equation 5 of Shukor et al. 2025.

    Attributes:
        floor: irreducible loss.
        c, g: weight and exponent of each domain in the mixture's own term, (K,).
        contrast, size, typical: as in `Additive`.
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
    contrast: float
    size: float
    typical: tuple[float, ...]
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
        mixed = _mixed(self, shares, design.params)
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

    def _terms(self, theta: Tensor, amounts: _Amounts, design: Design) -> tuple[tuple[Tensor, ...], _Mixed]:
        """Logarithms of floor, mixture, capacity and data, (B, R) or (B, 1), and the mixture's own term."""
        alpha, beta = (x.exp() for x in self.blocks(theta, "alpha", "beta"))
        term = self._mixed(theta, amounts, design)
        capacity = self._blend(theta, "a", "p", amounts)[0] - alpha * (design.params.log() - self.log_n)
        data = self._blend(theta, "b", "q", amounts)[0] - beta * amounts.log_total
        return (self.block(theta, "floor"), term.log, capacity, data), term

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
        terms, term = self._terms(theta, amounts, design)
        value, (floor, mixed, capacity, data) = softmax_parts(*terms)
        slopes, by_share = self._by_mixture(theta, mixed, term)
        alpha, beta = (x.exp()[..., None] for x in self.blocks(theta, "alpha", "beta"))
        size = (design.params.log() - self.log_n)[:, None].T
        slopes |= {"floor": floor, "alpha": -capacity * alpha * size, "beta": -data * beta * amounts.log_total[:, None]}
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
            contrast=self.natural(theta, "contrast")[0],
            size=math.exp(self.log_n),
            typical=tuple(self.typical.tolist()),
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
