"""The exposure law as a parameter vector: prediction and its closed-form Jacobian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law
from mixlaw.analysis.laws.exposure import POOL, Exposure, rise
from mixlaw.analysis.laws.exposure_priors import parameters


@dataclass(frozen=True)
class _Terms:
    """What prediction and Jacobian share; axes (B, R) or (B, K, R), B possibly 1 where theta does not enter."""

    exposure: Tensor  # z
    log_amount: Tensor  # log d / D0, 0 where d = 0
    decay: Tensor | None  # d log d / d log z, None where nothing repeats
    by_repeats: Tensor | None  # d log d / d log repeats
    log_worth: Tensor  # log sum_j worth_j d_j**g
    weights: Tensor  # softmax of the terms of that sum
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

    def by_contrast(self, elasticity: Tensor) -> Tensor:
        """Derivative of log D_eff by the logarithm of the contrast, (B, R); 0 at the home size."""
        if self.away is None:
            return torch.zeros_like(self.log_worth)
        quality = self.log_worth / elasticity - self.away.log_total
        return self.away.tenfolds * self.away.stretch * quality


@dataclass(frozen=True)
class _Away:
    """What changes away from the home size; axes as in `_Terms`."""

    stretch: Tensor  # factor on what mixtures differ by
    tenfolds: Tensor  # log10(N / home)
    log_total: Tensor  # log sum_j d_j / D0
    share: Tensor  # of domains in that sum

    def between(self, here: Tensor, typical: Tensor | float) -> Tensor:
        """From what holds at the home size and what holds for the typical mixture, which is the same at every size."""
        stretch = self.stretch if here.dim() == 2 else self.stretch[:, None]
        return stretch * here + (1 - stretch) * typical


@dataclass(frozen=True)
class _Harm:
    """Derivatives of the overload factor's logarithm by onset, crowding, memory (B, R) and overload (B, K, R)."""

    shape: tuple[Tensor, Tensor, Tensor]
    overload: Tensor


