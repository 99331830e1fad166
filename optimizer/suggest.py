"""Suggest: the next proxies for a target, by what they take off the regret of the recommendation per FLOP."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from mixlaw.analysis.from_recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.choose import WORLDS
from mixlaw.optimizer.cold_start import cold_start
from mixlaw.optimizer.constraints import Feasible, feasible
from mixlaw.optimizer.contenders import Contest, contest_of, stakes_of
from mixlaw.optimizer.goal import task_weights
from mixlaw.optimizer.knowledge import TRIFLE, Batch, Outlook, choose_batch, plausible
from mixlaw.optimizer.objective import log_losses
from mixlaw.optimizer.points import Points
from mixlaw.optimizer.pool import Candidate, pool_of
from mixlaw.optimizer.proxies import Prices, Proxies
from mixlaw.optimizer.suggestion import Job, Suggestion, Value
from mixlaw.optimizer.target import Target
from mixlaw.recipe import Domain, Recipe

Progress = Callable[[float, str], None]

#: Recipes for the target that proxies are made from: optima of worlds, points between them and others, spread points.
OPTIMA, BETWEEN, OTHERS = 12, 8, 12
#: Chance below which a change of the recommendation is not worth waiting for.
UNLIKELY = 0.05
#: Tokens of the target are lengthened by this share, to see what FLOPs bring there.
LONGER = 0.1


def suggest(
    beliefs: Beliefs | None,
    target: Target,
    domains: Sequence[Domain],
    proxies: Proxies,
    *,
    budget: float,
    count: int = 8,
    weights: Mapping[str, float] | None = None,
    worlds: int = WORLDS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Suggestion:
    """Suggest up to `count` runs within a budget, best first.

    Without beliefs it is a first design. With them, runs are chosen that are expected to take most off the regret of
    the recommendation per FLOP, where training that is done or queued already costs nothing.

    Args:
        beliefs: fitted surfaces; None where nothing is measured, or too little.
        target: what will be trained; of several branches the first.
        domains: what there is to train on.
        proxies: sizes, what is trained already, and what training costs.
        budget: FLOPs that the runs may cost together.
        count: most runs.
        weights: of tasks in the gain, equal where None.
        worlds: posterior draws to consult.
        seed: of everything random.
        progress: told the share done and what is being done.

    Raises:
        InputError: a budget below the cheapest run, no runs asked for, unknown tasks, or limits that contradict.
    """
    if count < 1 or not 0 < budget < math.inf:
        raise InputError(
            f"suggest needs a finite budget above 0 and at least 1 run, got {budget:g} and {count}; give both"
        )
    tell = progress or (lambda _done, _what: None)
    allowed = feasible(target.on(target.branches[0]) if target.branches else target, domains)
    if beliefs is None:
        tell(0.1, "spreading a first design")
        first = cold_start(allowed, proxies, budget, count, seed)
        return _checked(Suggestion(target, budget, tuple(_jobs(first, proxies))), proxies)
    task = task_weights(beliefs, weights)
    tell(0.05, "finding the optimum of every world")
    contest = contest_of(beliefs, allowed, task, worlds, seed)
    tell(0.6, "gathering candidates")
    pool = pool_of(allowed, proxies, list(_wanted(allowed, contest)))
    tell(0.7, "weighing candidates")
    batch = _batch(beliefs, pool, proxies, domains, contest, budget, count, seed)
    tasks = [name for name, weight in zip(beliefs.tasks, task, strict=True) if weight > 0]
    jobs = tuple(
        replace(job, brings=value, task=tasks[number])
        for job, value, number in zip(
            _jobs([pool[i] for i in batch.chosen], proxies), batch.values, batch.tasks, strict=True
        )
    )
    tell(1.0, "suggested")
    return _checked(Suggestion(target, budget, jobs, _value(beliefs, allowed, contest, batch, task)), proxies)


def _batch(
    beliefs: Beliefs,
    pool: Sequence[Candidate],
    proxies: Proxies,
    domains: Sequence[Domain],
    contest: Contest,
    budget: float,
    count: int,
    seed: int,
) -> Batch:
    """Choose among the candidates, in the knowledge of what the queue will show."""
    queued = [recipe for recipe in proxies.queued if _foretold(beliefs, recipe)]
    recipes = [*(candidate.recipe for candidate in pool), *queued]
    outlook = _outlook(beliefs, recipes, domains, contest)
    pending = range(len(pool), len(recipes))
    return choose_batch(outlook, Prices(proxies, recipes), count, budget=budget, pending=pending, seed=seed)


def _wanted(allowed: Feasible, contest: Contest) -> Iterator[Candidate]:
    """Recipes for the target that are worth trying in small: the recommendation first."""
    points, leader, chances = contest.points, contest.leader, contest.chances
    yield Candidate(allowed.recipe(_at(points, leader)), "the recommendation in small")
    optima = [i for i in chances.argsort(descending=True).tolist() if chances[i] > 0 and i != leader][:OPTIMA]
    for i in optima:
        yield Candidate(
            allowed.recipe(_at(points, i)), f"the best recipe in {float(chances[i]):.0%} of worlds, in small"
        )
    spread = list(range(len(points) - OTHERS - BETWEEN, len(points)))
    for i in spread[:BETWEEN]:
        point = between(_at(points, leader), _at(points, i))
        yield Candidate(allowed.recipe(point), "halfway from the recommendation to elsewhere")
    for i in spread[BETWEEN:]:
        yield Candidate(allowed.recipe(_at(points, i)), "far from the recommendation")


def _at(points: Points, index: int) -> Points:
    return points[torch.tensor([index])]


def between(one: Points, other: Points) -> Points:
    """The middle of recipes: what is allowed is convex in token shares, so it is allowed as well."""
    tokens, lengths = (one.tokens + other.tokens) / 2, (one.lengths + other.lengths) / 2
    params = torch.sqrt(one.params * other.params)
    return Points(tokens / lengths[..., None], lengths, (one.lr_end + other.lr_end) / 2, params)


def _outlook(beliefs: Beliefs, recipes: Sequence[Recipe], domains: Sequence[Domain], contest: Contest) -> Outlook:
    """What the beliefs foretell of the candidates, and of the contenders that matter."""
    unique = {domain.name: float(domain.unique_tokens) for domain in domains}
    design = design_of(recipes, beliefs.phases, beliefs.domains, unique)
    counts = contest.stakes.abs().amax((0, 1)) > 0
    with torch.no_grad():
        outcomes = log_losses(beliefs, design, len(contest.stakes))[..., counts]
        noise = beliefs.spread(design)[:, counts]
    return Outlook(outcomes, contest.stakes[:, plausible(contest.gains)][..., counts], noise)


def _foretold(beliefs: Beliefs, recipe: Recipe) -> bool:
    """Whether the beliefs know all phases and domains of a recipe."""
    return {p.name for p in recipe.phases} <= {*beliefs.phases} and {*recipe.domains} <= {*beliefs.domains}


def _jobs(chosen: Sequence[Candidate], proxies: Proxies) -> list[Job]:
    """Candidates in their order with what each costs and goes on from."""
    jobs: list[Job] = []
    for candidate in chosen:
        recipe = candidate.recipe
        other, tokens = proxies.start(recipe, [job.recipe for job in jobs])
        cost, whole = (proxies.flops(recipe.params, count) for count in (recipe.tokens - tokens, recipe.tokens))
        jobs.append(Job(recipe, candidate.why, cost, whole - cost, other.lineage if other else "", tokens))
    return jobs


def _value(beliefs: Beliefs, allowed: Feasible, contest: Contest, batch: Batch, task: torch.Tensor) -> Value:
    """Compare what a batch brings with what its FLOPs would bring in a longer training of the target."""
    point, target = _at(contest.points, contest.leader), allowed.target
    longer = replace(allowed, target=replace(target, tokens=round(target.tokens * (1 + LONGER))))
    with torch.no_grad():
        now, then = (stakes_of(beliefs, a, point, task, len(contest.stakes)).sum(-1).mean() for a in (allowed, longer))
    rate = float(then - now) / math.log1p(LONGER)  # percent per factor e of tokens
    worth = math.inf if rate <= 0 else target.flops * math.expm1(min(batch.value / rate, 50.0))
    stop = batch.value < TRIFLE and batch.changes < UNLIKELY
    return Value(batch.regret, batch.value, batch.changes, worth, stop)


def _checked(suggestion: Suggestion, proxies: Proxies) -> Suggestion:
    """Refuse a budget that pays for nothing."""
    if not suggestion.jobs:
        raise InputError(
            f"a budget of {suggestion.budget:.3g} FLOPs pays for no run; a new recipe of the smallest size costs "
            f"{min(proxies.flops(*size) for size in proxies.sizes.items()):.3g}, give that much"
        )
    return suggestion
