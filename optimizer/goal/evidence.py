"""What supports a recommendation: measured runs near it, forecasts, and the sentence that says whether it is enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Z90
from mixlaw.optimizer.goal.gains import apart, recipes_design
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.values import Forecast, Interval, percent
from mixlaw.optimizer.policy import LEAST_RADIUS, SURE
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe


def radius_of(near: Tensor) -> float:
    """Distance up to which measured recipes (M, P, K) speak for each other: the widest gap between neighbours."""
    if not len(near):
        return math.inf
    gaps = apart(near, near) + torch.eye(len(near))
    return max(LEAST_RADIUS, float(gaps.min(1).values.max())) if len(near) > 1 else LEAST_RADIUS


def near_runs(allowed: Feasible, measured: Design | None) -> tuple[Tensor, list[str]]:
    """Token shares of the finished, distinct measured recipes on the target's axes (M, P, K), and their runs.

    A run that used a phase or domain that the target does not have is no neighbour.
    """
    phases, names = allowed.target.all_phases, [d.name for d in allowed.domains]
    if measured is None:
        return torch.zeros(0, len(phases), len(names), dtype=torch.float64), []
    x = torch.zeros(len(measured), len(phases), len(names), dtype=torch.float64)
    for p, phase in enumerate(phases):
        for j, name in enumerate(names):
            if phase in measured.phases and name in measured.domains:
                x[:, p, j] = measured.shares[:, measured.phases.index(phase), measured.domains.index(name)]
    whole = torch.nonzero((x.sum((1, 2)) > 1 - 1e-3) & (measured.progress >= 1)).flatten()
    _, first = np.unique(x[whole].round(decimals=3).flatten(1).numpy(), axis=0, return_index=True)
    rows = whole[torch.as_tensor(np.sort(first), dtype=torch.long)]
    return x[rows], [measured.runs[i] for i in rows.tolist()]


def forecasts_of(posterior: Posterior, allowed: Feasible, recipes: Mapping[str, Recipe]) -> Iterator[Forecast]:
    """What a run of each recipe will measure, recipe by recipe; unknown histories widen the interval."""
    prediction = posterior.predict(recipes_design(posterior, allowed, list(recipes.values())))
    by_history = (len(prediction.mean) // len(recipes), len(recipes), len(posterior.tasks))
    mean, low, high, law = (
        x.reshape(by_history) for x in (prediction.mean, prediction.lo90, prediction.hi90, prediction.law_only)
    )
    between = Z90 * mean.std(0)
    for r, name in enumerate(recipes):
        for t, task in enumerate(posterior.tasks):
            ends = [
                sign * float(np.sqrt(((end[:, r, t] - mean[:, r, t]) ** 2).mean() + between[r, t] ** 2))
                for sign, end in ((-1.0, low), (1.0, high))
            ]
            middle, unit = float(mean[:, r, t].mean()), str(posterior.units[task])
            yield Forecast(name, task, unit, middle, middle + ends[0], middle + ends[1], float(law[:, r, t].mean()))


def sentence_of(supported: bool, gain: Interval, unit: str, against: str, beats: float, baselines: int) -> str:
    """The sentence that matters: whether a proposal is recommended over the best baseline."""
    odds = percent(beats)
    best = f"{against}, the best of {baselines} baselines" if baselines > 1 else against
    if supported:
        return f"The proposal gains {gain.text(unit)} over {best}; its chance to beat it is {odds}."
    if beats >= SURE:
        return (
            f"No recommendation: the gain of {gain.text(unit)} over {best} is far from every measured run; "
            "train runs near it."
        )
    return (
        f"No clear winner: the best candidate beats {best}, by {gain.text(unit)} ({odds} likely to be better); "
        f"train more runs, or take {against}."
    )
