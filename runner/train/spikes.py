"""Skipped steps: batches whose loss spikes or is not finite; after eight in a row, a rollback.

A step is judged before the weights change. It is bad if its loss or gradient is not finite, or if the loss is six
standard deviations above the last 128 steps of the phase (the rule of OLMo 2, arXiv:2501.00656) and a tenth above
their mean. A single bad batch is skipped. Eight in a row mean that the weights are damaged: training rolls back to the
last checkpoint before them and skips those batches and the eight before them, as PaLM did (Chowdhery et al. 2022,
arXiv:2204.02311, section 5.1).

All of it follows from the losses alone, and every checkpoint holds the recent ones: a run that was killed skips the
same batches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW, LEAST = 128, 64  # most recent steps to compare with, and fewest: with less history nothing is a spike
DEVIATIONS, RISE = 6.0, 0.1
IN_A_ROW, BEFORE = 8, 8  # bad steps that cause a rollback, and batches skipped before the first of them
ROLLBACKS = 3  # in one segment


class Diverging(Exception):
    """The weights are damaged; training must resume from a checkpoint of at most `step` steps."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"loss {loss} after step {step}")
        self.step, self.loss = step, loss


@dataclass
class Watch:
    """Judges the steps of a segment.

    Attributes:
        begin: first step of the segment.
        recent: losses of the last steps of this phase that were not skipped.
        skipped: steps skipped since the beginning of the recipe.
        marked: steps to skip without a look at their batch.
        bad: bad steps in a row.
        rollbacks: so far in this segment.
    """

    begin: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    skipped: list[int] = field(default_factory=list)
    marked: set[int] = field(default_factory=set)
    bad: int = 0
    rollbacks: int = 0

    def accepts(self, step: int, loss: float, norm: float) -> bool:
        """Whether a step may update the weights, given its loss and the norm of its gradient.

        Raises:
            Diverging: it is the eighth bad one in a row.
        """
        if self._usual(loss) and math.isfinite(norm):
            self.recent.append(loss)
            self.bad = 0
            return True
        self.skipped.append(step)
        self.bad += 1
        if self.bad >= IN_A_ROW:
            raise self.diverging(step, loss)
        return False

    def diverging(self, step: int, loss: float) -> Diverging:
        """Mark the bad steps up to `step` and those before them, to be skipped after the rollback."""
        first = max(self.begin, step - self.bad + 1 - BEFORE)
        self.marked |= set(range(first, step + 1))
        self.rollbacks += 1
        return Diverging(first, loss)

    def skips(self, step: int) -> bool:
        """Whether a step is marked; counts it as skipped."""
        if step not in self.marked:
            return False
        self.skipped.append(step)
        return True

    def _usual(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return False
        if len(self.recent) < LEAST:
            return True
        mean = sum(self.recent) / len(self.recent)
        deviation = math.sqrt(sum((past - mean) ** 2 for past in self.recent) / len(self.recent))
        return loss <= mean + max(DEVIATIONS * deviation, RISE * mean)

    def as_json(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"losses": list(self.recent), "skipped": self.skipped, "bad": self.bad}

    def resume(self, state: Mapping[str, Any], same_phase: bool) -> None:
        """Restore the state of a checkpoint; losses of another phase are no measure for this one."""
        self.recent.clear()
        self.recent.extend(state.get("losses", ()) if same_phase else ())
        self.skipped = list(state.get("skipped", ()))
        self.bad = int(state.get("bad", 0)) if same_phase else 0
