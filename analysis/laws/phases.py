"""How phases count: later ones for more, and what comes at all times for more than what comes in bursts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import SHAPE_BETWEEN, Parameter
from mixlaw.analysis.laws.identify import phase_differs
from mixlaw.analysis.laws.terms import row

#: Tokens of an early phase count for less than those of the last: .1 for the first phase and .28 for the second on the
#: ladder, .07 to .25 on two-phase runs of code and text (Marin); log normal.
RETENTION_PRIOR = (math.log(0.4), 1.0)
#: Power with which a domain's shares of the phases add up: .36 on the ladder, .3 to .6 on Marin; log normal.
EVENNESS_PRIOR = (math.log(0.5), 0.8)


def phase_blocks(design: Design) -> dict[str, tuple[Parameter, ...]]:
    """Retention of all phases but the last, and evenness; held where no mixture differs between phases."""
    differs = [phase_differs(design, i) for i in range(len(design.phases) - 1)]
    retention = tuple(
        Parameter(f"retention {phase}", *RETENTION_PRIOR, SHAPE_BETWEEN, held=not varied)
        for phase, varied in zip(design.phases[:-1], differs, strict=True)
    )
    return {
        "retention": retention,
        "evenness": (Parameter("evenness", *EVENNESS_PRIOR, SHAPE_BETWEEN, not any(differs), loose=True),),
    }


def weighted(retention: Tensor, evenness: float, tokens: Tensor) -> Tensor:
    """Exposure (R, K) to tokens (R, P, K) when phases count by `retention` (P,).

        z_j = t m_j / sum_k m_k                  m_j = (sum_p w_p h_pj**c)**(1/c), c = evenness
        w_p = retention_p t_p / sum_q retention_q t_q

    with t all tokens, t_p those of a phase and h_pj the share of a domain in it. Retention and evenness weigh mixtures,
    never the count of tokens: with one mixture in all phases neither their names nor their lengths change anything.
    Below an evenness of 1 a domain that comes in bursts teaches less than one that comes at all times.
    """
    return retained((retention[:-1].log()[None], row((math.log(evenness),))[None]), tokens).exposure[0].T


def retained(blocks: Sequence[Tensor], tokens: Tensor) -> Retained:
    """`weighted` for log retention of all phases but the last, (B, P - 1), and log evenness, (B, 1)."""
    if tokens.shape[1] == 1:
        return Retained(tokens[:, -1].T[None], None)
    log_retention, log_evenness = blocks
    length = tokens.sum(2)
    share = tokens / torch.where(length > 0, length, torch.ones_like(length))[..., None]
    seen = share > 0
    log_share = torch.where(seen, share, torch.ones_like(share)).log()
    weight = _weight(log_retention, length.T)
    power = torch.exp(log_evenness.exp()[..., None, None] * log_share) * seen
    total = (weight.transpose(1, 2)[..., None] * power).sum(2).transpose(1, 2)
    known, inverse = total > 0, torch.exp(-log_evenness)[..., None]
    mean = torch.where(known, total, torch.ones_like(total)) ** inverse * known
    share = mean / mean.sum(1, keepdim=True)
    return Retained(share * length.sum(1), _Parts(weight, log_share, power, total, inverse, share))


@dataclass(frozen=True)
class _Parts:
    """What exposure and its derivatives share."""

    weight: Tensor  # of the phases, (B, P, R)
    log_share: Tensor  # of the domains in each phase, 0 where there is none, (R, P, K)
    power: Tensor  # share**c, (B, R, P, K)
    total: Tensor  # their weighted sum over phases, (B, K, R)
    inverse: Tensor  # 1 / c, (B, 1, 1)
    share: Tensor  # of the exposure, (B, K, R)


@dataclass(frozen=True)
class Retained:
    """Exposure to each domain, (B, K, R)."""

    exposure: Tensor
    _parts: _Parts | None  # None where there is one phase

    def by_phase(self, by_log_exposure: Tensor) -> dict[str, Tensor]:
        """Derivatives by the blocks of `phase_blocks`, (B, P - 1, R) and (B, 1, R), from that by log exposure.

        d log m_j / d log retention_p = w_p (h_pj**c / S_j - 1) / c              S_j = sum_p w_p h_pj**c
        d log m_j / d log c = sum_p w_p h_pj**c log h_pj / S_j - log(S_j) / c
        """
        if self._parts is None:
            return {}
        weight, power, inverse = self._parts.weight, self._parts.power, self._parts.inverse
        total = torch.where(self._parts.total > 0, self._parts.total, torch.ones_like(self._parts.total))
        by_mean = by_log_exposure * (self._parts.total > 0)
        by_mean = by_mean - self._parts.share * by_mean.sum(1, keepdim=True)
        relative = (by_mean / total).transpose(1, 2)[:, :, None]  # (B, R, 1, K)
        by_weight = (relative * power).sum(3).transpose(1, 2)[:, :-1] - by_mean.sum(1, keepdim=True)
        bent = (weight.transpose(1, 2)[..., None] * power * self._parts.log_share).sum(2)
        by_power = (relative[:, :, 0] * bent).sum(2)[:, None] - inverse * (by_mean * total.log()).sum(1, keepdim=True)
        return {"retention": inverse * weight[:, :-1] * by_weight, "evenness": by_power}


def throughout(tokens: Tensor) -> Tensor:
    """Tokens of each domain if each phase's mixture were that of the whole run, (R, P, K); 0 in empty phases."""
    length = tokens.sum(2, keepdim=True)
    return tokens / torch.where(length > 0, length, torch.ones_like(length)) * tokens.sum((1, 2))[:, None, None]


