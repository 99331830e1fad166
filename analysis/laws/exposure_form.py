"""The exposure law as a parameter vector: priors, identifiability, prediction and its closed-form Jacobian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixlaw.analysis.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.chinchilla import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, locked, scale_notes, spread
from mixlaw.analysis.laws.data_constrained import REPEATS_PRIOR
from mixlaw.analysis.laws.exposure import Exposure

ELASTICITY_PRIOR = (math.log(0.5), 0.5)
RETENTION_PRIOR = (math.log(0.85), 0.4)
WORTH_SPREAD, WORTH_BETWEEN = 1.5, 1.0
EFFICIENCY_SPREAD, EFFICIENCY_BETWEEN = 0.3, 0.2
UNDECAYED_PRIOR = (math.log(0.1), 1.0)
BEND_PRIOR = (0.0, 0.4)
#: Harm sets in around 8 epochs (4 are almost free, 40 are not: Muennighoff et al. 2023).
ONSET_PRIOR = (math.log(8.0), 0.4)
OVERLOAD_PRIOR = (math.log(0.02), 1.5)
#: A domain seen this often shows what overdoing does; with less, harm rests on the prior.
OVERDONE = 3.0


@dataclass(frozen=True)
class _Terms:
    """What prediction and Jacobian share; axes (B, R) or (B, K, R), B possibly 1 where theta does not enter."""

    exposure: Tensor  # z
    log_amount: Tensor  # log d / D0, 0 where d = 0
    decay: Tensor | None  # d log d / d log z, None where nothing repeats
    by_repeats: Tensor | None  # d log d / d log repeats
    log_worth: Tensor  # log sum_j worth_j d_j**g
    weights: Tensor  # softmax of the terms of that sum
    occupied: Tensor | None  # shares of the capacity, None where all domains are alike
    parts: Tensor  # the three log terms, (3, B, R)


@dataclass(frozen=True)
class _Harm:
    """Derivatives of the overload factor's logarithm by onset (B, R), overload (B, K, R)."""

    onset: Tensor
    overload: Tensor


