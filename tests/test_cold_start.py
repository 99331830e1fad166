"""First designs: wide, with repeats and pairs in the other order of phases, inside the limits, cheap by sharing."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlaw.optimizer.next_runs.candidates import Candidate
from mixlaw.optimizer.next_runs.costs import Prices, Proxies
from mixlaw.optimizer.next_runs.first_design import (
    REPEATS,
    centre,
    d_optimal,
    features,
    first_design,
    log_det,
    short_of_runs,
)
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.runner.plan.tree import plan
from mixlaw.settings import Settings
from mixlaw.settings.recipes import written_recipes

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 400_000),
    Domain("python", Kind.CODE, 3_000_000),
    Domain("readme", Kind.MARKUP, 200_000),
)
TARGET = Target(
    330_000, 6_600_000, cooldown=(0.1, 0.2), caps={"init": {"books": 0.05}}, floors={"cooldown": {"python": 0.1}}
)
SIZES = {24_000: 480_000, 94_000: 1_880_000}


def pool(count: int, seed: int = 0) -> list[Recipe]:
    """Two domains, two phases; every recipe with a trunk of its own and equally long."""
    draw = np.random.default_rng(seed)

    def mixture() -> Mixture:
        share = float(np.round(draw.uniform(), 3))
        return Mixture.normalised({"web": share, "python": 1 - share})

    return [
        Recipe(24_000, (Phase("init", 800, mixture()), Phase("cooldown", 200, mixture(), 0.0))) for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_design_is_nearly_as_wide_as_the_best_of_all_choices(seed: int) -> None:
    recipes, chosen = pool(14, seed), 5
    allowed = feasible(Target(330_000, 6_600_000, phases=("init", "cooldown")), (DOMAINS[0], DOMAINS[2]))
    rows = features(recipes, allowed)
    found = d_optimal(rows, Prices(Proxies({24_000: 1000}), recipes), chosen, 1e18, rows[:0])
    best = max(log_det(rows[list(some)]) for some in combinations(range(len(recipes)), chosen))
    assert len(set(found)) == chosen
    assert log_det(rows[found]) >= 0.99 * best


def test_what_is_there_already_counts() -> None:
    recipes = pool(14)
    allowed = feasible(Target(330_000, 6_600_000, phases=("init", "cooldown")), (DOMAINS[0], DOMAINS[2]))
    rows = features(recipes, allowed)
    given = rows[:3].repeat(2, 1)
    found = d_optimal(rows, Prices(Proxies({24_000: 1000}), recipes), 3, 1e18, given)
    best = max(log_det(torch.cat([given, rows[list(some)]])) for some in combinations(range(len(recipes)), 3))
    assert log_det(torch.cat([given, rows[found]])) >= 0.99 * best
    assert not set(found) & {0, 1, 2}


@pytest.fixture(scope="module")
def design() -> list[Candidate]:
    return first_design(feasible(TARGET, DOMAINS), Proxies(SIZES), 4e12, 24)


def test_a_pair_has_the_same_totals_in_the_other_order_of_phases(design: list[Candidate]) -> None:
    orders = set()
    for one, two in combinations([c.recipe for c in design], 2):
        alike = [(p.name, p.tokens) for p in one.phases] == [(p.name, p.tokens) for p in two.phases]
        if not alike or one.params != two.params or one.phases == two.phases:
            continue
        moved = [_tokens(a) - _tokens(b) for a, b in zip(one.phases, two.phases, strict=True)]
        if np.abs(sum(moved)).max() < 1e-6 * one.tokens:
            orders |= {tuple(np.abs(m).max() > 0.03 * one.tokens for m in moved)}
    assert orders - {(False, False, False)} == {(False, True, True), (True, True, False)}


def _tokens(phase: Phase) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([phase.tokens * phase.mixture.share(d.name) for d in DOMAINS])


def test_the_noise_floor_is_measured_by_repeats(design: list[Candidate]) -> None:
    copies = Counter((c.recipe.params, c.recipe.phases) for c in design)
    assert max(copies.values()) == 1 + REPEATS
    assert len({c.recipe for c in design}) == 24


def test_every_recipe_keeps_the_limits_of_the_target(design: list[Candidate]) -> None:
    for recipe in (c.recipe for c in design):
        by_phase = {p.name: p for p in recipe.phases}
        assert by_phase["init"].mixture.share("books") <= 0.05 + 1e-6
        assert by_phase["cooldown"].mixture.share("python") >= 0.1 - 1e-6
        if len(recipe.phases) == 3:
            assert 0.1 - 1e-3 <= by_phase["cooldown"].tokens / recipe.tokens <= 0.2 + 1e-3
            for domain in DOMAINS:  # repeats of the target, in its proportions
                most = 4 * domain.unique_tokens / TARGET.tokens
                assert recipe.domain_tokens(domain.name) / recipe.tokens <= most + 2e-3


def test_phases_and_domains_can_be_told_apart(design: list[Candidate]) -> None:
    # A straight line through every phase's shares has P (K - 1) + 1 numbers; all of them are determined, well enough
    # for the least determined direction to stand out of the noise.
    full = [c.recipe for c in design if len(c.recipe.phases) == 3 and c.recipe.params == 24_000]
    shares = np.array([[p.mixture.share(d.name) for p in r.phases for d in DOMAINS[1:]] for r in full])
    rows = np.column_stack([np.ones(len(full)), (shares - shares.mean(0)) / shares.std(0)])
    values = np.linalg.svd(rows / np.sqrt(len(full)), compute_uv=False)
    assert len(values) == 3 * 3 + 1
    assert values[-1] > 0.1


def test_both_sizes_are_there(design: list[Candidate]) -> None:
    assert {c.recipe.params for c in design} == set(SIZES)


SEVEN = (
    *(replace(domain, unique_tokens=10 * domain.unique_tokens) for domain in DOMAINS),
    Domain("commits", Kind.CODE_ADJACENT, 1_500_000),
    Domain("synthetic", Kind.SYNTHETIC_CODE, 1_000_000),
    Domain("math", Kind.MATH, 2_000_000),
)


@pytest.fixture(scope="module")
def wide() -> list[Recipe]:
    """Seven domains, three phases; FLOPs for 28 whole runs of the smaller size, and places for many more."""
    proxies, allowed = (
        Proxies({47_000: 940_000, 94_000: 1_880_000}),
        feasible(Target(752_000, 15_040_000, cooldown=(0.1, 0.2)), SEVEN),
    )
    return [c.recipe for c in first_design(allowed, proxies, 28 * 6.0 * 47_000 * 940_000, 64)]


def test_sharing_halves_the_flops_of_a_design(wide: list[Recipe]) -> None:
    together = sum(6.0 * s.recipe.params * s.tokens for s in plan(wide).segments)
    alone = sum(6.0 * recipe.params * recipe.tokens for recipe in wide)
    assert together <= 28 * 6.0 * 47_000 * 940_000
    assert together <= 0.52 * alone
    assert len(wide) > 40


def test_sharing_spares_a_third_of_the_flops_of_the_demos_recipes() -> None:
    file = Path(__file__).parents[1] / "src" / "mixlaw" / "demo" / "demo.toml"
    recipes = list(written_recipes(Settings.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))), ()))
    together = sum(6.0 * s.recipe.params * s.tokens for s in plan(recipes).segments)
    assert together <= 0.68 * sum(6.0 * recipe.params * recipe.tokens for recipe in recipes)


def test_shared_trunks_leave_every_phase_to_be_told_apart(wide: list[Recipe]) -> None:
    full = [r for r in wide if len(r.phases) == 3 and r.params == 47_000]
    shares = np.array([[p.mixture.share(d.name) for p in r.phases for d in SEVEN[1:]] for r in full])
    values = np.linalg.svd(np.column_stack([np.ones(len(full)), shares]) / np.sqrt(len(full)), compute_uv=False)
    assert len(values) == 3 * 6 + 1
    # Runs that differ by .3 % from seed to seed tell every direction of the shares to less than 10 % of the loss.
    assert 0.003 / np.sqrt(len(full)) / values[-1] < 0.1


@pytest.mark.parametrize(
    ("target", "domains"),
    [
        (Target(752_000, 15_040_000, phases=("init", "cooldown"), cooldown=(0.15, 0.15)), DOMAINS[:2]),
        (Target(752_000, 15_040_000, phases=("init", "cooldown"), floors={"init": {"web": 0.9}}), DOMAINS[:2]),
        (Target(752_000, 15_040_000, lengths={"init": (0.2, 0.6)}), DOMAINS),
        (Target(752_000, 15_040_000, phases=("a", "b", "c", "d", "e")), DOMAINS),
    ],
)
def test_any_target_gets_a_design_that_keeps_its_limits(target: Target, domains: tuple[Domain, ...]) -> None:
    rich = [replace(d, unique_tokens=10_000_000) for d in domains]
    allowed, unit = feasible(target, rich), 6.0 * 47_000 * 940_000
    found = [c.recipe for c in first_design(allowed, Proxies({47_000: 940_000}), 10 * unit, 16)]
    assert 8 < len(found) <= 16
    assert sum(6.0 * s.recipe.params * s.tokens for s in plan(found).segments) <= 10 * unit
    low, high = allowed.cooldown
    for recipe in (r for r in found if len(r.phases) == len(target.phases)):
        assert low - 1e-5 <= recipe.phases[-1].tokens / recipe.tokens <= high + 1e-5
        assert recipe.phases[0].mixture.share("web") >= target.floors.get("init", {}).get("web", 0.0) - 1e-6
        if "init" in target.lengths:
            assert 0.2 - 1e-3 <= recipe.phases[0].tokens / recipe.tokens <= 0.6 + 1e-3


def test_the_budget_is_kept_and_what_is_known_is_not_asked_again(design: list[Candidate]) -> None:
    allowed = feasible(TARGET, DOMAINS)
    known = tuple(c.recipe for c in design[:6])
    small = first_design(allowed, Proxies(SIZES, measured=known), 3e11, 12)
    proxies = Proxies(SIZES)
    recipes = [c.recipe for c in small]
    assert not {*recipes} & {*known}
    assert 0 < sum(proxies.cost(r, recipes[:i]) for i, r in enumerate(recipes)) <= 3e11
    assert [c.recipe for c in first_design(allowed, Proxies(SIZES, measured=known), 3e11, 12)] == recipes


def test_one_phase_needs_no_pairs() -> None:
    target = Target(330_000, 6_600_000, phases=("all",))
    found = first_design(feasible(target, DOMAINS), Proxies({24_000: 480_000}), 1e13, 10)
    assert len(found) == 10
    assert all(c.recipe.tokens == 480_000 for c in found)


def test_the_centre_is_as_even_as_the_limits_let_it_be() -> None:
    free = feasible(Target(330_000, 1_000), DOMAINS)
    shares = [centre(free).mixture.share(d.name) for d in DOMAINS]
    assert min(shares) > 0.2
    assert all(abs(a - b) < 0.08 for a, b in pairwise(shares))


@pytest.mark.parametrize(("count", "short"), [(0, True), (3, True), (4, False)])
def test_a_line_needs_more_recipes_than_it_has_numbers(count: int, short: bool) -> None:
    # Two phases of two domains: 2 (2 - 1) + 1 = 3 numbers.
    assert short_of_runs(pool(count), ("init", "cooldown"), ("web", "python")) is short
    assert short_of_runs([pool(1)[0]] * 9, ("init", "cooldown"), ("web", "python"))


def test_log_det_is_that_of_the_information_matrix() -> None:
    rows = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert log_det(rows) == pytest.approx(float(torch.logdet(torch.eye(3, dtype=torch.float64) + rows.T @ rows)))


@pytest.fixture(scope="module")
def rich() -> list[Candidate]:
    """Seven domains, three sizes, and a budget that pays for everything a first design has."""
    proxies, allowed = Proxies({24_000: 480_000, 47_000: 940_000, 94_000: 1_880_000}), feasible(TARGET, DOMAINS)
    return first_design(allowed, proxies, 300 * 6.0 * 24_000 * 480_000, 60)


def test_the_same_recipes_are_there_at_every_size(rich: list[Candidate]) -> None:
    mixtures = {
        size: {
            tuple((p.name, p.mixture, round(p.tokens / c.recipe.tokens, 3)) for p in c.recipe.phases)
            for c in rich
            if c.recipe.params == size
        }
        for size in (24_000, 47_000, 94_000)
    }
    assert len(mixtures[47_000]) >= 3
    assert len(mixtures[94_000]) >= 3
    assert mixtures[47_000] | mixtures[94_000] <= mixtures[24_000]


def test_three_rates_at_the_centre_and_at_two_far_recipes_tell_whether_ranks_move(rich: list[Candidate]) -> None:
    rates: dict[tuple[Phase, ...], set[float]] = {}
    for recipe in (c.recipe for c in rich if c.recipe.seed == 0):
        rates.setdefault(recipe.phases, set()).add(recipe.lr)
    checked = [phases for phases, seen in rates.items() if seen == {0.5, 1.0, 2.0}]
    assert len(checked) == 3
    assert sum("rate check" in c.why for c in rich) == 8
    assert {c.recipe.params for c in rich if c.recipe.lr != 1} == {24_000}


def test_a_recipe_at_another_rate_shares_no_training(rich: list[Candidate]) -> None:
    other = next(c.recipe for c in rich if c.recipe.lr == 2)
    same = replace(other, lr=1.0)
    assert Prices(Proxies({24_000: 480_000}), [other, same])([0])[1] == 6.0 * 24_000 * same.tokens


def test_cooldowns_of_both_ends_of_the_range_are_tried(rich: list[Candidate]) -> None:
    low, high = feasible(TARGET, DOMAINS).cooldown
    lengths = {round(c.recipe.phases[-1].tokens / c.recipe.tokens, 3) for c in rich if "length" in c.why}
    middle = round(rich[0].recipe.phases[-1].tokens / rich[0].recipe.tokens, 3)
    assert {round(low, 3), round(high, 3)} <= {*lengths, middle}
