"""Propose: the recipe for a target that is best in the light of the data, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.answers.proposal import Free, Proposal
from mixlaw.optimizer.answers.sensitivity import flat_directions, sizes_on_the_way, spread, unconstrained, way
from mixlaw.optimizer.goal.baselines import DEFAULTS, Entry
from mixlaw.optimizer.goal.evidence import forecasts_of, sentence_of
from mixlaw.optimizer.goal.gains import Objective, gain_of
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.values import PROPOSAL, Forecast
from mixlaw.optimizer.policy import BEYOND_RADIUS, CAUTION, FAR, SURE
from mixlaw.optimizer.search.climb import ENOUGH, best_points, on_ladder, one_thread
from mixlaw.optimizer.search.guards import keep_guard, kept
from mixlaw.optimizer.search.problem import distinct, problem_of
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.schedule import keep_schedule
from mixlaw.optimizer.target.target import Target
from mixlaw.progress import Progress
from mixlaw.recipe import Domain, Recipe


def propose(
    posterior: Posterior,
    target: Target,
    domains: Sequence[Domain],
    *,
    goal: Goal | None = None,
    baselines: Sequence[str] | Mapping[str, Recipe] = DEFAULTS,
    measured: Design | None = None,
    draws: int = 64,
    caution: float = CAUTION,
    starts: int = 12,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Proposal:
    """Find the recipe that maximises mean - caution x sd of the gain over the best baseline.

    The recommendation is chosen, and its gain estimated, in all draws. What noise and a wrong law have in common in all
    of them no estimate from them can correct: `verify` does. The search stays within a trust radius of measured
    recipes.

    Args:
        posterior: fitted surfaces.
        target: size, tokens and limits.
        domains: what there is to train on; the order does not matter.
        goal: what counts as better; the mean gain of all tasks in percent where None.
        baselines: names, or whole recipes by name, for the target's size and tokens.
        measured: runs behind the posterior; surfaces know theirs. Without any the posterior is trusted everywhere.
        draws: draws to consult, at least 8; no more than the surfaces have.
        caution: see above; 0 is the plain mean.
        starts: points that the search starts from.
        sizes: at which to show the optimum as well; the paper's or the largest measured one where None.
        seed: of the random starts.
        progress: told the share done and what is being done.

    Raises:
        InputError: unknown tasks, phases or domains.
        Infeasible: limits that contradict each other, guards included.
    """
    if measured is None and isinstance(posterior, Surfaces):
        measured = posterior.observed.design
    draws, kept = distinct(posterior, draws), keep_schedule(target, measured)
    request = _Request(
        posterior, kept.target, tuple(domains), goal or Goal(), baselines, measured, draws, caution, starts, seed
    )
    report = progress or (lambda _done, _what: None)
    report(0.02, "searching")
    with one_thread():
        proposal = _surveyed(request, _choose(request), sizes, report)
    return replace(proposal, warnings=(*proposal.warnings, *kept.notes))


@dataclass(frozen=True, eq=False)
class _Request:
    """The arguments of `propose`."""

    posterior: Posterior
    target: Target
    domains: tuple[Domain, ...]
    goal: Goal
    baselines: Sequence[str] | Mapping[str, Recipe]
    measured: Design | None
    draws: int
    caution: float
    starts: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Optimum:
    """The best variant of a target, its best point, and what was compared."""

    objective: Objective
    point: Points
    value: float
    baselines: Mapping[str, Entry]
    against: str
    runs: Sequence[str]


def _choose(request: _Request) -> _Optimum:
    """Search every branch of the target, and round a free size to the ladder."""
    problem = problem_of(
        request.posterior,
        request.target,
        request.domains,
        goal=request.goal,
        baselines=request.baselines,
        measured=request.measured,
        draws=request.draws,
        caution=request.caution,
    )
    references, tried = problem.references, []
    for objective, runs in zip(problem.objectives, problem.runs, strict=True):
        search = objective.within(objective.draws[:ENOUGH])
        point, value = best_points(search, problem.baselines, request.starts, request.seed)
        tried.append(_Optimum(search, point, value, references.entries, references.best, runs))
    best = max(tried, key=lambda each: each.value)
    objective, point = on_ladder(best.objective, best.point)
    return replace(best, objective=objective, point=keep_guard(objective, point))


def _surveyed(request: _Request, optimum: _Optimum, sizes: Sequence[int] | None, report: Progress) -> Proposal:
    """Judge what was found, and look around it."""
    search, measured, against = optimum.objective, request.measured, optimum.against
    objective = search.within(torch.arange(request.draws))
    recipe = objective.allowed.recipe(optimum.point)
    point = replace(objective.allowed.read([recipe]), params=optimum.point.params)  # as it is after rounding
    verdict = assessed(objective, recipe, optimum.baselines, against, measured, optimum.runs)
    report(0.6, "finding the optimum of every posterior draw")
    ends, length = spread(search, point)
    report(0.8, "looking at other sizes and without limits")
    shown = sizes_on_the_way(objective.allowed.target, recipe.params, _sizes(measured)) if sizes is None else sizes
    smaller = [size for size in shown if size < recipe.params]
    steps = way(search, point, optimum.baselines[against].recipe, smaller) if smaller else ()
    free = _free(objective, point)
    report(0.95, "looking for flat directions")
    flat = flat_directions(search, point)
    report(1.0, "proposed")
    return replace(
        verdict,
        target=request.target,
        spread=ends,
        length=length,
        flat=flat,
        begun=objective.allowed.target.prefix,
        free=free,
        way=steps,
    )


def _free(objective: Objective, point: Points) -> Free:
    """What a free hand would do, and what that would break."""
    bare, best = unconstrained(objective, point)
    recipe = bare.allowed.recipe(best)
    entry = Entry(recipe, bare.allowed)
    losses = entry.losses(bare.posterior, len(objective.draws))
    gain = float(objective.utility.total(losses[:, None], objective.reference).mean())
    broken = list(objective.allowed.violations(recipe))
    far = float(objective.distance(bare.allowed.read([recipe]))[0])
    if far > objective.radius + 1e-3:
        broken.append(f"the trust radius: {far:.0%} of its tokens differ from every measured run")
    return Free(recipe, gain, tuple(broken), far)


def _sizes(measured: Design | None) -> list[float]:
    return [] if measured is None else measured.params.tolist()


def assessed(
    objective: Objective,
    recipe: Recipe,
    baselines: Mapping[str, Entry],
    against: str,
    measured: Design | None,
    runs: Sequence[str],
) -> Proposal:
    """Predict what a recipe gains, and whether the data support recommending it.

    Args:
        objective: of the target; in all its draws.
        recipe: the recommendation.
        baselines: recipes to beat.
        against: the best of them.
        measured: the runs behind the posterior, for warnings about extrapolation.
        runs: names of the objective's measured neighbours.
    """
    posterior, allowed, utility = objective.posterior, objective.allowed, objective.utility
    entries = {PROPOSAL: Entry(recipe, allowed), **baselines}
    forecasts = tuple(
        f for name, entry in entries.items() for f in forecasts_of(posterior, entry.allowed, {name: entry.recipe})
    )
    count = len(objective.draws)
    losses = {name: entry.losses(posterior, count) for name, entry in entries.items()}
    gains = {name: gain_of(utility, losses[PROPOSAL], losses[name], posterior.tasks) for name in baselines}
    gain, beats = gains[against], {name: gain.probability for name, gain in gains.items()}
    far, neighbour = (part[0] for part in objective.distance(allowed.read([recipe])))
    warnings = [*_warnings(recipe, baselines, measured), *_disagreements(forecasts)]
    if float(far) > objective.radius + BEYOND_RADIUS:
        warnings.insert(0, f"{float(far):.0%} of its tokens differ from every measured run: there the law alone speaks")
    supported = beats[against] >= SURE and float(far) <= objective.radius + BEYOND_RADIUS
    unit = f" {utility.goal.unit}"
    return Proposal(
        target=allowed.target,
        recipe=recipe,
        supported=supported,
        sentence=sentence_of(supported, gain.total, unit, against, beats[against], len(baselines)),
        against=against,
        unit=utility.goal.unit,
        gain=gain.total,
        gains=gain.by_task,
        weights=dict(zip(posterior.tasks, utility.weights.tolist(), strict=True)),
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
        guarded=kept(objective, losses[PROPOSAL]),
    )


def _warnings(recipe: Recipe, baselines: Mapping[str, Entry], measured: Design | None) -> list[str]:
    """What is extrapolated, and which baselines the target would not allow."""
    warnings = []
    if measured is not None and len(measured):
        for what, wanted, most in (
            ("parameters", recipe.params, float(measured.params.max())),
            ("tokens", recipe.tokens, float(measured.total.max())),
        ):
            if wanted > FAR * most:
                warnings.append(f"the target has {wanted / most:.0f} times the {what} of the largest measured run")
    for name, baseline in baselines.items():
        broken = baseline.allowed.violations(baseline.recipe)
        if broken:
            warnings.append(f"baseline {name} is not allowed by the target ({'; '.join(broken)})")
    return warnings


def _disagreements(forecasts: Sequence[Forecast]) -> list[str]:
    """Tasks for which the law alone lies outside the interval that nearby runs make plausible."""
    odd = [f.task for f in forecasts if f.recipe == PROPOSAL and not f.lo90 <= f.law_only <= f.hi90]
    return [f"law and nearby runs disagree on {', '.join(odd)}"] if odd else []