class ExposureForm(Form):
    """theta = (floor, capacity, data at the centre; alpha, beta, g; repeats, undecayed, bend, constant_lr, bottleneck;

    onset, crowding, memory, contrast; retention of all phases but the last; worth, efficiency, overload of domains),
    logarithms.
    """

    SHAPE = 15

    def __init__(self, design: Design) -> None:
        self.phases, self.domains = design.phases, design.domains
        self.log_n = float(design.params.log().mean())
        self.log_d = float(design.total.log().mean())
        self.parameters, self.notes = parameters(design)
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
        return terms.value + self._schedule(theta, design)[0] + self._harm(theta, design)[0]

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R) in closed form.

        The softmax weights of the prediction are most of it.
        """
        terms = self._terms(theta, design)
        value = terms.value
        floor = torch.exp(terms.floor - value)
        short, starved = 1 - floor, torch.sigmoid(terms.gap)
        data = short * starved
        capacity = short - data
        alpha, beta, g = theta[:, 3:6].exp()[..., None].unbind(1)
        by_aggregate = -data * beta  # d value / d log D_eff
        bent, by_amount, by_worth = (terms.weights * terms.log_amount).sum(1), terms.weights, terms.weights
        log_worth = terms.log_worth
        if terms.away is not None:
            log_worth = terms.away.between(log_worth, g * terms.away.log_total)
            bent = terms.away.between(bent, terms.away.log_total)
            by_amount = terms.away.between(by_amount, terms.away.share)
            by_worth = terms.away.between(by_worth, 0.0)
        by_amount = by_aggregate[:, None] * by_amount  # d value / d log d_j
        zero = torch.zeros_like(value)
        schedule, by_schedule = self._schedule(theta, design)
        harm, by_harm = self._harm(theta, design)
        shape = [
            *(floor, capacity, data),
            capacity * (terms.capacity - theta[:, 1, None]),
            data * (terms.data - theta[:, 2, None]),
            by_aggregate * (bent - log_worth / g),
            zero if terms.by_repeats is None else (by_amount * terms.by_repeats).sum(1),
            *by_schedule,
            data * (terms.gap / theta[:, 10, None].exp()) - short * (terms.short - terms.capacity),
            *((zero, zero, zero) if by_harm is None else by_harm.shape),
            by_aggregate * terms.by_contrast(g),
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
            blocks.append((by_aggregate / g)[:, None] * by_worth)
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
        alpha, beta, g, *rest = theta[3 : self.SHAPE].exp().tolist()
        repeats, undecayed, bend, constant_lr, bottleneck, onset, crowding, memory, contrast = rest
        total = float(theta[self.worth].logsumexp(0))
        floor, a, b = (theta[:3] + log_scale).tolist()
        return Exposure(
            floor=math.exp(floor),
            a=math.exp(a + alpha * self.log_n),
            alpha=alpha,
            b=math.exp(b + beta * self.log_d - beta / g * total),
            beta=beta,
            bottleneck=bottleneck,
            elasticity=g,
            worth=tuple(theta[self.worth].softmax(0).tolist()),
            contrast=contrast,
            home=math.exp(self.log_n),
            typical=math.exp(-total / g),
            efficiency=tuple(theta[self.efficiency].exp().tolist()),
            retention=(*theta[self.retention].exp().tolist(), 1.0),
            repeats=repeats,
            undecayed=undecayed,
            bend=bend,
            constant_lr=constant_lr,
            onset=onset,
            crowding=crowding,
            memory=memory,
            overload=tuple(theta[self.overload].exp().tolist()),
            phases=self.phases,
            domains=self.domains,
        )

    def _terms(self, theta: Tensor, design: Design) -> _Terms:
        alpha, beta, g = theta[:, 3:6].exp()[..., None].unbind(1)
        z = self._exposure(theta, design)
        seen = z > 0
        amount, decay, by_repeats = saturated(z, design.unique.T, theta[:, 6].exp()[:, None, None])
        log_amount = torch.where(seen, amount, torch.full_like(amount, math.exp(self.log_d))).log() - self.log_d
        powers = (theta[:, self.worth, None] + g[:, None] * log_amount).masked_fill(~seen, -torch.inf)
        log_worth = powers.logsumexp(1)
        log_size, occupied = design.params.log() - self.log_n, None
        if not self.parameters[self.efficiency.start].held:
            share = torch.where(seen, z / z.sum(1, keepdim=True), torch.ones_like(z))
            efficient = (theta[:, self.efficiency, None] + share.log()).masked_fill(~seen, -torch.inf)
            log_efficiency = efficient.logsumexp(1)
            log_size, occupied = log_size + log_efficiency, torch.exp(efficient - log_efficiency[:, None])
        capacity = (theta[:, 1, None] - alpha * log_size).expand_as(log_worth)
        away = self._away(theta, design, torch.where(seen, amount, torch.zeros_like(amount)))
        stretched = log_worth if away is None else away.between(log_worth, g * away.log_total)
        data = theta[:, 2, None] - beta / g * stretched
        sharp = theta[:, 10, None].exp()
        gap = sharp * (data - capacity)
        short = capacity + softplus(gap, threshold=40) / sharp
        weights = torch.exp(powers - log_worth[:, None])
        sizes = z, log_amount, decay, by_repeats, log_worth, weights, away, occupied
        return _Terms(*sizes, theta[:, 0, None], capacity, data, gap, short)

    def _away(self, theta: Tensor, design: Design, amount: Tensor) -> _Away | None:
        """How mixtures of effective tokens (B, K, R) compare away from the home size; None where all is at home."""
        tenfolds = (design.params.log() - self.log_n) / math.log(10)
        if len(self.domains) == 1 or bool((tenfolds.detach().abs() < 1e-9).all()):
            return None
        total = amount.sum(1)
        stretch = torch.exp(theta[:, 14, None] * tenfolds)
        return _Away(stretch, tenfolds, total.log() - self.log_d, amount / total[:, None])

    def _exposure(self, theta: Tensor, design: Design) -> Tensor:
        last = design.tokens[:, -1].T[None]
        if self.retention.stop == self.retention.start:
            return last
        return last + torch.einsum("bp,rpk->bkr", theta[:, self.retention].exp(), design.tokens[:, :-1])

    def _harm(self, theta: Tensor, design: Design) -> tuple[Tensor, _Harm | None]:
        """Log of the factor by which overdone repeats raise the loss (B, R), 0 where nothing repeats."""
        if not bool(torch.isfinite(design.unique).any()):
            return torch.zeros((), dtype=theta.dtype), None
        onset, crowding, memory = theta[:, 11:14, None, None].unbind(1)
        finite = torch.isfinite(design.unique).T
        log_pool = torch.where(finite, design.unique.T / POOL, torch.ones(())).log()
        often = (design.tokens.sum(1) / design.unique).T * torch.exp(-onset)
        full = design.params * torch.exp(-crowding - memory.exp() * log_pool) * finite
        repeated, crowded = rise(often), rise(full)
        size = theta[:, self.overload, None].exp()
        lost = size * repeated * crowded
        # d rise / d log x = x**2 / (1 + x**2)
        by_onset = size * crowded * often**2 / (1 + often**2)
        by_crowding = size * repeated * full**2 / (1 + full**2)
        by_memory = by_crowding * memory.exp() * log_pool
        shape = (-by_onset.sum(1), -by_crowding.sum(1), -by_memory.sum(1))
        return lost.sum(1), _Harm(shape, lost)

    def _schedule(self, theta: Tensor, design: Design) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Log of the two learning-rate factors (B, R) and its derivative by undecayed, bend and constant_lr."""
        undecayed, bend, constant = (column[:, None] for column in theta[:, 7:10].exp().unbind(1))
        undone = (1 - design.progress).clamp(min=0)
        log_undone = torch.where(undone > 0, undone, torch.ones_like(undone)).log()
        excess = undecayed * torch.exp(bend * log_undone) * (undone > 0)
        flat = constant * design.final_lr
        slope = excess / (1 + excess)
        return torch.log1p(excess) + torch.log1p(flat), (slope, slope * bend * log_undone, flat / (1 + flat))


def saturated(z: Tensor, unique: Tensor, repeats: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
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
