"""Held-out predictions: the rows of a fold, what was predicted for them, and the calibration that they imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.observed import Z90, Observed

#: Kind of the fold that holds the largest size out.
LARGEST = "largest size"
#: Kinds of folds among what was measured: of mixtures, or of runs where all have one mixture.
MIXTURES, RUNS = WITHIN = ("mixtures", "runs")
#: Rows of its own at which a task's calibration counts as much as the pooled one.
SHARED_ROWS = 40
#: Rows at which a narrowing is applied by half.
NARROW_ROWS = 300


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to learn from and rows to predict.

    Attributes:
        kind: "mixtures", "runs", "largest size" or "phase order".
        train, test: row numbers; no run and no mixture is in both.
        extrapolates: whether it tests the law beyond the measured sizes: a larger size, from at least two.
    """

    kind: str
    train: Tensor
    test: Tensor
    extrapolates: bool = False


@dataclass(frozen=True, eq=False)
class Held:
    """Predictions for the rows of one fold, in log loss relative to the tasks' centres.

    Attributes:
        fold: the rows.
        mean, law, deviation: predictions and the standard deviation of a new run, (Q, T).
        apart: standard deviation of how far a new run is from the mean over the rows, (Q, T): what gains are uncertain
            by, levels being common to all; that of the level where it is not known.
    """

    fold: Fold
    mean: Tensor
    law: Tensor
    deviation: Tensor
    apart: Tensor | None = None

    def z(self, observed: Observed) -> Tensor:
        """Standardised errors, NaN where not measured, (Q, T)."""
        error = (observed.target[:, self.fold.test].T - self.mean) / self.deviation
        return torch.where(observed.seen[:, self.fold.test].T, error, torch.nan)

    def gains(self, observed: Observed, factor: Tensor) -> Tensor:
        """Whether each difference from the rows' mean lies in its 90 % interval, NaN where not measured, (Q, T).

        Args:
            observed: all rows.
            factor: on widths, (T,).
        """
        seen = observed.seen[:, self.fold.test].T
        error = torch.where(seen, observed.target[:, self.fold.test].T - self.mean, torch.nan)
        inside = (error - error.nanmean(0)).abs() <= Z90 * factor * (
            self.deviation if self.apart is None else self.apart
        )
        return torch.where(seen, inside.to(torch.float64), torch.nan)


def calibrate(observed: Observed, held: Sequence[Held]) -> Tensor:
    """Factor per task on interval widths that puts 90 % of the held-out rows inside; tasks are partially pooled.

    Rows of the largest size are left out where there are others: a few of them cannot move a quantile of all, and what
    sizes differ by grows with their distance (`mixlaw.analysis.surface.discrepancy`).
    """
    held = [h for h in held if h.fold.kind != LARGEST] or held
    if not held:
        return torch.ones(len(observed.tasks), dtype=torch.float64)
    size = torch.cat([h.z(observed) for h in held]).abs()
    runs = len(set(observed.design.runs))
    # Tasks share their runs, so the pooled factor is as precise as the number of runs, shrunk to "calibrated".
    # Few runs may widen intervals but not narrow them much: too narrow does more harm than too wide.
    pooled = (torch.nanquantile(size, 0.9) / Z90).clamp(min=1e-3)
    pooled = pooled ** (runs / (runs + (SHARED_ROWS if pooled > 1 else NARROW_ROWS)))
    own = torch.nanquantile(size, 0.9, dim=0) / Z90
    count = (~size.isnan()).sum(0)
    own = own.nan_to_num(1.0).clamp(min=1e-3).log()
    weight = torch.where(own > pooled.log(), SHARED_ROWS, NARROW_ROWS)
    shrunk = (count * own + weight * pooled.log()) / (count + weight)
    return shrunk.exp().clamp(0.6, 4.0)
