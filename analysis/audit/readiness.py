"""Readiness: whether recipes move a task by more than seeds do, and at which sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import polars as pl
import torch
from scipy.special import fdtri
from torch import Tensor

from mixlaw.analysis.audit.held import WITHIN
from mixlaw.analysis.audit.result import OURS, SIGNAL, Audit
from mixlaw.analysis.data.observed import GIVEN_ERROR, Observed

#: Probability that pure noise passes for signal at one size.
FALSE_SIGNAL = 0.05
#: Least runs at one size to estimate a spread.
FEWEST = 4
#: Explained variance of held-out runs from which they count as predicted, and from which that alone is signal.
EXPLAINED, CLEARLY_EXPLAINED = 1 - SIGNAL**2, 0.5


class Verdict(Enum):
    """Whether a task can be optimised for; the value is the sentence shown to the user."""

    READY = "ready"
    FROM_SIZE = "signal only from {size} parameters up"
    WEAK = (
        "weak: seed noise is as large as the effect of the recipe, or held-out runs are not predicted; "
        "repeat runs before optimising for it"
    )
    NOISE = "no signal above seed noise: do not optimise for it"
    CHANCE = "at chance"
    UNKNOWN = "too few runs at any size to separate signal from noise"


@dataclass(frozen=True)
class SizeSignal:
    """Signal and noise of one task at one size, from the last checkpoint of every run.

    Attributes:
        params: model size.
        runs: how many.
        spread: standard deviation of the recipes' true values, noise taken off, in the unit of the task.
        noise: standard deviation of one run, in the same unit.
        significant: whether recipes differ significantly (F test).
        at_chance: whether the runs are on average within two noises of guessing; False where chance is not known.
    """

    params: float
    runs: int
    spread: float
    noise: float
    significant: bool
    at_chance: bool

    @property
    def ratio(self) -> float:
        """Signal to noise."""
        return self.spread / self.noise


@dataclass(frozen=True)
class Readiness:
    """The verdict on one task with its evidence.

    Attributes:
        verdict: whether it can be optimised for.
        sizes: ascending, those with enough runs.
        explained: share of the variance of held-out mixtures that the fit predicted; None where none was held out.
        measured: whether noise comes from repeats or was given; else it is the residual spread of the fit.
    """

    verdict: Verdict
    sizes: tuple[SizeSignal, ...]
    explained: float | None
    measured: bool

    @property
    def words(self) -> str:
        """The verdict as a sentence."""
        first = next((s for s in self.sizes if s.significant), None)
        return self.verdict.value.format(size=_short(first.params) if first else "")

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        sizes = [
            {"params": s.params, "runs": s.runs, "spread": s.spread, "noise": s.noise, "ratio": s.ratio}
            | {"signal": s.significant, "at_chance": s.at_chance}
            for s in self.sizes
        ]
        return {"verdict": self.words, "explained": self.explained, "noise_measured": self.measured, "sizes": sizes}


def readiness(
    observed: Observed, noise: Tensor, audit: Audit | None, chance: Mapping[str, float]
) -> dict[str, Readiness]:
    """Assess every task.

    Args:
        observed: the measured rows.
        noise: standard deviation of one run in log loss as the fit sees it, used where nothing measured it, (R, T).
        audit: how held-out runs were predicted, if it is known.
        chance: accuracy of guessing by task, where it is known.
    """
    return {task: _assess(observed, t, noise[:, t], audit, chance.get(task)) for t, task in enumerate(observed.tasks)}


def spread_of_recipes(observed: Observed) -> dict[str, float]:
    """How far recipes and seeds move each task: standard deviation of its log loss between runs of one size.

    Finished runs, or their last checkpoints; the root mean square over the sizes that have at least four runs. Tasks
    without such a size are left out.
    """
    found: dict[str, float] = {}
    for t, task in enumerate(observed.tasks):
        rows = _last(observed, t)
        size = observed.design.size_index[rows]
        groups = [rows[size == value] for value in sorted(set(size.tolist()))]
        squares = [float(observed.target[t, group].var()) for group in groups if len(group) >= FEWEST]
        if squares and sum(squares) > 0:
            found[task] = math.sqrt(sum(squares) / len(squares))
    return found


def _assess(observed: Observed, t: int, noise: Tensor, audit: Audit | None, chance: float | None) -> Readiness:
    measured = not math.isnan(float(observed.noise[t])) or bool((~observed.variance[t].isnan()).any())
    rows = _last(observed, t)
    size = observed.design.size_index[rows]
    groups = [rows[size == value] for value in sorted(set(size.tolist()))]
    signals = tuple(_signal(observed, t, group, noise, chance) for group in groups if len(group) >= FEWEST)
    explained = None if audit is None else _explained(audit, observed.tasks[t])
    return Readiness(_verdict(signals, explained), signals, explained, measured)


def _verdict(sizes: tuple[SizeSignal, ...], explained: float | None) -> Verdict:
    if not sizes:
        return Verdict.UNKNOWN
    predicted = explained is None or explained >= EXPLAINED
    if not any(s.significant for s in sizes):
        if explained is not None and explained >= CLEARLY_EXPLAINED:
            return Verdict.WEAK
        return Verdict.CHANCE if all(s.at_chance for s in sizes) else Verdict.NOISE
    if not predicted or not any(s.significant and s.ratio >= 1 for s in sizes):
        return Verdict.WEAK
    first = next(i for i, s in enumerate(sizes) if s.significant)
    return Verdict.READY if first == 0 else Verdict.FROM_SIZE


def _last(observed: Observed, t: int) -> Tensor:
    """Rows of the last checkpoint of every run that measures the task."""
    last: dict[str, int] = {}
    progress = observed.design.progress
    for row in torch.nonzero(observed.seen[t]).squeeze(1).tolist():
        run = observed.design.runs[row]
        if run not in last or progress[row] > progress[last[run]]:
            last[run] = row
    return torch.tensor(sorted(last.values()), dtype=torch.long)


def _signal(observed: Observed, t: int, rows: Tensor, noise: Tensor, chance: float | None) -> SizeSignal:
    """Analysis of variance: the spread of the runs over what seeds alone would give."""
    own, value = observed.variance[t, rows], observed.value[t, rows]
    repeats, error = observed.noise[t], float(observed.noise_error[t])
    if bool(repeats.isnan()):
        repeats, error = noise[rows], GIVEN_ERROR
    known = int((~own.isnan()).sum())
    error = GIVEN_ERROR / math.sqrt(known) if known == len(rows) else error
    given = math.sqrt(float(torch.where(own.isnan(), repeats**2, own).mean()))
    between = float(observed.target[t, rows].var())
    ratio = between / given**2
    # The standard error of a log standard deviation from n degrees of freedom is 1 / sqrt(2 n).
    limit = fdtri(len(rows) - 1, 0.5 / error**2, 1 - FALSE_SIGNAL)
    unit = float(value.std()) / math.sqrt(between) if between > 0 else 0.0
    seeds = given * unit if unit > 0 else given
    near = chance is not None and float(value.mean()) - chance < 2 * seeds
    return SizeSignal(
        float(observed.design.params[rows].median()),
        len(rows),
        math.sqrt(max(between - given**2, 0.0)) * unit,
        seeds,
        bool(ratio > limit),
        near,
    )


def _explained(audit: Audit, task: str) -> float | None:
    """One minus squared error over that of the mean, on held-out mixtures."""
    part = audit.table.filter(pl.col("task") == task, pl.col("fold").is_in(WITHIN))
    error = dict(zip(part["method"], part["error"], strict=True))
    if OURS not in error or not error.get("mean"):
        return None
    return float(1 - (error[OURS] / error["mean"]) ** 2)


def _short(params: float) -> str:
    """A size in short: 60M, 1.3B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if params >= unit:
            return f"{params / unit:.3g}{name}"
    return f"{params:.0f}"
