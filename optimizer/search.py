"""Gradient search over recipes: many starts in one batch, every step feasible."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mixlaw.optimizer.constraints import Feasible

Value = Callable[[Tensor, Tensor], Tensor]  # shares (R, P, K), cooldown (R,) -> (R,), to be maximised


def climb(
    value: Value, allowed: Feasible, shares: Tensor, cooldown: Tensor, steps: int = 120, rate: float = 0.25
) -> tuple[Tensor, Tensor, Tensor]:
    """Climb from R starts by Adam with a cosine rate, each row by itself, and keep the best point of each path.

    Args:
        value: what to maximise, row by row.
        allowed: where to stay.
        shares, cooldown: starts, (R, P, K) and (R,).
        steps, rate: of Adam, in logits.

    Returns:
        Best shares (R, P, K), cooldown shares (R,) and values (R,).
    """
    logits, dial = (part.detach().clone().requires_grad_() for part in allowed.inverse(shares, cooldown))
    optimiser = torch.optim.Adam([logits, dial], lr=rate, betas=(0.9, 0.99))
    best_shares, best_cooldown = shares.clone(), cooldown.clone()
    best = torch.full((len(shares),), -math.inf, dtype=torch.float64)
    for step in range(steps + 1):
        here, part = allowed.shares(logits, dial)
        now = value(here, part)
        better = now.detach() > best
        best = torch.where(better, now.detach(), best)
        best_shares = torch.where(better[:, None, None], here.detach(), best_shares)
        best_cooldown = torch.where(better, part.detach(), best_cooldown)
        if step == steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimiser.zero_grad()
        torch.autograd.backward(-now.sum())
        optimiser.step()
        with torch.no_grad():  # a logit far below the others is as good as zero, and must be able to come back
            logits.clamp_(min=logits.amax(-1, keepdim=True) - 14.0)
            dial.clamp_(-8.0, 8.0)
    return best_shares, best_cooldown, best


def random_starts(allowed: Feasible, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points spread over the feasible set: (count, P, K) and (count,)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(count, *allowed.shape, generator=generator, dtype=torch.float64)
    return allowed.shares(logits, torch.randn(count, generator=generator, dtype=torch.float64))
