"""Baselines have the proposal's schedule and limits, and a team's own may be one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixlaw.errors import InputError
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.baselines import Baseline, named
from mixlaw.optimizer.goal.references import beside
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.nearest import nearest
from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.study import open_study
from mixlaw.testing.worlds import World, random_world
from studies import DOMAINS as STUDY_DOMAINS
from studies import on_disk

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 1_000_000),
    Domain("python", Kind.CODE, 4_000_000),
    Domain("markup", Kind.MARKUP, 1_000_000),
)
TARGET = Target(330_000, 6_600_000, cooldown=(0.1, 0.2), guard=None)
OWN = Mixture({"web": 0.7, "python": 0.3})


@pytest.fixture(scope="module")
def world() -> World:
    return random_world(DOMAINS, tasks=3, seed=3).uncertain(0.05, seed=1)


def test_a_cap_on_code_scales_code_down_and_all_else_up() -> None:
    # proportional is .4, .1, .4, .1; with all code at .3 the least divergence keeps proportions within both sides.
    allowed = feasible(TARGET.changed(caps={"recipe": {"all:code": 0.3}}), DOMAINS)
    tokens = {"init": 2_800_000, "continue": 2_800_000, "cooldown": 1_000_000}
    inside = nearest(allowed, named("proportional")(330_000, tokens, DOMAINS))
    assert not allowed.violations(inside)
    expected = {"web": 0.7 * 0.8, "books": 0.7 * 0.2, "python": 0.3 * 0.8, "markup": 0.3 * 0.2}
    assert dict(inside.mixture) == pytest.approx(expected, abs=1e-3)
    assert [p.tokens for p in inside.phases] == list(tokens.values())


def test_limits_that_exclude_the_baselines_draw_them_inside_and_are_told(world: World) -> None:
    capped = TARGET.changed(caps={"recipe": {"all:code": 0.15}})
    found = propose(world, capped, DOMAINS, draws=8, starts=4, sizes=())
    for recipe in found.baselines.values():
        code = recipe.mixture.share("python") + recipe.mixture.share("markup")
        assert code <= 0.15 + 1e-6
    moved = [words for words in found.warnings if "drawn inside the limits" in words]
    assert any("baseline proportional" in words and "0.15 all:code" in words for words in moved)
    assert not any("not allowed" in words for words in found.warnings)


def test_what_only_the_schedule_brings_is_no_gain(world: World) -> None:
    # In a world where the cooldown's tokens count most a long one is better, for any mixture: nobody gains by it.
    later = replace(world, retention=world.retention * torch.tensor([0.2, 0.2, 1.0]).double(), doubt=0.0)
    alike = replace(later, worth=torch.full_like(later.worth, 0.25), elasticity=torch.ones_like(later.elasticity))
    target = Target(330_000, 6_600_000, cooldown=(0.1, 0.6), lr_end=(0.0, 0.5), guard=None, max_epochs=100)
    found = propose(alike, target, DOMAINS, baselines=("proportional",), draws=8, starts=4, sizes=())
    assert found.recipe.phases[-1].tokens / found.recipe.tokens > 0.55
    assert found.gain.mean == pytest.approx(0, abs=0.5)
    lengths = [[phase.tokens for phase in r.phases] for r in (found.recipe, *found.baselines.values())]
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("tokens", [6_600_000, 999_983])
def test_a_length_that_was_rounded_to_whole_tokens_breaks_no_limit(tokens: int) -> None:
    target = Target(330_000, tokens, cooldown=(0.1, 0.3), guard=None)
    last = round(0.3 * tokens) + 1
    phases = (("init", (tokens - last) // 2), ("continue", tokens - last - (tokens - last) // 2), ("cooldown", last))
    recipe = Recipe(330_000, tuple(Phase(name, count, OWN) for name, count in phases))
    assert feasible(target, DOMAINS).violations(recipe) == ()
    longer = replace(recipe, phases=(*recipe.phases[:2], replace(recipe.phases[2], tokens=last + tokens // 100)))
    assert feasible(target, DOMAINS).violations(longer)


def test_a_free_size_leaves_named_baselines_inside_the_limits(world: World) -> None:
    target = Target(330_000, 6_600_000, sizes=(100_000, 1_000_000), cooldown=(0.1, 0.3), guard=None, max_epochs=100)
    found = propose(world, target, DOMAINS, draws=8, starts=4, sizes=())
    assert not any("inside the limits" in words for words in found.warnings)


def test_a_mixture_or_a_run_of_the_team_is_the_baseline_and_the_guard_may_name_it(world: World) -> None:
    run = Recipe(94_000, (Phase("init", 10**6, OWN), Phase("cooldown", 10**6, Mixture({"books": 1.0}), 0.0)))
    compared: dict[str, Baseline | Mixture | Recipe] = {"ours": OWN, "run-7": run, "uniform": named("uniform")}
    guarded = TARGET.changed(guard=Guard(0.5, than="ours"))
    found = propose(world, guarded, DOMAINS, baselines=compared, against="ours", draws=16, starts=4, sizes=())
    assert found.against == "ours"
    assert "over ours" in found.sentence or "beats ours" in found.sentence
    assert all(phase.mixture == OWN for phase in found.baselines["ours"].phases)
    first, middle, last = found.baselines["run-7"].phases
    assert first.mixture == OWN
    assert dict(middle.mixture) == pytest.approx(dict(run.mixture))  # a phase that the run lacks: its mean
    assert last.mixture.share("books") == 1
    assert set(found.guarded) == set(world.tasks)
    with pytest.raises(InputError, match="'ours', compared are"):
        propose(world, TARGET, DOMAINS, against="ours", draws=8)
    with pytest.raises(InputError, match="'audio', the domains are"):
        propose(world, TARGET, DOMAINS, baselines={"x": Mixture({"audio": 1.0})}, draws=8)


def test_a_baseline_beside_a_cooldown_keeps_what_was_trained_before() -> None:
    past = (Trained("init", 4_000_000, OWN),)
    target = Target(330_000, 6_600_000, ("continue", "cooldown"), prefix=past, guard=None)
    phases = (past[0].as_phase(), Phase("continue", 2_000_000, OWN), Phase("cooldown", 600_000, OWN, 0.0))
    for tokens in (2_000_000, 3_000_000):  # of the target, and one that is longer
        recipe = Recipe(330_000, (phases[0], replace(phases[1], tokens=tokens), phases[2]))
        other = beside(recipe, named("uniform"), target, DOMAINS)
        assert other.phases[0] == phases[0]
        assert [p.tokens for p in other.phases] == [4_000_000, tokens, 600_000]
        assert other.phases[1].mixture.share("python") == pytest.approx(0.25)


def test_study_toml_and_the_command_name_the_baseline(tmp_path: Path) -> None:
    target = (
        "[mixtures]\nours = { web = 0.8, python = 0.2 }\n[target]\nparams = 330000\ntokens = 6600000\n"
        'baseline = "ours"\nguard = { most = 2.0, than = "ours" }\n'
    )
    study = open_study(on_disk(tmp_path, target))
    drafted = study.propose(draft=True)
    assert drafted.against == "ours"
    assert study.proposals() == []
    found = study.what_if(drafted.recipe)
    assert found.against == "ours"
    assert found.gain is not None
    assert found.gain.mean == pytest.approx(drafted.gain.mean)
    run = study.records()[0]
    other = study.propose(baseline=run.run, draft=True)
    assert other.against == run.run
    assert {"ours", "proportional"} < set(other.baselines)
    assert all(d.name in {*other.recipe.domains} for d in STUDY_DOMAINS[:1])
    with pytest.raises(InputError, match="'theirs' is not a file"):
        study.propose(baseline="theirs", draft=True)
