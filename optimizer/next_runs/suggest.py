"""Suggest: the next proxies for a target, by what they take off the regret of the recommendation per FLOP."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.optimizer.goal.baselines import DEFAULTS
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.references import Compared
from mixlaw.optimizer.next_runs.candidates import Candidate, pool_of
from mixlaw.optimizer.next_runs.costs import Prices, Proxies
from mixlaw.optimizer.next_runs.first_design import first_design
from mixlaw.optimizer.next_runs.recommendations import Recommendations, gains_by_draw, recommendations_of
from mixlaw.optimizer.next_runs.suggestion import Job, Suggestion, Value
from mixlaw.optimizer.next_runs.value import DRAWS, Batch, Predictions, choose_batch, plausible
from mixlaw.optimizer.policy import NEGLIGIBLE, UNLIKELY
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.schedule import usual_rates
from mixlaw.optimizer.target.target import Target
from mixlaw.progress import Progress
from mixlaw.recipe import Domain, Recipe

#: Recipes for the target that proxies are made from: optima of draws, points between them and others, spread points.
OPTIMA, BETWEEN, OTHERS = 12, 8, 12
#: Tokens of the target are lengthened by this share, to see what FLOPs bring there.
LONGER = 0.1


def suggest(
    posterior: Posterior | None,
    target: Target,
    domains: Sequence[Domain],
    proxies: Proxies,
    *,
    budget: float,
    count: int = 8,
    goal: Goal | None = None,
    baselines: Compared = DEFAULTS,
    against: str = "",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Suggestion:
    """Suggest up to `count` runs within a budget, best first.

    Without a posterior it is a first design. With one, runs are chosen that are expected to lower the regret of the
    recommendation most per FLOP, where training that is done or queued already costs nothing.

    Args:
        posterior: fitted surfaces; None where nothing is measured, or too little.
        target: what will be trained, its guard included; a first design shares itself out among branches.
        domains: what there is to train on.
        proxies: sizes, what is trained already, and what training costs.
        budget: FLOPs that the runs may cost together.
        count: most runs.
        goal: what counts as better; the mean gain of all tasks in percent where None.
        baselines, against: as in `propose`; a guard may name one of them.
        draws: posterior draws to consult.
        seed: of everything random.
        progress: told the share done and what is being done.

    Raises:
        InputError: a budget below the cheapest run, no runs asked for, unknown tasks, or limits that contradict.
    """
    if count < 1 or not 0 < budget < math.inf:
        raise InputError(
            f"suggest needs a finite budget above 0 and at least 1 run, got {budget:g} and {count}; give both"
        )
    report = progress or (lambda _done, _what: None)
    variants = _variants(posterior, target, domains)
    if posterior is None:
        report(0.1, "spreading a first design")
        first = _first(variants, proxies, budget, count, seed)
        return _checked(Suggestion(target, budget, tuple(_jobs(first, proxies))), proxies)
    report(0.05, "finding the optimum of every posterior draw")
    recommendations = recommendations_of(posterior, variants, goal or Goal(), draws, seed, baselines, against)
    report(0.6, "gathering candidates")
    pool = _pool(recommendations, proxies)
    report(0.7, "weighing candidates")
    counts = recommendations.task_gains.abs().amax((0, 1)) > 0
    batch = _batch(posterior, pool, proxies, domains, recommendations, counts, budget, count, seed)
    tasks = [name for name, counted in zip(posterior.tasks, counts, strict=True) if counted]
    pairs = zip(_jobs([pool[i] for i in batch.chosen], proxies), batch.values, batch.tasks, strict=True)
    jobs = tuple(replace(job, brings=value, task=tasks[number]) for job, value, number in pairs)
    report(1.0, "suggested")
    return _checked(Suggestion(target, budget, jobs, _value(recommendations, batch)), proxies)


def _variants(posterior: Posterior | None, target: Target, domains: Sequence[Domain]) -> list[Feasible]:
    """Recipes that every branch of a target allows, at the usual peak rate and in the schedule of the measured runs."""
    if isinstance(posterior, Surfaces):
        target = usual_rates(target, posterior.observed.design)
    return [feasible(target.on(branch), domains) for branch in target.branches] or [feasible(target, domains)]


def _first(variants: Sequence[Feasible], proxies: Proxies, budget: float, count: int, seed: int) -> list[Candidate]:
    """A first design; every branch gets its part of the places and the budget."""
    jobs: list[Candidate] = []
    for i, allowed in enumerate(variants):
        places = (count - len(jobs)) // (len(variants) - i)
        known = replace(proxies, queued=(*proxies.queued, *(c.recipe for c in jobs)))
        jobs += first_design(allowed, known, budget * places / count, places, seed)
    return jobs


def _pool(recommendations: Recommendations, proxies: Proxies) -> list[Candidate]:
    """Candidates made from contenders of every branch, those of the recommendation's first."""
    pool: dict[Recipe, Candidate] = {}
    for space in sorted(
        recommendations.spaces, key=lambda space: space is not recommendations.space(recommendations.leader)
    ):
        for candidate in pool_of(space.allowed, proxies, list(_wanted(recommendations, space))):
            pool.setdefault(candidate.recipe, candidate)
    return list(pool.values())


