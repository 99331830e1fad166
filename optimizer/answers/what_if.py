"""What a recipe would measure, and the effect of one more point of any domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.answers.compare import Standing, standing_of
from mixlaw.optimizer.goal.gains import Gain, gain_of
from mixlaw.optimizer.goal.goal import Goal, Measure, Utility, utility_of
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.values import Forecast, Interval, interval
from mixlaw.optimizer.search.problem import Problem, distinct
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
        recipe: any recipe of phases and domains that the surfaces know.
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
    unique, draws = {domain.name: float(domain.unique_tokens) for domain in domains}, distinct(posterior, draws)
    recipes = [recipe] if baseline is None else [recipe, baseline]
    design = design_of(recipes, posterior.phases, posterior.domains, unique)
    prediction = posterior.predict(design)
    ends = (prediction.mean, prediction.lo90, prediction.hi90, prediction.law_only)
    forecasts = tuple(
        Forecast("recipe", task, str(posterior.units[task]), *(float(end[0, t]) for end in ends))
        for t, task in enumerate(posterior.tasks)
    )
    gain, utility = None, utility_of(goal or Goal(), posterior)
    if baseline is not None:
        gain = _gain(posterior, utility, design, draws)
    open_phases = [phase.name for phase in recipe.phases[over:]]
    points = tuple(_points(posterior, design.select([0]), open_phases, draws))
    by_task, total = (gain.by_task, gain.total) if gain else ({}, None)
    standing = None if problem is None else standing_of(problem, "recipe", recipe)
    return WhatIf(recipe, forecasts, by_task, points, against, utility.goal.unit, total, standing)


def _gain(posterior: Posterior, utility: Utility, design: Design, draws: int) -> Gain:
    """Of the first recipe of a design over the second."""
    with torch.no_grad():
        mine, other = log_losses(posterior, design, draws).unbind(1)
    return gain_of(utility, mine, other)


def _points(posterior: Posterior, design: Design, phases: Sequence[str], draws: int) -> Iterator[Worthwhile]:
    """Differences that a point makes in every draw, in each of some phases."""
    moves, points, names = _moves(design, phases)
    rows = replace(
        design.select([0] * (1 + len(names))), tokens=torch.cat([design.tokens, (design.tokens + moves).clamp_min(0)])
    )
    with torch.no_grad():
        losses = log_losses(posterior, rows, draws)
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
