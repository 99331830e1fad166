"""Worlds with known laws: their special cases, their tables, their noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixlaw.analysis.design import Design
from mixlaw.analysis.from_recipes import design_of
from mixlaw.optimizer.simulate import random_recipes, random_world
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe

DOMAINS = (Domain("web", Kind.TEXT, 10**12), Domain("python", Kind.CODE, 1_000_000))
WORLD = random_world(DOMAINS, tasks=3, seed=5)


def _one_phase(tokens: int, **shares: float) -> Design:
    recipe = Recipe(50_000, (Phase("cooldown", tokens, Mixture(shares)),))
    return design_of([recipe], WORLD.phases, WORLD.domains, {d.name: d.unique_tokens for d in DOMAINS})


def test_one_domain_in_the_last_phase_is_chinchilla_in_its_effective_tokens() -> None:
    found = WORLD.mean(_one_phase(3_000_000, web=1.0))[0]
    tokens = 3e6 * WORLD.worth[:, 0] ** (1 / WORLD.elasticity)
    # The other domain's 1e-6 tokens that keep logarithms finite are not nothing at exponents around 0.3.
    by_hand = WORLD.floor + WORLD.a * 50_000**-WORLD.alpha + WORLD.b * tokens**-WORLD.beta
    assert torch.allclose(found, by_hand, rtol=2e-2)


def test_repeats_fade_to_the_published_limit() -> None:
    # Muennighoff et al. 2023: endless repeats of U tokens are worth U (1 + 15.39) fresh ones.
    endless = WORLD.mean(_one_phase(10**11, python=1.0))
    unlimited = replace(WORLD, repeats=1e12)
    fresh = unlimited.mean(_one_phase(int(1e6 * 16.39), python=1.0))
    assert torch.allclose(endless, fresh, rtol=1e-6)


def test_what_comes_last_is_remembered_best() -> None:
    def recipe(first: str, last: str) -> Recipe:
        phases = [Phase("init", 10**6, Mixture({first: 1.0})), Phase("cooldown", 10**6, Mixture({last: 1.0}))]
        return Recipe(50_000, tuple(phases))

    likes_code = replace(WORLD, worth=torch.tensor([[0.1, 0.9]] * 3, dtype=torch.float64))
    design = design_of([recipe("web", "python"), recipe("python", "web")], WORLD.phases, WORLD.domains, {})
    late, early = likes_code.mean(design)
    assert bool((late < early).all())


def test_the_table_is_the_contract_and_holds_what_was_trained() -> None:
    recipes = random_recipes([24_000, 94_000], 20, DOMAINS, count=3)
    table = WORLD.measure(recipes)
    design = Design.from_table(table, {d.name: d.unique_tokens for d in DOMAINS})
    assert design.phases == WORLD.phases
    assert design.total.tolist() == pytest.approx([recipe.tokens for recipe in recipes])
    assert {"run", "params", "seed", "tokens:init:web", "lr_end:cooldown", "metric:task0"} <= set(table.columns)


def test_measured_values_scatter_by_the_stated_noise() -> None:
    table = WORLD.measure(random_recipes([24_000], 20, DOMAINS, count=1) * 4000, seed=1)
    for t, task in enumerate(WORLD.tasks):
        assert np.log(table[f"metric:{task}"].to_numpy()).std() == pytest.approx(float(WORLD.noise[t]), rel=0.05)


def test_the_same_draw_is_the_same_world_for_any_recipes() -> None:
    world = WORLD.uncertain(0.2, seed=3)
    first = design_of(random_recipes([24_000], 20, DOMAINS, count=2, seed=1), WORLD.phases, WORLD.domains, {})
    assert torch.equal(world.draws(first, 5)[:, 1], world.draws(first.select([1]), 5)[:, 0])


def test_without_doubt_every_draw_is_the_truth() -> None:
    design = _one_phase(10**6, web=0.5, python=0.5)
    assert torch.allclose(WORLD.draws(design, 3), WORLD.mean(design).expand(3, -1, -1))
