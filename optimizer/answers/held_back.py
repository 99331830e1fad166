"""What keeps a search from anything better than the baseline: the guard, the trust radius, a limit, or doubt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from mixlaw.numbers import percent
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.values import chance_text, interval, probability
from mixlaw.optimizer.policy import BEYOND_RADIUS, GUARD_TOLERANCE, NEGLIGIBLE
from mixlaw.optimizer.search.climb import best_points
from mixlaw.optimizer.search.optimum import Optimum
from mixlaw.optimizer.search.support import is_same
from mixlaw.optimizer.target.feasible import unlimited
from mixlaw.recipe import Recipe

STARTS = 6  # of each search


def broken(objective: Objective, recipe: Recipe) -> list[str]:
    """The limits, trust radius and guard that a recipe does not keep, in words."""
    point = objective.allowed.read([recipe])
    words, far = list(objective.allowed.violations(recipe)), float(objective.distance(point)[0])
    if far > objective.radius + BEYOND_RADIUS:
        words.append(f"the trust radius ({percent(far)} of the tokens of a phase differ from every measured run)")
    with torch.no_grad():
        over = objective.over_guard(objective.losses(point))[0] / objective.task_percent
    if objective.guarded is not None and bool((over > GUARD_TOLERANCE).any()):
        most = (objective.guarded.most / objective.task_percent).tolist()
        each = zip(objective.utility.tasks, most, over.tolist(), strict=True)
        tasks = [f"{percents:.2g} % on {task}" for task, percents, beyond in each if beyond > GUARD_TOLERANCE]
        words.append(f"the guard of {', '.join(tasks)}")
    return words


def held_back(optimum: Optimum) -> str:
    """Why the baseline is the best recipe, in a sentence that names what would have to give; empty where it is not.

    The guard, the trust radius and the limits are dropped one by one, then caution, then all of them; the first without
    which something is better is the reason.
    """
    search, problem = optimum.search, optimum.problem
    against, baselines = problem.references.against, problem.baselines
    if not is_same(optimum.recipe, problem.references.entries[against].recipe, len(search.allowed.target.phases)):
        return ""
    if len(search.allowed.domains) == 1:
        return "There is one domain, so all baselines have the proposal's mixture: what was chosen is its schedule."
    for freed in _freed(search):
        point, value = best_points(freed, baselines, STARTS, 0)
        if value < NEGLIGIBLE:
            continue
        whole = freed.within(torch.arange(len(search.baseline)))
        with torch.no_grad():
            gains = whole.gains(point)[:, 0]
        gain = f"{interval(gains).text()} {search.utility.goal.unit} ({chance_text(probability(gains))} likely)"
        within = broken(search.within(whole.draws), freed.allowed.recipe(point))
        if not within:
            recipe = f"Nothing is clearly better than the baseline {against}, so that is the recipe"
            return f"{recipe}: the best other one gains {gain}."
        limits, it = _listed(within), "it" if len(within) == 1 else "them"
        return f"With {limits} nothing is better than the baseline {against}; without {it} the gain is {gain}."
    return f"Nothing is better than the baseline {against}, with or without limits and guard."


def _freed(search: Objective) -> Iterator[Objective]:
    """The search without its guard, trust radius, limits, caution, and all of them, where it has them."""
    allowed = unlimited(search.allowed)
    if search.guarded is not None:
        yield replace(search, guarded=None)
    if len(search.near):
        yield replace(search, radius=math.inf)
    yield replace(search, allowed=allowed)
    yield replace(search, caution=0.0)
    yield replace(search, allowed=allowed, guarded=None, radius=math.inf, caution=0.0)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
