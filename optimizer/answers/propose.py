"""Propose: the recipe for a target that is best in the light of the data, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.answers.held_back import broken, held_back
from mixlaw.optimizer.answers.ladder import rung_sizes, rungs_of
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.risk import Risk, risks_of
from mixlaw.optimizer.answers.sensitivity import (
    Free,
    flat_directions,
    optima_by_draw,
    sizes_on_the_way,
    spread,
    unconstrained,
    way,
)
from mixlaw.optimizer.goal.evidence import forecasts_of
from mixlaw.optimizer.goal.gains import Objective, gain_of, lower_bound, recipes_design
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.references import Compared, Entry, References
from mixlaw.optimizer.goal.values import PROPOSAL, Forecast
from mixlaw.optimizer.policy import CAUTION, FAR, REPEATS
from mixlaw.optimizer.search.climb import one_thread
from mixlaw.optimizer.search.optimum import STARTS, Optimum, Search
from mixlaw.optimizer.search.problem import Problem, distinct, problem_of
from mixlaw.optimizer.search.support import evidence_of
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
    baselines: Compared | None = None,
    against: str = "",
    measured: Design | None = None,
    draws: int = 64,
    caution: float = CAUTION,
    starts: int = STARTS,
    sizes: Sequence[int] | None = None,
    rungs: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Proposal:
    """Find the recipe that maximises mean - caution x sd of the gain over a baseline, and keeps the target's guard.

    The recommendation is chosen, and its gain estimated, in all draws. What noise and a wrong law have in common in all
    of them no estimate from them can correct: `verify` does. The search stays within a trust radius of measured
    recipes. Baselines have the schedule of the recommendation, and are drawn inside the limits of the target.

    Args:
        posterior: fitted surfaces.
        target: size, tokens and limits.
        domains: what there is to train on; the order does not matter.
        goal: what counts as better; the mean gain of all tasks in percent where None.
        baselines: names; or by name a mixture, or a recipe whose mixtures are taken.
        against: the baseline that gains refer to; the best one where not given.
        measured: runs behind the posterior; surfaces know theirs. Without any the posterior is trusted everywhere.
        draws: draws to consult, at least 8; no more than the surfaces have.
        caution: see above; 0 is the plain mean.
        starts: points that the search starts from.
        sizes: at which to show the optimum as well; the paper's or the largest measured one where None.
        rungs: sizes at which to validate it; some between the largest measured one and the target where None.
        seed: of the random starts.
        progress: told the share done and what is being done.

    Raises:
        InputError: unknown tasks, phases or domains.
        Infeasible: limits that contradict each other.
    """
    if measured is None and isinstance(posterior, Surfaces):
        measured = posterior.observed.design
    draws, kept = distinct(posterior, draws), keep_schedule(target, measured)
    report = progress or (lambda _done, _what: None)
    report(0.02, "searching")
    asked = {"goal": goal, "baselines": baselines, "against": against, "measured": measured}
    with one_thread():
        problem = problem_of(posterior, kept.target, domains, draws=draws, caution=caution, **asked)  # type: ignore[arg-type]
        proposal = _surveyed(Search(problem, starts, seed).optimum(), measured, sizes, rungs, report)
    return replace(proposal, warnings=(*proposal.warnings, *kept.notes))


def _surveyed(
    optimum: Optimum,
    measured: Design | None,
    sizes: Sequence[int] | None,
    rungs: Sequence[int] | None,
    report: Progress,
) -> Proposal:
    """Judge what was found, and look around it."""
    problem, search, wide = optimum.problem, optimum.search, optimum.wide
    objective = search.within(torch.arange(len(search.baseline)))
    recipe = objective.allowed.recipe(optimum.point)
    point = replace(objective.allowed.read([recipe]), params=optimum.point.params)  # as it is after rounding
    verdict = assessed(problem, objective, recipe, measured, problem.runs[optimum.index])
    report(0.5, "looking for what stops a gain")
    verdict = replace(verdict, sentence=held_back(optimum) or verdict.sentence)
    report(0.6, "finding the optimum of every posterior draw")
    optima = optima_by_draw(wide, point)
    ends, length = spread(wide.allowed, optima)
    report(0.8, "looking at other sizes and without limits")
    shown = sizes_on_the_way(objective.allowed.target, recipe.params, _sizes(measured)) if sizes is None else sizes
    smaller = [size for size in shown if size < recipe.params]
    baseline = problem.references.entries[verdict.against].recipe
    steps = way(search, point, baseline, smaller) if smaller else ()
    free = _free(objective, point)
    report(0.95, "looking for flat directions")
    flat = flat_directions(wide, point)
    report(1.0, "proposed")
    target = objective.allowed.target
    between = rung_sizes(max(_sizes(measured), default=0.0), recipe.params) if rungs is None else rungs
    ladder = (
        rungs_of(objective, recipe, baseline, between, verdict.noise) if target.known and not target.under_way else ()
    )
    return replace(
        verdict,
        spread=ends,
        length=length,
        flat=flat,
        begun=target.prefix,
        free=free,
        way=steps,
        risks=_risks(objective, wide, optima, recipe, problem.references),
        ladder=ladder,
    )


def _risks(
    objective: Objective, wide: Objective, optima: Points, recipe: Recipe, references: References
) -> dict[str, Risk]:
    """What the recommendation and every baseline risk."""
    own = Entry(recipe, objective.allowed).losses(objective.posterior, len(objective.draws))
    with torch.no_grad():
        best = wide.within(objective.draws).losses(optima)
    return risks_of(objective.utility, {PROPOSAL: own, **references.losses}, best, references.baseline)


def _free(objective: Objective, point: Points) -> Free:
    """What a free hand would do, and what that would break."""
    bare, best = unconstrained(objective, point)
    recipe = bare.allowed.recipe(best)
    entry = Entry(recipe, bare.allowed)
    losses = entry.losses(bare.posterior, len(objective.draws))
    gain = float(objective.utility.total(losses[:, None], objective.reference).mean())
    far = float(objective.distance(bare.allowed.read([recipe]))[0])
    return Free(recipe, gain, tuple(broken(objective, recipe)), far)


def _sizes(measured: Design | None) -> list[float]:
    return [] if measured is None else measured.params.tolist()


def assessed(
    problem: Problem, objective: Objective, recipe: Recipe, measured: Design | None, runs: Sequence[str]
) -> Proposal:
    """Predict what a recipe gains, and whether the data support recommending it.

    Args:
        problem: with baselines of the recipe's schedule.
        objective: of the recipe's variant of the target; in all its draws.
        recipe: the recommendation.
        measured: the runs behind the posterior, for what is extrapolated.
        runs: names of the objective's measured neighbours.
    """
    posterior, allowed, utility = objective.posterior, objective.allowed, objective.utility
    references = problem.references
    entries = {PROPOSAL: Entry(recipe, allowed), **references.entries}
    forecasts = tuple(
        forecast
        for name, entry in entries.items()
        for forecast in forecasts_of(posterior, recipes_design(posterior, entry.allowed, [entry.recipe]), [name])
    )
    losses = entries[PROPOSAL].losses(posterior, len(objective.draws))
    over = {name: gain_of(utility, losses, other) for name, other in references.losses.items()}
    evidence, nearest = evidence_of(problem, objective, recipe, losses, measured, runs)
    return Proposal(
        target=problem.target,
        recipe=recipe,
        supported=evidence.supported,
        sentence=evidence.sentence,
        reasons=evidence.reasons,
        against=references.against,
        unit=utility.goal.unit,
        over=over,
        weights=dict(zip(posterior.tasks, utility.weights.tolist(), strict=True)),
        groups={name: tuple(tasks) for name, tasks in utility.goal.groups.items()},
        noise=_noise(objective, entries[PROPOSAL], losses),
        percent=dict(zip(posterior.tasks, objective.task_percent.tolist(), strict=True)),
        combined="sum" if utility.is_sum else "worst" if utility.goal.worst else "",
        baselines={name: entry.recipe for name, entry in references.entries.items()},
        forecasts=forecasts,
        spread={},
        length=(recipe.phases[-1].tokens / recipe.tokens,) * 2,
        flat=(),
        distance=evidence.distance or 0.0,
        radius=objective.radius if runs else 0.0,
        nearest=nearest,
        warnings=(
            *_of_size(problem, recipe),
            *_warnings(problem, recipe, references, measured),
            *_disagreements(forecasts),
        ),
        directions=tuple(evidence.directions),
        guarded=dict(evidence.guarded or {}),
        may_lose=_may_lose(objective),
        bound=float(lower_bound(utility.total(losses[:, None], references.baseline), objective.caution)),
    )


def _noise(objective: Objective, entry: Entry, losses: Tensor) -> dict[str, float]:
    """Standard deviation, in the unit of each task's gains, of one run of a recipe over seeds."""
    design = recipes_design(objective.posterior, entry.allowed, [entry.recipe])
    spread = objective.posterior.spread(design).mean(0).detach()
    middle = losses.mean(0, keepdim=True)
    one = objective.utility.by_task((middle - spread)[:, None], middle)[0, 0].abs()
    return dict(zip(objective.utility.tasks, one.tolist(), strict=True))


