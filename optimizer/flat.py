"""Directions in which a recommendation may be moved without a difference that the data can tell."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.objective import Objective
from mixlaw.optimizer.proposal import Flat

Floats = NDArray[np.float64]

GRID = 41  # points of a share between 0 and 1
WIDE = 0.08  # narrower ranges are not worth a sentence
TRIFLE = 0.05  # percent of loss that nobody would pay for
WORTH = 0.25  # share of the gain that a move within noise may cost at most


def flat_directions(objective: Objective, shares: Tensor, cooldown: Tensor, most: int = 3) -> tuple[Flat, ...]:
    """Ranges of a share within noise of a recommendation, shares (P, K), cooldown (): code by phase, length, domains.

    Noise is one standard deviation of the paired difference over worlds, and a quarter of the gain at most. All else
    stays in proportion and limits are kept. Of single domains only the `most` widest are told.
    """
    domains, phases = objective.allowed.domains, objective.allowed.target.phases
    code = torch.tensor([d.kind.is_code for d in domains])
    groups = [("code", code)] if bool(code.any()) and not bool(code.all()) else []
    found = [
        _share_range(objective, shares, cooldown, p, name, mask) for p in range(len(phases)) for name, mask in groups
    ]
    low, high = objective.allowed.cooldown
    if high - low > WIDE / 4:
        found.append(_length_range(objective, shares, cooldown))
    singles = [
        _share_range(objective, shares, cooldown, p, domain.name, torch.arange(len(domains)) == j)
        for p in range(len(phases))
        for j, domain in enumerate(domains)
        if len(domains) > 2
    ]
    widest = sorted((f for f in singles if f), key=lambda f: f.low - f.high)[:most]
    return tuple(f for f in [*found, *widest] if f)


def _share_range(
    objective: Objective, shares: Tensor, cooldown: Tensor, phase: int, name: str, mask: Tensor
) -> Flat | None:
    """Move the share of a group in one phase, keeping the proportions inside and outside of it."""
    here = float(shares[phase, mask].sum())
    grid = np.unique(np.append(np.linspace(0, 1, GRID), here))
    unique = torch.tensor([float(d.unique_tokens) for d in objective.allowed.domains], dtype=torch.float64)
    inside, outside = (_proportions(shares[phase], unique, part) for part in (mask, ~mask))
    moved = shares.repeat(len(grid), 1, 1)
    step = torch.tensor(grid)[:, None]
    moved[:, phase] = step * inside + (1 - step) * outside
    ends = _around(objective, shares, cooldown, moved, cooldown.expand(len(grid)), int(np.searchsorted(grid, here)))
    return _told(objective.allowed.target.phases[phase], name, grid, ends, here, WIDE)


def _length_range(objective: Objective, shares: Tensor, cooldown: Tensor) -> Flat | None:
    here = float(cooldown)
    grid = np.unique(np.append(np.linspace(*objective.allowed.cooldown, GRID), here))
    moved = shares.expand(len(grid), -1, -1)
    ends = _around(objective, shares, cooldown, moved, torch.tensor(grid), int(np.searchsorted(grid, here)))
    return _told(objective.allowed.target.phases[-1], "length", grid, ends, here, WIDE / 4)


def _told(phase: str, what: str, grid: Floats, ends: tuple[int, int], here: float, wide: float) -> Flat | None:
    low, high = float(grid[ends[0]]), float(grid[ends[1]])
    return Flat(phase, what, low, high, here) if high - low >= wide else None


def _proportions(shares: Tensor, unique: Tensor, mask: Tensor) -> Tensor:
    """Shares inside a group, summing to 1; by unique tokens where the group has none."""
    weights = torch.where(mask, shares, torch.zeros_like(shares))
    if float(weights.sum()) < 1e-9:
        weights = torch.where(mask, unique, torch.zeros_like(unique))
    return weights / weights.sum()


def _around(
    objective: Objective, shares: Tensor, cooldown: Tensor, moved: Tensor, parts: Tensor, here: int
) -> tuple[int, int]:
    """First and last index of the unbroken stretch around `here` that keeps the limits and is within noise."""
    with torch.no_grad():
        loss = objective.gains(shares[None], cooldown[None]) - objective.gains(moved, parts)
        worth = WORTH * objective.gains(shares[None], cooldown[None]).mean()
    noise = loss.std(0).minimum(worth).clamp_min(TRIFLE)  # what the data cannot tell may still be worth telling
    fine = (loss.mean(0) <= noise) & objective.allowed.keeps(moved, parts)
    low = high = here
    while low > 0 and bool(fine[low - 1]):
        low -= 1
    while high + 1 < len(fine) and bool(fine[high + 1]):
        high += 1
    return low, high
