"""What runs show: a linear model against a second implementation, effects between sizes, and broken audits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mixlaw.analysis.audit.result import Audit, audit_table
from mixlaw.analysis.surface.discrepancy import MIXTURE, expected_discrepancy
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.next_runs import suggest as room
from mixlaw.optimizer.next_runs.costs import Proxies
from mixlaw.optimizer.next_runs.first_design import features, unexplored
from mixlaw.optimizer.next_runs.information import Linear, own_luck
from mixlaw.optimizer.next_runs.suggest import broken_direction, growing, suggest
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind
from mixlaw.testing.worlds import random_recipes, random_world
from studies import DOMAINS as STUDIED
from studies import fitted

DOMAINS = (Domain("web", Kind.TEXT, 40_000_000), Domain("python", Kind.CODE, 30_000_000))
PHASES = ("init", "cooldown")


def test_the_linear_model_is_the_conditional_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    rows, contenders, measured = (rng.normal(size=(count, 4)) for count in (5, 3, 2))
    told = torch.zeros(5, dtype=torch.long)
    tensors = [torch.tensor(part) for part in (rows, contenders, measured)]
    model = Linear.of(tensors[0], tensors[1], tensors[2], torch.ones(3, dtype=torch.float64), 1, told)
    # The joint covariance of measured outcomes, new ones and gains over the leader, conditioned by Schur's complement.
    every = np.concatenate([measured, rows, contenders - contenders[1]])
    joint = every @ every.T + np.diag([1.0] * 7 + [0.0] * 3)
    given = joint - joint[:, :2] @ np.linalg.solve(joint[:2, :2], joint[:2])
    slopes = given[2:7, 7:] / np.sqrt(np.diag(given)[2:7, None])
    deviation = np.sqrt(np.diag(given)[7:].clip(1e-12))
    wanted = np.where(np.arange(3) == 1, 0.0, slopes / deviation)
    assert np.allclose(model.slopes()[..., 0].numpy(), wanted)


def test_what_is_measured_first_and_what_is_chosen_later_tell_the_same() -> None:
    rng = np.random.default_rng(1)
    rows, contenders, measured = (torch.tensor(rng.normal(size=(count, 4))) for count in (5, 3, 2))
    told, one = torch.zeros(5, dtype=torch.long), torch.ones(3, dtype=torch.float64)
    after = Linear.of(rows, contenders, measured, one, 0, told).after(2, seed=0)
    before = Linear.of(rows, contenders, torch.cat([measured, rows[2:3]]), one, 0, told)
    assert torch.allclose(after.covariance, before.covariance)


def test_what_grows_with_size_is_what_the_discrepancy_says() -> None:
    surfaces, expected = fitted(), expected_discrepancy(fitted().observed)
    assert growing(random_world(STUDIED, tasks=1, seed=0)) == 0
    assert growing(replace(surfaces, discrepancy=expected)) == pytest.approx(MIXTURE / math.log(10))
    doubled = replace(expected, mixture=2 * expected.mixture)
    assert growing(replace(surfaces, discrepancy=doubled)) == pytest.approx(2 * MIXTURE / math.log(10))


def test_larger_proxies_tell_more_where_effects_may_grow_with_size() -> None:
    allowed = feasible(Target(24_000_000, 48_000_000, phases=PHASES), DOMAINS)
    known, (one, two) = (random_recipes([24_000], 20, DOMAINS, PHASES, count, 1) for count in (30, 2))
    far = [replace(recipe, params=24_000_000) for recipe in (one, two)]
    tried = [one, replace(one, params=2_400_000)]
    told, each = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.float64)

    def slopes(between: float) -> list[float]:
        rows, targets, measured = (features(recipes, allowed, 24_000, between) for recipes in (tried, far, known))
        return Linear.of(rows, targets, measured, each, 0, told).slopes()[:, 1, 0].abs().tolist()

    assert slopes(0.5)[1] > 2 * slopes(0.5)[0]
    assert slopes(1e-9)[1] < 1.5 * slopes(1e-9)[0]


def lucky(local: float, reach: float = 0.6) -> Surfaces:
    """The fit of the tests, one law of it, with a local part of so many deviations of a run's noise."""
    member = fitted().members[0]
    size, far = local * member.kernel.noise, torch.full_like(member.kernel.reach, reach)
    member = replace(member, kernel=replace(member.kernel, local=size, reach=far))
    return replace(fitted(), members=(member,), weights=torch.ones(len(fitted().tasks), 1, dtype=torch.float64))


