"""What if: what a recipe would measure, and what one more point of any domain in any phase is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

import torch
from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.from_recipes import design_of
from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.judge import interval
from mixlaw.optimizer.objective import log_losses
from mixlaw.optimizer.proposal import Forecast, Interval
from mixlaw.recipe import Domain, Recipe

POINT = 0.01  # share of a recipe's tokens
STEP = 0.1  # of a point, for differences between worlds


@dataclass(frozen=True)
class Worthwhile:
    """What one more point of a domain in a phase is worth to a task.

    Attributes:
        phase, domain, task: what is moved, and who feels it.
        gain: percent of loss for 1 % of the recipe's tokens, taken from the phase's other domains in proportion; from
            the slope of the surface where the recipe is.
    """

    phase: str
    domain: str
    task: str
    gain: Interval


@dataclass(frozen=True)
class WhatIf:
    """What a recipe would measure.

    Attributes:
        recipe: what was asked about.
        forecasts: by task, with the 90 % interval of one newly trained run.
        gains: over the baseline in percent of loss by task; empty without one.
        points: what one more point is worth, by phase, domain and task.
    """

    recipe: Recipe
    forecasts: tuple[Forecast, ...]
    gains: Mapping[str, Interval]
    points: tuple[Worthwhile, ...]

    def point(self, phase: str, domain: str, task: str) -> Interval:
        """What one more point of a domain in a phase is worth to a task, percent of loss."""
        return next(p.gain for p in self.points if (p.phase, p.domain, p.task) == (phase, domain, task))

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recipe": self.recipe.as_json(),
            "forecasts": [asdict(forecast) for forecast in self.forecasts],
            "gains": {task: asdict(gain) for task, gain in self.gains.items()},
            "points": [asdict(point) for point in self.points],
        }

    def tables(self) -> tuple[list[list[str]], list[list[str]]]:
        """Cells of two tables, heads first: what it would measure, and what one more point is worth."""
        over = ["gain, %"] if self.gains else []
        first = [["task", "unit", "value", *over]]
        for f in self.forecasts:
            gain = [self.gains[f.task].text()] if self.gains else []
            first.append([f.task, f.unit, Interval(f.mean, f.lo90, f.hi90).text(), *gain])
        tasks = [f.task for f in self.forecasts]
        second = [["one more point of", "in", *tasks]]
        for phase, domain in dict.fromkeys((p.phase, p.domain) for p in self.points):
            second.append([domain, phase, *(self.point(phase, domain, task).text(" %") for task in tasks)])
        return first, second

    def __str__(self) -> str:
        return "\n".join([str(self.recipe), *("\n" + "\n".join(_lines(table)) for table in self.tables())])

    def _repr_html_(self) -> str:
        return "".join(_html(table) for table in self.tables())


def what_if(
    beliefs: Beliefs, recipe: Recipe, domains: Sequence[Domain], baseline: Recipe | None = None, draws: int = 64
) -> WhatIf:
    """Predict a recipe and what one more point of every domain in every phase would change.

    Args:
        beliefs: fitted surfaces.
        recipe: any recipe of phases and domains that the surfaces know.
        domains: with the unique tokens there are.
        baseline: what gains refer to, in the same worlds.
        draws: worlds behind the intervals.

    Raises:
        InputError: a phase or domain that was never measured.
    """
    unique = {domain.name: float(domain.unique_tokens) for domain in domains}
    recipes = [recipe] if baseline is None else [recipe, baseline]
    design = design_of(recipes, beliefs.phases, beliefs.domains, unique)
    found = beliefs.predict(design)
    ends = (found.mean, found.lo90, found.hi90, found.law_only)
    forecasts = tuple(
        Forecast("recipe", task, str(beliefs.units[task]), *(float(end[0, t]) for end in ends))
        for t, task in enumerate(beliefs.tasks)
    )
    gains = {}
    if baseline is not None:
        losses = log_losses(beliefs, design, draws)
        gains = {task: interval(100 * (losses[:, 1, t] - losses[:, 0, t])) for t, task in enumerate(beliefs.tasks)}
    return WhatIf(recipe, forecasts, gains, tuple(_points(beliefs, design.select([0]), draws)))


def _points(beliefs: Beliefs, design: Design, draws: int) -> list[Worthwhile]:
    """Slope of the mean over worlds by automatic differentiation; how much worlds differ, by finite differences."""
    moves, names = _moves(design)
    if not names:
        return []
    slopes = marginal(beliefs, design, draws)
    means = -100 * torch.einsum("mpk,tpk->mt", moves, slopes)
    tokens = torch.cat([design.tokens, (design.tokens + STEP * moves).clamp_min(0)])
    rows = replace(design.select([0] * len(tokens)), tokens=tokens)
    losses = log_losses(beliefs, rows, draws)
    spread = 100 * (losses[:, :1] - losses[:, 1:]) / STEP
    found = []
    for m, (phase, domain) in enumerate(names):
        for t, task in enumerate(beliefs.tasks):
            around = interval(spread[:, m, t])
            mean, half = float(means[m, t]), (around.hi90 - around.lo90) / 2
            found.append(Worthwhile(phase, domain, task, Interval(mean, mean - half, mean + half)))
    return found


def marginal(beliefs: Beliefs, design: Design, draws: int) -> Tensor:
    """Slope of the log loss of every task, mean over worlds, in the tokens of one recipe, (T, P, K)."""
    tokens = design.tokens.clone().requires_grad_()
    losses = log_losses(beliefs, replace(design, tokens=tokens), draws).mean(0)[0]
    slopes = [torch.autograd.grad(loss, tokens, retain_graph=True)[0][0] for loss in losses]
    return torch.stack(slopes)


def _moves(design: Design) -> tuple[Tensor, list[tuple[str, str]]]:
    """Changes in tokens, (M, P, K), that give a domain one more point in a phase, and their names."""
    tokens, point = design.tokens[0], POINT * float(design.total[0])
    moves, names = [], []
    for p, phase in enumerate(design.phases):
        for j, domain in enumerate(design.domains):
            others = tokens[p].clone()
            others[j] = 0
            if float(others.sum()) > 1e-9 * float(design.total[0]):
                move = torch.zeros_like(tokens)
                move[p] = -others / others.sum()
                move[p, j] = 1.0
                moves.append(point * move)
                names.append((phase, domain))
    return torch.stack(moves) if moves else tokens[None][:0], names


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _html(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"
