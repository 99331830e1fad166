"""Replay: a table of finished runs, revealed one by one, to see how soon a way of choosing runs finds a good one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.analysis.data.observed import higher_is_better
from mixlaw.errors import InputError

Floats = NDArray[np.float64]
#: Flops per parameter and token of training (Kaplan et al. 2020, arXiv:2001.08361).
FLOPS = 6.0


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method may know: every recipe, and what those that were trained have shown.

    Attributes:
        candidates: the recipes, a row each, without any metric.
        taken: rows that were trained, in that order.
        values: measured on them, in the unit.
        task, unit: what was measured.
    """

    candidates: pl.DataFrame
    taken: tuple[int, ...]
    values: tuple[float, ...]
    task: str
    unit: str

    @property
    def table(self) -> pl.DataFrame:
        """Trained recipes with what they measured: the contract's table."""
        rows = self.candidates[list(self.taken)]
        return rows.with_columns(pl.Series(f"metric:{self.task}", self.values, dtype=pl.Float64))

    @property
    def losses(self) -> Floats:
        """Measured values, lower is better."""
        return np.array(self.values) * (-1 if higher_is_better(self.unit) else 1)

    @property
    def left(self) -> NDArray[np.int64]:
        """Rows not trained yet."""
        return np.setdiff1d(np.arange(self.candidates.height), self.taken)

    @property
    def best(self) -> int:
        """Row that measured best so far."""
        return self.taken[int(self.losses.argmin())]


@dataclass(frozen=True)
class Choice:
    """Rows to train next, and the row that is recommended in the light of what was seen."""

    runs: tuple[int, ...]
    recommended: int


class Method(Protocol):
    """A way of choosing runs."""

    def __call__(self, seen: Seen, count: int, draw: np.random.Generator) -> Choice:
        """Choose `count` rows that were not trained yet."""


@dataclass(frozen=True, eq=False)
class Replay:
    """An environment over a table: taking a row reveals its value and costs its FLOPs.

    Attributes:
        candidates: recipes without metrics, (R rows).
        values: of all of them, (R,); a method sees those of `taken` alone.
        costs: FLOPs of each, (R,).
        task, unit: what is measured.
        taken: rows revealed, in that order.
    """

    candidates: pl.DataFrame
    values: Floats
    costs: Floats
    task: str
    unit: str
    taken: tuple[int, ...] = ()

    @classmethod
    def of(cls, table: pl.DataFrame, task: str, unit: str) -> Replay:
        """Every row of a table that measured the task, none taken; a run costs 6 N D.

        Raises:
            InputError: the table does not measure the task.
        """
        metric = f"metric:{task}"
        if metric not in table.columns or not table[metric].drop_nulls().len():
            known = [c.removeprefix("metric:") for c in table.columns if c.startswith("metric:")]
            raise InputError(f"no run measures {task!r}; name one of {', '.join(known) or 'the tasks of a table'}")
        table = table.filter(pl.col(metric).is_not_null())
        tokens = table.select(pl.sum_horizontal(pl.col("^tokens:.*$"))).to_series().to_numpy()
        hidden = [c for c in table.columns if c.startswith(("metric:", "noise:"))]
        values = table[metric].to_numpy().astype(np.float64)
        return cls(table.drop(hidden), values, FLOPS * table["params"].to_numpy() * tokens, task, unit)

    def take(self, rows: Sequence[int]) -> Replay:
        """The same with more rows revealed.

        Raises:
            InputError: a row that is not in the table, or was taken before.
        """
        taken = [*self.taken, *rows]
        wrong = [row for i, row in enumerate(taken) if not 0 <= row < len(self.values) or row in taken[:i]]
        if wrong:
            raise InputError(f"row {wrong[0]} was taken before or is not there; take a row of `seen.left`")
        return replace(self, taken=tuple(int(row) for row in taken))

    @property
    def seen(self) -> Seen:
        """What a method may know by now."""
        values = tuple(float(self.values[row]) for row in self.taken)
        return Seen(self.candidates, self.taken, values, self.task, self.unit)

    @property
    def cost(self) -> float:
        """FLOPs of what was taken."""
        return float(self.costs[list(self.taken)].sum())

    def regret(self, row: int) -> float:
        """By how much a row is worse than the best of the table, in the unit, >= 0."""
        return float(abs(self.values[row] - self.values[self.order[0]]))

    def rank(self, row: int) -> int:
        """Place of a row in the table, 1 is the best."""
        return int(np.flatnonzero(self.order == row)[0]) + 1

    @property
    def order(self) -> NDArray[np.int64]:
        """Rows, best first."""
        sign = -1 if higher_is_better(self.unit) else 1
        return np.argsort(sign * self.values, kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Step:
    """Result of a method after some runs.

    Attributes:
        runs: trained so far.
        cost: their FLOPs.
        regret: of the row that it recommends.
        recommended: place of that row in the table, 1 is the best.
        found: place of the best row trained.
    """

    runs: int
    cost: float
    regret: float
    recommended: int
    found: int


def replay(
    world: Replay, method: Method, batches: Sequence[int], draw: np.random.Generator, enough: int = 0
) -> list[Step]:
    """Let a method choose batches of runs, and look at its recommendation before each and after the last.

    Args:
        world: with the runs that the method starts from.
        method: what chooses.
        batches: runs per batch.
        draw: for what the method leaves to chance.
        enough: stop once one of this many best rows was trained or is recommended; never, if 0.
    """
    steps = []
    for count in (*batches, 0):
        choice = method(world.seen, count, draw)
        row = choice.recommended
        best = min(world.rank(taken) for taken in world.taken)
        steps.append(Step(len(world.taken), world.cost, world.regret(row), world.rank(row), best))
        if min(best, world.rank(row)) <= enough:
            break
        world = world.take(choice.runs)
    return steps


def needed(steps: Sequence[Step], best: int) -> float:
    """Runs until one of the `best` best rows is trained, if a recommendation is trained next; infinite if never."""
    for step in steps:
        if step.found <= best:
            return step.runs
        if step.recommended <= best:
            return step.runs + 1
    return float("inf")
