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
    return retained((retention[:-1].log()[None], row((math.log(evenness),))[None]), tokens)[0].T


def retained(blocks: Sequence[Tensor], tokens: Tensor) -> Tensor:
    """`weighted` for log retention of all phases but the last, (B, P - 1), and log evenness, (B, 1): (B, K, R)."""
    if tokens.shape[1] == 1:
        return tokens[:, -1].T[None]
    return _powers(blocks, tokens).exposure


def by_phase(blocks: Sequence[Tensor], tokens: Tensor, by_log_exposure: Tensor) -> dict[str, Tensor]:
    """Derivatives by the blocks of `phase_blocks`, (B, P - 1, R) and (B, 1, R), from that by log `retained`.

    d log m_j / d log retention_p = w_p (h_pj**c / S_j - 1) / c              S_j = sum_p w_p h_pj**c
    d log m_j / d log c = sum_p w_p h_pj**c log h_pj / S_j - log(S_j) / c
    """
    parts = _powers(blocks, tokens)
    seen, inverse = parts.total > 0, torch.exp(-blocks[1])[..., None]
    total = torch.where(seen, parts.total, torch.ones_like(parts.total))
    share = parts.exposure / tokens.sum((1, 2))
    by_mean = by_log_exposure * seen
    by_mean = by_mean - share * by_mean.sum(1, keepdim=True)
    relative = (by_mean / total).transpose(1, 2)[:, :, None]  # (B, R, 1, K)
    by_weight = (relative * parts.power).sum(3).transpose(1, 2)[:, :-1] - by_mean.sum(1, keepdim=True)
    bent = (parts.weight.transpose(1, 2)[..., None] * parts.power * parts.log_share).sum(2)
    by_power = (relative[:, :, 0] * bent).sum(2)[:, None] - inverse * (by_mean * total.log()).sum(1, keepdim=True)
    return {"retention": inverse * parts.weight[:, :-1] * by_weight, "evenness": by_power}


@dataclass(frozen=True)
class _Powers:
    """Parts of `retained`."""

    weight: Tensor  # of the phases, (B, P, R)
    log_share: Tensor  # of the domains in each phase, 0 where there is none, (R, P, K)
    power: Tensor  # share**c, (B, R, P, K)
    total: Tensor  # their weighted sum over phases, (B, K, R)
    exposure: Tensor  # (B, K, R)


def _powers(blocks: Sequence[Tensor], tokens: Tensor) -> _Powers:
    log_retention, log_evenness = blocks
    length = tokens.sum(2)
    share = tokens / torch.where(length > 0, length, torch.ones_like(length))[..., None]
    seen = share > 0
    log_share = torch.where(seen, share, torch.ones_like(share)).log()
    count = torch.cat([log_retention.exp(), torch.ones_like(log_evenness)], 1)[..., None] * length.T
    weight = count / count.sum(1, keepdim=True)
    power = torch.exp(log_evenness.exp()[..., None, None] * log_share) * seen
    total = (weight.transpose(1, 2)[..., None] * power).sum(2).transpose(1, 2)
    known = total > 0
    mean = torch.where(known, total, torch.ones_like(total)) ** torch.exp(-log_evenness)[..., None] * known
    return _Powers(weight, log_share, power, total, mean / mean.sum(1, keepdim=True) * length.sum(1))
