"""Directions in which a recommendation may be moved without a difference that the data can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.answers.proposal import Flat
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Lengths

Floats = NDArray[np.float64]

GRID = 26  # points of a share between 0 and 1
WIDE = 0.08  # narrower ranges are not worth a sentence
TRIFLE = 0.05  # percent of loss that nobody would pay for
WORTH = 0.25  # share of the gain that a move within noise may cost at most


def flat_directions(objective: Objective, point: Points, most: int = 3) -> tuple[Flat, ...]:
    """Ranges of a share within noise of a recommendation, one point: code by phase, length, domains.

    Noise is one standard deviation of the paired difference over worlds, and a quarter of the gain at most. All else
    stays in proportion and limits are kept. Of single domains only the `most` widest are told.
    """
    allowed = objective.allowed
    code = torch.tensor([d.kind.is_code for d in allowed.domains])
    phases = range(len(allowed.target.phases))
    found: list[Flat | None] = []
    if bool(code.any()) and not bool(code.all()):
        together = "all code" if any(d.name == "code" for d in allowed.domains) else "code"
        found += [_share_range(objective, point, p, together, code) for p in phases]
    if (length := Lengths.of(allowed.target).free) and allowed.cooldown[1] - allowed.cooldown[0] > WIDE / 4:
        found.append(_length_range(objective, point, length[-1]))
    alone = int(code.sum()) == 1  # the only domain of code has been told as code
    singles = [
        _share_range(objective, point, p, domain.name, torch.arange(len(allowed.domains)) == j)
        for p in phases
        for j, domain in enumerate(allowed.domains)
        if len(allowed.domains) > 2 and not (alone and domain.kind.is_code)
    ]
    widest = sorted((f for f in singles if f), key=lambda f: f.low - f.high)[:most]
    return tuple(f for f in [*found, *widest] if f)


def _share_range(objective: Objective, point: Points, phase: int, name: str, mask: Tensor) -> Flat | None:
    """Move the share of a group in one phase, keeping the proportions inside and outside of it."""
    here = float(point.shares[0, phase, mask].sum())
    grid = np.unique(np.append(np.linspace(0, 1, GRID), here))
    unique = torch.tensor([float(d.unique_tokens) for d in objective.allowed.domains], dtype=torch.float64)
    inside, outside = (_proportions(point.shares[0, phase], unique, part) for part in (mask, ~mask))
    shares = point.shares.repeat(len(grid), 1, 1)
    step = torch.tensor(grid)[:, None]
    shares[:, phase] = step * inside + (1 - step) * outside
    moved = replace(point.repeat(len(grid)), shares=shares)
    ends = _around(objective, point, moved, int(np.searchsorted(grid, here)))
    return _told(objective.allowed.target.phases[phase], name, grid, ends, here, WIDE)


def _length_range(objective: Objective, point: Points, phase: int) -> Flat | None:
    """Move the length of the last phase at the expense of those that have no range of their own."""
    lengths, here = Lengths.of(objective.allowed.target), float(point.lengths[0, phase])
    grid = np.unique(np.append(np.linspace(*objective.allowed.cooldown, GRID), here))
    free = np.tile(point.lengths[0, list(lengths.free)].numpy(), (len(grid), 1))
    free[:, -1] = grid
    moved = replace(point.repeat(len(grid)), lengths=torch.tensor(lengths(free)))
    ends = _around(objective, point, moved, int(np.searchsorted(grid, here)))
    return _told(objective.allowed.target.phases[phase], "length", grid, ends, here, WIDE / 4)


def _told(phase: str, what: str, grid: Floats, ends: tuple[int, int], here: float, wide: float) -> Flat | None:
    low, high = float(grid[ends[0]]), float(grid[ends[1]])
    return Flat(phase, what, low, high, here) if high - low >= wide else None


def _proportions(shares: Tensor, unique: Tensor, mask: Tensor) -> Tensor:
    """Shares inside a group, summing to 1; by unique tokens where the group has none."""
    weights = torch.where(mask, shares, torch.zeros_like(shares))
    if float(weights.sum()) < 1e-9:
        weights = torch.where(mask, unique, torch.zeros_like(unique))
    return weights / weights.sum()


def _around(objective: Objective, point: Points, moved: Points, here: int) -> tuple[int, int]:
    """First and last index of the unbroken stretch around `here` that keeps the limits and is within noise."""
    with torch.no_grad():
        gains = objective.gains(Points.cat([point, moved]))
    loss = gains[:, :1] - gains[:, 1:]
    worth = WORTH * gains[:, 0].mean()  # what the data cannot tell may still be worth telling
    noise = loss.std(0).minimum(worth).clamp_min(TRIFLE * objective.percent)
    fine = (loss.mean(0) <= noise) & objective.allowed.keeps(moved)
    low = high = here
    while low > 0 and bool(fine[low - 1]):
        low -= 1
    while high + 1 < len(fine) and bool(fine[high + 1]):
        high += 1
    return low, high
