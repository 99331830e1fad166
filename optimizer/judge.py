"""Judge a recipe that a search has chosen: forecasts, gains, and whether the data support it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.objective import Objective, log_losses, points_of, recipes_design
from mixlaw.optimizer.proposal import PROPOSAL, Forecast, Interval, Proposal
from mixlaw.optimizer.proposal import chance as chance_text
from mixlaw.recipe import Recipe

SURE = 0.9  # chance to beat the best baseline from which a recommendation is supported
Z90 = 1.645  # half width of a normal 90 % interval in standard deviations
ROUNDING = 0.02  # share of tokens by which a recipe may pass the trust radius: the search is held back, not walled in
FAR = 10.0  # times the largest measured size, or its tokens, beyond which a warning says so


def judged(
    objective: Objective,
    recipe: Recipe,
    baselines: Mapping[str, Recipe],
    against: str,
    measured: Design | None,
    runs: Sequence[str],
) -> Proposal:
    """Tell what a recipe will bring, in the worlds of the objective, which should not be those that chose it.

    Args:
        objective: of the target; its worlds judge.
        recipe: the recommendation.
        baselines: recipes to beat.
        against: the best of them.
        measured: the runs behind the beliefs, for warnings about extrapolation.
        runs: names of the objective's measured neighbours.
    """
    beliefs, allowed = objective.beliefs, objective.allowed
    forecasts = _forecasts(beliefs, objective, {PROPOSAL: recipe, **baselines})
    losses = log_losses(beliefs, recipes_design(beliefs, allowed, [recipe, *baselines.values()]), objective.count)
    losses = losses[objective.worlds]
    ahead = 100 * (losses[:, 1:] - losses[:, :1])  # gain of the proposal over every baseline, (S, B, T)
    weighted, best = ahead @ objective.weights, list(baselines).index(against)
    beats = {name: _chance(weighted[:, b]) for b, name in enumerate(baselines)}
    gain = _interval(weighted[:, best])
    far, neighbour = (part[0] for part in objective.distance(*points_of(allowed, [recipe])))
    warnings = [*_warnings(objective, recipe, baselines, measured), *_disagreements(forecasts)]
    if float(far) > objective.radius + ROUNDING:
        warnings.insert(0, f"{float(far):.0%} of its tokens differ from every measured run: there the law alone speaks")
    supported = beats[against] >= SURE and float(far) <= objective.radius + ROUNDING
    return Proposal(
        target=allowed.target,
        recipe=recipe,
        supported=supported,
        sentence=_sentence(supported, gain, against, beats[against], len(baselines)),
        against=against,
        gain=gain,
        gains={task: _interval(ahead[:, best, t]) for t, task in enumerate(beliefs.tasks)},
        weights=dict(zip(beliefs.tasks, objective.weights.tolist(), strict=True)),
        beats=beats,
        baselines=dict(baselines),
        forecasts=forecasts,
        spread={},
        length=(recipe.phases[-1].tokens / recipe.tokens,) * 2,
        flat=(),
        distance=float(far),
        radius=objective.radius if runs else 0.0,
        nearest=runs[int(neighbour)] if runs else "",
        warnings=tuple(warnings),
    )


def _forecasts(beliefs: Beliefs, objective: Objective, recipes: Mapping[str, Recipe]) -> tuple[Forecast, ...]:
    found = beliefs.predict(recipes_design(beliefs, objective.allowed, list(recipes.values())))
    ends = (found.mean, found.lo90, found.hi90, found.law_only)
    return tuple(
        Forecast(name, task, str(beliefs.units[task]), *(float(values[r, t]) for values in ends))
        for r, name in enumerate(recipes)
        for t, task in enumerate(beliefs.tasks)
    )


def _interval(values: Tensor) -> Interval:
    """Mean and normal 90 % interval of values over worlds, (S,)."""
    mean, half = float(values.mean()), Z90 * float(values.std())
    return Interval(mean, mean - half, mean + half)


def _chance(values: Tensor) -> float:
    """Probability that a gain is positive, from its mean and spread over worlds, (S,)."""
    spread = max(float(values.std()), 1e-9)
    return 0.5 * (1 + math.erf(float(values.mean()) / spread / math.sqrt(2)))


def _sentence(supported: bool, gain: Interval, against: str, chance: float, baselines: int) -> str:
    odds = chance_text(chance)
    best = f"{against}, the best of {baselines} baselines" if baselines > 1 else against
    if supported:
        return f"The proposal gains {gain.text(' %')} of loss over {best}; its chance to beat it is {odds}."
    if chance >= SURE:
        return (
            f"No recommendation: the gain of {gain.text(' %')} over {best} lies where no run has been; "
            "train runs near it."
        )
    return (
        f"The data do not support a recommendation over {best}: the gain is {gain.text(' %')} of loss, "
        f"with a chance of {odds} to be one; train more runs, or take {against}."
    )


def _warnings(
    objective: Objective, recipe: Recipe, baselines: Mapping[str, Recipe], measured: Design | None
) -> list[str]:
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
        broken = objective.allowed.violations(baseline)
        if broken:
            found.append(f"baseline {name} is not allowed by the target ({'; '.join(broken)})")
    return found


def _disagreements(forecasts: Sequence[Forecast]) -> list[str]:
    """Tasks for which the law alone lies outside the interval that nearby runs make plausible."""
    odd = [f.task for f in forecasts if f.recipe == PROPOSAL and not f.lo90 <= f.law_only <= f.hi90]
    return [f"law and nearby runs disagree on {', '.join(odd)}"] if odd else []
