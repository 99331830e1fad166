"""Frozen forecasts against measured values."""

from __future__ import annotations

import polars as pl
import pytest

from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.answers.verify import verify
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import World, random_recipes, random_world

DOMAINS = (Domain("web", Kind.TEXT, 4_000_000), Domain("python", Kind.CODE, 2_000_000))


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=3, seed=4)


@pytest.fixture(scope="module")
def proposal(world: World) -> Proposal:
    return propose(world, Target(330_000, 6_600_000), DOMAINS, draws=8, starts=4)


def test_nine_in_ten_measured_values_lie_inside_their_intervals(world: World, proposal: Proposal) -> None:
    # 150 runs of 4 recipes and 3 tasks in the world that made the forecasts: 1800 values, standard error .7 %.
    table = world.measure([*proposal.recipes.values()] * 150, seed=1)
    found = verify([proposal], table)
    assert len(found.checks) == 1800
    assert found.coverage == pytest.approx(0.9, abs=0.025)
    assert found.pending == ()


def test_a_miss_is_called_a_miss(world: World, proposal: Proposal) -> None:
    table = world.measure([proposal.recipe], seed=1).with_columns(pl.col("metric:task1") * 1.05)
    found = verify([proposal], table)
    missed = [check for check in found.checks if not check.inside]
    assert [check.forecast.task for check in missed] == ["task1"]
    assert missed[0].error == pytest.approx(0.05, abs=0.02)
    assert "2 of 3 measured values" in found.sentence
    assert "MISSED" in str(found)
    assert "MISSED" in found._repr_html_()


def test_what_has_not_been_trained_is_pending(world: World, proposal: Proposal) -> None:
    found = verify([proposal], world.measure(random_recipes([24_000], 20, DOMAINS, count=5)))
    assert found.checks == ()
    assert found.coverage is None
    assert (proposal.id, "proposal") in found.pending
    assert "Nothing to verify" in found.sentence


def test_a_run_of_whole_sequences_is_still_the_recipe_and_one_of_another_mixture_is_not(
    world: World, proposal: Proposal
) -> None:
    def trained(recipe: Recipe) -> Recipe:
        phases = [Phase(p.name, p.tokens - p.tokens % 512, p.mixture, p.lr_end) for p in recipe.phases]
        return Recipe(recipe.params, tuple(phases), seed=3, data="shards")

    other = proposal.recipe.with_mixture("continue", Mixture({"python": 1.0}))
    found = verify([proposal], world.measure([trained(proposal.recipe), other]))
    assert {check.forecast.recipe for check in found.checks} == {"proposal"}
    assert len(found.checks) == 3


def test_an_unfinished_run_and_an_empty_cell_are_no_evidence(world: World, proposal: Proposal) -> None:
    table = world.measure([proposal.recipe])
    assert verify([proposal], table.with_columns(progress=pl.lit(0.5))).checks == ()
    holes = table.with_columns(pl.lit(None, dtype=pl.Float64).alias("metric:task2"))
    assert [check.forecast.task for check in verify([proposal], holes).checks] == ["task0", "task1"]
