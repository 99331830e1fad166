"""A proposal and a baseline, both trained: measured gains beside predicted ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import torch

from mixlaw.analysis.data.observed import Z90, to_log_loss
from mixlaw.numbers import size
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.goal.goal import Measure
from mixlaw.optimizer.goal.values import Interval, widened
from mixlaw.tables import Cell, Column, Table, Tone

SHOWN = 4  # tasks that a sentence names


@dataclass(frozen=True)
class PairedGain:
    """A gain, predicted and measured, in the unit of the goal.

    Attributes:
        task: or "all, by weight".
        predicted: with the 90 % interval of what these runs measure, noise of their seeds included.
        measured: the mean over the proposal's runs less that over the baseline's.
        noise: standard deviation of the measured gain over seeds.
    """

    task: str
    predicted: Interval
    measured: float
    noise: float

    @property
    def inside(self) -> bool:
        """Whether the measured gain lies in the interval."""
        return self.predicted.lo90 <= self.measured <= self.predicted.hi90

    @property
    def sign(self) -> int:
        """1 where it is clearly better than the baseline, -1 where it is clearly worse, 0 where seeds may decide."""
        return 0 if abs(self.measured) <= Z90 * self.noise else int(math.copysign(1, self.measured))


@dataclass(frozen=True)
class RungResult:
    """A rung of a ladder of validation that is trained.

    Attributes:
        number: of the proposal.
        params: size of the rung.
        measured, mark: gain of all tasks together, and the least with which the proposal passes.
    """

    number: int
    params: int
    measured: float
    mark: float

    def __str__(self) -> str:
        passes = "passes" if self.measured >= self.mark else "fails"
        gains = f"{self.measured:+.2g} measured, mark {self.mark:+.2g}"
        return f"At {size(self.params)} params proposal {self.number} {passes}: {gains}."


@dataclass(frozen=True)
class Pair:
    """A proposal and a baseline that are both trained.

    Attributes:
        proposal, number: id of the proposal and its number in the study.
        against: name of the baseline.
        unit: of gains.
        gains: by task.
        total: of all tasks together; None where the goal is a function of values.
        runs: of the proposal and of the baseline, seeds that were averaged.
        earlier: whether the baseline was measured before the proposal was frozen.
        most: what each guarded task may lose.
    """

    proposal: str
    number: int
    against: str
    unit: str
    gains: tuple[PairedGain, ...]
    total: PairedGain | None
    runs: tuple[int, int]
    earlier: bool
    most: Mapping[str, float]

    @property
    def beyond_guard(self) -> tuple[str, ...]:
        """Guarded tasks that have measurably lost more than the guard allows."""
        limit = {gain.task: -self.most[gain.task] - Z90 * gain.noise for gain in self.gains if gain.task in self.most}
        return tuple(g.task for g in self.gains if g.task in limit and g.measured < limit[g.task])

    @property
    def by_sign(self) -> tuple[list[PairedGain], ...]:
        """Measured gains that are clearly better, within seed noise, and clearly worse."""
        return tuple([gain for gain in self.gains if gain.sign == sign] for sign in (1, 0, -1))

    @property
    def sentence(self) -> str:
        """The verdict: who won, by how much, on how many tasks, and how far predictions held."""
        better, same, worse = self.by_sign
        name = f"Proposal {self.number}" if self.number else "The proposal"
        lost = "".join(f" ({_listed(worse)})" for _ in worse[:1])
        head = f"{name} {self._outcome()} {self.against}"
        if self.total is not None:
            head += f": {self.total.measured:+.2g} {self.unit} measured, {self.total.predicted.text()} predicted"
        inside = sum(gain.inside for gain in self.gains)
        noise = f", {len(same)} within seed noise" if same else ""
        guard = f"; beyond its guard on {', '.join(self.beyond_guard)}" if self.beyond_guard else ""
        return (
            f"{head}; better on {len(better)} of {len(self.gains)} tasks, worse on {len(worse)}{lost}{noise}{guard}; "
            f"{inside} of {len(self.gains)} gains lie inside their 90 % intervals."
        )

    def _outcome(self) -> str:
        if self.total is None:
            return "was trained beside"
        return {1: "beats", 0: "is not clearly better than", -1: "loses to"}[self.total.sign]

    def table(self) -> Table:
        """Measured beside predicted gains; the greatest measured gain first."""
        columns = [
            "task",
            Column(f"measured gain over {self.against}, {self.unit}", "measured"),
            Column("predicted"),
            Column("", "inside", numeric=False),
            "verdict",
        ]
        ordered = sorted(self.gains, key=lambda gain: -gain.measured)
        rows = [_row(gain) for gain in (*ordered, *([self.total] if self.total else ()))]
        return Table(f"pair {self.number} {self.against}", columns, rows, self.title)

    @property
    def title(self) -> str:
        """Who is compared with whom."""
        return f"proposal {self.number or self.proposal} against {self.against}"

    @property
    def tone(self) -> Tone:
        """Whether the proposal won; one that breaks its guard did not."""
        if self.total is None:
            return ""
        return "unsure" if self.total.sign > 0 and self.beyond_guard else ("unsure", "better", "worse")[self.total.sign]

    def rows(self) -> list[list[str]]:
        """Cells of the table, heads first."""
        return self.table().cells()

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        gains = [{**asdict(gain), "inside": gain.inside} for gain in self.gains]
        total = {**asdict(self.total), "inside": self.total.inside} if self.total else None
        return {**asdict(self), "gains": gains, "total": total, "sentence": self.sentence}


def _row(gain: PairedGain) -> list[Cell | str]:
    words: dict[int, tuple[str, Tone]] = {1: ("better", "better"), 0: ("within seed noise", ""), -1: ("worse", "worse")}
    verdict, tone = words[gain.sign]
    inside = Cell("inside", True) if gain.inside else Cell("MISSED", False, "worse")
    measured = Cell(f"{gain.measured:+.2f}", gain.measured, tone)
    return [gain.task, measured, gain.predicted.cell(), inside, Cell(verdict, tone=tone)]


def _listed(gains: list[PairedGain]) -> str:
    ordered = sorted(gains, key=lambda gain: gain.measured)
    more = f" and {len(gains) - SHOWN} more" if len(gains) > SHOWN else ""
    return ", ".join(f"{gain.task} {gain.measured:.2g}" for gain in ordered[:SHOWN]) + more


def pair_of(proposal: Proposal, against: str, mine: pl.DataFrame, other: pl.DataFrame, earlier: bool) -> Pair:
    """Measured gains beside predicted ones, from the runs of a proposal and those of a baseline; means over runs."""
    predicted, runs = proposal.over[against], (mine.height, other.height)
    spread = math.sqrt(1 / runs[0] + 1 / runs[1])
    gains = [
        PairedGain(
            task, widened(predicted.by_task[task], proposal.noise[task] * spread), gain, proposal.noise[task] * spread
        )
        for task, gain in _measured(proposal, mine, other).items()
    ]
    total = _total(proposal, gains, predicted.total)
    return Pair(
        proposal.id,
        proposal.number,
        against,
        proposal.unit,
        tuple(gains),
        total,
        runs,
        earlier,
        dict(proposal.may_lose),
    )


def measured_total(proposal: Proposal, mine: pl.DataFrame, other: pl.DataFrame) -> float | None:
    """Measured gain of all tasks together; None where a task is missing or the goal is a function of values."""
    gains = [PairedGain(t, Interval(g, g, g), g, 0.0) for t, g in _measured(proposal, mine, other).items()]
    total = _total(proposal, gains, Interval(0.0, 0.0, 0.0))
    return None if total is None else total.measured


def _measured(proposal: Proposal, mine: pl.DataFrame, other: pl.DataFrame) -> dict[str, float]:
    """Measured gain by task, of those that both have."""
    units, gains = {forecast.task: forecast.unit for forecast in proposal.forecasts}, {}
    for task in proposal.gains:
        values = [_values(table, task) for table in (mine, other)]
        if all(len(v) for v in values):
            gains[task] = _gain(values[0], values[1], units[task], proposal, task)
    return gains


def _values(table: pl.DataFrame, task: str) -> torch.Tensor:
    column = f"metric:{task}"
    values = table[column].drop_nulls().to_list() if column in table.columns else []
    return torch.tensor(values, dtype=torch.float64)


def _gain(mine: torch.Tensor, other: torch.Tensor, unit: str, proposal: Proposal, task: str) -> float:
    if proposal.unit == Measure.POINTS.value:
        return 100 * float(mine.mean() - other.mean())
    percent = 100 * float(to_log_loss(other, unit).mean() - to_log_loss(mine, unit).mean())
    return percent * proposal.percent[task]


def _total(proposal: Proposal, gains: list[PairedGain], predicted: Interval) -> PairedGain | None:
    """All tasks together: the weighted mean, or the worst of those that count; None where a task is missing."""
    by_task = {gain.task: gain for gain in gains}
    counted = {task: weight for task, weight in proposal.weights.items() if weight > 0}
    if not set(counted) <= set(by_task) or not proposal.combined:
        return None
    if proposal.combined == "worst":
        worst = min((by_task[task] for task in counted), key=lambda gain: gain.measured)
        return PairedGain("the worst task", widened(predicted, worst.noise), worst.measured, worst.noise)
    measured = sum(weight * by_task[task].measured for task, weight in counted.items())
    noise = math.sqrt(sum((weight * by_task[task].noise) ** 2 for task, weight in counted.items()))
    return PairedGain("all, by weight", widened(predicted, noise), measured, noise)
