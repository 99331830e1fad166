"""Observed: a table of records as tensors for fitting.

Every task is fitted on one scale, the logarithm of a positive loss, whatever its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design, cells_of
from mixlaw.cells import as_frame
from mixlaw.errors import InputError
from mixlaw.records import MOST_PARAMS, Unit

#: Standard normal quantile that leaves 5 % on either side.
Z90 = 1.6448536269514722
#: Scores are probabilities p of success, clipped this far from 0 and 1 before -log p is taken.
MARGIN = 1e-3
#: Recipes whose repeats are counted at once.
GROUPS = 1000
#: Spread of log noise between tasks, and standard error of the log of a noise that the user gives.
NOISE_BETWEEN, GIVEN_ERROR = 0.5, 0.25


@dataclass(frozen=True, eq=False)
class Observed:
    """What R rows measured on T tasks.

    Attributes:
        design: the recipes, R rows.
        tasks, units: names of the tasks and their units.
        value: in the task's unit, NaN where not measured, (T, R).
        centre: mean log loss of each task, (T,); everything below is relative to it.
        target: log loss minus centre, 0 where not measured, (T, R).
        seen: where a value was measured, (T, R).
        variance: noise variance in log loss where it was measured, else NaN, (T, R).
        noise: standard deviation of one run in log loss, from repeats or as given, NaN where unknown, (T,).
        noise_error: standard error of log noise, (T,).
    """

    design: Design
    tasks: tuple[str, ...]
    units: tuple[str, ...]
    value: Tensor
    centre: Tensor
    target: Tensor
    seen: Tensor
    variance: Tensor
    noise: Tensor
    noise_error: Tensor

    def select(self, rows: Tensor) -> Observed:
        """The rows at these numbers, on the same scale."""
        parts = {name: getattr(self, name)[:, rows] for name in ("value", "target", "seen", "variance")}
        return replace(self, design=self.design.select(rows), **parts)

    @property
    def slope(self) -> Tensor:
        """|d value / d log loss| at each task's centre, (T,)."""
        middle = torch.stack([row[seen].median() for row, seen in zip(self.value, self.seen, strict=True)])
        return torch.stack([slope(m, u) for m, u in zip(middle, self.units, strict=True)])


def observe(
    table: pl.DataFrame,
    units: Mapping[str, str],
    unique: Mapping[str, float],
    noise: Mapping[str, float] | None = None,
    phases: Sequence[str] = (),
) -> Observed:
    """Read a table of records; tasks are the `metric:` columns that hold a value.

    Raises:
        InputError: no rows, no metric, a metric without a unit, a loss <= 0, a score outside [0, 1].
    """
    table = as_frame(table)
    columns = [c for c in table.columns if c.startswith("metric:") and not np.isnan(cells_of(table, c)).all()]
    if not columns:
        raise InputError(
            f"nothing to fit: the table has {table.height} rows and no metric:<task> value; add measured runs"
        )
    tasks = tuple(c.removeprefix("metric:") for c in columns)
    missing = [t for t in tasks if t not in units]
    if missing:
        raise InputError(f"task {missing[0]!r} has no unit, so its direction is unknown; name its unit in study.toml")
    unit = tuple(units[t] for t in tasks)
    design = Design.from_table(table, unique, phases)
    few = (design.total * MOST_PARAMS < design.params).nonzero()
    if len(few):
        raise InputError(
            f"run {design.runs[int(few[0])]} has {design.total[few[0]].item():g} tokens for "
            f"{design.params[few[0]].item():,.0f} params; give tokens, not shares, percent or billions"
        )
    value = torch.stack([_values(table, t, u) for t, u in zip(tasks, unit, strict=True)])
    seen = ~value.isnan()
    log_loss = torch.stack([to_log_loss(v, u) for v, u in zip(value, unit, strict=True)])
    centre = torch.stack([row[s].mean() for row, s in zip(log_loss, seen, strict=True)])
    target = torch.where(seen, log_loss - centre[:, None], torch.zeros_like(value))
    variance = torch.stack([_variance(table, t, u, v) for t, u, v in zip(tasks, unit, value, strict=True)])
    typical = torch.stack([slope(v[s].median(), u) for v, s, u in zip(value, seen, unit, strict=True)])
    known = torch.tensor([float((noise or {}).get(t) or np.nan) for t in tasks], dtype=torch.float64) / typical
    repeats, error = _repeat_noise(design, target, seen)
    error = torch.where(known.isnan(), error, torch.full_like(error, GIVEN_ERROR))
    spread = torch.where(known.isnan(), repeats, known)
    return Observed(design, tasks, unit, value, centre, target, seen, variance, spread, error)


