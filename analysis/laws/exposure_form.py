"""The exposure law as a parameter vector: priors, identifiability, prediction and its closed-form Jacobian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class _Terms:
    """What prediction and Jacobian share; axes (B, R) or (B, R, K), B possibly 1 where theta does not enter."""

    exposure: Tensor  # z
    log_amount: Tensor  # log d / D0, 0 where d = 0
    decay: Tensor | None  # d log d / d log z, None where nothing repeats
    by_repeats: Tensor | None  # d log d / d log repeats
    log_worth: Tensor  # log sum_j worth_j d_j**g
    weights: Tensor  # softmax of the terms of that sum
    log_efficiency: Tensor  # log sum_j efficiency_j h_j
    occupied: Tensor  # softmax of the terms of that sum
    parts: Tensor  # the three log terms, (3, B, R)


class ExposureForm(Form):
    """theta = (floor, capacity, data at the centre; alpha, beta, g; repeats, undecayed, bend, constant_lr;

    retention of all phases but the last; worth of domains; efficiency of domains), all as logarithms.
    """

    SHAPE = 10

    def __init__(self, design: Design) -> None:
        self.phases, self.domains = design.phases, design.domains
        self.log_n = float(design.params.log().mean())
        self.log_d = float(design.total.log().mean())
        self.parameters, self.notes = _parameters(design)
        early, k = len(self.phases) - 1, len(self.domains)
        self.retention = slice(self.SHAPE, self.SHAPE + early)
        self.worth = slice(self.retention.stop, self.retention.stop + k)
        self.efficiency = slice(self.worth.stop, self.worth.stop + k)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        return self._terms(theta, design).parts.logsumexp(0) + self._schedule(theta, design)

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by theta (B, R, n) in closed form; the softmax weights come for free."""
        terms = self._terms(theta, design)
        value = terms.parts.logsumexp(0)
        floor, capacity, data = torch.exp(terms.parts - value)
        alpha, beta, g = theta[:, 3:6].exp()[..., None].unbind(1)
        columns = theta.new_zeros(*value.shape, theta.shape[1])
        columns[..., 0], columns[..., 1], columns[..., 2] = floor, capacity, data
        columns[..., 3] = capacity * (terms.parts[1] - theta[:, 1, None])
        columns[..., 4] = data * (terms.parts[2] - theta[:, 2, None])
        bent = (terms.weights * terms.log_amount).sum(-1)
        columns[..., 5] = data * (beta / g * terms.log_worth - beta * bent)
        by_amount = (-data * beta)[..., None] * terms.weights  # d value / d log d_j
        if terms.by_repeats is not None:
            columns[..., 6] = (by_amount * terms.by_repeats).sum(-1)
        columns[..., self.worth] = by_amount / g[..., None]
        by_efficiency = (-capacity * alpha)[..., None]
        columns[..., self.efficiency] = by_efficiency * terms.occupied
        if self.retention.stop > self.retention.start:
            z = terms.exposure
            by_exposure = by_amount if terms.decay is None else by_amount * terms.decay
            by_exposure = by_exposure + by_efficiency * (terms.occupied - z / z.sum(-1, keepdim=True))
            relative = by_exposure / torch.where(z > 0, z, torch.ones_like(z))
            tokens = torch.einsum("brk,rpk->brp", relative, design.tokens[:, :-1])
            columns[..., self.retention] = tokens * theta[:, None, self.retention].exp()
        self._schedule_jacobian(theta, design, columns)
        return value + self._schedule(theta, design), columns

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """Exposure coefficients in natural units, worth normalised to sum 1."""
        alpha, beta, g, repeats, undecayed, bend, constant_lr = theta[3 : self.SHAPE].exp().tolist()
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
            phases=self.phases,
            domains=self.domains,
        )

    def _terms(self, theta: Tensor, design: Design) -> _Terms:
        alpha, beta, g = theta[:, 3:6].exp()[..., None].unbind(1)
        z = self._exposure(theta, design)
        seen = z > 0
        amount, decay, by_repeats = _saturated(z, design.unique, theta[:, 6].exp()[:, None, None])
        log_amount = torch.where(seen, amount, torch.full_like(amount, math.exp(self.log_d))).log() - self.log_d
        powers = theta[:, None, self.worth] + g[..., None] * log_amount
        powers = powers.masked_fill(~seen, -torch.inf)
        log_worth = powers.logsumexp(-1)
        held = (
            theta[:, None, self.efficiency] + torch.where(seen, z / z.sum(-1, keepdim=True), torch.ones_like(z)).log()
        )
        held = held.masked_fill(~seen, -torch.inf)
        log_efficiency = held.logsumexp(-1)
        floor = theta[:, 0, None].expand_as(log_worth)
        capacity = theta[:, 1, None] - alpha * (design.params.log() - self.log_n + log_efficiency)
        data = theta[:, 2, None] - beta / g * log_worth
        weights, occupied = torch.exp(powers - log_worth[..., None]), torch.exp(held - log_efficiency[..., None])
        parts = torch.stack([floor, capacity, data])
        return _Terms(z, log_amount, decay, by_repeats, log_worth, weights, log_efficiency, occupied, parts)

    def _exposure(self, theta: Tensor, design: Design) -> Tensor:
        last = design.tokens[None, :, -1]
        if self.retention.stop == self.retention.start:
            return last
        return last + torch.einsum("bp,rpk->brk", theta[:, self.retention].exp(), design.tokens[:, :-1])

    def _schedule(self, theta: Tensor, design: Design) -> Tensor:
        """Log of the two learning-rate factors, (B, R)."""
        undecayed, bend, constant = (column[:, None] for column in theta[:, 7 : self.SHAPE].exp().unbind(1))
        undone = _undone(design)
        power = torch.where(undone > 0, undone.clamp(min=1e-12) ** bend, torch.zeros_like(bend * undone))
        return torch.log1p(undecayed * power) + torch.log1p(constant * design.final_lr)

    def _schedule_jacobian(self, theta: Tensor, design: Design, columns: Tensor) -> None:
        undecayed, bend, constant = (column[:, None] for column in theta[:, 7 : self.SHAPE].exp().unbind(1))
        undone = _undone(design)
        log_undone = torch.where(undone > 0, undone, torch.ones_like(undone)).log()
        excess = torch.where(undone > 0, undecayed * torch.exp(bend * log_undone), torch.zeros_like(undone))
        columns[..., 7] = excess / (1 + excess)
        columns[..., 8] = columns[..., 7] * bend * log_undone
        columns[..., 9] = constant * design.final_lr / (1 + constant * design.final_lr)


