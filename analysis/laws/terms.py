"""Terms that laws share, each with the derivative that a closed form needs and the prior of its parameter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Muennighoff et al. 2023: the repeats after which a token has given almost all it can; log normal.
REPEATS_PRIOR = (math.log(15.4), 0.5)
#: Tokens seen in an early phase count for a little less than those of the last; log normal.
RETENTION_PRIOR = (math.log(0.85), 0.8)


def saturate(amount: Tensor, base: Tensor, scale: Tensor | float) -> Tensor:
    """Effective amount when what exceeds `base` is worth less and less.

        amount                                          if amount <= base
        base + base R (1 - exp(-(amount/base - 1)/R))   otherwise, R = scale

    Slope 1 at the base, then falling as exp(-excess / R); `base` may be infinite. All arguments broadcast.

    Source: Muennighoff et al. 2023, arXiv:2305.16264, equations 5 and 6.
    """
    finite, excess = _excess(amount, base)
    return torch.where(excess > 0, finite * (1 - torch.expm1(-excess / scale) * scale), amount)


def _excess(amount: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """The base, 1 where infinite, and how far the amount exceeds it, in bases."""
    limited = torch.isfinite(base)
    finite = torch.where(limited, base, torch.ones_like(base))
    return finite, torch.where(limited, amount / finite - 1, torch.zeros_like(amount)).clamp(min=0)


def weighted(retention: Tensor, tokens: Tensor) -> Tensor:
    """Exposure (R, K) to tokens (R, P, K) when phases count by `retention` (P,).

        z_j = sum_p retention_p t_pj / mean_p retention_p        the mean over all tokens

    Retention weighs mixtures, never the count of tokens: sum_j z_j is all tokens, and with one mixture in all phases
    neither their names nor their lengths change anything.
    """
    z = torch.einsum("p,rpk->rk", retention, tokens)
    return z * (tokens.sum((1, 2)) / z.sum(1))[:, None]


def retained(log_retention: Tensor, tokens: Tensor) -> Tensor:
    """`weighted` for the logarithms (B, P - 1) of all but the last phase's retention, which is 1: (B, K, R)."""
    last = tokens[:, -1].T[None]
    if tokens.shape[1] == 1:
        return last
    z = last + torch.einsum("bp,rpk->bkr", log_retention.exp(), tokens[:, :-1])
    return z * (tokens.sum((1, 2)) / z.sum(1))[:, None]


def by_retention(log_retention: Tensor, tokens: Tensor, exposure: Tensor, by_log_exposure: Tensor) -> Tensor:
    """Derivative by log retention, (B, P - 1, R), from that by the logarithm of `retained`, (B, K, R)."""
    weight, early = log_retention.exp()[..., None], tokens[:, :-1].sum(2).T
    total = tokens.sum((1, 2))
    # The sum before it is scaled to all tokens; d log z_j = r_p t_pj / sum_p r_p t_pj - r_p t_p / sum_p r_p t_p.
    count = (weight * early).sum(1) + tokens[:, -1].sum(1)
    relative = by_log_exposure / torch.where(exposure > 0, exposure, torch.ones_like(exposure))
    own = torch.einsum("bkr,rpk->bpr", relative, tokens[:, :-1]) * (total / count)[:, None]
    return weight * (own - early * (by_log_exposure.sum(1) / count)[:, None])


def fresh(tokens: Tensor, unique: Tensor, scale: Tensor) -> tuple[Tensor | float, Tensor | None]:
    """Share of a domain's tokens that are worth as much as fresh ones, and its slope d log / d log scale.

    `saturate` of all tokens over them; 1 and None where nothing repeats. Tokens (K, R), unique (K, R), scale (B, 1, 1).
    """
    if not bool((tokens.detach() > unique).any()):
        return 1.0, None
    excess = _excess(tokens, unique)[1]
    marginal = torch.exp(-excess / scale)  # of one more repeat, relative to a fresh token
    limit = scale * (1 - marginal)
    return (1 + limit) / (1 + excess), (limit - excess * marginal) / (1 + limit)


def rise(ratio: Tensor) -> Tensor:
    """log(1 + ratio**2) / 2: 0 at 0, flat far below 1, the logarithm far above."""
    return 0.5 * torch.log1p(ratio**2)


def ces(log_worth: Tensor, amounts: Tensor, elasticity: Tensor | float) -> Tensor:
    """log sum_j worth_j amounts_j**elasticity over the last axis; an amount of zero adds exactly zero."""
    seen = amounts > 0
    powers = log_worth + elasticity * torch.where(seen, amounts, torch.ones_like(amounts)).log()
    return powers.masked_fill(~seen, -torch.inf).logsumexp(-1)


def log_sum(*terms: Tensor) -> Tensor:
    """log sum exp of terms (B, R) or (B, 1)."""
    return torch.stack(torch.broadcast_tensors(*terms)).logsumexp(0)  # type: ignore[no-untyped-call]


def softmax_parts(*terms: Tensor) -> tuple[Tensor, list[Tensor]]:
    """`log_sum` of terms (B, R) or (B, 1), and the share of each in the sum, (B, 1, R)."""
    value = log_sum(*terms)
    return value, [torch.exp(term - value)[:, None] for term in terms]


def row(values: tuple[float, ...]) -> Tensor:
    """Coefficients as a tensor."""
    return torch.tensor(values, dtype=torch.float64)
