"""Coordinates that measure distances of recipes: log exposures by domain from each phase on, size, tokens, schedule."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design

#: Shares enter as log(share + SOFT): logarithmic above it, finite at exactly zero.
SOFT = 0.001
#: Floor of the standard deviation of a coordinate: constant coordinates are scaled by it.
LEAST_UNIT = 0.35
#: The same of the shares within the phases, all together.
LEAST_SPREAD = 0.1
#: Factor on distances outside of the measured sizes and budgets: the residual process reverts to zero there.
STRETCH = 5.0


@dataclass(frozen=True, eq=False)
class Features:
    """Map from recipes to standardised coordinates, centred and scaled on the measured runs.

    Attributes:
        centre, unit: of each coordinate, (F,).
        low, high: measured range of the size coordinates, in standard units.
        pools: numbers of the domains that any measured run repeats.
        groups: coordinates with similar length scales: the whole mixture; what is seen from each phase between the
            first and the last on; the mixture within each phase, where there are several; epochs beyond the first;
            size and schedule.
        middle: of the shares within each phase over the measured runs, (P * D,).
        spread: root mean square of the measured runs' distance from it.
    """

    centre: Tensor
    unit: Tensor
    low: Tensor
    high: Tensor
    pools: Tensor
    groups: tuple[slice, ...]
    middle: Tensor
    spread: float

    @classmethod
    def of(cls, design: Design) -> Features:
        """Learn centre and scale from measured runs."""
        pools = torch.nonzero((design.repeated > 0).any(0)).squeeze(1)
        parts = _parts(design, pools)
        ends = torch.tensor([0, *(part.shape[1] for part in parts)]).cumsum(0).tolist()
        raw = torch.cat(parts, 1)
        unit = raw.std(0, correction=0).clamp(min=LEAST_UNIT)
        measured = ((raw - raw.mean(0)) / unit)[:, ends[-2] :].detach()
        groups = tuple(slice(a, b) for a, b in pairwise(ends) if b > a)
        shares = _within(design).flatten(1).detach()
        spread = float((shares - shares.mean(0)).square().sum(1).mean().sqrt().clamp(min=LEAST_SPREAD))
        return cls(raw.mean(0), unit, measured.amin(0), measured.amax(0), pools, groups, shares.mean(0), spread)

    def __call__(self, design: Design) -> Tensor:
        """Coordinates of every recipe, (R, F); differentiable."""
        plain = (torch.cat(_parts(design, self.pools), 1) - self.centre) / self.unit
        first = self.groups[-1].start
        size = plain[:, first:]
        outside = (size - self.high).clamp(min=0) - (self.low - size).clamp(min=0)
        return torch.cat([plain[:, :first], size + (STRETCH - 1) * outside], 1)

    def and_shares(self, design: Design) -> Tensor:
        """The coordinates, and after them the shares within each phase, in units of `spread`, (R, F + P * D)."""
        return torch.cat([self(design), (_within(design).flatten(1) - self.middle) / self.spread], 1)


def _within(design: Design) -> Tensor:
    """Shares of the domains within each phase, (R, P, D)."""
    shares = design.shares
    return shares / shares.sum(2, keepdim=True).clamp(min=SOFT)


def _parts(design: Design, pools: Tensor) -> list[Tensor]:
    """Raw coordinates by group, (R, n) each."""
    shares = design.shares
    # From each phase on: a domain missing early matters little if a later phase has it.
    later = torch.log(shares.flip(1).cumsum(1).flip(1) + SOFT)
    parts = [later[:, 0], later[:, 1:-1].flatten(1)]
    if len(design.phases) > 1:
        parts.append(torch.log(_within(design) + SOFT).flatten(1))
    size = torch.stack([design.params.log(), design.total.log(), design.progress, design.final_lr], 1)
    return [*parts, torch.log1p(design.repeated[:, pools]), size]
