"""Jumps that recipes do not explain: values that are off by the factor of another unit, or by a version."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixlaw.records import Record

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]

_FACTORS = {"ln 2 (bits and nats)": math.log(math.log(2)), "100 (percent and shares)": math.log(100)}
_SHARP = 6.0  # a jump is believed where the rest of the spread is this much smaller
_IN_LINE, _EXACT = 4.0, 0.01  # each row that is off must then lie as near to the fit as the others do, or within this
_MIN_ROWS = 12


@dataclass(frozen=True)
class Model:
    """What recipes explain of the log of a value, by least squares.

    Attributes:
        features: log size, log tokens, progress and log shares of each row, reduced, shape (rows, k).
        bases: what `basis` has found before.
    """

    features: Floats
    bases: dict[bytes, Floats] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Model:
        """Features of recipes; as many of their principal components as a tenth of the rows carry."""
        domains = sorted({domain for record in records for domain in record.recipe.domains})
        raw = [
            [math.log(r.recipe.params), math.log(r.recipe.tokens), r.progress]
            + [math.log(p.mixture.share(d) + 0.01) for p in (r.recipe.phases[0], r.recipe.phases[-1]) for d in domains]
            for r in records
        ]
        centred = np.array(raw) - np.mean(raw, 0)
        scale = centred.std(0)
        scaled = centred[:, scale > 1e-9] / scale[scale > 1e-9]
        if not scaled.size:
            return cls(np.empty((len(records), 0)))
        strength, directions = np.linalg.eigh(scaled.T @ scaled)  # ascending
        rank = min(int(np.sum(strength > 1e-12 * strength[-1])), max(1, len(records) // 10), 40)
        return cls(scaled @ directions[:, -rank:] / np.sqrt(strength[-rank:] / len(records)))

    def basis(self, rows: Rows) -> Floats:
        """Orthonormal columns that span constant and features on some rows, shape (those rows, k + 1)."""
        key = rows.tobytes()  # most tasks were measured on the same rows
        if key not in self.bases:
            chosen = self.features[rows]
            self.bases[key] = np.linalg.qr(np.column_stack([np.ones(len(chosen)), chosen]))[0]
        return self.bases[key]

    def jump(self, values: Floats, off: Rows) -> tuple[float, float] | None:
        """Relative jump of the rows `off` and its standard error; None where it is not clear of noise."""
        there = np.isfinite(values) & (values > 0)
        if there.sum() < _MIN_ROWS or not 2 <= (off & there).sum() <= there.sum() - 2:
            return None
        basis, logs, side = self.basis(there), np.log(values[there]), off[there].astype(float)
        side = side - basis @ (basis.T @ side)
        residual = logs - basis @ (basis.T @ logs)
        power = float(side @ side)
        if power < 0.02 * (off & there).sum():  # the recipes tell the two sides apart: nothing can be said
            return None
        size = float(side @ residual) / power
        error = math.sqrt(
            float(np.sum((residual - size * side) ** 2)) / max(1, len(residual) - basis.shape[1] - 1) / power
        )
        return (math.expm1(size), error) if abs(size) > max(4 * error, 0.002) else None


def mixed_units(model: Model, values: Floats) -> tuple[list[int], str] | None:
    """Rows whose values are off by the factor between two units, the fewer of the two sides; None where there are none.

    The rows are found by alternating between a fit of recipes and a choice of the rows that the factor brings closer to
    it; the finding counts only if what then is left is far smaller than the factor, and if the rows that were moved lie
    as near to the fit as the others do: runs that diverged are off by a third, too, but each by another.
    """
    there = np.isfinite(values) & (values > 0)
    if there.sum() < _MIN_ROWS:
        return None
    logs, basis = np.log(values[there]), model.basis(there)
    plain = logs - basis @ (basis.T @ logs)
    best: tuple[float, list[int], str] | None = None
    for what, factor in _FACTORS.items():
        if np.ptp(plain) < 0.5 * abs(factor):
            continue
        for shift in (factor, -factor):
            for start in (np.zeros(len(logs), dtype=bool), plain * np.sign(shift) > 0):
                off, left = _split(logs, basis, shift, start)
                count, spread = int(off.sum()), float(left.std())
                sharp = spread < abs(factor) / _SHARP and spread < 0.5 * plain.std()
                sharp = sharp and bool(np.all(np.abs(left[off]) < max(_IN_LINE * left[~off].std(), _EXACT)))
                # A run that diverges is often off by a third; alone it says nothing about bits and nats.
                if (
                    sharp
                    and (1 if abs(factor) > 1 else 2) <= count <= len(logs) / 2
                    and (best is None or spread < best[0])
                ):
                    best = (spread, np.flatnonzero(there)[off].tolist(), what)
    return None if best is None else best[1:]


def _split(logs: Floats, basis: Floats, shift: float, off: Rows, steps: int = 12) -> tuple[Rows, Floats]:
    """Rows that lie nearer to the fit when moved by `-shift`, and the residuals that are left."""
    residual = logs
    for _ in range(steps):
        moved = logs - shift * off
        fit = basis @ (basis.T @ moved)
        residual = moved - fit
        chosen = np.abs(logs - fit - shift) < np.abs(logs - fit)
        if np.array_equal(chosen, off):
            break
        off = chosen
    return off, residual
