"""Steps that are not made: batches whose loss leaps or is no number, and those that spoilt the weights.

A step is judged before the weights change. Its loss is bad if it or the gradient is no number, or if it lies six
standard deviations above the last 128 steps of the phase (the rule of OLMo 2, arXiv:2501.00656) and a tenth above
their mean. A single bad batch is left out. Eight in a row mean that the weights themselves are spoilt: training goes
back to the last checkpoint before them and leaves out those batches and the eight before them, as PaLM did
(Chowdhery et al. 2022, arXiv:2204.02311, section 5.1).

All of it follows from the losses alone, and the recent ones stand in every checkpoint: a run that was killed leaves out
the same batches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW, LEAST = 128, 64  # steps that tell what is usual; fewer than the second tell nothing
DEVIATIONS, RISE = 6.0, 0.1
IN_A_ROW, BEFORE = 8, 8  # bad steps that mean spoilt weights, and batches left out before the first of them
RETURNS = 3  # to a checkpoint, in one segment


class Diverging(Exception):
    """The weights are spoilt; training goes on from a checkpoint of at most `step` steps."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"loss {loss} after step {step}")
        self.step, self.loss = step, loss


@dataclass
class Watch:
    """Judges the steps of a segment.

    Attributes:
        begin: first step of the segment.
        recent: losses of the last steps made in this phase.
        skipped: steps not made since the beginning of the recipe.
        marked: steps that will not be made.
        bad: bad steps in a row.
        returns: how often training went back.
    """

    begin: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    skipped: list[int] = field(default_factory=list)
    marked: set[int] = field(default_factory=set)
    bad: int = 0
    returns: int = 0

    def made(self, step: int, loss: float, norm: float) -> bool:
        """Whether a step is to be made, given its loss and the norm of its gradient.

        Raises:
            Diverging: it is the eighth in a row that is not.
        """
        if self._usual(loss) and math.isfinite(norm):
            self.recent.append(loss)
            self.bad = 0
            return True
        self.skipped.append(step)
        self.bad += 1
        if self.bad >= IN_A_ROW:
            raise self.spoilt(step, loss)
        return False

    def spoilt(self, step: int, loss: float) -> Diverging:
        """Mark the bad steps up to `step` and those before them, to be left out next time."""
        first = max(self.begin, step - self.bad + 1 - BEFORE)
        self.marked |= set(range(first, step + 1))
        self.returns += 1
        return Diverging(first, loss)

    def skips(self, step: int) -> bool:
        """Whether a step is left out without a look at its batch."""
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
        """What a checkpoint keeps."""
        return {"losses": list(self.recent), "skipped": self.skipped, "bad": self.bad}

    def go_on(self, kept: Mapping[str, Any], same_phase: bool) -> None:
        """Take up what a checkpoint kept; losses of another phase do not tell what is usual in this one."""
        self.recent.clear()
        self.recent.extend(kept.get("losses", ()) if same_phase else ())
        self.skipped = list(kept.get("skipped", ()))
        self.bad = int(kept.get("bad", 0)) if same_phase else 0
