"""The search of the dashboard is that of `propose`, and what recipes at hand are said to bring."""

from __future__ import annotations

import pytest
import torch

from mixlaw.analysis.data.observed import Z90
from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.answers.quick import adapt_recipe, assess
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.values import PROPOSAL
from mixlaw.optimizer.search.optimum import Search
from mixlaw.optimizer.search.problem import Problem, problem_of
from mixlaw.optimizer.target.feasible import Infeasible
from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Recipe
from mixlaw.testing.worlds import World, random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 300_000),
    Domain("python", Kind.CODE, 2_000_000),
)
UNIQUE = {d.name: float(d.unique_tokens) for d in DOMAINS}
TARGET = Target(330_000, 6_600_000)


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=3, seed=5)


@pytest.fixture(scope="module")
def believed(world: World) -> World:
    return world.uncertain(0.05)


@pytest.fixture(scope="module")
def problem(believed: World) -> Problem:
    return problem_of(believed, TARGET, DOMAINS)


@pytest.fixture(scope="module")
def revised(problem: Problem) -> Recipe:
    return Search(problem).optimum().recipe


def true_gain(world: World, recipe: Recipe, other: Recipe) -> float:
    """Mean gain over tasks in the world itself, percent of loss."""
    losses = world.mean(design_of([recipe, other], world.phases, world.domains, UNIQUE)).log()
    return 100 * float((losses[1] - losses[0]).mean())


def test_it_finds_the_proposal_after_a_first_answer_that_is_nearly_as_good(
    world: World, believed: World, problem: Problem, revised: Recipe
) -> None:
    proposal = propose(believed, TARGET, DOMAINS)
    assert proposal.recipe == revised
    base = proposal.baselines[proposal.against]
    first = true_gain(world, Search(problem).first(base), base)
    assert 0.5 * true_gain(world, revised, base) < first
    assert Search(problem).first(revised) == revised == adapt_recipe(problem, revised)


def test_its_gain_is_the_mean_difference_of_log_losses_over_all_draws(problem: Problem, revised: Recipe) -> None:
    told = assess(problem, {"it": revised})["it"]
    (objective,), base = problem.objectives, problem.scheduled(revised).references.baseline
    design = design_of([revised], objective.posterior.phases, objective.posterior.domains, UNIQUE)
    losses = objective.posterior.draws(design, 64)[:, 0].log()
    gains = 100 * (base - losses)
    assert told.gain.mean == pytest.approx(float(gains.mean()))
    half = Z90 * float(gains.mean(1).std())
    assert told.gain.hi90 - told.gain.mean == pytest.approx(half)
    assert told.gains["task1"].mean == pytest.approx(float(gains[:, 1].mean()))


def test_forecasts_are_those_of_a_proposal(believed: World, problem: Problem) -> None:
    proposal = propose(believed, TARGET, DOMAINS, draws=8, starts=2)
    told = assess(problem, {PROPOSAL: proposal.recipe, **proposal.baselines})
    assert tuple(f for one in told.values() for f in one.forecasts) == proposal.forecasts
    assert told[problem.references.against].gain.mean == 0


def test_limits_and_guards_are_kept(believed: World) -> None:
    limited = TARGET.changed(
        tokens=9_000_000,
        cooldown=(0.3, 0.35),
        floors={"init": {"python": 0.25}},
        caps={"recipe": {"books": 0.1}},
        guard=Guard(0.5),
    )
    problem = problem_of(believed, limited, DOMAINS)
    recipe = Search(problem).optimum().recipe
    told = assess(problem, {"it": recipe})["it"]
    assert told.broken == ()
    assert recipe.tokens == 9_000_000
    assert 0.3 <= recipe.phases[-1].tokens / recipe.tokens <= 0.35
    assert recipe.phases[0].mixture.share("python") >= 0.25
    assert recipe.mixture.share("books") <= 0.1 + 1e-9
    assert min(told.guarded.values()) > 0.7  # 90 % in the worlds that were searched


def test_a_recipe_at_hand_is_drawn_inside_new_limits_at_once(believed: World, revised: Recipe) -> None:
    moved = TARGET.changed(params=500_000, tokens=8_000_000, caps={"cooldown": {"python": 0.05}})
    problem = problem_of(believed, moved, DOMAINS)
    recipe = adapt_recipe(problem, revised)
    assert (recipe.params, recipe.tokens) == (500_000, 8_000_000)
    assert recipe.phases[-1].mixture.share("python") <= 0.05
    assert assess(problem, {"it": recipe})["it"].broken == ()
    broken = assess(problem, {"it": revised})["it"].broken
    assert any("0.05 python in cooldown" in words for words in broken) == (
        revised.phases[-1].mixture.share("python") > 0.05
    )


def test_limits_that_contradict_each_other_are_named(believed: World) -> None:
    impossible = TARGET.changed(floors={"init": {"web": 0.7}}, caps={"recipe": {"web": 0.1}})
    with pytest.raises(Infeasible, match="web in init"):
        problem_of(believed, impossible, DOMAINS)


def test_weights_decide_what_is_looked_for(world: World, believed: World) -> None:
    def best(task: str) -> float:
        problem = problem_of(believed, TARGET, DOMAINS, goal=Goal({task: 1.0}))
        recipe = Search(problem).optimum().recipe
        losses = world.mean(design_of([recipe], world.phases, world.domains, UNIQUE))
        return float(losses[0, 0])

    assert best("task0") < best("task1")


def test_it_goes_on_from_the_best_branch(believed: World) -> None:
    text, mixed = Mixture({"web": 1.0}), Mixture({"web": 0.5, "python": 0.5})
    branches = tuple((Trained("init", 3_000_000, mixture),) for mixture in (text, mixed))
    target = TARGET.changed(phases=("continue", "cooldown"), branches=branches)
    problem = problem_of(believed, target, DOMAINS)
    recipe = Search(problem).optimum().recipe
    assert recipe.phases[0].mixture in (text, mixed)
    gains = []
    for branch in branches:
        alone = problem_of(believed, target.on(branch), DOMAINS)
        gains.append(assess(problem, {"it": Search(alone).optimum().recipe})["it"].gain.mean)
    assert assess(problem, {"it": recipe})["it"].gain.mean > max(gains) - 0.3


def test_a_search_can_be_stopped_between_two_steps(problem: Problem) -> None:
    calls = []

    def heed() -> None:
        calls.append(0)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Search(problem, on_step=heed).optimum()
    assert len(calls) == 5
    assert torch.get_num_threads() == 1