def _undone(design: Design) -> Tensor:
    return (1 - design.progress).clamp(min=0)


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
    one_size = spread(design.params) < 0.01 or locked(design)
    once = not bool((design.tokens.sum(1) > design.unique).any())
    finished = bool((design.progress > 1 - 1e-9).all())
    decayed = bool(design.final_lr.std(correction=0) < 1e-6)
    if once:
        notes.append("No domain is repeated: what a repeat is worth comes from the literature (R* about 15).")
    if one_size and k > 1:
        notes.append("How mixtures share out capacity is not identified without sizes and is left out.")
    held = [p for i, p in enumerate(design.phases[:-1]) if not _tells(design, i)]
    notes += [f"Phase {p!r} never differs in mixture from the rest: its retention is not identified." for p in held]
    shape = (
        Parameter("floor", *TERM_PRIOR),
        Parameter("capacity", *TERM_PRIOR, held=one_size),
        Parameter("data", *TERM_PRIOR),
        Parameter("alpha", *EXPONENT_PRIOR, between=SHAPE_BETWEEN, held=one_size),
        Parameter("beta", *EXPONENT_PRIOR, between=SHAPE_BETWEEN),
        Parameter("elasticity", *(ELASTICITY_PRIOR if k > 1 else (0.0, 0.0)), between=SHAPE_BETWEEN, held=k == 1),
        Parameter("repeats", *REPEATS_PRIOR, between=SHAPE_BETWEEN, held=once),
        Parameter("undecayed", *UNDECAYED_PRIOR, between=SHAPE_BETWEEN, held=finished),
        Parameter("bend", *BEND_PRIOR, between=SHAPE_BETWEEN, held=finished),
        Parameter("constant_lr", *UNDECAYED_PRIOR, between=SHAPE_BETWEEN, held=decayed),
    )
    retention = [
        Parameter(f"retention {p}", *RETENTION_PRIOR, between=SHAPE_BETWEEN, held=p in held) for p in design.phases[:-1]
    ]
    spread_worth = WORTH_SPREAD if k > 1 else 0.0
    worth = [
        Parameter(f"worth {d}", -0.5 * math.log(k), spread_worth, WORTH_BETWEEN, held=k == 1) for d in design.domains
    ]
    spread_capacity = 0.0 if one_size or k == 1 else EFFICIENCY_SPREAD
    efficiency = [
        Parameter(f"efficiency {d}", 0.0, spread_capacity, EFFICIENCY_BETWEEN, held=spread_capacity == 0)
        for d in design.domains
    ]
    return (*shape, *retention, *worth, *efficiency), tuple(notes)


def _tells(design: Design, phase: int) -> bool:
    """Whether runs differ in how the phase's mixture stands to that of the whole run."""
    here = design.tokens[:, phase].detach()
    share = here / here.sum(1, keepdim=True).clamp(min=1e-300)
    whole = design.tokens.detach().sum(1)
    shift = (share - whole / whole.sum(1, keepdim=True)) * (here.sum(1, keepdim=True) > 0)
    return bool(shift.std(0, correction=0).max() > 1e-3)
