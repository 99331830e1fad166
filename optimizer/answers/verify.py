"""Verify: what proposals gained, paired with the baseline and beside the prediction; levels come second."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.answers.pairs import Pair, RungResult, measured_total, pair_of
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.goal.values import PROPOSAL, Forecast, Interval
from mixlaw.optimizer.policy import SAME
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Recipe
from mixlaw.tables import Cell, Column, Table, Tone, number


@dataclass(frozen=True)
class Check:
    """One frozen forecast of a level and the value measured since."""

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
    """Predicted and measured gains of proposals, then levels, and recipes that still wait for a run.

    Attributes:
        pairs: each proposal with a baseline, where both are trained, in the order in which proposals were frozen.
        checks: of levels, in the order of proposals, recipes and tasks; each run and task once.
        pending: predicted recipes that are not trained, as (proposal, recipe) names.
        rungs: of the ladders of validation that are trained.
    """

    pairs: tuple[Pair, ...]
    checks: tuple[Check, ...]
    pending: tuple[tuple[str, str], ...]
    rungs: tuple[RungResult, ...] = ()

    @property
    def coverage(self) -> float | None:
        """Share of measured gains inside their 90 % intervals; None before there is one."""
        gains = [gain for pair in self.pairs for gain in pair.gains]
        return sum(gain.inside for gain in gains) / len(gains) if gains else None

    @property
    def levels(self) -> float | None:
        """Share of measured levels inside their 90 % intervals; None before there is one."""
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
        return {
            "coverage": self.coverage,
            "levels": self.levels,
            "pairs": [pair.as_json() for pair in self.pairs],
            "rungs": [asdict(rung) for rung in self.rungs],
            "checks": rows,
            "pending": [list(pair) for pair in self.pending],
        }

    @property
    def sentence(self) -> str:
        """The verdict on each pair, or what is missing."""
        if self.pairs or self.rungs:
            return " ".join([*(pair.sentence for pair in self.pairs), *map(str, self.rungs)])
        if self.checks:
            waiting = ", ".join(sorted({name for _, name in self.pending}))
            return f"No gain can be verified yet: {waiting or 'a recipe'} is not trained; {self._of_levels()}."
        return (
            "Nothing to verify yet: none of the predicted recipes has been trained since. `mixlaw propose --queue` "
            "hands the proposal and the baseline to `mixlaw run`, `mixlaw export` to a trainer of your own."
        )

    def _of_levels(self) -> str:
        inside = sum(check.inside for check in self.checks)
        return f"{inside} of {len(self.checks)} measured levels lie inside their 90 % intervals"

    def table(self) -> Table:
        """Of levels."""
        columns = [
            *("recipe", "task", "unit"),
            Column("predicted"),
            Column("90 % interval", "interval", extra=True),
            Column("measured"),
            Column("off by", "error"),
            Column("", "inside", numeric=False),
            Column("proposal", numeric=False, extra=True),
        ]
        return Table("levels", columns, [_cells(check) for check in self.checks], "Levels", shown=SHOWN)

    def rows(self) -> list[list[str]]:
        """Cells of the table of levels, the first row its head."""
        return self.table().cells()

    def page(self) -> Page:
        """Gains, then levels, then the verdicts."""
        recipes = "recipe waits" if len(self.pending) == 1 else "recipes wait"
        waiting = [f"{len(self.pending)} {recipes} for a run"] if self.pending else []
        levels = [self._of_levels(), *waiting] if self.checks else []
        tables = [*(pair.table() for pair in self.pairs), *([self.table()] if self.checks else [])]
        return Page(self.sentence, self.pairs[0].tone if self.pairs else "", tables=tables, notes=levels)


def verify(
    proposals: Sequence[Proposal],
    table: pl.DataFrame,
    *,
    baseline: str | None = None,
    unique: Mapping[str, float] | None = None,
) -> Verification:
    """Compare frozen predictions with the finished runs of a table that trained just those recipes.

    A proposal's runs count if they were measured after it was frozen. A baseline's count from before, too, where there
    are none since: its part in the gain was known, that of the proposal was not. Several runs of one recipe (seeds) are
    averaged for the gain, and each a check of a level: of one proposal, the first that was trained itself, where there
    are several with its recipe. A run that would do for several proposals is one of the nearest; proposals of the same
    recipes are one: the first. Of several proposals for a model only the last waits for a run.

    Args:
        proposals: in the order in which they were frozen.
        table: of all runs.
        baseline: gains over this one alone; those over each baseline that is trained where None, the proposal's own
            first.
        unique: unique tokens by domain: a run that repeats otherwise is no run of the recipe. Not looked at where None.
    """
    pairs: dict[tuple[frozenset[str], frozenset[str]], Pair] = {}
    checks: dict[tuple[str, str], Check] = {}
    pending: list[tuple[str, str]] = []
    rungs: list[RungResult] = []
    found, measured = [], runs_in(table, unique)
    for proposal in proposals:
        runs = {name: runs_of(recipe, measured, unique) for name, recipe in proposal.recipes.items()}
        fresh = {name: [row for row in rows if _name(table, row) not in proposal.known] for name, rows in runs.items()}
        found.append((proposal, runs, fresh))
    last = {_model(proposal): proposal for proposal in proposals}
    nearest: dict[int, float] = {}
    for _, runs, fresh in found:
        for row in fresh[PROPOSAL]:
            nearest[row] = min(nearest.get(row, math.inf), runs[PROPOSAL][row])
    for _, runs, fresh in found:
        fresh[PROPOSAL] = [row for row in fresh[PROPOSAL] if runs[PROPOSAL][row] <= nearest[row]]
    for proposal, runs, fresh in sorted(found, key=lambda one: not one[2][PROPOSAL]):
        for name, rows in fresh.items():
            for check in _checks(proposal, name, rows, table):
                checks.setdefault((check.run, check.forecast.task), check)
        for name in _compared(proposal, baseline):
            others = fresh[name] or [*runs[name]]
            key = tuple(frozenset(_name(table, row) for row in rows) for rows in (fresh[PROPOSAL], others))
            if all(key) and key[0] != key[1] and key not in pairs:
                pairs[key[0], key[1]] = pair_of(proposal, name, table[fresh[PROPOSAL]], table[others], not fresh[name])
        rungs += _rungs(proposal, table, measured)
        if proposal is last[_model(proposal)]:
            waiting = {PROPOSAL: fresh[PROPOSAL], proposal.against: runs[proposal.against]}
            pending += [(proposal.id, name) for name, rows in waiting.items() if not rows]
    return Verification(tuple(pairs.values()), tuple(checks.values()), tuple(pending), tuple(rungs))


def _model(proposal: Proposal) -> tuple[int, int, tuple[str, ...]]:
    """Size, tokens and phases of what a proposal is for."""
    target = proposal.target
    return target.params, target.tokens, target.all_phases


def _rungs(proposal: Proposal, table: pl.DataFrame, measured: Runs | None) -> Iterator[RungResult]:
    """Rungs of which both recipes are trained; their unique tokens are in the runs' own columns."""
    for rung in proposal.ladder:
        mine, other = (
            [row for row in runs_of(recipe, measured) if _name(table, row) not in proposal.known]
            for recipe in (rung.recipe, rung.baseline)
        )
        if mine and other:
            gain = measured_total(proposal, table[mine], table[other])
            if gain is not None:
                yield RungResult(proposal.number, rung.recipe.params, gain, rung.mark)


