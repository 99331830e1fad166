"""A ladder of validation: the recommendation and its baseline at the sizes between, with marks that were set before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.numbers import size
from mixlaw.optimizer.goal.gains import Objective, gain_of
from mixlaw.optimizer.goal.posterior import log_losses
from mixlaw.optimizer.goal.values import Interval, widened
from mixlaw.recipe import Domain, Recipe

STEP = 3.0  # times by which sizes grow at most from one rung to the next, about
MOST = 3  # rungs


@dataclass(frozen=True)
class Rung:
    """Both recipes at one size between the measured ones and the target.

    Attributes:
        recipe, baseline: to train; tokens in proportion to parameters, domains repeated as often as at the target.
        gain: predicted, of one run of each, in the unit of the goal, with its 90 % interval.
        mark: least measured gain with which the recommendation passes: the lower end of the interval, or 0.
    """

    recipe: Recipe
    baseline: Recipe
    gain: Interval
    mark: float

    def __str__(self) -> str:
        model = f"{size(self.recipe.params)} params on {size(self.recipe.tokens)} tokens"
        return f"validate at {model}: the gain is predicted as {self.gain.text()}, it passes from {self.mark:+.2g} on"

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Rung.from_json`."""
        recipes = {"recipe": self.recipe.as_json(), "baseline": self.baseline.as_json()}
        return {**recipes, "gain": asdict(self.gain), "mark": self.mark}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rung:
        """Read what `as_json` wrote."""
        recipe, baseline = (Recipe.from_json(data[name]) for name in ("recipe", "baseline"))
        return cls(recipe, baseline, Interval(**data["gain"]), data["mark"])


def rung_sizes(largest: float, target: float) -> tuple[int, ...]:
    """Sizes between the largest measured one and a target, in equal ratios; none where the target is hardly larger."""
    if not 0 < largest < target / 1.5:
        return ()
    count = max(1, min(MOST, round(math.log(target / largest) / math.log(STEP)) - 1))
    return tuple(round(largest * (target / largest) ** (i / (count + 1))) for i in range(1, count + 1))


def rungs_of(
    objective: Objective, recipe: Recipe, baseline: Recipe, sizes: Sequence[int], noise: Mapping[str, float]
) -> tuple[Rung, ...]:
    """The ladder for a recommendation and its baseline, both with all of their phases.

    Args:
        objective: of the target, in all draws.
        recipe, baseline: at the target.
        sizes: see `rung_sizes`.
        noise: standard deviation of one run over seeds by task, in the unit of its gains.
    """
    posterior, utility, domains = objective.posterior, objective.utility, objective.allowed.domains
    weights = dict(zip(utility.tasks, utility.weights.tolist(), strict=True))
    seeds = math.sqrt(2 * sum((weights[task] * noise[task]) ** 2 for task in weights))
    rungs = []
    for params in sizes:
        pair = [scaled(one, params, domains) for one in (recipe, baseline)]
        design: Design = design_of(pair, posterior.phases, posterior.domains, {})
        with torch.no_grad():
            mine, other = log_losses(posterior, design, len(objective.baseline)).unbind(1)
        gain = widened(gain_of(utility, mine, other).total, seeds)
        rungs.append(Rung(pair[0], pair[1], gain, max(gain.lo90, 0.0)))
    return tuple(rungs)


def scaled(recipe: Recipe, params: int, domains: Sequence[Domain]) -> Recipe:
    """A recipe at another size: tokens and unique tokens in proportion, so that domains repeat as often."""
    scale = params / recipe.params
    phases = tuple(replace(phase, tokens=max(1, round(phase.tokens * scale))) for phase in recipe.phases)
    unique = {d.name: max(1, round(d.unique_tokens * scale)) for d in domains if d.name in recipe.domains}
    return replace(recipe, params=params, phases=phases, unique=unique)
