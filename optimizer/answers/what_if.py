"""What a recipe would measure, and the effect of one more point of any domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.optimizer.answers.compare import Standing, gain_between, standing_of
from mixlaw.optimizer.goal.evidence import forecasts_of
from mixlaw.optimizer.goal.goal import Goal, Measure, utility_of
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.values import Forecast, Interval, interval
from mixlaw.optimizer.search.problem import Problem, design_and_history, distinct, without_past
from mixlaw.optimizer.target.history import PrefixHistory
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Domain, Recipe
from mixlaw.tables import Cell, Column, Table, Tone

POINT = 0.01  # share of the tokens that are still to be trained
LEAST = 1e-6  # of a point that the others of a phase must have to give
MOST = 12  # effects of a point that are printed


@dataclass(frozen=True)
class Worthwhile:
    """What one more point of a domain in a phase is worth to a task.

    Attributes:
        phase, domain, task: what is moved, and who feels it.
        gain: percent of loss for 1 % of the tokens still to be trained, taken from the phase's other domains in
            proportion; in proportion to a point where the others have less than that.
    """

    phase: str
    domain: str
    task: str
    gain: Interval


@dataclass(frozen=True)
class WhatIf(Printable):
    """What a recipe would measure.

    Attributes:
        recipe: what was asked about.
        forecasts: by task, with the 90 % interval of one newly trained run.
        gains: over the baseline by task; empty without one.
        points: what one more point is worth, by phase, domain and task.
        against: name of the baseline.
        unit: of gains.
        gain: of all tasks together; None without a baseline.
        standing: what the target and measured runs say about it; None without a target.
    """

    recipe: Recipe
    forecasts: tuple[Forecast, ...]
    gains: Mapping[str, Interval]
    points: tuple[Worthwhile, ...]
    against: str = "the baseline"
    unit: str = Measure.PERCENT.value
    gain: Interval | None = None
    standing: Standing | None = None

    def point(self, phase: str, domain: str, task: str) -> Interval:
        """What one more point of a domain in a phase is worth to a task, percent of loss."""
        return next(p.gain for p in self.points if (p.phase, p.domain, p.task) == (phase, domain, task))

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recipe": self.recipe.as_json(),
            "forecasts": [asdict(forecast) for forecast in self.forecasts],
            "against": self.against if self.gains else None,
            "unit": self.unit if self.gains else None,
            "sentence": self.sentence,
            "gain": asdict(self.gain) if self.gain else None,
            "gains": {task: asdict(gain) for task, gain in self.gains.items()},
            "points": [asdict(point) for point in self.points],
            "standing": asdict(self.standing) if self.standing else None,
        }

    def values(self) -> Table:
        """What it would measure."""
        columns: list[Column | str] = ["task", "unit", Column("value")]
        rows: list[list[Cell | str]] = [
            [f.task, f.unit, Interval(f.mean, f.lo90, f.hi90).cell()] for f in self.forecasts
        ]
        if self.gains:
            columns.append(Column(f"gain over {self.against}, {self.unit}", "gain"))
            rows = [[*row, self.gains[f.task].cell(None)] for row, f in zip(rows, self.forecasts, strict=True)]
        if self.gain is not None:
            rows.append(["all, by weight", "", "", self.gain.cell(None)])
        return Table("tasks", columns, rows)

    def per_point(self, tasks: Sequence[str] | None = None) -> Table:
        """What one more point of each domain in each phase is worth to tasks, percent of loss; the clearest first."""
        points = [p for p in self.points if tasks is None or p.task in tasks]
        ordered = sorted(points, key=_clearness, reverse=True)
        clear = sum(_clearness(p) > 1 for p in ordered)
        rows = [[p.domain, p.phase, p.task, p.gain.cell(None)] for p in ordered]
        columns = ["one more point of", "in", "for", Column("gain, % of loss", "gain")]
        note = "A point is 1 % of the tokens to be trained, taken from the phase's other domains in proportion."
        title = f"What one more point is worth: {clear} of {len(points)} effects are clear of zero"
        return Table("points", columns, rows, title, note, min(clear, MOST))

    def page(self) -> Page:
        """The recipe, what it would measure, and what a point more is worth."""
        tables = [self.values(), *([self.per_point()] if self.points else [])]
        notes = [str(self.standing)] if self.standing else []
        return Page(self.sentence, self._tone(), str(self.recipe), tables, notes=notes)

    def _tone(self) -> Tone:
        if self.gain is None:
            return ""
        return "unsure" if self._objection() else self.gain.tone or "unsure"

    def _objection(self) -> str:
        return self.standing.objection if self.standing else ""

    @property
    def sentence(self) -> str:
        """What it gains, on how many tasks, and what speaks against believing it."""
        told = f"Predicted for {len(self.forecasts)} tasks, with 90 % intervals."
        if self.gain is not None:
            tones = [gain.tone for gain in self.gains.values()]
            told = (
                f"Predicted gain over {self.against}: {self.gain.text()} {self.unit}; of {len(tones)} tasks "
                f"{tones.count('better')} clearly better, {tones.count('worse')} clearly worse."
            )
        return f"{told} The data do not support it: {self._objection()}." if self._objection() else told


def _clearness(point: Worthwhile) -> float:
    """Size of an effect in half widths of its interval."""
    return abs(point.gain.mean) / max((point.gain.hi90 - point.gain.lo90) / 2, 1e-12)


def what_if(
    posterior: Posterior,
    recipe: Recipe,
    domains: Sequence[Domain],
    baseline: Recipe | None = None,
    *,
    against: str = "the baseline",
    goal: Goal | None = None,
    over: int = 0,
    problem: Problem | None = None,
    draws: int = 64,
) -> WhatIf:
    """Predict a recipe and what one more point of every domain in every phase to be trained would change.

    Args:
        posterior: fitted surfaces.
        recipe: any recipe of phases and domains that the surfaces know; of a target whose past is not known, what
            follows it.
        domains: with the unique tokens there are.
        baseline: what gains refer to, in the same draws.
        against: its name.
        goal: what gains are measured in, and which tasks count in the total; all in percent of loss where None.
        over: phases of the recipe, the first ones, that have been trained.
        problem: of the target, for distances and limits.
        draws: draws behind the intervals.

    Raises:
        InputError: a phase or domain that was never measured.
    """
    draws, past = distinct(posterior, draws), without_past(problem, recipe)
    design, history = design_and_history(posterior, recipe, domains, past)
    gain, utility = None, utility_of(goal or Goal(), posterior)
    if baseline is not None:
        gain = gain_between(posterior, (recipe, baseline), domains, utility, problem, draws)
    open_phases = [phase.name for phase in recipe.phases[over:]]
    points = tuple(_points(posterior, design, history, open_phases, draws))
    forecasts = tuple(forecasts_of(posterior, design, ["recipe"]))
    by_task, total = (gain.by_task, gain.total) if gain else ({}, None)
    standing = None if problem is None else standing_of(problem, "recipe", recipe)
    return WhatIf(recipe, forecasts, by_task, points, against, utility.goal.unit, total, standing)


def _points(
    posterior: Posterior, design: Design, history: PrefixHistory | None, phases: Sequence[str], draws: int
) -> Iterator[Worthwhile]:
    """Differences that a point makes in every draw, in each of some phases; a row of the design is a history."""
    moves, points, names = _moves(design, phases)
    rows = design.select([row for row in range(len(design)) for _ in range(1 + len(names))])
    moved = [torch.cat([tokens[None], (tokens + moves).clamp_min(0)]) for tokens in design.tokens]
    with torch.no_grad():
        losses = log_losses(posterior, replace(rows, tokens=torch.cat(moved)), draws)
    losses = losses if history is None else history.by_draw(losses)
    gains = 100 * (losses[:, :1] - losses[:, 1:]) / points[:, None]
    for m, (phase, domain) in enumerate(names):
        for t, task in enumerate(posterior.tasks):
            yield Worthwhile(phase, domain, task, interval(gains[:, m, t]))


def _moves(design: Design, phases: Sequence[str]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """Changes in tokens, (M, P, K), that give a domain one more point in a phase, what part of a point, and names."""
    tokens, places = design.tokens[0], [design.phases.index(phase) for phase in phases]
    point = POINT * float(tokens[places].sum())
    moves, parts, names = [torch.zeros_like(tokens)[None][:0]], list[float](), []
    for p, phase in zip(places, phases, strict=True):
        for j, domain in enumerate(design.domains):
            others = tokens[p].clone()
            others[j] = 0
            room = float(others.sum())
            if room > LEAST * point:
                move = torch.zeros_like(tokens)
                move[p] = -others / room
                move[p, j] = 1.0
                parts.append(min(1.0, room / point))
                moves.append(parts[-1] * point * move[None])
                names.append((phase, domain))
    return torch.cat(moves), torch.tensor(parts, dtype=torch.float64), names
