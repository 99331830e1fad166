"""Suggest: the next proxies for a target, by what they take off the regret of the recommendation per FLOP."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.discrepancy import MIXTURE, expected_discrepancy
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.errors import InputError
from mixlaw.numbers import percent
from mixlaw.optimizer.goal.evidence import LARGEST, directions_of
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.references import Compared
from mixlaw.optimizer.next_runs.candidates import Candidate, pool_of, untried
from mixlaw.optimizer.next_runs.costs import Prices, Proxies
from mixlaw.optimizer.next_runs.first_design import features, first_design, unexplored
from mixlaw.optimizer.next_runs.information import Linear, own_luck
from mixlaw.optimizer.next_runs.recommendations import Recommendations, recommendations_of
from mixlaw.optimizer.next_runs.suggestion import Job, Spending, Suggestion, Value
from mixlaw.optimizer.next_runs.value import DRAWS, Batch, Predictions, choose_batch, plausible
from mixlaw.optimizer.policy import NEGLIGIBLE, SAME, UNLIKELY
from mixlaw.optimizer.search.problem import distinct
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Target, training_flops
from mixlaw.progress import Progress
from mixlaw.recipe import Domain, Recipe

#: Recipes for the target that proxies are made from: optima of draws, points between them and others, spread points.
OPTIMA, BETWEEN, OTHERS = 12, 8, 12
#: Tokens of the target are lengthened by this share, to see what FLOPs bring there.
LONGER = 0.1
#: Multiples of the budget, and of the runs, whose value is told as well.
BUDGETS = (0.5, 1.0, 2.0)
#: Part of the cheapest new recipe below which a budget pays for no branch of one either, so that nothing is searched.
LEAST_PART = 1e-3


def suggest(
    posterior: Posterior | None,
    target: Target,
    domains: Sequence[Domain],
    proxies: Proxies,
    *,
    budget: float,
    count: int = 8,
    goal: Goal | None = None,
    baselines: Compared | None = None,
    against: str = "",
    measured: Design | None = None,
    known: Sequence[Recipe] = (),
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Suggestion:
    """Suggest up to `count` runs within a budget, best first.

    Without a posterior it is a first design. With one, runs are chosen that are expected to improve the recommendation
    of `propose` most within the budget, where training that is done or queued already costs nothing.

    Args:
        posterior: fitted surfaces; None where nothing is measured, or too little.
        target: what will be trained, its guard included; a first design shares itself out among branches.
        domains: what there is to train on.
        proxies: sizes, what is trained already, and what training costs.
        budget: FLOPs that the runs may cost together.
        count: most runs.
        goal: what counts as better; the mean gain of all tasks in percent where None.
        baselines, against: as in `propose`; a guard may name one of them.
        measured: runs behind the posterior; surfaces know theirs. Without any the posterior is trusted at every size.
        known: more recipes that may be recommended in the end: a frozen proposal.
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
    if budget < LEAST_PART * _whole_run(proxies):
        raise InputError(_too_small(budget, proxies))
    report = progress or (lambda _done, _what: None)
    if posterior is None:
        report(0.1, "spreading a first design")
        variants = [feasible(target.on(branch), domains) for branch in target.branches] or [feasible(target, domains)]
        first = _first(variants, proxies, budget, count, seed)
        return _checked(Suggestion(target, budget, tuple(_jobs(first, proxies))), proxies)
    how = goal or Goal(), baselines, against, measured, known, draws, seed
    return _checked(_after_fit(_Request(posterior, target, domains, proxies, budget, count, *how), report), proxies)


@dataclass(frozen=True, eq=False)
class _Request:
    """The arguments of `suggest`."""

    posterior: Posterior
    target: Target
    domains: Sequence[Domain]
    proxies: Proxies
    budget: float
    count: int
    goal: Goal
    baselines: Compared | None
    against: str
    measured: Design | None
    known: Sequence[Recipe]
    draws: int
    seed: int


