"""What a target allows, and the words for what contradicts itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mixlaw.errors import InputError
from mixlaw.optimizer.search.climb import climb
from mixlaw.optimizer.target.feasible import Feasible, Infeasible, feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.schedule import phase_tokens
from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Domain, Kind, Mixture, Recipe

DOMAINS = (
    Domain("web", Kind.TEXT, 5_000_000),
    Domain("books", Kind.TEXT, 200_000),
    Domain("python", Kind.CODE, 1_000_000),
    Domain("readme", Kind.MARKUP, 90_000),
)
TIGHT = Target(
    params=1_000_000,
    tokens=10_000_003,
    cooldown=(0.05, 0.3),
    lengths={"init": 1, "continue": 2},
    floors={"cooldown": {"books": 0.2}, "init": {"web": 0.1}},
    caps={"init": {"readme": 0.0, "python": 0.4}, "continue": {"python": 0.15}},
    domain_epochs={"books": 3},
    max_epochs=2,
)


def _random(allowed: Feasible, count: int, spread: float, seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    return allowed.points(spread * torch.randn(count, allowed.size, generator=generator, dtype=torch.float64))


def _assert_kept(target: Target, recipe: Recipe) -> None:
    """Every limit again, from the target's own words rather than from the rows of the polytope."""
    assert recipe.tokens == target.tokens
    low, high = target.cooldown_range
    assert low - 1e-7 <= recipe.phases[-1].tokens / recipe.tokens <= high + 1e-7
    for domain in DOMAINS:
        assert recipe.domain_tokens(domain.name) <= target.epochs(domain) * domain.unique_tokens
        for phase in recipe.phases:
            share = phase.mixture.share(domain.name)
            assert share >= target.floors.get(phase.name, {}).get(domain.name, 0.0) - 1e-9
            assert share <= target.caps.get(phase.name, {}).get(domain.name, 1.0) + 1e-9


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_every_mapped_point_becomes_a_recipe_that_keeps_every_limit(spread: float) -> None:
    allowed = feasible(TIGHT, DOMAINS)
    points = _random(allowed, 60, spread, seed=1)
    assert np.allclose(points.shares.sum(-1), 1)
    for i in range(len(points)):
        recipe = allowed.recipe(points[i : i + 1])
        _assert_kept(TIGHT, recipe)
        assert allowed.violations(recipe) == ()


def test_a_point_inside_the_limits_is_mapped_to_itself() -> None:
    allowed = feasible(Target(1_000, 100_000, lr_end=(0.0, 0.3), sizes=(500, 2_000)), DOMAINS)
    generator = np.random.default_rng(0)
    part = torch.tensor(generator.uniform(0.11, 0.19, 20))
    wanted = Points(
        torch.tensor(generator.dirichlet(np.full(4, 3.0), (20, 3))),
        torch.stack([(1 - part) / 2, (1 - part) / 2, part], 1),
        torch.tensor(generator.uniform(0.01, 0.29, 20)),
        torch.tensor(generator.uniform(600, 1_900, 20)),
    )
    back = allowed.points(allowed.numbers(wanted))
    assert torch.allclose(back.shares, wanted.shares)
    assert torch.allclose(back.lengths, wanted.lengths)
    assert torch.allclose(back.lr_end, wanted.lr_end)
    assert torch.allclose(back.params, wanted.params)
    assert allowed.recipe(wanted[:1]).phases[-1].lr_end == pytest.approx(float(wanted.lr_end[0]), abs=5e-4)


def test_the_best_point_for_a_linear_wish_is_found_by_gradients_as_by_the_simplex_method() -> None:
    # A cap of 10 % of the tokens on one domain that a wish wants everywhere: linear programming knows the answer.
    target = Target(1_000, 1_000_000, phases=("only",), max_epochs=1)
    domains = (Domain("scarce", Kind.TEXT, 100_000), Domain("plenty", Kind.TEXT, 10**9))
    allowed = feasible(target, domains)
    found, _ = climb(lambda points: points.shares[:, 0, 0], allowed, allowed.points(torch.zeros(1, allowed.size)))
    assert found.shares[0, 0, 0].item() == pytest.approx(0.1, abs=1e-6)
    assert allowed.recipe(found).domain_tokens("scarce") <= 100_000