class ExposureForm(Form):
    """theta = (floor, capacity, data at the centre; alpha, beta, g; repeats, undecayed, bend, constant_lr, onset;

    retention of all phases but the last; worth, efficiency, overload of domains), all as logarithms.
    """

    SHAPE = 11

    def __init__(self, design: Design) -> None:
        self.phases, self.domains = design.phases, design.domains
        self.log_n = float(design.params.log().mean())
        self.log_d = float(design.total.log().mean())
        self.parameters, self.notes = _parameters(design)
        early, k = len(self.phases) - 1, len(self.domains)
        retention = self.parameters[self.SHAPE : self.SHAPE + early]
        self.free_retention = [i for i, p in enumerate(retention) if not p.held]
        self.retention = slice(self.SHAPE, self.SHAPE + early)
        self.worth = slice(self.retention.stop, self.retention.stop + k)
        self.efficiency = slice(self.worth.stop, self.worth.stop + k)
        self.overload = slice(self.efficiency.stop, self.efficiency.stop + k)
        self.free_overload = [i for i, p in enumerate(self.parameters[self.overload]) if not p.held]

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        terms = self._terms(theta, design)
        value = terms.parts.logsumexp(0) + self._schedule(theta, design)[0]
        harm, _ = self._harm(theta, design)
        return value + harm

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R) in closed form.

        The softmax weights of the prediction are most of it.
        """
        terms = self._terms(theta, design)
        value = terms.parts.logsumexp(0)
        floor, capacity, data = torch.exp(terms.parts - value)
        alpha, beta, g = theta[:, 3:6].exp()[..., None].unbind(1)
        bent = (terms.weights * terms.log_amount).sum(1)
        by_amount = (-data * beta)[:, None] * terms.weights  # d value / d log d_j
        zero = torch.zeros_like(value)
        schedule, by_schedule = self._schedule(theta, design)
        harm, by_harm = self._harm(theta, design)
        shape = [
            *(floor, capacity, data),
            capacity * (terms.parts[1] - theta[:, 1, None]),
            data * (terms.parts[2] - theta[:, 2, None]),
            data * (beta / g * terms.log_worth - beta * bent),
            zero if terms.by_repeats is None else (by_amount * terms.by_repeats).sum(1),
            *by_schedule,
            zero if by_harm is None else by_harm.onset,
        ]
        rows = [shape[i].expand_as(value) for i in self.free.tolist() if i < self.SHAPE]
        blocks = [torch.stack(rows, 1)]
        if self.free_retention:
            by_exposure = by_amount if terms.decay is None else by_amount * terms.decay
            if terms.occupied is not None:
                share = terms.exposure / terms.exposure.sum(1, keepdim=True)
                by_exposure = by_exposure - (capacity * alpha)[:, None] * (terms.occupied - share)
            blocks.append(self._by_retention(theta, design, terms.exposure, by_exposure))
        if not self.parameters[self.worth.start].held:
            blocks.append(by_amount / g[:, None])
        if terms.occupied is not None:
            blocks.append((-capacity * alpha)[:, None] * terms.occupied)
        if by_harm is not None:
            blocks.append(by_harm.overload[:, self.free_overload])
        return value + schedule + harm, torch.cat([b.expand(len(value), -1, -1) for b in blocks], 1)

    def _by_retention(self, theta: Tensor, design: Design, z: Tensor, by_exposure: Tensor) -> Tensor:
        """Derivative by the retention of the phases where it is free, (B, p, R), from that by log exposures."""
        relative = by_exposure / torch.where(z > 0, z, torch.ones_like(z))
        tokens = design.tokens[:, self.free_retention]
        retention = theta[:, self.retention][:, self.free_retention].exp()
        return torch.einsum("bkr,rpk->bpr", relative, tokens) * retention[..., None]

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """Exposure coefficients in natural units, worth normalised to sum 1."""
        alpha, beta, g, repeats, undecayed, bend, constant_lr, onset = theta[3 : self.SHAPE].exp().tolist()
        total = float(theta[self.worth].logsumexp(0))
        floor, a, b = (theta[:3] + log_scale).tolist()
        return Exposure(
            floor=math.exp(floor),
            a=math.exp(a + alpha * self.log_n),
            alpha=alpha,
            b=math.exp(b + beta * self.log_d - beta / g * total),
            beta=beta,
            elasticity=g,
            worth=tuple(theta[self.worth].softmax(0).tolist()),
            efficiency=tuple(theta[self.efficiency].exp().tolist()),
            retention=(*theta[self.retention].exp().tolist(), 1.0),
            repeats=repeats,
            undecayed=undecayed,
            bend=bend,
            constant_lr=constant_lr,
            onset=onset,
            overload=tuple(theta[self.overload].exp().tolist()),
            phases=self.phases,
            domains=self.domains,
        )

    def _terms(self, theta: Tensor, design: Design) -> _Terms:
        alpha, beta, g = theta[:, 3:6].exp()[..., None].unbind(1)
        z = self._exposure(theta, design)
        seen = z > 0
        amount, decay, by_repeats = _saturated(z, design.unique.T, theta[:, 6].exp()[:, None, None])
        log_amount = torch.where(seen, amount, torch.full_like(amount, math.exp(self.log_d))).log() - self.log_d
        powers = (theta[:, self.worth, None] + g[:, None] * log_amount).masked_fill(~seen, -torch.inf)
        log_worth = powers.logsumexp(1)
        log_size, occupied = design.params.log() - self.log_n, None
        if not self.parameters[self.efficiency.start].held:
            share = torch.where(seen, z / z.sum(1, keepdim=True), torch.ones_like(z))
            efficient = (theta[:, self.efficiency, None] + share.log()).masked_fill(~seen, -torch.inf)
            log_efficiency = efficient.logsumexp(1)
            log_size, occupied = log_size + log_efficiency, torch.exp(efficient - log_efficiency[:, None])
        floor = theta[:, 0, None].expand_as(log_worth)
        capacity = (theta[:, 1, None] - alpha * log_size).expand_as(log_worth)
        parts = torch.stack([floor, capacity, theta[:, 2, None] - beta / g * log_worth])
        weights = torch.exp(powers - log_worth[:, None])
        return _Terms(z, log_amount, decay, by_repeats, log_worth, weights, occupied, parts)

    def _exposure(self, theta: Tensor, design: Design) -> Tensor:
        last = design.tokens[:, -1].T[None]
        if self.retention.stop == self.retention.start:
            return last
        return last + torch.einsum("bp,rpk->bkr", theta[:, self.retention].exp(), design.tokens[:, :-1])

    def _harm(self, theta: Tensor, design: Design) -> tuple[Tensor, _Harm | None]:
        """Log of the factor by which overdone repeats raise the loss (B, R), 0 where nothing repeats."""
        if not bool(torch.isfinite(design.unique).any()):
            return torch.zeros((), dtype=theta.dtype), None
        epochs, onset = (design.tokens.sum(1) / design.unique).T, theta[:, 10, None, None]
        size = theta[:, self.overload, None].exp()
        over, rest = softplus(torch.log1p(epochs) - onset), softplus(-onset)
        lost = size * (over**2 - rest**2)
        # The derivative of softplus is 1 - exp(-softplus).
        steep, flat = 2 * over * -torch.expm1(-over), 2 * rest * -torch.expm1(-rest)
        return lost.sum(1), _Harm((size * (flat - steep)).sum(1), lost)

    def _schedule(self, theta: Tensor, design: Design) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Log of the two learning-rate factors (B, R) and its derivative by undecayed, bend and constant_lr."""
        undecayed, bend, constant = (column[:, None] for column in theta[:, 7:10].exp().unbind(1))
        undone = (1 - design.progress).clamp(min=0)
        log_undone = torch.where(undone > 0, undone, torch.ones_like(undone)).log()
        excess = undecayed * torch.exp(bend * log_undone) * (undone > 0)
        flat = constant * design.final_lr
        slope = excess / (1 + excess)
        return torch.log1p(excess) + torch.log1p(flat), (slope, slope * bend * log_undone, flat / (1 + flat))