def _compared(proposal: Proposal, baseline: str | None) -> list[str]:
    """Names of the baselines to compare a proposal with, its own first."""
    if baseline is not None:
        return [baseline] if baseline in proposal.baselines else []
    return [proposal.against, *(name for name in proposal.baselines if name != proposal.against)]


def _name(table: pl.DataFrame, row: int) -> str:
    return str(table["run"][row]) if "run" in table.columns else str(row)


def _checks(proposal: Proposal, name: str, rows: Sequence[int], table: pl.DataFrame) -> Iterator[Check]:
    for row in rows:
        for forecast in proposal.forecasts:
            column = f"metric:{forecast.task}"
            value = table[column][row] if forecast.recipe == name and column in table.columns else None
            if value is not None:
                yield Check(proposal.id, forecast, _name(table, row), float(value))


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a table.

    Attributes:
        design: R runs.
        warmup: tokens of each, not a number where the table does not say, (R,).
    """

    design: Design
    warmup: Tensor


def runs_in(table: pl.DataFrame, unique: Mapping[str, float] | None = None) -> Runs | None:
    """The runs of a table, for `runs_of`; None where there are none."""
    if not table.height:
        return None
    told = table["warmup"].to_list() if "warmup" in table.columns else [None] * table.height
    warmup = torch.tensor([math.nan if tokens is None else float(tokens) for tokens in told], dtype=torch.float64)
    return Runs(Design.from_table(table, unique or {}), warmup)


def runs_of(recipe: Recipe, runs: Runs | None, unique: Mapping[str, float] | None = None) -> dict[int, float]:
    """Rows of a table, as `runs_in` reads it, that are finished runs of a recipe, and how far each is from it.

    The distance is the part of the tokens that are of another phase or domain.

    Size and tokens agree within 1 %, and no more than 1 % of the tokens are of another phase or domain; peak rate, end
    and shape of every decay, warm-up where both say it, and, with `unique`, the unique tokens of every domain that is
    used are the recipe's.
    """
    if runs is None:
        return {}
    design, warmup = runs.design, math.nan if recipe.warmup is None else float(recipe.warmup)
    phases, domains = (p.name for p in recipe.phases), recipe.domains
    if not {*phases} <= {*design.phases} or not {*domains} <= {*design.domains}:
        return {}
    wanted = design_of([recipe], design.phases, design.domains, unique or {})
    used = wanted.tokens.sum(1) > SAME * wanted.total[:, None]
    repeats = ((design.unique / wanted.unique).nan_to_num(1.0) - 1).abs() < UNIQUE
    shaped = (wanted.lr_end < 1) & (wanted.tokens.sum(2) > 0)
    apart = 0.5 * (design.shares - wanted.shares).abs().sum((1, 2))
    close = (
        ((design.params / wanted.params - 1).abs() < SAME)
        & ((design.total / wanted.total - 1).abs() < SAME)
        & (apart < SAME)
        & (design.progress >= 1)
        & ((design.lr_end - wanted.lr_end).abs() < SAME).all(1)
        & ((design.lr / wanted.lr - 1).abs() < SAME)
        & ((design.decay == wanted.decay) | ~shaped).all(1)
        & ((repeats | ~used).all(1) if unique is not None else True)
        & ~((runs.warmup - warmup).abs() > SAME * recipe.tokens)
    )
    return {row: float(apart[row]) for row in torch.nonzero(close).flatten().tolist()}


#: Relative difference in unique tokens below which a domain repeats alike.
UNIQUE = 0.05


#: Levels that are printed.
SHOWN = 12


def _cells(check: Check) -> list[Cell | str]:
    forecast = check.forecast
    predicted = Interval(forecast.mean, forecast.lo90, forecast.hi90)
    digits = len(predicted.text().split(" ")[0].partition(".")[2])
    span = f"{forecast.lo90:.{digits}f} to {forecast.hi90:.{digits}f}"
    tone: Tone = "" if check.inside else "worse"
    return [
        *(forecast.recipe, forecast.task, forecast.unit),
        number(forecast.mean, f".{digits}f"),
        Cell(span, {"lo90": forecast.lo90, "hi90": forecast.hi90}),
        number(check.measured, f".{digits}f", tone),
        number(check.error, "+.1%"),
        Cell("inside" if check.inside else "MISSED", check.inside, tone),
        check.proposal,
    ]
