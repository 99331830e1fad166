"""Coordinates that measure distances of recipes: log exposures by domain from each phase on, size, tokens, schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design

#: Shares enter as log(share + SOFT): logarithmic above it, finite at exactly zero.
SOFT = 0.001
#: Floor of the standard deviation of a coordinate: constant coordinates are scaled by it.
LEAST_UNIT = 0.35
#: Factor on distances outside of the measured sizes and budgets: the residual process reverts to zero there.
STRETCH = 5.0


@dataclass(frozen=True, eq=False)
class Features:
    """Map from recipes to standardised coordinates, centred and scaled on the measured runs.

    Attributes:
        centre, unit: of each coordinate, (F,).
        low, high: measured range of the size coordinates, in standard units.
        mixture, phase, size: coordinates of the whole mixture, of each later phase and its successors, of the size and
            the schedule.
    """

    centre: Tensor
    unit: Tensor
    low: Tensor
    high: Tensor
    mixture: slice
    phase: slice
    size: slice

    @classmethod
    def of(cls, design: Design) -> Features:
        """Learn centre and scale from measured runs."""
        raw = _raw(design)
        k, phases = len(design.domains), len(design.phases)
        late = k * (phases - 1)
        unit = raw.std(0, correction=0).clamp(min=LEAST_UNIT)
        size = slice(k + late, raw.shape[1])
        measured = ((raw - raw.mean(0)) / unit)[:, size].detach()
        ends = measured.amin(0), measured.amax(0)
        return cls(raw.mean(0), unit, *ends, slice(0, k), slice(k, k + late), size)

    @property
    def groups(self) -> tuple[slice, ...]:
        """Groups of coordinates with similar length scales."""
        return tuple(s for s in (self.mixture, self.phase, self.size) if s.stop > s.start)

    def __call__(self, design: Design) -> Tensor:
        """Coordinates of every recipe, (R, F); differentiable."""
        plain = (_raw(design) - self.centre) / self.unit
        size = plain[:, self.size]
        outside = (size - self.high).clamp(min=0) - (self.low - size).clamp(min=0)
        return torch.cat([plain[:, : self.size.start], size + (STRETCH - 1) * outside], 1)


def _raw(design: Design) -> Tensor:
    # From each phase on, not phase by phase: a domain missing early matters little if a later phase has it.
    later = design.shares.flip(1).cumsum(1).flip(1)
    exposures = torch.log(later + SOFT).flatten(1)
    size = torch.stack([design.params.log(), design.total.log(), design.progress, design.final_lr], 1)
    return torch.cat([exposures, size], 1)