def _values(table: pl.DataFrame, task: str, unit: str) -> Tensor:
    values = cells_of(table, f"metric:{task}")
    score = higher_is_better(unit, task)
    bad = (values < 0) | (values > 1) if score else values <= 0
    bad |= np.isinf(values)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        wanted = "a share between 0 and 1" if score else "a finite loss above 0"
        if score and -1 < values[row] < 0:
            wanted += " (if 0 is chance, give chance + (1 - chance) x score)"
        raise InputError(
            f"metric:{task} is {values[row]:g} in row {row}; {unit} needs {wanted}: correct the cell or leave it empty"
        )
    return torch.tensor(values)


def _variance(table: pl.DataFrame, task: str, unit: str, value: Tensor) -> Tensor:
    """Measured noise variance in log loss, NaN where there is none."""
    if f"noise:{task}" not in table.columns:
        return torch.full_like(value, torch.nan)
    noise = cells_of(table, f"noise:{task}")
    spread = torch.tensor(noise) / slope(value, unit)
    return torch.where(spread > 0, spread**2, torch.full_like(spread, torch.nan))


def _repeat_noise(design: Design, target: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of one run from repeated recipes, and its relative error, (T,) each.

    Few repeats give a rough estimate, so tasks are shrunk to their mean. NaN below 2 degrees of freedom. The mean and
    the variance of the logarithm of a chi-squared variable with f degrees of freedom are digamma(f / 2) + log 2 and
    trigamma(f / 2), so that the logarithm of a variance from few repeats is too low by the first.
    """
    group = design.recipe_index
    known, numbers = seen.to(torch.float64), torch.arange(int(group.max()) + 1)
    members = [(group[:, None] == part).to(torch.float64) for part in torch.split(numbers, GROUPS)]
    count = torch.cat([known @ member for member in members], 1)
    mean = torch.cat([(target * seen) @ member for member in members], 1) / count.clamp(min=1)
    scatter = ((target - mean[:, group]) ** 2 * seen).sum(1)
    freedom = (count - 1).clamp(min=0).sum(1)
    half = freedom.clamp(min=1) / 2
    own = 0.5 * ((scatter / (2 * half)).clamp(min=1e-12).log() - torch.digamma(half) + half.log())
    own = torch.where(freedom >= 2, own, torch.nan)
    precision, common = 4 / torch.polygamma(1, half) * (freedom >= 1), own.nanmean()
    shrunk = (own * precision + common * NOISE_BETWEEN**-2) / (precision + NOISE_BETWEEN**-2)
    return shrunk.exp(), torch.rsqrt(precision + NOISE_BETWEEN**-2)


def higher_is_better(unit: str, task: str = "") -> bool:
    """Whether higher values are better, by the unit of a task.

    Raises:
        InputError: the unit is unknown, so its direction is.
    """
    return not Unit.parse(unit, task).lower_is_better


def to_log_loss(value: Tensor, unit: str) -> Tensor:
    """Map values to log loss: log y for a loss y, log(-log p) for a score p in [0, 1].

    A score is the probability of success and -log p its loss in nats: positive, falling with ability, never below 0.
    """
    if not higher_is_better(unit):
        return torch.log(value)
    return torch.log(-torch.log(value.clamp(MARGIN, 1 - MARGIN)))


def from_log_loss(log_loss: Tensor, unit: str) -> Tensor:
    """Map log loss back to the unit of the task; the inverse of `to_log_loss`."""
    loss = torch.exp(log_loss)
    return torch.exp(-loss) if higher_is_better(unit) else loss


def slope(value: Tensor, unit: str) -> Tensor:
    """|d value / d log loss| at `value`: turns a spread in log loss into one in the unit of the task."""
    if not higher_is_better(unit):
        return value
    inside = value.clamp(MARGIN, 1 - MARGIN)
    return -inside * torch.log(inside)