def test_a_share_that_is_fixed_and_one_that_is_forbidden_stay_so() -> None:
    target = Target(1_000, 10_000, floors={"init": {"web": 0.3}}, caps={"init": {"web": 0.3, "books": 0.0}})
    shares = _random(feasible(target, DOMAINS), 50, 5.0, seed=2).shares
    assert torch.allclose(shares[:, 0, 0], torch.tensor(0.3, dtype=torch.float64))
    assert bool((shares[:, 0, 1] == 0).all())


KINDS = Target(
    params=1_000_000,
    tokens=4_000_000,
    lengths={"continue": (0.3, 0.5)},
    caps={"recipe": {"all:code": 0.3}, "init": {"kind:code": 0.1}},
    floors={"recipe": {"python": 0.05}, "cooldown": {"all:code": 0.25}},
    domain_epochs={"kind:code": 1.5},
    phase_epochs={"cooldown": 1},
)


def test_bounds_on_kinds_the_whole_recipe_and_single_phases_hold_for_every_point() -> None:
    allowed = feasible(KINDS, DOMAINS)
    for i in range(60):
        recipe = allowed.recipe(_random(allowed, 60, 3.0, seed=5)[i : i + 1])
        tokens = {d.name: recipe.domain_tokens(d.name) for d in DOMAINS}
        init, middle, last = recipe.phases
        assert tokens["python"] + tokens["readme"] <= 0.3 * 4_000_000 + 1
        assert tokens["python"] >= 0.05 * 4_000_000 - 1
        assert init.mixture.share("python") <= 0.1 + 1e-9
        assert last.mixture.share("python") + last.mixture.share("readme") >= 0.25 - 1e-6
        assert 0.3 <= middle.tokens / 4_000_000 <= 0.5
        assert tokens["python"] <= 1.5 * 1_000_000
        assert all(last.tokens * last.mixture.share(d.name) <= d.unique_tokens + 1 for d in DOMAINS)
        assert allowed.violations(recipe) == ()


def test_the_smallest_conflict_may_be_between_kinds_of_phases_and_of_the_recipe() -> None:
    # 60 % code in an init of at least 40 % of the tokens is 24 % of them: more than the recipe may have.
    target = Target(
        1_000,
        100_000,
        lengths={"init": (0.4, 0.6), "continue": (0.2, 0.5)},
        floors={"init": {"all:code": 0.6}, "cooldown": {"books": 0.1}},
        caps={"recipe": {"all:code": 0.2}},
    )
    with pytest.raises(Infeasible) as caught:
        feasible(target, DOMAINS)
    message = str(caught.value)
    assert "at least 0.6 all:code in init" in message
    assert "at most 0.2 all:code in the recipe" in message
    assert "at most 0.5 of the tokens" in message or "at least 0.4 of the tokens" in message
    assert "books" not in message


def test_what_has_been_trained_counts_towards_epochs_and_shares_of_the_recipe() -> None:
    past = (Trained("init", 5_000_000, Mixture({"web": 0.9, "python": 0.1})),)
    target = Target(
        1_000_000, 10_000_000, ("continue", "cooldown"), prefix=past, caps={"recipe": {"python": 0.1}}, max_epochs=2
    )
    allowed = feasible(target, DOMAINS)
    assert "a cooldown of at least 0.1 of the tokens still to be trained" in [limit.words for limit in allowed.limits]
    for i in range(40):
        recipe = allowed.recipe(_random(allowed, 40, 3.0, seed=3)[i : i + 1])
        assert recipe.phases[0] == past[0].as_phase()
        assert recipe.tokens == 10_000_000
        assert recipe.domain_tokens("web") <= 2 * 5_000_000 + 1
        assert recipe.domain_tokens("python") <= 0.1 * 10_000_000 + 1
        assert 0.1 <= recipe.phases[-1].tokens / 5_000_000 <= 0.6
        assert allowed.violations(recipe) == ()
    spent = target.changed(prefix=(Trained("init", 5_000_000, Mixture({"python": 1.0})),))
    with pytest.raises(Infeasible, match=r"at most 0.1 python in the recipe; loosen one of them by 0.8 of the tokens"):
        feasible(spent, DOMAINS)