def _may_lose(objective: Objective) -> dict[str, float]:
    """What each guarded task may lose."""
    guarded = objective.guarded
    pairs = zip(objective.utility.tasks, guarded.most.tolist() if guarded else [], strict=False)
    return {task: most for task, most in pairs if math.isfinite(most)}


def _warnings(problem: Problem, recipe: Recipe, references: References, measured: Design | None) -> list[str]:
    """What is extrapolated, what lies at a bound, and which baselines were drawn inside the limits."""
    warnings = []
    if measured is not None and len(measured):
        times = recipe.tokens / float(measured.total.max())
        if times > FAR:
            warnings.append(f"the target has {times:.0f} times the tokens of the largest measured run")
        warnings += _repeats(problem.objectives[0].allowed.domains, recipe, measured)
    for name, entry in references.entries.items():
        if entry.moved:
            warnings.append(
                f"baseline {name} is drawn inside the limits, its own mixture breaks: {'; '.join(entry.moved)}"
            )
    return warnings


def _repeats(domains: Sequence[Domain], recipe: Recipe, measured: Design) -> list[str]:
    """The domains that a recipe reads more often than any run did."""
    read = (measured.tokens.sum(1) / measured.unique).amax(0).clamp_min(1.0)
    most = dict(zip(measured.domains, read.tolist(), strict=True))
    epochs = {d.name: recipe.domain_tokens(d.name) / recipe.unique.get(d.name, d.unique_tokens) for d in domains}
    unseen = [f"{name} {times:.1f} times" for name, times in epochs.items() if times > REPEATS * most.get(name, 1.0)]
    if not unseen:
        return []
    return [
        f"reads {', '.join(unseen)}, more often than any run: what that costs is known from other models alone; "
        "train proxies that repeat as often (simulate_epochs)"
    ]