def _saturated(z: Tensor, unique: Tensor, repeats: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Effective tokens d of exposure z, d log d / d log z and d log d / d log repeats; None where nothing repeats."""
    if not bool((z.detach() > unique).any()):
        return z, None, None
    finite = torch.where(torch.isfinite(unique), unique, torch.ones_like(unique))
    excess = torch.where(torch.isfinite(unique), z / finite - 1, torch.zeros_like(z)).clamp(min=0)
    kept = torch.exp(-excess / repeats)  # worth of one more repeat
    limit = repeats * (1 - kept)
    amount = torch.where(excess > 0, finite * (1 + limit), z)
    ratio = torch.where(excess > 0, 1 / (1 + limit), torch.ones_like(kept))
    return amount, ratio * kept * (1 + excess), ratio * (limit - excess * kept)


def _parameters(design: Design) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    """Priors, with what the design never varies held, and the same in words."""
    k, notes = len(design.domains), list(scale_notes(design))
    one_size = spread(design.params) < 0.01
    # Where size and tokens rise together, mixtures still move the data term alone, and so tell the two terms apart.
    as_one = one_size or (locked(design) and not _mixtures_vary(design))
    epochs = design.tokens.detach().sum(1) / design.unique
    once = not bool((epochs > 1).any())
    overdone = (epochs.amax(0) > OVERDONE).tolist()
    finished = bool((design.progress > 1 - 1e-9).all())
    decayed = bool(design.final_lr.std(correction=0) < 1e-6)
    if once:
        notes.append("No domain is repeated: what a repeat is worth comes from the literature (R* about 15).")
    if (one_size or locked(design)) and k > 1:
        notes.append("How mixtures share out capacity is not identified without sizes and is left out.")
    held = [p for i, p in enumerate(design.phases[:-1]) if not _tells(design, i)]
    notes += [f"Phase {p!r} never differs in mixture from the rest: its retention is not identified." for p in held]
    shape = (
        Parameter("floor", *TERM_PRIOR),
        Parameter("capacity", *TERM_PRIOR, held=as_one),
        Parameter("data", *TERM_PRIOR),
        Parameter("alpha", *EXPONENT_PRIOR, between=SHAPE_BETWEEN, held=as_one),
        Parameter("beta", *EXPONENT_PRIOR, between=SHAPE_BETWEEN),
        Parameter("elasticity", *(ELASTICITY_PRIOR if k > 1 else (0.0, 0.0)), between=SHAPE_BETWEEN, held=k == 1),
        Parameter("repeats", *REPEATS_PRIOR, between=SHAPE_BETWEEN, held=once),
        Parameter("undecayed", *UNDECAYED_PRIOR, between=SHAPE_BETWEEN, held=finished),
        Parameter("bend", *BEND_PRIOR, between=SHAPE_BETWEEN, held=finished),
        Parameter("constant_lr", *UNDECAYED_PRIOR, between=SHAPE_BETWEEN, held=decayed),
        Parameter("onset", *ONSET_PRIOR, between=SHAPE_BETWEEN, held=not any(overdone)),
    )
    retention = [
        Parameter(f"retention {p}", *RETENTION_PRIOR, between=SHAPE_BETWEEN, held=p in held) for p in design.phases[:-1]
    ]
    spread_worth = WORTH_SPREAD if k > 1 else 0.0
    worth = [
        Parameter(f"worth {d}", -0.5 * math.log(k), spread_worth, WORTH_BETWEEN, held=k == 1) for d in design.domains
    ]
    spread_capacity = 0.0 if one_size or locked(design) or k == 1 else EFFICIENCY_SPREAD
    efficiency = [
        Parameter(f"efficiency {d}", 0.0, spread_capacity, EFFICIENCY_BETWEEN, held=spread_capacity == 0)
        for d in design.domains
    ]
    overload = [
        Parameter(f"overload {d}", *OVERLOAD_PRIOR, held=not o) for d, o in zip(design.domains, overdone, strict=True)
    ]
    return (*shape, *retention, *worth, *efficiency, *overload), tuple(notes)


def _tells(design: Design, phase: int) -> bool:
    """Whether runs differ in how the phase's mixture stands to that of the whole run."""
    here = design.tokens[:, phase].detach()
    share = here / here.sum(1, keepdim=True).clamp(min=1e-300)
    whole = design.tokens.detach().sum(1)
    shift = (share - whole / whole.sum(1, keepdim=True)) * (here.sum(1, keepdim=True) > 0)
    return bool(shift.std(0, correction=0).max() > 1e-3)


def _mixtures_vary(design: Design) -> bool:
    """Whether any domain's share of a recipe differs between recipes by more than a rounding error."""
    shares = design.tokens.detach().sum(1) / design.tokens.detach().sum((1, 2))[:, None]
    return bool((shares.amax(0) - shares.amin(0) > 0.02).any())