def test_what_a_mixture_has_for_itself_is_shared_by_its_sizes_and_falls_with_distance() -> None:
    surfaces, reach = lucky(3.0), 0.7
    names, count = (surfaces.phases, surfaces.domains), torch.ones(len(surfaces.tasks), dtype=torch.bool)
    recipes = random_recipes([24_000], 20, STUDIED, surfaces.phases, 4, 1)
    recipes += [replace(recipe, params=96_000) for recipe in recipes]
    found = own_luck(lucky(3.0, reach), recipes, count)
    shares = np.array([[[p.mixture.share(d) for d in names[1]] for p in r.phases] for r in recipes]).reshape(8, -1)
    r = np.sqrt(5) * cdist(shares, shares) / surfaces.members[0].features.spread / reach
    assert np.allclose((found @ found.T).numpy(), 9 * (1 + r + r**2 / 3) * np.exp(-r), atol=1e-6)


def test_runs_of_the_recommended_mixture_tell_more_where_mixtures_have_luck_of_their_own() -> None:
    allowed = feasible(TARGET.changed(phases=fitted().phases), STUDIED)
    known, (one, two, other) = (random_recipes([24_000], 20, STUDIED, fitted().phases, count, 1) for count in (60, 3))
    known, far = known[3:], [replace(recipe, params=TARGET.params) for recipe in (one, two)]
    told, each = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.float64)

    def told_by(local: float) -> float:
        """How much more a run of a contender's mixture tells of its lead than one of another mixture."""
        recipes = [two, other, *far, *known]
        own = own_luck(lucky(local), recipes, torch.ones(len(fitted().tasks), dtype=torch.bool))
        rows = torch.cat([features(recipes, allowed, 24_000), own], 1)
        slopes = Linear.of(rows[:2], rows[2:4], rows[4:], each, 0, told).slopes()[:, 1, 0].abs()
        return float(slopes[0] / slopes[1])

    assert told_by(3.0) > 2 * told_by(1e-6)


TARGET = Target(200_000, 4_000_000)


def audited(coverage: float) -> Audit:
    """An audit of the largest size with this coverage of every task."""
    row = {"fold": "largest size", "method": "surfaces", "rows": 8, "error": 0.1, "coverage": 0.9, "gains": coverage}
    return Audit(audit_table([{**row, "task": task} for task in fitted().tasks]))


@pytest.mark.parametrize(("coverage", "stop"), [(0.9, True), (0.75, True), (0.4, False)])
def test_nothing_stops_while_the_largest_size_is_outside_its_intervals(
    coverage: float, stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "NEGLIGIBLE", 1e9)
    monkeypatch.setattr(room, "UNLIKELY", 2.0)
    surfaces = replace(fitted(), audit=audited(coverage))
    largest = int(surfaces.observed.design.params.max())
    proxies = Proxies({largest: 20 * largest})
    found = suggest(surfaces, TARGET, STUDIED, proxies, budget=3 * 120.0 * largest**2, count=2, draws=16)
    assert found.stop is stop
    assert ("Do not stop here" in found.sentence) is not stop


def test_the_audit_speaks_where_the_target_lies_beyond_what_is_measured() -> None:
    surfaces, tasks = replace(fitted(), audit=audited(0.4)), fitted().tasks
    measured = surfaces.observed.design
    largest = TARGET.changed(params=int(measured.params.max()))
    assert "40 % of 16 gains" in broken_direction(surfaces, measured, TARGET, tasks)
    assert not broken_direction(surfaces, measured, largest, tasks)
    assert not broken_direction(fitted(), measured, TARGET, tasks)


def test_the_first_design_goes_on_until_shares_are_determined_three_times() -> None:
    # Two phases of two domains have 2 (2 - 1) + 1 = 3 numbers.
    allowed = feasible(Target(330_000, 6_600_000, phases=PHASES), DOMAINS)
    runs = random_recipes([24_000], 20, DOMAINS, PHASES, 12, 0)
    assert [unexplored(runs[:count], allowed) for count in (0, 3, 9, 12)] == pytest.approx([1, 2 / 3, 0, 0])
