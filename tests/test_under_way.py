"""A run in the middle of a phase: what is trained stays, the rest of the phase is free."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.references import references_of
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.suggest import suggest
from mixlaw.optimizer.search.climb import random_starts
from mixlaw.optimizer.target.feasible import Infeasible, feasible
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import World, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 40_000_000),
    Domain("books", Kind.TEXT, 40_000_000),
    Domain("python", Kind.CODE, 40_000_000),
)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}
BEGUN = Trained("init", 1_500_000, Mixture({"web": 0.2, "python": 0.8}))
TARGET = Target(330_000, 6_600_000, phases=("init", "cooldown"), under_way=BEGUN)


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, TARGET.phases, tasks=2, seed=2)


def test_every_recipe_holds_what_is_trained_already() -> None:
    allowed = feasible(TARGET, DOMAINS)
    points = random_starts(allowed, 200, seed=0)
    tokens = 6_600_000 * points.tokens[:, 0]
    assert float((tokens - torch.tensor([300_000.0, 0.0, 1_200_000.0])).amin()) > -1
    assert float(tokens[:, 1].std()) > 100_000
    for i in range(20):
        recipe = allowed.recipe(points[i : i + 1])
        assert allowed.violations(recipe) == ()
        rest = TARGET.to_come(recipe)
        assert rest is not None
        assert rest.tokens == recipe.phases[0].tokens - 1_500_000
        for name, done in (("web", 300_000), ("books", 0), ("python", 1_200_000)):
            whole = done + rest.tokens * rest.mixture.share(name)
            assert whole == pytest.approx(recipe.phases[0].tokens * recipe.phases[0].mixture.share(name), abs=6e3)


def test_the_best_rest_of_a_phase_is_that_of_a_grid(world: World) -> None:
    # Of the first phase 0.7 of the tokens are trained, half on each text; the rest, and the cooldown, are free.
    target = TARGET.changed(
        cooldown=(0.2, 0.2), under_way=Trained("init", 3_696_000, Mixture({"web": 0.5, "books": 0.5}))
    )
    found = propose(world, target, DOMAINS, draws=8, starts=6)
    steps = np.arange(21) / 20
    corners = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-9]
    init = [(0.35 + 0.3 * a, 0.35 + 0.3 * b, 0.3 * c) for a, b, c in corners]
    names = ("web", "books", "python")

    def recipe(first: tuple[float, ...], last: tuple[float, ...]) -> Recipe:
        first, last = (tuple(max(s, 0.0) for s in mixture) for mixture in (first, last))
        mixed = [Mixture.normalised(dict(zip(names, m, strict=True))) for m in (first, last)]
        return Recipe(330_000, (Phase("init", 5_280_000, mixed[0]), Phase("cooldown", 1_320_000, mixed[1], 0.0)))

    def loss(recipes: list[Recipe]) -> torch.Tensor:
        return world.mean(design_of(recipes, world.phases, world.domains, UNIQUE)).log().mean(1)

    last = tuple(found.recipe.phases[1].mixture.share(name) for name in names)
    best = loss([recipe(first, last) for first in init]).min()
    assert float(loss([found.recipe])[0]) <= float(best) + 1e-5
    assert "of init from here on: 1.58M tokens of" in str(found)
    free = propose(world, target.changed(under_way=None), DOMAINS, draws=8, starts=6)
    assert float(loss([free.recipe])[0]) < float(loss([found.recipe])[0]) - 1e-3  # what is trained costs something


def test_baselines_go_on_from_what_is_trained(world: World) -> None:
    allowed = feasible(TARGET, DOMAINS)
    references = references_of(world, [allowed], utility_of(Goal(), world), ["uniform"], 8)
    recipe = references.entries["uniform"].recipe
    rest = TARGET.to_come(recipe)
    assert rest is not None
    assert rest.mixture.shares == pytest.approx({"books": 1 / 3, "python": 1 / 3, "web": 1 / 3})
    assert allowed.violations(recipe) == ()


def test_proxies_of_a_run_under_way_hold_what_it_holds(world: World) -> None:
    found = suggest(world.uncertain(0.3), TARGET, DOMAINS, Proxies({24_000: 480_000}), budget=1e12, count=4)
    for job in found.jobs:
        if "another" not in job.why and job.recipe.phases[0].name == "init":
            assert job.recipe.domain_tokens("python") / job.recipe.tokens > 0.9 * 1_200_000 / 6_600_000


def test_it_survives_a_file_and_leaves_other_targets_as_they_were() -> None:
    assert Target.from_json(json.loads(json.dumps(TARGET.as_json()))) == TARGET
    assert "under_way" not in TARGET.changed(under_way=None).as_json()
    assert "1.5M of them trained" in str(TARGET)


@pytest.mark.parametrize(
    "part",
    [
        Trained("cooldown", 1_000, Mixture({"web": 1.0})),
        Trained("init", 1_000),
        Trained("init", 6_600_000, Mixture({"web": 1.0})),
    ],
)
def test_a_phase_that_cannot_be_under_way_is_refused(part: Trained) -> None:
    with pytest.raises(InputError, match="the phase under way has to be 'init'"):
        TARGET.changed(under_way=part)


def test_what_is_trained_against_the_limits_is_named() -> None:
    with pytest.raises(Infeasible, match=r"python in init that are trained already; at most 0\.1 python in init"):
        feasible(TARGET.changed(caps={"init": {"python": 0.1}}), DOMAINS)
    with pytest.raises(InputError, match="either branches or a phase under way"):
        TARGET.changed(branches=((Trained("init", 10),),))
