"""What a target allows, and the words for what contradicts itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixlaw.errors import InputError
from mixlaw.optimizer.constraints import Feasible, Infeasible, feasible
from mixlaw.optimizer.target import Target
from mixlaw.recipe import Domain, Kind, Recipe

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


def _random(allowed: Feasible, count: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(count, *allowed.shape, generator=generator, dtype=torch.float64)
    return allowed.shares(logits, spread * torch.randn(count, generator=generator, dtype=torch.float64))


def _assert_kept(target: Target, recipe: Recipe) -> None:
    """Every limit again, from the target's own words rather than from the rows of the polytope."""
    assert recipe.tokens == target.tokens
    low, high = target.cooldown_range
    assert low - 1e-7 <= recipe.phases[-1].tokens / recipe.tokens <= high + 1e-7
    for domain in DOMAINS:
        assert recipe.domain_tokens(domain.name) <= target.epochs(domain.name) * domain.unique_tokens
        for phase in recipe.phases:
            share = phase.mixture.share(domain.name)
            assert share >= target.floors.get(phase.name, {}).get(domain.name, 0.0) - 1e-9
            assert share <= target.caps.get(phase.name, {}).get(domain.name, 1.0) + 1e-9


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_every_mapped_point_becomes_a_recipe_that_keeps_every_limit(spread: float) -> None:
    allowed = feasible(TIGHT, DOMAINS)
    shares, cooldown = _random(allowed, 60, spread, seed=1)
    assert np.allclose(shares.sum(-1), 1)
    for row, part in zip(shares.numpy(), cooldown.tolist(), strict=True):
        recipe = allowed.recipe(row, part)
        _assert_kept(TIGHT, recipe)
        assert allowed.violations(recipe) == ()


def test_a_point_inside_the_limits_is_mapped_to_itself() -> None:
    allowed = feasible(Target(1_000, 100_000), DOMAINS)
    generator = np.random.default_rng(0)
    wanted = torch.tensor(generator.dirichlet(np.full(4, 3.0), (20, 3)))
    cooldown = torch.tensor(generator.uniform(0.11, 0.19, 20))
    shares, back = allowed.shares(*allowed.inverse(wanted, cooldown))
    assert torch.allclose(shares, wanted)
    assert torch.allclose(back, cooldown)


def test_the_best_point_for_a_linear_wish_is_found_by_gradients_as_by_the_simplex_method() -> None:
    # A cap of 10 % of the tokens on one domain that a wish wants everywhere: linear programming knows the answer.
    target = Target(1_000, 1_000_000, phases=("only",), max_epochs=1)
    domains = (Domain("scarce", Kind.TEXT, 100_000), Domain("plenty", Kind.TEXT, 10**9))
    allowed = feasible(target, domains)
    logits, dial = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        torch.autograd.backward(-allowed.shares(logits, dial)[0][0, 0, 0])
        optimiser.step()
    best, part = allowed.shares(logits, dial)
    assert best[0, 0, 0].item() == pytest.approx(0.1, abs=1e-6)
    assert allowed.recipe(best[0].detach().numpy(), part.item()).domain_tokens("scarce") <= 100_000


def test_a_share_that_is_fixed_and_one_that_is_forbidden_stay_so() -> None:
    target = Target(1_000, 10_000, floors={"init": {"web": 0.3}}, caps={"init": {"web": 0.3, "books": 0.0}})
    shares, _ = _random(feasible(target, DOMAINS), 50, 5.0, seed=2)
    assert torch.allclose(shares[:, 0, 0], torch.tensor(0.3, dtype=torch.float64))
    assert bool((shares[:, 0, 1] == 0).all())


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


def test_too_few_unique_tokens_altogether_name_every_domain() -> None:
    with pytest.raises(Infeasible, match=r"epochs of web.*epochs of books.*epochs of python.*epochs of readme"):
        feasible(Target(1_000, 100_000_000), DOMAINS)


def test_the_cooldown_is_narrowed_to_what_the_caps_leave() -> None:
    # 0.36M readme tokens are 3.6 % of 10M; at half of the cooldown it can last for at most 7.2 %.
    target = Target(1_000, 10_000_000, floors={"cooldown": {"readme": 0.5}}, cooldown=(0.02, 0.3))
    allowed = feasible(target, DOMAINS)
    assert allowed.cooldown == pytest.approx((0.02, 0.072))


def test_baselines_that_break_a_limit_are_told_which() -> None:
    from mixlaw.optimizer.baselines import uniform

    allowed = feasible(TIGHT, DOMAINS)
    broken = allowed.violations(uniform(1_000_000, TIGHT.phase_tokens(0.1), DOMAINS))
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
    ],
)
def test_a_target_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Target(**{"params": 1_000, "tokens": 10_000, **change})  # type: ignore[arg-type]


def test_a_limit_on_an_unknown_domain_is_refused() -> None:
    with pytest.raises(InputError, match="'webb'"):
        feasible(Target(1_000, 10_000, caps={"init": {"webb": 0.1}}), DOMAINS)


def test_a_target_survives_json_and_splits_its_tokens_exactly() -> None:
    assert Target.from_json(TIGHT.as_json()) == TIGHT
    tokens = TIGHT.phase_tokens(0.1234567)
    assert sum(tokens.values()) == TIGHT.tokens
    assert tokens["continue"] == pytest.approx(2 * tokens["init"], abs=2)
