"""What a recipe would measure, and the effect of one more point of any domain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.goal.gains import Gain, gain_of
from mixlaw.optimizer.goal.goal import Goal, Measure, Utility, utility_of
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.values import Forecast, Interval, interval
from mixlaw.optimizer.search.problem import distinct
from mixlaw.printable import Printable, Rows, html_table, text_table
from mixlaw.recipe import Domain, Recipe

POINT = 0.01  # share of a recipe's tokens
LEAST = 1e-6  # of a point that the others of a phase must have to give
WIDE = 6  # tasks side by side in a printed table


@dataclass(frozen=True)
class Worthwhile:
    """What one more point of a domain in a phase is worth to a task.

    Attributes:
        phase, domain, task: what is moved, and who feels it.
        gain: percent of loss for 1 % of the recipe's tokens, taken from the phase's other domains in proportion; in
            proportion to a point where the others have less than that.
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
    """

    recipe: Recipe
    forecasts: tuple[Forecast, ...]
    gains: Mapping[str, Interval]
    points: tuple[Worthwhile, ...]
    against: str = "the baseline"
    unit: str = Measure.PERCENT.value
    gain: Interval | None = None

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
            "gain": asdict(self.gain) if self.gain else None,
            "gains": {task: asdict(gain) for task, gain in self.gains.items()},
            "points": [asdict(point) for point in self.points],
        }

    def values(self) -> Rows:
        """Cells of a table: what it would measure."""
        over = [f"gain over {self.against}, {self.unit}"] if self.gains else []
        rows = [["task", "unit", "value", *over]]
        for f in self.forecasts:
            gain = [self.gains[f.task].text()] if self.gains else []
            rows.append([f.task, f.unit, Interval(f.mean, f.lo90, f.hi90).text(), *gain])
        if self.gain is not None:
            rows.append(["all, by weight", "", "", self.gain.text()])
        return rows

    def per_point(self, tasks: Sequence[str]) -> Rows:
        """Cells of a table: what one more point of each domain in each phase is worth to tasks, percent of loss."""
        digits = self._digits()
        rows = [["one more point of", "in", *tasks]]
        for phase, domain in dict.fromkeys((p.phase, p.domain) for p in self.points):
            gains = [self.point(phase, domain, task) for task in tasks]
            rows.append([domain, phase, *(_signed(gain, digits) for gain in gains)])
        return rows

    def _digits(self) -> int:
        """Digits behind the point that suit most cells."""
        half = median((p.gain.hi90 - p.gain.lo90) / 2 or abs(p.gain.mean) or 1.0 for p in self.points)
        return max(1, min(6, 1 - math.floor(math.log10(half))))

    def _tables(self) -> Iterator[Rows]:
        yield self.values()
        tasks = [f.task for f in self.forecasts]
        if self.points:
            yield from (self.per_point(tasks[i : i + WIDE]) for i in range(0, len(tasks), WIDE))

    def __str__(self) -> str:
        tables = "\n\n".join(map(text_table, self._tables()))
        return f"{self.recipe}\n\n{tables}" + (f"\n\n{_NOTE}" if self.points else "")

    def _repr_html_(self) -> str:
        tables = "".join(map(html_table, self._tables())) + (f"<p>{_NOTE}</p>" if self.points else "")
        return f"<pre>{escape(str(self.recipe))}</pre>{tables}"


_NOTE = (
    "A point is 1 % of the recipe's tokens, taken from the phase's other domains in proportion; gains in % of loss "
    "with 90 % intervals, * where they are clear of zero."
)


def _signed(gain: Interval, digits: int) -> str:
    clear = "*" if gain.lo90 > 0 or gain.hi90 < 0 else ""
    return f"{gain.mean:+.{digits}f} ± {(gain.hi90 - gain.lo90) / 2:.{digits}f}{clear}"


def what_if(
    posterior: Posterior,
    recipe: Recipe,
    domains: Sequence[Domain],
    baseline: Recipe | None = None,
    *,
    against: str = "the baseline",
    goal: Goal | None = None,
    draws: int = 64,
) -> WhatIf:
    """Predict a recipe and what one more point of every domain in every phase would change.

    Args:
        posterior: fitted surfaces.
        recipe: any recipe of phases and domains that the surfaces know.
        domains: with the unique tokens there are.
        baseline: what gains refer to, in the same draws.
        against: its name.
        goal: what gains are measured in, and which tasks count in the total; all in percent of loss where None.
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
    points = tuple(_points(posterior, design.select([0]), draws))
    by_task, total = (gain.by_task, gain.total) if gain else ({}, None)
    return WhatIf(recipe, forecasts, by_task, points, against, utility.goal.unit, total)


def _gain(posterior: Posterior, utility: Utility, design: Design, draws: int) -> Gain:
    """Of the first recipe of a design over the second."""
    with torch.no_grad():
        mine, other = log_losses(posterior, design, draws).unbind(1)
    return gain_of(utility, mine, other)


def _points(posterior: Posterior, design: Design, draws: int) -> Iterator[Worthwhile]:
    """Differences that a point makes in every draw."""
    moves, points, names = _moves(design)
    rows = replace(
        design.select([0] * (1 + len(names))), tokens=torch.cat([design.tokens, (design.tokens + moves).clamp_min(0)])
    )
    with torch.no_grad():
        losses = log_losses(posterior, rows, draws)
    gains = 100 * (losses[:, :1] - losses[:, 1:]) / points[:, None]
    for m, (phase, domain) in enumerate(names):
        for t, task in enumerate(posterior.tasks):
            yield Worthwhile(phase, domain, task, interval(gains[:, m, t]))


def _moves(design: Design) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """Changes in tokens, (M, P, K), that give a domain one more point in a phase, what part of a point, and names."""
    tokens, point = design.tokens[0], POINT * float(design.total[0])
    moves, parts, names = [torch.zeros_like(tokens)[None][:0]], list[float](), []
    for p, phase in enumerate(design.phases):
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
