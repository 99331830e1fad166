"""What a recipe would measure, and what one more point of a domain is worth."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch

from mixlaw.analysis.data.observed import Z90
from mixlaw.analysis.data.recipes import design_of
from mixlaw.errors import InputError
from mixlaw.optimizer.answers.what_if import MOST, what_if
from mixlaw.optimizer.goal.baselines import named
from mixlaw.optimizer.search.problem import problem_of
from mixlaw.optimizer.target.schedule import phase_tokens
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import World, random_recipes, random_world
from studies import DOMAINS as FITTED
from studies import study

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 300_000),
    Domain("python", Kind.CODE, 2_000_000),
)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}
TARGET = Target(330_000, 6_600_000)
RECIPE = Recipe(
    330_000,
    (
        Phase("init", 3_000_000, Mixture({"web": 0.5, "books": 0.1, "python": 0.4})),
        Phase("continue", 2_600_000, Mixture({"web": 0.8, "books": 0.2})),
        Phase("cooldown", 1_000_000, Mixture({"python": 1.0}), 0.0),
    ),
)


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=2, seed=5)


def _moved(recipe: Recipe, phase: str, domain: str, points: float) -> Recipe:
    """The recipe with more points (1 % of all tokens) of a domain in a phase, the others in proportion."""
    found = next(p for p in recipe.phases if p.name == phase)
    share = found.mixture.share(domain) + points * 0.01 * recipe.tokens / found.tokens
    rest = {n: s / (1 - found.mixture.share(domain)) for n, s in found.mixture.items() if n != domain}
    return recipe.with_mixture(
        phase, Mixture.normalised({domain: share} | {n: (1 - share) * s for n, s in rest.items()})
    )


@pytest.mark.parametrize(
    ("phase", "domain"), [("init", "web"), ("init", "books"), ("init", "python"), ("continue", "books")]
)
def test_one_more_point_is_worth_what_training_it_would_change(world: World, phase: str, domain: str) -> None:
    found = what_if(world, RECIPE, DOMAINS, draws=8)
    here, more = world.mean(
        design_of([RECIPE, _moved(RECIPE, phase, domain, 1)], world.phases, world.domains, UNIQUE)
    ).log()
    for t, task in enumerate(world.tasks):
        assert found.point(phase, domain, task).mean == pytest.approx(100 * float(here[t] - more[t]), rel=1e-9)


def test_where_the_others_have_less_than_a_point_it_is_told_in_proportion(world: World) -> None:
    nearly = RECIPE.with_mixture("cooldown", Mixture({"python": 0.99, "web": 0.01}))  # 0.15 points of web
    found = what_if(world, nearly, DOMAINS, draws=8)
    rows = [nearly, RECIPE]
    some, none = world.mean(design_of(rows, world.phases, world.domains, UNIQUE)).log()
    part = 10_000 / 66_000
    for t, task in enumerate(world.tasks):
        expected = 100 * float(some[t] - none[t]) / part
        assert found.point("cooldown", "python", task).mean == pytest.approx(expected, rel=1e-9)


def test_phases_that_are_over_have_no_points_and_a_point_is_of_what_is_left(world: World) -> None:
    found = what_if(world, RECIPE, DOMAINS, over=1, draws=8)
    assert {p.phase for p in found.points} == {"continue", "cooldown"}
    more = _moved(RECIPE, "continue", "books", 3.6 / 6.6)  # 1 % of 3.6M tokens
    here, moved = world.mean(design_of([RECIPE, more], world.phases, world.domains, UNIQUE)).log()
    for t, task in enumerate(world.tasks):
        expected = 100 * float(here[t] - moved[t])
        assert found.point("continue", "books", task).mean == pytest.approx(expected, rel=1e-9)


def test_limits_and_distance_speak_against_a_recipe(world: World) -> None:
    measured = design_of(random_recipes([94_000], 20, DOMAINS, count=40), world.phases, world.domains, UNIQUE)
    target = TARGET.changed(cooldown=(0.1, 0.2), caps={"recipe": {"python": 0.3}})
    problem = problem_of(world, target, DOMAINS, measured=measured, draws=8)
    plain, asked = (what_if(world, RECIPE, DOMAINS, problem=p, draws=8) for p in (None, problem))
    assert plain.standing is None
    assert asked.forecasts == plain.forecasts
    assert "The data do not support it: it does not keep" in asked.sentence
    assert "of the tokens of a phase differ from the nearest run" in str(asked)
    assert "python" in " ".join(asked.as_json()["standing"]["broken"])
    kept = what_if(world, problem.baselines[0], DOMAINS, problem=problem, draws=8)
    assert kept.standing is not None
    assert kept.standing.broken == ()


def test_surfaces_say_what_their_own_worlds_do() -> None:
    surfaces, recipe = study().surfaces, study().proposal.baselines["proportional"]
    found = what_if(surfaces, recipe, FITTED, draws=8)
    unique = {d.name: float(d.unique_tokens) for d in FITTED}
    recipes = [recipe, _moved(recipe, "init", "python", 1)]
    with torch.no_grad():
        losses = surfaces.draws(design_of(recipes, surfaces.phases, surfaces.domains, unique), 8).log()
    for t, task in enumerate(surfaces.tasks):
        gains = 100 * (losses[:, 0, t] - losses[:, 1, t])
        told = found.point("init", "python", task)
        assert told.mean == pytest.approx(float(gains.mean()), rel=1e-6)
        spread = float(surfaces.calibration[t]) * float(gains.std())
        assert told.hi90 - told.mean == pytest.approx(Z90 * spread, rel=1e-6)


def test_a_phase_of_one_domain_has_no_room_for_more_of_it(world: World) -> None:
    found = what_if(world, RECIPE, DOMAINS, draws=8)
    pairs = {(p.phase, p.domain) for p in found.points}
    assert ("cooldown", "python") not in pairs
    assert len(pairs) == 8


def test_what_is_known_for_sure_has_no_interval_and_doubt_has_one(world: World) -> None:
    baseline = named("proportional")(330_000, phase_tokens(TARGET, 0.15), DOMAINS)
    sure = what_if(world, RECIPE, DOMAINS, baseline, draws=32)
    unsure = what_if(world.uncertain(0.1), RECIPE, DOMAINS, baseline, draws=32)
    truth = world.mean(design_of([RECIPE, baseline], world.phases, world.domains, UNIQUE)).log()
    for t, task in enumerate(world.tasks):
        assert sure.gains[task].mean == pytest.approx(100 * float(truth[1, t] - truth[0, t]))
        assert sure.gains[task].hi90 == pytest.approx(sure.gains[task].lo90)
        assert unsure.gains[task].lo90 < unsure.gains[task].hi90
        wide = unsure.point("init", "web", task)
        assert wide.lo90 < wide.mean < wide.hi90
        value = next(f for f in sure.forecasts if f.task == task)
        assert value.mean == pytest.approx(float(truth[0, t].exp()))


def test_it_prints_values_and_points_and_is_plain_data(world: World) -> None:
    baseline = named("proportional")(330_000, phase_tokens(TARGET, 0.15), DOMAINS)
    found = what_if(world.uncertain(0.1), RECIPE, DOMAINS, baseline, against="proportional", draws=8)
    assert [row[-1] for row in found.values().cells()][:1] == ["gain over proportional, % of loss"]
    points = found.per_point()
    clear = sum(point.gain.lo90 > 0 or point.gain.hi90 < 0 for point in found.points)
    assert points.shown == min(clear, MOST) < len(points.rows)
    assert "more rows: --all" in str(found)
    frame = found.to_polars("points").filter(pl.col("one more point of") == "books", pl.col("in") == "continue")
    assert dict(zip(frame["for"], frame["gain_hi90"], strict=True)) == {
        task: found.point("continue", "books", task).hi90 for task in world.tasks
    }
    assert "books" in found._repr_html_()
    assert len(json.loads(json.dumps(found.as_json()))["points"]) == 8 * len(world.tasks)


def test_a_domain_that_nobody_measured_is_refused(world: World) -> None:
    other = RECIPE.with_mixture("init", Mixture({"rust": 1.0}))
    with pytest.raises(InputError, match="rust"):
        what_if(world, other, DOMAINS)