def test_at_a_budget_of_flops_the_size_is_free_as_far_as_unique_tokens_reach() -> None:
    # Two epochs of 6.29M unique tokens at 6 N D = 6e13 need N >= 1e13 / 12.58M.
    target = Target(1_000_000, 10_000_000, sizes=(100_000, 4_000_000), max_epochs=2)
    allowed = feasible(target, DOMAINS)
    assert allowed.sizes[0] == pytest.approx(1e13 / (2 * 6_290_000), rel=1e-4)
    points = _random(allowed, 60, 3.0, seed=4)
    assert float(points.params.detach().max()) > 2 * float(points.params.detach().min())
    for i in range(len(points)):
        recipe = allowed.recipe(points[i : i + 1])
        assert recipe.params * recipe.tokens == pytest.approx(1e13, rel=1e-5)
        assert all(recipe.domain_tokens(d.name) <= 2 * d.unique_tokens for d in DOMAINS)


def test_infeasible_caps_name_only_the_limits_that_contradict_each_other() -> None:
    target = Target(
        1_000, 10_000_000, floors={"cooldown": {"readme": 0.9}, "init": {"web": 0.2}}, cooldown=(0.2, 0.3), max_epochs=4
    )
    with pytest.raises(Infeasible) as caught:
        feasible(target, DOMAINS)
    # 90 % of a cooldown of at least 20 % of 10M is 1.8M tokens, four epochs of readme are 0.36M: three limits clash.
    message = str(caught.value)
    assert "at least 0.9 readme in cooldown" in message
    assert "at most 4 epochs of readme (0.036 of the tokens)" in message
    assert "a cooldown of at least 0.2" in message
    assert not any(words in message for words in ("web", "at most 0.3", "books"))


@pytest.mark.parametrize(
    ("phase", "cooldown", "short"),
    [
        ("cooldown", (0.1, 0.3), "by 0.02 of"),  # .2 of the shortest cooldown
        ("init", (0.1, 0.3), "by 0.07 of"),  # .2 of half of what the longest one leaves
        ("init", (0.0005, 0.0008), "by 0.1 of"),  # hardly a cooldown, and no part of the clash
    ],
)
def test_what_clashes_inside_a_phase_does_so_at_any_length_of_it(
    phase: str, cooldown: tuple[float, float], short: str
) -> None:
    floors = {phase: {"web": 0.7, "python": 0.5}}
    with pytest.raises(Infeasible) as caught:
        feasible(Target(1_000, 10_000_000, floors=floors, cooldown=cooldown, max_epochs=100), DOMAINS)
    message = str(caught.value)
    assert f"at least 0.7 web in {phase}; at least 0.5 python in {phase}; loosen one of them {short}" in message
    assert "a cooldown of" not in message


def test_too_few_unique_tokens_altogether_name_every_domain() -> None:
    with pytest.raises(Infeasible, match=r"epochs of web.*epochs of books.*epochs of python.*epochs of readme"):
        feasible(Target(1_000, 100_000_000), DOMAINS)


def test_the_cooldown_is_narrowed_to_what_the_caps_leave() -> None:
    # 0.36M readme tokens are 3.6 % of 10M; at half of the cooldown it can last for at most 7.2 %.
    target = Target(1_000, 10_000_000, floors={"cooldown": {"readme": 0.5}}, cooldown=(0.02, 0.3))
    allowed = feasible(target, DOMAINS)
    assert allowed.cooldown == pytest.approx((0.02, 0.072), rel=1e-4)