def _after_fit(asked: _Request, report: Progress) -> Suggestion:
    """Runs that improve the recommendation."""
    posterior, measured, proxies, seed = asked.posterior, asked.measured, asked.proxies, asked.seed
    if measured is None and isinstance(posterior, Surfaces):
        measured = posterior.observed.design
    report(0.05, "best recipe of every posterior sample")
    draws = distinct(posterior, asked.draws)
    found = recommendations_of(
        posterior,
        asked.target,
        asked.domains,
        asked.goal,
        draws,
        seed,
        baselines=asked.baselines,
        against=asked.against,
        measured=measured,
        known=asked.known,
    )
    report(0.6, "gathering candidates")
    spaces = [space.allowed for space in found.spaces]
    part = 0.0 if measured is None else unexplored(proxies.known, spaces[0])
    places = round(part * asked.count)
    wide = _first(spaces, proxies, part * asked.budget, places, seed, repeat=False) if places else []
    if not asked.target.branches:
        recommended = spaces[0].recipe(found.point(0))
        wide += untried(feasible(asked.target, asked.domains), spaces[0], recommended, proxies)
    pool = list({c.recipe: c for c in (*_pool(found, proxies), *wide)}.values())
    recipes = [candidate.recipe for candidate in pool]
    question = _Question(posterior, pool, [recipes.index(c.recipe) for c in wide], proxies, asked.domains, found, seed)
    report(0.7, "weighing candidates")
    batch = question.batch(asked.budget, asked.count)
    each = zip(_jobs([pool[i] for i in batch.chosen], proxies), batch.values, batch.tasks, strict=True)
    jobs = tuple(replace(job, brings=value, task=question.tasks[number]) for job, value, number in each)
    report(0.85, "weighing larger and smaller budgets")
    curve = question.curve(asked.budget, asked.count)
    report(1.0, "suggested")
    value = _value(found, batch, broken_direction(posterior, measured, asked.target, question.tasks))
    return Suggestion(asked.target, asked.budget, jobs, value, curve)


