"""Guards are kept at the price of as little gain as can be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mixlaw.optimizer.goal.evidence import near_runs
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.references import references_of
from mixlaw.optimizer.policy import GUARD_TOLERANCE
from mixlaw.optimizer.search.climb import best_points, random_starts
from mixlaw.optimizer.search.guards import excess, keep_guard
from mixlaw.optimizer.search.problem import guarded_by
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.target import Guard, Target
from mixlaw.recipe import Domain, Kind
from mixlaw.testing.worlds import random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 300_000),
    Domain("python", Kind.CODE, 2_000_000),
    Domain("readme", Kind.MARKUP, 200_000),
)


@pytest.mark.parametrize("seed", [0, 4])
def test_where_the_free_optimum_breaks_a_guard_a_better_one_is_found_than_by_chance(seed: int) -> None:
    world = random_world(DOMAINS, tasks=4, seed=seed).uncertain(0.25, seed=seed)
    worth, allowed, every = utility_of(Goal({"task0": 1.0}), world), feasible(Target(330_000, 6_600_000), DOMAINS), 24
    references = references_of(world, [allowed], worth, ("proportional", "text-only"), every)
    (none, _), worlds = near_runs(allowed, None), torch.arange(every)
    free = Objective(world, allowed, worth, references.losses[references.against], worlds, 1.0, none, math.inf)
    guarded = replace(free, guarded=guarded_by(Guard(0.2, than="proportional"), references, worth))
    best, gain = best_points(free, [], 6, 0)
    assert float(excess(guarded, best)) > 0.5
    held = keep_guard(guarded, best, [])
    assert float(excess(guarded, held)) <= GUARD_TOLERANCE
    tried = random_starts(allowed, 4000, seed=1)
    with torch.no_grad():
        chance = free.value(tried)[excess(guarded, tried) <= 0].max()
        assert chance < float(free.value(held)) < gain