def test_baselines_that_break_a_limit_are_told_which() -> None:
    from mixlaw.optimizer.goal.baselines import uniform

    allowed = feasible(TIGHT, DOMAINS)
    broken = allowed.violations(uniform(1_000_000, phase_tokens(TIGHT, 0.1), DOMAINS))
    assert "at most 0 readme in init" in broken
    assert any(words.startswith("at most 3 epochs of books") for words in broken)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"params": 0}, "positive params"),
        ({"phases": ("a", "a")}, "different names"),
        ({"cooldown": (0.3, 0.1)}, "cooldown range"),
        ({"caps": {"init": {"web": 1.2}}}, "between 0 and 1"),
        ({"floors": {"start": {"web": 0.2}}}, "'start'"),
        ({"max_epochs": 0}, "positive"),
        ({"lr_end": 2}, "lr_end"),
        ({"lengths": {"init": (0.5, 0.2)}}, "range of init"),
        ({"prefix": (Trained("base", 20_000),)}, "20000 trained"),
        ({"prefix": (Trained("init", 100),)}, "different names"),
        ({"sizes": (100, 1_000), "prefix": (Trained("base", 100),)}, "has its size"),
        ({"sizes": (100, 1_000), "ladder": (2_000,)}, "ladder"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Target(**{"params": 1_000, "tokens": 10_000, **change})  # type: ignore[arg-type]


def test_a_limit_on_an_unknown_domain_is_refused() -> None:
    with pytest.raises(InputError, match="'webb'"):
        feasible(Target(1_000, 10_000, caps={"init": {"webb": 0.1}}), DOMAINS)


def test_a_target_survives_json_and_splits_its_tokens_exactly() -> None:
    wide = KINDS.changed(
        lr_end=(0.0, 0.1),
        branches=((Trained("base", 1_000),), (Trained("base", 2_000, Mixture({"web": 1.0}), 0.5),)),
        guard=Guard({"a": 0.5}, "uniform"),
    )
    for target in (TIGHT, KINDS, wide, Target(1_000, 10_000, sizes=(500, 2_000), ladder=(500, 700), guard=Guard(1))):
        assert Target.from_json(json.loads(json.dumps(target.as_json()))) == target
    tokens = phase_tokens(TIGHT, 0.1234567)
    assert sum(tokens.values()) == TIGHT.tokens
    assert tokens["continue"] == pytest.approx(2 * tokens["init"], abs=2)


def test_a_target_that_was_frozen_before_reads_and_writes_the_same() -> None:
    frozen = {
        **{"params": 1_000, "tokens": 10_000, "phases": ["init", "cooldown"], "cooldown": [0.1, 0.2]},
        **{"lengths": {"init": 1}, "max_epochs": 5, "domain_epochs": {}, "phase_epochs": {}, "floors": {}},
        **{"caps": {"recipe": {"web": 1}}, "lr_end": 0.0, "branches": [], "sizes": None, "ladder": []},
        "prefix": [{"phase": "base", "tokens": 100, "mixture": {"web": 1.0}, "lr_end": 1}],
        "guard": {"most": 1, "than": "", "sure": 0.9},
    }
    assert json.dumps(Target.from_json(frozen).as_json(), sort_keys=True) == json.dumps(frozen, sort_keys=True)
    with pytest.raises(InputError, match=r"unknown|extra"):
        Target.from_json({**frozen, "horizon": 3})


def test_a_past_beyond_its_epochs_leaves_nothing_and_is_no_contradiction() -> None:
    # 5M of python's 2M tokens are read, with 2 epochs allowed: the rest has none of it.
    past = (Trained("init", 5_000_000, Mixture({"python": 1.0})),)
    target = Target(1_000_000, 10_000_000, ("continue", "cooldown"), prefix=past, max_epochs=2)
    allowed = feasible(target, DOMAINS)
    for i in range(10):
        recipe = allowed.recipe(_random(allowed, 10, 3.0, seed=3)[i : i + 1])
        assert all(phase.mixture.share("python") == 0 for phase in recipe.phases[1:])
    with pytest.raises(Infeasible, match=r"at most 2 epochs of python \(none of it is left"):
        feasible(target.changed(floors={"cooldown": {"python": 0.5}}), DOMAINS)


def test_a_contradiction_says_by_how_much() -> None:
    # Floors of .6 and .55 within one phase of 15 % of the tokens: .15 of the phase too much, .0225 of the tokens.
    target = Target(
        1_000_000, 10_000_000, floors={"cooldown": {"web": 0.6, "python": 0.55}}, cooldown=(0.15, 0.15), max_epochs=100
    )
    with pytest.raises(Infeasible, match=r"by 0\.02[23] of the tokens"):
        feasible(target, DOMAINS)
