"""Verify: predictions beside what was measured, misses included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import polars as pl
import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.goal.gains import apart
from mixlaw.optimizer.goal.values import Forecast, Interval
from mixlaw.optimizer.policy import SAME
from mixlaw.printable import Printable, html_table, text_table
from mixlaw.recipe import Recipe


@dataclass(frozen=True)
class Check:
    """One frozen forecast and the value measured since."""

    proposal: str
    forecast: Forecast
    run: str
    measured: float

    @property
    def inside(self) -> bool:
        """Whether the value lies in the 90 % interval."""
        return self.forecast.lo90 <= self.measured <= self.forecast.hi90

    @property
    def error(self) -> float:
        """Measured over predicted, minus one."""
        return self.measured / self.forecast.mean - 1


@dataclass(frozen=True)
class Verification(Printable):
    """All forecasts that can be checked, and those that still wait for a run.

    Attributes:
        checks: in the order of proposals, recipes and tasks.
        pending: predicted recipes that are not trained, as (proposal, recipe) names.
    """

    checks: tuple[Check, ...]
    pending: tuple[tuple[str, str], ...]

    @property
    def coverage(self) -> float | None:
        """Share of measured values inside their 90 % interval; None before there is one."""
        return sum(check.inside for check in self.checks) / len(self.checks) if self.checks else None

    def measured(self, proposal: str) -> dict[tuple[str, str], list[float]]:
        """Values measured since by (recipe, task), of the proposal with this id."""
        values: dict[tuple[str, str], list[float]] = {}
        for check in self.checks:
            if check.proposal == proposal:
                values.setdefault((check.forecast.recipe, check.forecast.task), []).append(check.measured)
        return values

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{**asdict(check), "inside": check.inside, "error": check.error} for check in self.checks]
        return {"coverage": self.coverage, "checks": rows, "pending": [list(pair) for pair in self.pending]}

    @property
    def sentence(self) -> str:
        """What the checks say, in words."""
        if not self.checks:
            return (
                "Nothing to verify yet: none of the predicted recipes has been trained; "
                "`mixlaw propose --queue` hands the proposal and the best baseline to `mixlaw run`."
            )
        inside = sum(check.inside for check in self.checks)
        waiting = f"; {len(self.pending)} recipes wait for a run" if self.pending else ""
        return f"{inside} of {len(self.checks)} measured values lie inside their 90 % intervals{waiting}."

    def rows(self) -> list[list[str]]:
        """Cells of a table, the first row its head."""
        head = ["recipe", "task", "unit", "predicted", "90 % interval", "measured", "off by", "", "proposal"]
        return [head, *(_cells(check) for check in self.checks)]

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(["", text_table(self.rows())] if self.checks else [])])

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.sentence)}</b></p>{html_table(self.rows())}"


def verify(proposals: Sequence[Proposal], table: pl.DataFrame) -> Verification:
    """Compare frozen forecasts with the finished runs of a table that trained just those recipes.

    A run is a recipe where size, tokens, peak rate, ends of decays and the share of tokens by phase and domain agree
    within 1 %, and decays have one shape. Several runs of one recipe (seeds) are each a check.
    """
    checks: list[Check] = []
    pending: list[tuple[str, str]] = []
    for proposal in proposals:
        for name, recipe in proposal.recipes.items():
            matches = list(_checks(proposal, name, recipe, table))
            checks += matches
            if not matches:
                pending.append((proposal.id, name))
    return Verification(tuple(checks), tuple(pending))


def _checks(proposal: Proposal, name: str, recipe: Recipe, table: pl.DataFrame) -> Iterator[Check]:
    for row in runs_of(recipe, table):
        for forecast in proposal.forecasts:
            column = f"metric:{forecast.task}"
            value = table[column][row] if forecast.recipe == name and column in table.columns else None
            if value is not None:
                run = str(table["run"][row]) if "run" in table.columns else str(row)
                yield Check(proposal.id, forecast, run, float(value))


def runs_of(recipe: Recipe, table: pl.DataFrame) -> list[int]:
    """Rows of a table that are finished runs of a recipe."""
    if not table.height:
        return []
    design = Design.from_table(table, {})
    phases, domains = (p.name for p in recipe.phases), recipe.domains
    if not {*phases} <= {*design.phases} or not {*domains} <= {*design.domains}:
        return []
    wanted = design_of([recipe], design.phases, design.domains, {})
    close = (
        ((design.params / wanted.params - 1).abs() < SAME)
        & ((design.total / wanted.total - 1).abs() < SAME)
        & (apart(design.shares, wanted.shares)[:, 0] < SAME)
        & (design.progress >= 1)
        & ((design.lr_end - wanted.lr_end).abs() < SAME).all(1)
        & (design.decay == wanted.decay).all(1)
        & ((design.lr / wanted.lr - 1).abs() < SAME)
    )
    return [int(row) for row in torch.nonzero(close).flatten()]


def _cells(check: Check) -> list[str]:
    forecast = check.forecast
    predicted = Interval(forecast.mean, forecast.lo90, forecast.hi90)
    digits = len(predicted.text().split(" ")[0].partition(".")[2])
    span = f"{forecast.lo90:.{digits}f} to {forecast.hi90:.{digits}f}"
    names = [forecast.recipe, forecast.task, forecast.unit]
    values = [f"{forecast.mean:.{digits}f}", span, f"{check.measured:.{digits}f}", f"{check.error:+.1%}"]
    return [*names, *values, "inside" if check.inside else "MISSED", check.proposal]
