"""What supports a recommendation: measured runs near it, the audit in the direction asked, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mixlaw.analysis.audit.result import OURS, Audit
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Z90
from mixlaw.numbers import percent
from mixlaw.optimizer.goal.gains import apart
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.values import Forecast
from mixlaw.optimizer.policy import BROKEN, ENOUGH_VALUES, FAR, LARGER, LARGEST_RADIUS, LEAST_RADIUS, NEIGHBOURS
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe

#: Kind of fold that asks about larger sizes: the others are asked about every recipe.
LARGEST = "largest size"
MOST_TASKS = 3  # that a sentence names
MOST_ASKED = 1000  # recipes that are asked how far their neighbour is


def radius_of(near: Tensor) -> float:
    """Distance up to which measured recipes (M, P, K) speak for each other: nine in ten have a neighbour within it.

    Of more than 1,000 recipes 1,000, evenly spread over them, are asked for their neighbour: memory and time of all
    pairs grow with the square.
    """
    if not len(near):
        return math.inf
    if len(near) == 1:
        return LEAST_RADIUS
    some = torch.linspace(0, len(near) - 1, min(len(near), MOST_ASKED), dtype=torch.float64).round().long()
    gaps = apart(near[some], near)
    gaps[torch.arange(len(some)), some] = math.inf
    typical = float(torch.quantile(gaps.min(1).values, NEIGHBOURS, interpolation="lower"))
    return min(max(LEAST_RADIUS, typical), LARGEST_RADIUS)


def near_runs(allowed: Feasible, measured: Design | None) -> tuple[Tensor, list[str]]:
    """Mixtures of the finished, distinct measured recipes in the phases still to be trained (M, P, K), and their runs.

    A run that lacks one of these phases, or used a domain there that the target does not have, is no neighbour.
    """
    phases, names = allowed.target.phases, [d.name for d in allowed.domains]
    if measured is None:
        return torch.zeros(0, len(phases), len(names), dtype=torch.float64), []
    tokens = torch.zeros(len(measured), len(phases), len(names), dtype=torch.float64)
    whole = torch.zeros(len(measured), len(phases), dtype=torch.float64)
    for p, phase in enumerate(phases):
        if phase in measured.phases:
            there = measured.tokens[:, measured.phases.index(phase)]
            whole[:, p] = there.sum(1)
            for j, name in enumerate(names):
                if name in measured.domains:
                    tokens[:, p, j] = there[:, measured.domains.index(name)]
    x = tokens / whole.clamp_min(1e-9)[..., None]
    complete = torch.nonzero((x.sum(2) > 1 - 1e-3).all(1) & (measured.progress >= 1)).flatten()
    _, first = np.unique(x[complete].round(decimals=3).flatten(1).numpy(), axis=0, return_index=True)
    rows = complete[torch.as_tensor(np.sort(first), dtype=torch.long)]
    return x[rows], [measured.runs[i] for i in rows.tolist()]


@dataclass(frozen=True)
class Direction:
    """How well the audit predicted runs in one direction.

    Attributes:
        kind: of fold: `mixtures`, `largest size`, `phase order`.
        coverage: share of the differences between held-out runs and their mean, gains, that are inside their 90 %
            intervals, over all tasks.
        values: how many there are.
        levels: share of the values themselves that are inside theirs; what all runs share cancels in a gain.
        few: tasks of which so few gains are inside that their intervals are too narrow, with that share.
    """

    kind: str
    coverage: float
    values: int
    levels: float | None = None
    few: Mapping[str, float] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        """Whether intervals are too narrow there, as far as that many values can tell."""
        return self.coverage < BROKEN and self.values >= ENOUGH_VALUES

    def as_json(self) -> dict[str, Any]:
        """Plain data; without `few` where it is empty, as in proposals that were frozen before it was there."""
        return {name: value for name, value in asdict(self).items() if name != "few" or value}

    def __str__(self) -> str:
        levels = "" if self.levels is None else f" (of the losses themselves {percent(self.levels)})"
        inside = f"{percent(self.coverage)} of {self.values} gains were inside their 90 % intervals"
        worst = sorted(self.few.items(), key=lambda pair: pair[1])[:MOST_TASKS]
        tasks = [f"{task} {percent(part)}" for task, part in worst]
        more = f" and {len(self.few) - MOST_TASKS} more" if len(self.few) > MOST_TASKS else ""
        few = f"; by far the fewest of {', '.join(tasks)}{more}" if tasks else ""
        return f"leaving {self.kind} out, {inside}{levels}{few}"


def directions_of(audit: Audit | None, tasks: Sequence[str], larger: bool) -> tuple[Direction, ...]:
    """What the audit says about the tasks that count, in the directions that a recipe asks about.

    Args:
        audit: of the fit; None where there is none.
        tasks: those that count.
        larger: whether the recipe is larger than what was measured.
    """
    if audit is None or not audit.table.height:
        return ()
    table = audit.table.filter(pl.col("method") == OURS, pl.col("task").is_in(list(tasks)), pl.col("rows") > 0)
    covered = [(pl.col(name) * pl.col("rows")).sum() / pl.col("rows").sum() for name in ("gains", "coverage")]
    found = table.drop_nulls("gains").group_by("fold", maintain_order=True).agg(*covered, pl.col("rows").sum())
    low = table.filter(pl.col("gains") < BROKEN, pl.col("rows") >= ENOUGH_VALUES)
    few = {kind: dict(part.select("task", "gains").iter_rows()) for (kind,), part in low.group_by("fold")}
    return tuple(
        Direction(kind, gains, rows, levels, few.get(kind, {}))
        for kind, gains, levels, rows in found.iter_rows()
        if larger or kind != LARGEST
    )


def is_larger(recipe: Recipe, measured: Design | None) -> bool:
    """Whether a recipe is larger than what was measured."""
    return measured is not None and len(measured) > 0 and recipe.params > LARGER * float(measured.params.max())


def size_gap(recipe: Recipe, measured: Design | None) -> str:
    """A sentence where a recipe is too large for what was measured to say anything about it; empty elsewhere."""
    if not is_larger(recipe, measured):
        return ""
    assert measured is not None
    times = recipe.params / float(measured.params.max())
    return f"the target has {times:.0f} times the parameters of the largest measured run" if times > FAR else ""


def forecasts_of(posterior: Posterior, design: Design, names: Sequence[str]) -> Iterator[Forecast]:
    """What a run of each recipe will measure, recipe by recipe; unknown histories widen the interval.

    Args:
        posterior: fitted surfaces.
        design: a row per history and recipe, recipes within histories, as `recipes_design` has them.
        names: of the recipes.
    """
    prediction = posterior.predict(design)
    by_history = (len(prediction.mean) // len(names), len(names), len(posterior.tasks))
    mean, low, high, law = (
        x.reshape(by_history) for x in (prediction.mean, prediction.lo90, prediction.hi90, prediction.law_only)
    )
    between = Z90 * mean.std(0)
    for r, name in enumerate(names):
        for t, task in enumerate(posterior.tasks):
            ends = [
                sign * float(np.sqrt(((end[:, r, t] - mean[:, r, t]) ** 2).mean() + between[r, t] ** 2))
                for sign, end in ((-1.0, low), (1.0, high))
            ]
            middle, unit = float(mean[:, r, t].mean()), str(posterior.units[task])
            yield Forecast(name, task, unit, middle, middle + ends[0], middle + ends[1], float(law[:, r, t].mean()))