def _of_size(problem: Problem, recipe: Recipe) -> list[str]:
    """What to say where the size was free: what was chosen, whether it is at an end, and what the fit knows of size."""
    if problem.target.sizes is None:
        return []
    low, high = problem.objectives[0].allowed.sizes
    chosen = (
        f"size chosen: {recipe.params:,} params on {recipe.tokens:,} tokens "
        f"({recipe.tokens / recipe.params:.3g} per parameter), of {low:,.0f} to {high:,.0f} params"
    )
    end = "smallest" if recipe.params < 1.01 * low else "largest" if recipe.params > 0.99 * high else ""
    bound = [f"the best size is the {end} that is allowed: the optimum may lie beyond"] if end else []
    surfaces = problem.objectives[0].posterior
    notes = {n for of in surfaces.notes.values() for n in of} if isinstance(surfaces, Surfaces) else set()
    return [chosen, *bound, *sorted(n for n in notes if "ize" in n or "alpha" in n)]


def _disagreements(forecasts: Sequence[Forecast]) -> list[str]:
    """Tasks for which the law alone lies outside the interval that nearby runs make plausible."""
    odd = [f.task for f in forecasts if f.recipe == PROPOSAL and not f.lo90 <= f.law_only <= f.hi90]
    return [f"law and nearby runs disagree on {', '.join(odd)}"] if odd else []
