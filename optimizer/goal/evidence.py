"""Judge a recipe that a search has chosen: forecasts, gains, and whether the data support it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.optimizer.answers.proposal import PROPOSAL, Forecast, Interval, Proposal
from mixlaw.optimizer.answers.proposal import chance as chance_text
from mixlaw.optimizer.goal.gains import Objective, recipes_design, recipes_losses
from mixlaw.optimizer.goal.posterior import Beliefs
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe

SURE = 0.9  # chance to beat the best baseline from which a recommendation is supported
Z90 = 1.645  # half width of a normal 90 % interval in standard deviations
ROUNDING = 0.02  # share of tokens by which a recipe may pass the trust radius: the search is held back, not walled in
FAR = 10.0  # times the largest measured size, or its tokens, beyond which a warning says so


@dataclass(frozen=True)
class Entry:
    """A recipe and the target that it is for: branches of one target differ in what has been trained already."""

    recipe: Recipe
    allowed: Feasible

    def losses(self, beliefs: Beliefs, count: int) -> Tensor:
        """Log losses in every draw, (count, T)."""
        return recipes_losses(beliefs, self.allowed, [self.recipe], count)[:, 0]


def cross_fitted(own: Tensor, halves: Sequence[Tensor], chosen: Sequence[Tensor]) -> Tensor:
    """Log losses of a recipe in the worlds that chose it, freed of what the choice has flattered, (S, T).

    Near a smooth optimum of S worlds the plain mean gain is too high by b ~ 1 / S, and that of recipes which one half
    chooses and the other judges too low by b / 2, as they are worse: two parts of these and one of the plain are right.

    Args:
        own: log losses of the recipe, (S, T).
        halves: indices of the worlds, a part for every recipe.
        chosen: log losses (S, T) of the recipes that the worlds of each part have chosen.
    """
    losses = torch.empty_like(own)
    for i, worlds in enumerate(halves):
        losses[worlds] = chosen[1 - i][worlds]
    return (2 * losses + own) / 3


def judged(
    objective: Objective,
    recipe: Recipe,
    fitted: Tensor,
    baselines: Mapping[str, Entry],
    against: str,
    measured: Design | None,
    runs: Sequence[str],
) -> Proposal:
    """Tell what a recipe will bring.

    Args:
        objective: of the target; in all its worlds.
        recipe: the recommendation.
        fitted: log losses that are not flattered by the search, (S, T), see `cross_fitted`.
        baselines: recipes to beat.
        against: the best of them.
        measured: the runs behind the beliefs, for warnings about extrapolation.
        runs: names of the objective's measured neighbours.
    """
    beliefs, allowed, worth = objective.beliefs, objective.allowed, objective.worth
    entries = {PROPOSAL: Entry(recipe, allowed), **baselines}
    forecasts = tuple(
        f for name, entry in entries.items() for f in forecasts_of(beliefs, entry.allowed, {name: entry.recipe})
    )
    losses = {name: entry.losses(beliefs, len(fitted)) for name, entry in entries.items()}
    mine, best = fitted[:, None], losses[against]
    beats = {name: chance(worth.total(mine, losses[name])[:, 0]) for name in baselines}
    gain, by_task = interval(worth.total(mine, best)[:, 0]), worth.by_task(mine, best)[:, 0]
    far, neighbour = (part[0] for part in objective.distance(allowed.read([recipe])))
    warnings = [*_warnings(recipe, baselines, measured), *_disagreements(forecasts)]
    if float(far) > objective.radius + ROUNDING:
        warnings.insert(0, f"{float(far):.0%} of its tokens differ from every measured run: there the law alone speaks")
    supported = beats[against] >= SURE and float(far) <= objective.radius + ROUNDING
    unit = f" {worth.goal.unit}"
    return Proposal(
        target=allowed.target,
        recipe=recipe,
        supported=supported,
        sentence=sentence_of(supported, gain, unit, against, beats[against], len(baselines)),
        against=against,
        unit=worth.goal.unit,
        gain=gain,
        plain=float(worth.total(losses[PROPOSAL][:, None], best).mean()),
        gains={task: interval(by_task[:, t]) for t, task in enumerate(beliefs.tasks)},
        weights=dict(zip(beliefs.tasks, worth.weights.tolist(), strict=True)),
        beats=beats,
        baselines={name: entry.recipe for name, entry in baselines.items()},
        forecasts=forecasts,
        spread={},
        length=(recipe.phases[-1].tokens / recipe.tokens,) * 2,
        flat=(),
        distance=float(far),
        radius=objective.radius if runs else 0.0,
        nearest=runs[int(neighbour)] if runs else "",
        warnings=tuple(warnings),
    )


def forecasts_of(beliefs: Beliefs, allowed: Feasible, recipes: Mapping[str, Recipe]) -> Iterator[Forecast]:
    """What a run of each recipe will measure, recipe by recipe; unknown histories widen the interval."""
    found = beliefs.predict(recipes_design(beliefs, allowed, list(recipes.values())))
    by_history = (len(found.mean) // len(recipes), len(recipes), len(beliefs.tasks))
    mean, low, high, law = (x.reshape(by_history) for x in (found.mean, found.lo90, found.hi90, found.law_only))
    between = Z90 * mean.std(0)
    for r, name in enumerate(recipes):
        for t, task in enumerate(beliefs.tasks):
            ends = [
                sign * float(np.sqrt(((end[:, r, t] - mean[:, r, t]) ** 2).mean() + between[r, t] ** 2))
                for sign, end in ((-1.0, low), (1.0, high))
            ]
            middle, unit = float(mean[:, r, t].mean()), str(beliefs.units[task])
            yield Forecast(name, task, unit, middle, middle + ends[0], middle + ends[1], float(law[:, r, t].mean()))


def interval(values: Tensor) -> Interval:
    """Mean and normal 90 % interval of values over worlds, (S,)."""
    mean, half = float(values.mean()), Z90 * float(values.std())
    return Interval(mean, mean - half, mean + half)


def chance(values: Tensor) -> float:
    """Probability that a gain is positive, from its mean and spread over worlds, (S,)."""
    spread = max(float(values.std()), 1e-9)
    return 0.5 * (1 + math.erf(float(values.mean()) / spread / math.sqrt(2)))


def sentence_of(supported: bool, gain: Interval, unit: str, against: str, beats: float, baselines: int) -> str:
    """The sentence that matters: whether a proposal is recommended over the best of so many baselines."""
    odds = chance_text(beats)
    best = f"{against}, the best of {baselines} baselines" if baselines > 1 else against
    if supported:
        return f"The proposal gains {gain.text(unit)} over {best}; its chance to beat it is {odds}."
    if beats >= SURE:
        return (
            f"No recommendation: the gain of {gain.text(unit)} over {best} lies where no run has been; "
            "train runs near it."
        )
    return (
        f"The data do not support a recommendation over {best}: the gain is {gain.text(unit)}, "
        f"with a chance of {odds} to be one; train more runs, or take {against}."
    )


def _warnings(recipe: Recipe, baselines: Mapping[str, Entry], measured: Design | None) -> list[str]:
    """What is extrapolated, and which baselines the target would not allow."""
    found = []
    if measured is not None and len(measured):
        for what, wanted, most in (
            ("parameters", recipe.params, float(measured.params.max())),
            ("tokens", recipe.tokens, float(measured.total.max())),
        ):
            if wanted > FAR * most:
                found.append(f"the target has {wanted / most:.0f} times the {what} of the largest measured run")
    for name, baseline in baselines.items():
        broken = baseline.allowed.violations(baseline.recipe)
        if broken:
            found.append(f"baseline {name} is not allowed by the target ({'; '.join(broken)})")
    return found


def _disagreements(forecasts: Sequence[Forecast]) -> list[str]:
    """Tasks for which the law alone lies outside the interval that nearby runs make plausible."""
    odd = [f.task for f in forecasts if f.recipe == PROPOSAL and not f.lo90 <= f.law_only <= f.hi90]
    return [f"law and nearby runs disagree on {', '.join(odd)}"] if odd else []