def _batch(
    posterior: Posterior,
    pool: Sequence[Candidate],
    proxies: Proxies,
    domains: Sequence[Domain],
    recommendations: Recommendations,
    counts: Tensor,
    budget: float,
    count: int,
    seed: int,
) -> Batch:
    """Choose among the candidates, in the knowledge of what the queue will show on the tasks that count (T,)."""
    queued = [recipe for recipe in proxies.queued if _is_covered(posterior, recipe)]
    recipes = [*(candidate.recipe for candidate in pool), *queued]
    predictions = _outlook(posterior, recipes, domains, recommendations, counts)
    pending = range(len(pool), len(recipes))
    return choose_batch(predictions, Prices(proxies, recipes), count, budget=budget, pending=pending, seed=seed)


def _wanted(recommendations: Recommendations, space: Objective) -> Iterator[Candidate]:
    """Recipes of one branch to try at a smaller size: the recommendation first, where it is one of them."""
    leader, chances, allowed = recommendations.leader, recommendations.chances, space.allowed
    here = [i for i in range(len(recommendations.points)) if recommendations.space(i) is space]
    if leader in here:
        yield Candidate(allowed.recipe(recommendations.point(leader)), "the recommendation, scaled down")
    else:
        best = max(here, key=lambda i: float(recommendations.gains[:, i].mean()))
        yield Candidate(allowed.recipe(recommendations.point(best)), "the best of another branch, scaled down")
    optima = [i for i in chances.argsort(descending=True).tolist() if chances[i] > 0 and i != leader and i in here]
    for i in optima[:OPTIMA]:
        why = f"scaled-down optimum of {float(chances[i]):.0%} of posterior draws"
        yield Candidate(allowed.recipe(recommendations.point(i)), why)
    spread = here[-OTHERS // len(recommendations.spaces) - BETWEEN :]
    for i in spread[:BETWEEN] if leader in here else ():
        point = between(recommendations.point(leader), recommendations.point(i))
        yield Candidate(allowed.recipe(point), "halfway from the recommendation to elsewhere")
    for i in spread[BETWEEN:]:
        yield Candidate(allowed.recipe(recommendations.point(i)), "far from the recommendation")


def between(one: Points, other: Points) -> Points:
    """The middle of recipes: what is allowed is convex in token shares, so it is allowed as well."""
    tokens, lengths = (one.tokens + other.tokens) / 2, (one.lengths + other.lengths) / 2
    params = torch.sqrt(one.params * other.params)
    return Points(tokens / lengths[..., None], lengths, (one.lr_end + other.lr_end) / 2, params)


def _outlook(
    posterior: Posterior,
    recipes: Sequence[Recipe],
    domains: Sequence[Domain],
    recommendations: Recommendations,
    counts: Tensor,
) -> Predictions:
    """Draws of the candidates and of the recommendations that may turn out best, on the tasks that count (T,)."""
    unique = {domain.name: float(domain.unique_tokens) for domain in domains}
    design = design_of(recipes, posterior.phases, posterior.domains, unique)
    with torch.no_grad():
        outcomes = log_losses(posterior, design, len(recommendations.gains))[..., counts]
        noise = posterior.spread(design)[:, counts]
    contenders = plausible(recommendations.gains)
    return Predictions(
        outcomes, recommendations.task_gains[:, contenders][..., counts], noise, recommendations.gains[:, contenders]
    )


def _is_covered(posterior: Posterior, recipe: Recipe) -> bool:
    """Whether the posterior knows all phases and domains of a recipe."""
    return {p.name for p in recipe.phases} <= {*posterior.phases} and {*recipe.domains} <= {*posterior.domains}


def _jobs(chosen: Sequence[Candidate], proxies: Proxies) -> list[Job]:
    """Candidates in their order with what each costs and resumes from."""
    jobs: list[Job] = []
    for candidate in chosen:
        recipe = candidate.recipe
        other, tokens = proxies.start(recipe, [job.recipe for job in jobs])
        cost, whole = (proxies.flops(recipe.params, count) for count in (recipe.tokens - tokens, recipe.tokens))
        jobs.append(Job(recipe, candidate.why, cost, whole - cost, other.lineage if other else "", tokens))
    return jobs


def _value(recommendations: Recommendations, batch: Batch) -> Value:
    """Compare what a batch brings with what its FLOPs would bring in a longer training of the target."""
    space, point = recommendations.space(recommendations.leader), recommendations.point(recommendations.leader)
    target = space.allowed.target
    more = replace(space.allowed, target=target.changed(tokens=round(target.tokens * (1 + LONGER))))
    with torch.no_grad():
        now, then = (gains_by_draw(s, s.losses(point)).mean() for s in (space, replace(space, allowed=more)))
    rate = float(then - now) / math.log1p(LONGER)  # percent per factor e of tokens
    equivalent_flops = math.inf if rate <= 0 else target.flops * math.expm1(min(batch.value / rate, 50.0))
    stop = batch.value < NEGLIGIBLE and batch.changes < UNLIKELY
    return Value(batch.regret, batch.value, batch.changes, equivalent_flops, stop)


def _checked(suggestion: Suggestion, proxies: Proxies) -> Suggestion:
    """Refuse a budget that pays for nothing."""
    if not suggestion.jobs:
        raise InputError(
            f"a budget of {suggestion.budget:.3g} FLOPs pays for no run; a new recipe of the smallest size costs "
            f"{min(proxies.flops(*size) for size in proxies.sizes.items()):.3g}, give that much"
        )
    return suggestion
