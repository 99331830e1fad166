"""The exposure law: what every domain's tokens are worth to a task, by phase, size and repetition."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.aggregates import Aggregate, ByDomain, Values
from mixlaw.analysis.laws.base import ClosedForm, Form
from mixlaw.analysis.laws.exposure_priors import blocks, notes
from mixlaw.analysis.laws.phases import weighted
from mixlaw.analysis.laws.terms import ces, fresh, rise, row

#: Unique tokens at which `crowding` is stated.
POOL = 1e9
#: Coefficients that theta holds as plain logarithms.
SHAPES = (
    *("alpha", "beta", "bottleneck", "elasticity", "contrast", "repeats"),
    *("onset", "crowding", "memory"),
)


@dataclass(frozen=True)
class Exposure:
    """Loss of a recipe with N parameters and t_pj tokens of domain j in phase p.

        z_j   = t (sum_p w_p h_pj**c)**(1/c)                  exposure, see `weighted`: c = evenness, t all tokens
        d_j   = z_j saturate(t_j, U_j, repeats) / t_j         t_j = sum_p t_pj, U_j unique tokens, see `saturate`
        D     = sum_j d_j
        q     = (sum_j worth_j (d_j / D)**g)**(1/g) / typical g = elasticity; a domain never seen adds exactly 0
        D_eff = D typical q**(contrast**log10(N / home))
        N_eff = N sum_j efficiency_j z_j / sum_j z_j
        short = ((a N_eff**-alpha)**s + (b D_eff**-beta)**s)**(1/s)       s = bottleneck
        L     = (floor + short) x exp(sum_j overload_j rise(epochs_j / onset) rise(N / full_j))
        epochs_j = sum_p t_pj / U_j                           forgetting does not undo overdone repeats
        full_j   = crowding (U_j / 1e9)**memory               size from which a model overfits U_j unique tokens
        rise(x)  = log(1 + x**2) / 2                          0 at 0, log x beyond 1

    At the home size, or with contrast 1, D_eff is the CES aggregate (sum_j worth_j d_j**g)**(1/g) itself.
    With one phase, one domain, no repeats, progress 1, a decayed rate and bottleneck 1 it is the Chinchilla law; with
    no floor and bottleneck 1 / beta it is that of Kaplan et al. 2020 (arXiv:2001.08361, equation 1.5).

    Attributes:
        floor: irreducible loss, in the unit of the task's loss.
        a, alpha: scale and exponent of the capacity term, N in parameters.
        b, beta: scale and exponent of the data term, D in tokens.
        bottleneck: s; 1 = short capacity and short data add up, infinite = the shorter one alone counts.
        elasticity: g of the CES aggregate; 1 = domains replace each other, towards 0 = each is needed.
        worth: of a token of each domain to this task, (K,), summing to 1.
        contrast: factor on what mixtures differ by, in log D_eff, for every tenfold of the size.
        home: size at which worths are stated, in parameters.
        typical: worth of a token of the mixture that is as good at every size.
        efficiency: of capacity on each domain, (K,), 1 = neutral.
        retention: of tokens seen in each phase, (P,); the last is 1.
        evenness: power with which a domain's shares of the phases add up; 1 = only its tokens count.
        repeats: epochs beyond the first that make repeats worth 1 - 1/e of their limit.
        onset: epochs from which repeats begin to harm.
        crowding: parameters from which 1e9 unique tokens begin to be overfitted.
        memory: exponent with which that size grows with the unique tokens.
        overload: how much they harm, per domain, (K,).
        phases, domains: names of the axes.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    bottleneck: float
    elasticity: float
    worth: tuple[float, ...]
    contrast: float
    home: float
    typical: float
    efficiency: tuple[float, ...]
    retention: tuple[float, ...]
    evenness: float
    repeats: float
    onset: float
    crowding: float
    memory: float
    overload: tuple[float, ...]
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        design = design.aligned(self.phases, self.domains)
        read, amount, aggregate = self._adds_up_to(design)
        typical = (self.typical * amount.sum(1)).log()
        log_d_eff = typical + (aggregate - typical) * self.contrast ** (design.params / self.home).log10()
        n_eff = design.params * (read @ row(self.efficiency)) / read.sum(1)
        capacity, data = math.log(self.a) - self.alpha * n_eff.log(), math.log(self.b) - self.beta * log_d_eff
        short = torch.logaddexp(self.bottleneck * capacity, self.bottleneck * data) / self.bottleneck
        loss = self.floor + short.exp()
        full = self.crowding * (design.unique / POOL) ** self.memory
        epochs = design.tokens.sum(1) / design.unique
        harm = (rise(epochs / self.onset) * rise(design.params[:, None] / full)) @ row(self.overload)
        return loss * harm.exp()

    def _adds_up_to(self, design: Design) -> tuple[Tensor, Tensor, Tensor]:
        """z and d, (R, K) each, and the log of the CES aggregate, (R,)."""
        z = weighted(row(self.retention), self.evenness, design.tokens)
        d = z * fresh(design.tokens.sum(1), design.unique, row((self.repeats,)))[0]
        return z, d, ces(row(self.worth).log(), d, self.elasticity) / self.elasticity

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`; what it never varies is held."""
        return ExposureForm(design)


@dataclass(frozen=True)
class _Terms:
    """What prediction and derivatives share; axes (B, R) or (B, K, R), B possibly 1 where theta does not enter."""

    aggregate: Aggregate
    away: _Away | None  # None at the home size
    occupied: Tensor | None  # shares of the capacity, None where all domains are alike
    floor: Tensor  # the three log terms
    capacity: Tensor
    data: Tensor
    gap: Tensor  # of the last two, times the bottleneck
    short: Tensor  # those two joined

    @property
    def value(self) -> Tensor:
        """Log loss of a finished run without overload, (B, R)."""
        return torch.logaddexp(self.floor, self.short)


@dataclass(frozen=True)
class _Away:
    """What changes away from the home size; axes as in `_Terms`."""

    stretch: Tensor  # factor on what mixtures differ by
    tenfolds: Tensor  # log10(N / home)
    log_total: Tensor  # log sum_j d_j / D0
    share: Tensor  # of domains in that sum

    def stretched(self, aggregate: Tensor) -> Tensor:
        """log D_eff, (B, R), for log D_eff at the home size; that of the typical mixture is the same at every size."""
        return self.stretch * aggregate + (1 - self.stretch) * self.log_total

    def by_contrast(self, aggregate: Tensor) -> Tensor:
        """Derivative of log D_eff by the logarithm of the contrast, (B, R), for log D_eff at the home size."""
        return self.tenfolds * self.stretch * (aggregate - self.log_total)


class ExposureForm(ClosedForm):
    """theta = logarithms of the blocks that `exposure_priors` lists; terms are stated at the centre of the design."""

    family: type[Exposure] = Exposure

    def __init__(self, design: Design) -> None:
        super().__init__(design, **blocks(design))
        self.notes = notes(design)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        terms = self._terms(theta, design)
        return terms.value + self._harm(theta, design)[0]

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block; the softmax weights of the prediction are most of it."""
        terms = self._terms(theta, design)
        value = terms.value
        floor = torch.exp(terms.floor - value)
        short, starved = 1 - floor, torch.sigmoid(terms.gap)
        data = short * starved
        capacity = short - data
        alpha, beta, sharp = (x.exp() for x in self.blocks(theta, "alpha", "beta", "bottleneck"))
        by_tokens = -data * beta  # d value / d log D_eff
        harm, by_harm = self._harm(theta, design)
        single = {
            "floor": floor,
            "capacity": capacity,
            "data": data,
            "alpha": capacity * (terms.capacity - self.block(theta, "capacity")),
            "beta": data * (terms.data - self.block(theta, "data")),
            "bottleneck": data * (terms.gap / sharp) - short * (terms.short - terms.capacity),
        }
        by_log, by_amount, by_read, slopes = by_tokens, torch.zeros(()), torch.zeros(()), by_harm
        if terms.away is not None:
            single["contrast"] = by_tokens * terms.away.by_contrast(terms.aggregate.log)
            by_log = by_tokens * terms.away.stretch
            by_amount = (by_tokens - by_log)[:, None] * terms.away.share
        if terms.occupied is not None:
            shrinking = (capacity * alpha)[:, None]
            slopes["efficiency"] = -shrinking * terms.occupied
            by_read = shrinking * (terms.aggregate.read / terms.aggregate.read.sum(1, keepdim=True) - terms.occupied)
        slopes |= {name: slope[:, None] for name, slope in single.items()}
        slopes |= terms.aggregate.slopes(by_log, by_amount, by_read)
        return value + harm, slopes

    def law(self, theta: Tensor, log_scale: float) -> Exposure:
        """Exposure coefficients in natural units, worth normalised to sum 1."""
        shapes = {name: self.natural(theta, name)[0] for name in SHAPES}
        alpha, beta, g = (shapes[name] for name in ("alpha", "beta", "elasticity"))
        total = float(theta[self.at["worth"]].logsumexp(0))
        return self.family(
            floor=self.natural(theta, "floor", log_scale)[0],
            a=self.natural(theta, "capacity", log_scale + alpha * self.log_n)[0],
            b=self.natural(theta, "data", log_scale + beta * self.log_d - beta / g * total)[0],
            worth=tuple(theta[self.at["worth"]].softmax(0).tolist()),
            home=math.exp(self.log_n),
            typical=math.exp(-total / g),
            efficiency=self.natural(theta, "efficiency"),
            retention=(*self.natural(theta, "retention"), 1.0),
            evenness=self.natural(theta, "evenness")[0],
            overload=self.natural(theta, "overload"),
            phases=self.phases,
            domains=self.domains,
            **shapes,
        )

    def _aggregate(self, values: Values, design: Design) -> Aggregate:
        """What tokens add up to."""
        return ByDomain.of(values, design)

    def _terms(self, theta: Tensor, design: Design) -> _Terms:
        alpha, beta, g, sharp = (x.exp() for x in self.blocks(theta, "alpha", "beta", "elasticity", "bottleneck"))
        worth, repeats = self.blocks(theta, "worth", "repeats")
        values = Values(worth, g, repeats, self.blocks(theta, "retention", "evenness"), self.log_d)
        aggregate = self._aggregate(values, design)
        log_size, occupied = design.params.log() - self.log_n, None
        if "efficiency" in self.free_in:
            read = aggregate.read
            share = torch.where(read > 0, read / read.sum(1, keepdim=True), torch.ones_like(read))
            efficient = (self.block(theta, "efficiency")[..., None] + share.log()).masked_fill(read <= 0, -torch.inf)
            log_efficiency = efficient.logsumexp(1)
            log_size, occupied = log_size + log_efficiency, torch.exp(efficient - log_efficiency[:, None])
        capacity = (self.block(theta, "capacity") - alpha * log_size).expand_as(aggregate.log)
        away = self._away(theta, design, aggregate.amount)
        log_tokens = aggregate.log if away is None else away.stretched(aggregate.log)
        data = self.block(theta, "data") - beta * log_tokens
        gap = sharp * (data - capacity)
        short = capacity + softplus(gap, threshold=40) / sharp
        return _Terms(aggregate, away, occupied, self.block(theta, "floor"), capacity, data, gap, short)

    def _away(self, theta: Tensor, design: Design, amount: Tensor) -> _Away | None:
        """How mixtures of effective tokens (B, K, R) compare away from the home size; None where all is at home."""
        tenfolds = (design.params.log() - self.log_n) / math.log(10)
        if len(self.domains) == 1 or bool((tenfolds.detach().abs() < 1e-9).all()):
            return None
        total = amount.sum(1)
        stretch = torch.exp(self.block(theta, "contrast") * tenfolds)
        return _Away(stretch, tenfolds, total.log() - self.log_d, amount / total[:, None])

    def _harm(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log of the factor by which overdone repeats raise the loss, (B, R), and its derivative by its blocks."""
        if not bool(torch.isfinite(design.unique).any()):
            return torch.zeros((), dtype=theta.dtype), {}
        onset, crowding, memory = (x[..., None] for x in self.blocks(theta, "onset", "crowding", "memory"))
        finite = torch.isfinite(design.unique).T
        log_pool = torch.where(finite, design.unique.T / POOL, torch.ones(())).log()
        often = (design.tokens.sum(1) / design.unique).T * torch.exp(-onset)
        full = design.params * torch.exp(-crowding - memory.exp() * log_pool) * finite
        repeated, crowded = rise(often), rise(full)
        size = self.block(theta, "overload")[..., None].exp()
        lost = size * repeated * crowded
        if not {"onset", "crowding", "memory", "overload"} & self.free_in.keys():
            return lost.sum(1), {}
        # d rise / d log x = x**2 / (1 + x**2)
        by_onset = size * crowded * often**2 / (1 + often**2)
        by_crowding = size * repeated * full**2 / (1 + full**2)
        by_memory = by_crowding * memory.exp() * log_pool
        shapes = {"onset": by_onset, "crowding": by_crowding, "memory": by_memory}
        return lost.sum(1), {name: -slope.sum(1, keepdim=True) for name, slope in shapes.items()} | {"overload": lost}
