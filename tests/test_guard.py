"""Guards are kept at the price of as little gain as can be."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.evidence import near_runs
from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.references import references_of
from mixlaw.optimizer.policy import GUARD_TOLERANCE
from mixlaw.optimizer.search.climb import best_points, random_starts
from mixlaw.optimizer.search.guards import excess, keep_guard
from mixlaw.optimizer.search.optimum import Search
from mixlaw.optimizer.search.problem import guarded_by, problem_of
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Guard, Target
from mixlaw.recipe import Domain, Kind, Mixture
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


@pytest.mark.parametrize(
    ("target", "headline"),
    [
        ({"guard": Guard({"task1": 0.0})}, "With the guard of 0 % on task1 nothing is better than the baseline even; "),
        (
            {"guard": None, "caps": {"all": {"web": 0.5}}},
            "With at most 0.5 web in all nothing is better than the baseline even; ",
        ),
    ],
)
def test_where_the_baseline_is_best_the_headline_names_what_stops_a_gain(
    target: dict[str, object], headline: str
) -> None:
    # One task wants web, the other python, one phase has both: what one gains, the other loses.
    sources = (Domain("web", Kind.TEXT, 4_000_000), Domain("python", Kind.CODE, 4_000_000))
    base = random_world(sources, phases=("all",), tasks=2, seed=0)
    torn = replace(base, worth=torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64))
    asked = Target(330_000, 6_600_000, ("all",)).changed(**target)
    even = {"even": Mixture({"web": 0.5, "python": 0.5})}
    found = propose(torn, asked, sources, goal=Goal({"task0": 1.0}), baselines=even, draws=8, starts=4)
    assert found.recipe.mixture.share("web") == pytest.approx(0.5, abs=0.005)
    assert found.sentence.startswith(headline)
    assert re.search(r"without it the gain is \d.* % of loss \(>99 % likely\)\.$", found.sentence)


@pytest.mark.parametrize("seed", [5, 9])
def test_the_search_does_not_stop_on_the_edge_of_a_guard(seed: int) -> None:
    # With kinked charges three seeds of these worlds ended at 1.33, 1.09, 1.21 and at .22, .27, .25 % of gain.
    world = random_world(DOMAINS, tasks=4, seed=seed).uncertain(0.25, seed=seed)
    target = Target(330_000, 6_600_000, cooldown=(0.2, 0.2), guard=Guard(0.2, than="proportional"))
    problem = problem_of(world, target, DOMAINS, draws=24)
    optima = [Search(problem, seed=start).optimum() for start in range(3)]
    search, points = optima[0].search, Points.cat([optimum.point for optimum in optima])
    with torch.no_grad():
        values = search.value(points)
        assert float(excess(search, points).max()) <= GUARD_TOLERANCE
        assert float(values.max() - values.min()) < 0.02
        around = points[:1].repeat(2000)
        moves = torch.randn(around.shares.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        around = search.allowed.project(replace(around, shares=around.shares * (0.05 * moves).exp()))
        assert float(search.value(around).max()) <= float(values[0]) + 0.02
