"""What a learning-rate schedule adds up to: its mean rate, and the noise that its decays leave."""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mixlaw.analysis.data.design import SHAPES, WHOLE_COSINE, Design

#: Noise grows as this power of the rate: 1 in the multi-power law; less fits ends above zero and other peak rates.
NOISE = 0.7
#: Exponents of the multi-power law (arXiv:2503.12811, table 2: beta .58 to .60, gamma .64 to .66 at 25M to 400M).
SETTLE, SLOWER = 0.59, 0.64
#: How fast the noise of a decay settles, per share of the run at the peak rate: the same at 25 thousand and 124 million
#: parameters, and at 15 and 25 thousand steps, where the absolute pace of the paper is not (dev/LOG.md).
PACE = 100.0
#: Intervals in which a phase is added up; they are narrow at both of its ends.
NODES = 64
#: Rates below this share of the peak count as this share: the noise has no slope at zero.
LEAST = 1e-6


class RateSums(NamedTuple):
    """Two numbers of each of R schedules, relative to their peak rates unless said otherwise.

    Attributes:
        mean: rate over the tokens trained so far, (R,).
        noise: what the decays leave of the noise of the peak rate, times the peak rate over the rule's to the power
            `NOISE`, (R,); 1 at the rule's rate held to the end.
    """

    mean: Tensor
    noise: Tensor


_KNOWN: WeakKeyDictionary[Design, RateSums] = WeakKeyDictionary()


def rate_sums(design: Design) -> RateSums:
    """Add up the schedules of a design; differentiable by tokens, ends and peak rates.

        mean  = sum_k r_k / T
        noise = lr**NOISE (1 - sum_k (r_(k-1)**NOISE - r_k**NOISE) (1 - (1 + PACE lr**(1 - g) r_k**-g S_k)**-SETTLE))

    with rates r_k over the peak at T equal steps, S_k = (sum of r from step k on) / T and g = SLOWER: the multi-power
    law of Luo et al. 2025, arXiv:2503.12811, in shares of the run. Warm-up is left out. A run that is under way has the
    schedule that its last phase would have when finished, cut where it is.
    """
    if design.tokens.requires_grad or design.lr_end.requires_grad or design.lr.requires_grad:
        return _sums(design)
    known = _KNOWN.get(design)
    if known is None:
        with torch.no_grad():
            known = _KNOWN[design] = _sums(design)
    return known


def _sums(design: Design) -> RateSums:
    rate, share = rate_path(design)
    between = 0.5 * (rate[:, 1:] + rate[:, :-1])
    area = between * share
    mean = area.sum(1)
    left = (mean[:, None] - area.cumsum(1) + 0.5 * area).clamp(min=0)
    power = rate**NOISE
    lr = design.lr[:, None]
    settled = 1 - (1 + PACE * lr ** (1 - SLOWER) * between**-SLOWER * left) ** -SETTLE
    noise = design.lr**NOISE * (1 - ((power[:, :-1] - power[:, 1:]) * settled).sum(1))
    return RateSums(mean, noise)


def rate_path(design: Design) -> tuple[Tensor, Tensor]:
    """Rate over the peak at the ends of all intervals, (R, P NODES + 1), and their shares of tokens, (R, P NODES)."""
    tokens = design.tokens.sum(2)
    total, used = tokens.sum(1), tokens > 0
    done = design.progress.clamp(min=LEAST, max=1)
    rest = total / done - total  # of the schedule, after what is trained
    last = (used * torch.arange(1, len(design.phases) + 1)).argmax(1)
    step = torch.linspace(0, 1, NODES + 1, dtype=torch.float64)
    way = step * step * (3 - 2 * step)
    level = torch.ones_like(total)
    whole = design.lr_end.gather(1, last[:, None])  # where a cosine over all phases ends
    before = torch.zeros_like(total)
    rates, shares = [level[:, None]], []
    for p in range(len(design.phases)):
        planned = tokens[:, p] + torch.where(last == p, rest, torch.zeros_like(rest))
        cut = torch.where(used[:, p], tokens[:, p] / planned.clamp(min=1), torch.zeros_like(total))
        end = design.lr_end[:, p, None]
        rate = end + (level[:, None] - end) * _fall(design.decay[:, p, None], cut[:, None] * way)
        along = (before[:, None] + tokens[:, p, None] * way) / (total / done)[:, None]
        cosine = whole + (1 - whole) * 0.5 * (1 + torch.cos(math.pi * along))
        rate = torch.where(design.decay[:, p, None] == WHOLE_COSINE, cosine, rate).clamp(min=LEAST)
        rate = torch.where(used[:, p, None], rate, level[:, None])
        rates.append(rate[:, 1:])
        shares.append((tokens[:, p] / total)[:, None] * way.diff())
        level, before = rate[:, -1], before + tokens[:, p]
    return torch.cat(rates, 1), torch.cat(shares, 1)


def _fall(shape: Tensor, way: Tensor) -> Tensor:
    """The rest of a decay from 1 to 0 after the share `way` of it, by the code of its shape."""
    cosine, root = (shape == SHAPES[name] for name in ("cosine", "1-sqrt"))
    inside = way.clamp(min=1e-12)
    return torch.where(cosine, 0.5 * (1 + torch.cos(math.pi * way)), torch.where(root, 1 - inside.sqrt(), 1 - way))