def _first(
    variants: Sequence[Feasible], proxies: Proxies, budget: float, count: int, seed: int, *, repeat: bool = True
) -> list[Candidate]:
    """A first design; every branch gets its part of the places and the budget."""
    jobs: list[Candidate] = []
    for i, allowed in enumerate(variants):
        places = (count - len(jobs)) // (len(variants) - i)
        known = replace(proxies, queued=(*proxies.queued, *(c.recipe for c in jobs)))
        jobs += first_design(allowed, known, budget * places / count, places, seed, repeat=repeat)
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


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked of the value of runs: candidates, those taken in any case, contenders, and what the queue shows."""

    posterior: Posterior
    pool: Sequence[Candidate]
    first: Sequence[int]
    proxies: Proxies
    domains: Sequence[Domain]
    recommendations: Recommendations
    seed: int

    def batch(self, budget: float, count: int) -> Batch:
        """Choose among the candidates, in the knowledge of what the queue will show."""
        pending = range(len(self.pool), len(self._recipes))
        return choose_batch(
            self._predictions,
            self._prices,
            count,
            budget=budget,
            pending=pending,
            first=self.first,
            information=self._information,
            seed=self.seed,
        )

    def curve(self, budget: float, count: int) -> tuple[Spending, ...]:
        """What other budgets would gain, places in proportion; and the batch of the greatest, run by run."""
        batches = [(times * budget, self.batch(times * budget, max(1, round(times * count)))) for times in BUDGETS]
        last = batches[-1][1]
        runs = next((i for i, chance in enumerate(last.later) if chance < UNLIKELY), len(last.chosen))
        enough = runs if runs < len(last.chosen) else None
        return tuple(
            Spending(most, each.cost, len(each.chosen), each.value, _after(last, len(each.chosen)), enough)
            for most, each in batches
        )

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks that count."""
        return [name for name, counted in zip(self.posterior.tasks, self._counts, strict=True) if counted]

    @cached_property
    def _counts(self) -> Tensor:
        return self.recommendations.task_gains.abs().amax((0, 1)) > 0

    @cached_property
    def _recipes(self) -> list[Recipe]:
        queued = [recipe for recipe in self.proxies.queued if _is_covered(self.posterior, recipe)]
        return [*(candidate.recipe for candidate in self.pool), *queued]

    @cached_property
    def _prices(self) -> Prices:
        return Prices(self.proxies, self._recipes)

    @cached_property
    def _predictions(self) -> Predictions:
        """Draws of the candidates, and of the recommendations that may turn out best."""
        unique = {domain.name: float(domain.unique_tokens) for domain in self.domains}
        found, posterior = self.recommendations, self.posterior
        design = design_of(self._recipes, posterior.phases, posterior.domains, unique)
        with torch.no_grad():
            outcomes = log_losses(posterior, design, len(found.gains))[..., self._counts]
            noise = posterior.spread(design)[:, self._counts]
        some, counts = self._contenders, self._counts
        return Predictions(
            outcomes, found.task_gains[:, some][..., counts], noise, found.gains[:, some], found.handicap[some], 0
        )

    @cached_property
    def _contenders(self) -> Tensor:
        """The recommendation first, then what may turn out best."""
        some, leader = plausible(self.recommendations.gains), self.recommendations.leader
        return torch.cat([torch.tensor([leader]), some[some != leader]])

    @cached_property
    def _information(self) -> Linear:
        """What runs add to those that are measured, in a linear model; how much there is to know, from the draws."""
        found, measured = self.recommendations, [r for r in self.proxies.measured if _is_covered(self.posterior, r)]
        contenders = [found.space(i).allowed.recipe(found.point(i)) for i in self._contenders.tolist()]
        sizes = [recipe.params for recipe in measured] or list(self.proxies.sizes)
        middle = math.exp(fmean(math.log(size) for size in sizes))
        allowed, between = found.spaces[0].allowed, growing(self.posterior)
        recipes = [*contenders, *self._recipes, *measured]
        own = own_luck(self.posterior, recipes, self._counts)
        both = torch.cat([features(recipes, allowed, middle, between), own], 1)
        first, last = len(contenders), len(contenders) + len(self._recipes)
        rows, targets, known = both[first:last], both[:first], both[last:]
        gains = self._predictions.total
        deviation = (gains - gains[:, :1]).std(0)
        return Linear.of(rows, targets, known, deviation, 0, self._predictions.information.tasks())


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
        why = f"scaled-down optimum of {percent(float(chances[i]))} of posterior draws"
        yield Candidate(allowed.recipe(recommendations.point(i)), why)
    spread = [i for i in here if recommendations.random[i]][-OTHERS // len(recommendations.spaces) - BETWEEN :]
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


def _after(batch: Batch, runs: int) -> float:
    """Chance that what follows the first runs of a batch changes the recommendation."""
    return batch.later[min(runs, len(batch.later) - 1)]


def growing(posterior: Posterior) -> float:
    """How much what recipes differ by may change with a factor e of size, over itself; nothing where that is known.

    A factor on all differences at once is left out: it does not change which recipe is best.
    """
    if not isinstance(posterior, Surfaces) or posterior.discrepancy is None:
        return 0.0
    by_tenfold = posterior.discrepancy.mixture / expected_discrepancy(posterior.observed).mixture.clamp_min(1e-9)
    return MIXTURE * float(by_tenfold.median()) / math.log(10)


def broken_direction(posterior: Posterior, measured: Design | None, target: Target, tasks: Sequence[str]) -> str:
    """What the audit says of the largest size, where the target lies beyond it and that is broken; else empty."""
    beyond = measured is not None and target.params > (1 + SAME) * float(measured.params.max())
    if not isinstance(posterior, Surfaces) or not beyond:
        return ""
    directions = directions_of(posterior.audit, tasks, larger=True)
    return next((str(each) for each in directions if each.kind == LARGEST and each.broken), "")


def _value(recommendations: Recommendations, batch: Batch, broken: str) -> Value:
    """Compare what a batch brings with what its FLOPs would bring in a longer training of the target.

    All that is still to be trained is lengthened alike, so phases keep their shares of it.
    """
    space, point = recommendations.space(recommendations.leader), recommendations.point(recommendations.leader)
    target = space.allowed.target
    more = target.changed(tokens=target.trained + round(target.rest * (1 + LONGER)))
    longer = replace(space, allowed=replace(space.allowed, target=more))
    with torch.no_grad():
        # Without the guard, which says what a recipe may lose against a baseline of as many tokens.
        now, then = (space.utility.total(s.losses(point), space.reference).mean() for s in (space, longer))
    rate = float((then - now) / space.percent) / math.log1p(LONGER)  # percent per factor e of tokens
    brings = rate * math.log1p(batch.cost / training_flops(float(point.params[0]), target.rest))
    stop = batch.value < NEGLIGIBLE and batch.changes < UNLIKELY and not broken
    return Value(batch.regret, batch.value, batch.changes, brings, stop, broken)


def _checked(suggestion: Suggestion, proxies: Proxies) -> Suggestion:
    """Refuse a budget that pays for nothing."""
    if not suggestion.jobs:
        raise InputError(_too_small(suggestion.budget, proxies))
    return suggestion


def _whole_run(proxies: Proxies) -> float:
    """FLOPs of a new recipe of the smallest size."""
    return min(proxies.flops(*size) for size in proxies.sizes.items())


def _too_small(budget: float, proxies: Proxies) -> str:
    return (
        f"a budget of {budget:.3g} FLOPs pays for no run; a new recipe of the smallest size costs "
        f"{_whole_run(proxies):.3g}, give that much"
    )
