"""Values that answers are made of: intervals, forecasts and probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from mixlaw.analysis.data.observed import Z90
from mixlaw.numbers import percent
from mixlaw.tables import Cell, Tone

PROPOSAL = "proposal"  # the name of the recommended recipe among forecasts


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 90 % interval, in one unit."""

    mean: float
    lo90: float
    hi90: float

    def text(self, unit: str = "") -> str:
        """Value and half width, rounded together; both ends where one is much wider, as of a loss hardly known.

        Example:
            >>> Interval(1.4702, 0.4702, 2.4702).text(), Interval(1e-7, -9e-4, 9e-4).text()
            ('1.5 ± 1.0', '0.000 ± 0.001')
        """
        half, below = (self.hi90 - self.lo90) / 2, self.mean - self.lo90
        if abs(self.mean) < 10 * TINY and 0 < half < TINY:  # a gain of nothing needs no more digits
            return f"{self.mean:z.3f} ± {TINY:.3f}{unit}"
        digits = 4 if half <= 0 else max(0, min(6, 1 - _magnitude(half)))
        if self.hi90 - self.mean > SKEWED * below > 0 and half > SKEWED_FROM * abs(self.mean):
            digits = max(digits, min(6, 1 - _magnitude(self.lo90))) if self.lo90 > 0 else digits
            return f"{self.mean:z.{digits}f} ({self.lo90:z.{digits}f} to {self.hi90:z.{digits}f}){unit}"
        return f"{self.mean:z.{digits}f} ± {half:z.{digits}f}{unit}"

    def __repr__(self) -> str:
        return f"Interval({self.text()})"

    @property
    def tone(self) -> Tone:
        """Of a gain: whether its interval is clear of zero, and on which side."""
        return "better" if self.lo90 > 0 else "worse" if self.hi90 < 0 else ""

    def cell(self, tone: Tone | None = "") -> Cell:
        """The value in a table; None for the tone of a gain."""
        value = {"": self.mean, "lo90": self.lo90, "hi90": self.hi90}
        return Cell(self.text(), value, self.tone if tone is None else tone)


@dataclass(frozen=True)
class Forecast:
    """What one recipe is expected to measure on one task, frozen before it is trained.

    Attributes:
        recipe: `proposal`, or the name of a baseline.
        task, unit: what is measured.
        mean, lo90, hi90: expected value and 90 % interval of a measured value, in the unit.
        law_only: what the law says without the runs nearby.
    """

    recipe: str
    task: str
    unit: str
    mean: float
    lo90: float
    hi90: float
    law_only: float


#: Half width, and a tenth of the value, below which neither is written out: as a gain it decides nothing.
TINY = 0.001
#: Times the lower side that the upper one of an interval has to be, and share of the mean that the half width has to
#: be, for both ends to be printed.
SKEWED, SKEWED_FROM = 1.25, 0.25


def interval(values: Tensor) -> Interval:
    """Mean and normal 90 % interval of values over draws, (S,)."""
    mean, half = float(values.mean()), Z90 * float(values.std())
    return Interval(mean, mean - half, mean + half)


def widened(gain: Interval, noise: float) -> Interval:
    """The 90 % interval of a measured gain, from that of the expected one and a standard deviation over seeds."""
    low, high = (math.hypot(gain.mean - gain.lo90, Z90 * noise), math.hypot(gain.hi90 - gain.mean, Z90 * noise))
    return Interval(gain.mean, gain.mean - low, gain.mean + high)


def probability(values: Tensor) -> float:
    """Probability that a gain is positive, from its mean and spread over draws, (S,)."""
    spread = max(float(values.std()), 1e-9)
    return 0.5 * (1 + math.erf(float(values.mean()) / spread / math.sqrt(2)))


def chance_text(probability: float) -> str:
    """A probability in percent that never claims certainty."""
    return ">99 %" if probability > 0.99 else "<1 %" if probability < 0.01 else percent(probability)


def chance(probability: float) -> Cell:
    """The probability of being better, in a table."""
    tone: Tone = "better" if probability > 0.95 else "worse" if probability < 0.05 else ""
    return Cell(chance_text(probability), probability, tone)


def _magnitude(value: float) -> int:
    return int(f"{value:e}".split("e")[1])
