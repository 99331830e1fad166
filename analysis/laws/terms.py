"""Terms that laws share, each with the derivative that a closed form needs and the prior of its parameter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Muennighoff et al. 2023: the repeats after which a token has given almost all it can; log normal.
REPEATS_PRIOR = (math.log(15.4), 0.5)
#: Differences of RegMix's mixtures at 60 and 1,000 times the size, over those predicted from 1M: spread from loss to
#: loss of the log factor per tenfold (dev/LOG.md).
CONTRAST_PRIOR, CONTRAST_BETWEEN = (0.0, 0.12), 0.12


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
