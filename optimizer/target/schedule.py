"""The lengths of phases: fixed, free within a range, or what the free ones leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlaw.optimizer.target.target import LEAST, Span, Target

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lengths:
    """Lengths of the phases, as shares of the tokens still to be trained: an affine function of G free ones.

    Attributes:
        base: lengths where all free ones are 0, (P,).
        step: change by each free length, (P, G).
        free: index of the phase that each free length is of.
        ranges: least and greatest value of each, as the target asks for.
        remainder: index of the phases that share what the free ones leave.
        remainder_range: least and greatest sum of their lengths.
    """

    base: Floats
    step: Floats
    free: tuple[int, ...]
    ranges: tuple[Span, ...]
    remainder: tuple[int, ...]
    remainder_range: Span

    def __call__(self, free: Floats) -> Floats:
        """Lengths (..., P) for free ones (..., G)."""
        return np.asarray(self.base + free @ self.step.T)

    @classmethod
    def of(cls, target: Target) -> Lengths:
        """Which lengths of a target are free: those with a range, and the cooldown's."""
        last = len(target.phases) - 1
        if last == 0:
            return cls(np.ones(1), np.zeros((1, 0)), (), (), (0,), (1.0, 1.0))
        given = {i: target.lengths.get(phase, 1.0) for i, phase in enumerate(target.phases[:-1])}
        ranged = {i: value for i, value in given.items() if isinstance(value, tuple)}
        remainder = {i: float(value) for i, value in given.items() if not isinstance(value, tuple)}
        remainder_range = (LEAST, 1.0)
        if not remainder:  # all lengths have ranges: the first is what the others leave
            first, remainder_range = next(iter(ranged.items()))
            remainder = {first: 1.0}
            del ranged[first]
        free = (*ranged, last)
        base, step = np.zeros(last + 1), np.zeros((last + 1, len(free)))
        for i, weight in remainder.items():
            base[i] = weight / sum(remainder.values())
            step[i] = -base[i]
        for g, i in enumerate(free):
            step[i, g] = 1.0
        return cls(base, step, free, (*ranged.values(), target.cooldown), tuple(remainder), remainder_range)


def phase_tokens(target: Target, cooldown: float) -> dict[str, int]:
    """Whole tokens of each phase where the last takes the share `cooldown` and free lengths are in mid-range."""
    lengths = Lengths.of(target)
    free = [*(sum(span) / 2 for span in lengths.ranges[:-1]), *([cooldown] if lengths.ranges else [])]
    return target.split(lengths(np.array(free)).tolist())