def _weight(log_retention: Tensor, length: Tensor) -> Tensor:
    """w_p of `weighted`, (B, P, R), from log retention of all phases but the last, (B, P - 1), and tokens (P, R)."""
    count = torch.cat([log_retention.exp(), torch.ones_like(log_retention[:, :1])], 1)[..., None] * length
    return count / count.sum(1, keepdim=True)


def joined(blocks: Sequence[Tensor], tokens: Tensor, taught: Tensor) -> Joined:
    """What phases teach a task together, from what each would if it were the whole run, log A (B, P, R).

        A = (sum_p w_p A_p**c)**(1/c)                    c = evenness, w_p as in `weighted`

    `blocks` are log retention of all phases but the last, (B, P - 1), and log evenness, (B, 1).
    """
    if tokens.shape[1] == 1:
        return Joined(taught[:, 0], torch.ones_like(taught), None)
    log_retention, log_evenness = blocks
    length = tokens.sum(2).T
    weight = _weight(log_retention, length)
    there, evenness = length > 0, log_evenness.exp()
    powers = torch.where(there, weight, torch.ones_like(weight)).log() + evenness[..., None] * taught
    powers = powers.masked_fill(~there, -torch.inf)
    total = powers.logsumexp(1)
    share = torch.exp(powers - total[:, None])
    return Joined(total / evenness, share, _Joins(weight, evenness, (share * taught).sum(1)))


@dataclass(frozen=True)
class _Joins:
    """What derivatives by retention and evenness need."""

    weight: Tensor  # of the phases, (B, P, R)
    evenness: Tensor  # (B, 1)
    mean: Tensor  # of what phases teach, by their part in the sum, (B, R)


@dataclass(frozen=True)
class Joined:
    """What all phases teach, log A (B, R), and the part of each phase in it, (B, P, R)."""

    log: Tensor
    share: Tensor
    _joins: _Joins | None  # None where there is one phase

    def by_phase(self, by_log: Tensor) -> dict[str, Tensor]:
        """Derivatives by the blocks of `phase_blocks`, (B, P - 1, R) and (B, 1, R), from that by log A (B, R)."""
        if self._joins is None:
            return {}
        by_weight = (self.share - self._joins.weight)[:, :-1] / self._joins.evenness[..., None]
        by_evenness = self._joins.mean - self.log
        return {"retention": by_log[:, None] * by_weight, "evenness": (by_log * by_evenness)[:, None]}
