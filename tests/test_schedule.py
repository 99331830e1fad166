"""The learning rate against its closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.step import rate

ALL = Mixture({"text": 1.0})


def recipe(*phases: tuple[int, float | None], schedule: Schedule = Schedule.WSD) -> Recipe:
    named = tuple(Phase(f"p{i}", tokens, ALL, end) for i, (tokens, end) in enumerate(phases))
    return Recipe(1000, named, schedule=schedule)


def test_warm_up_is_linear_in_tokens_and_ends_at_the_peak() -> None:
    constant = recipe((1000, 1.0))
    assert [rate(constant, p, warmup=100) for p in (0, 24, 49, 99, 100, 999)] == [0.01, 0.25, 0.5, 1.0, 1.0, 1.0]
    assert rate(constant, 0, warmup=0) == 1.0


def test_constant_phases_stay_at_the_peak() -> None:
    assert {rate(recipe((600, 1.0), (400, 1.0)), p, warmup=0) for p in range(0, 1000, 7)} == {1.0}


@pytest.mark.parametrize("position", [800, 850, 900, 999])
def test_a_cooldown_falls_linearly_to_its_end(position: int) -> None:
    to_zero, to_tenth = recipe((800, 1.0), (200, 0.0)), recipe((800, 1.0), (200, 0.1))
    done = (position - 800) / 200
    assert math.isclose(rate(to_zero, position, 0), 1 - done, abs_tol=1e-12)
    assert math.isclose(rate(to_tenth, position, 0), 1 - 0.9 * done, abs_tol=1e-12)


def test_a_phase_begins_where_the_one_before_it_ended() -> None:
    twice = recipe((100, 0.5), (100, 0.5), (100, 1.0))
    assert [rate(twice, p, 0) for p in (0, 50, 100, 150, 200, 250)] == [1.0, 0.75, 0.5, 0.5, 0.5, 0.75]


def test_cosine_is_half_a_wave_over_all_phases() -> None:
    wave = recipe((500, 1.0), (500, 1.0), schedule=Schedule.COSINE)
    for position, expected in [(0, 1.0), (250, 0.5 + math.sqrt(0.125)), (500, 0.5), (750, 0.5 - math.sqrt(0.125))]:
        assert math.isclose(rate(wave, position, 0), expected)


def test_warm_up_and_schedule_multiply() -> None:
    assert math.isclose(rate(recipe((100, 0.0)), 49, warmup=100), 0.5 * 0.51)


def shaped(decay: Decay, end: float) -> Recipe:
    return Recipe(1000, (Phase("init", 800, ALL), Phase("cooldown", 200, ALL, end, decay)))


def test_a_cooldown_falls_in_its_shape_to_its_end() -> None:
    # 1-sqrt by hand: a quarter of the way 1 - sqrt(0.25) = 0.5 is left of the fall, at 81 % of it 1 - 0.9 = 0.1.
    # Cosine: a third of the way 0.5 (1 + cos 60 degrees) = 0.75.
    root = shaped(Decay.ONE_SQRT, 0.0)
    assert [rate(root, p, 0) for p in (0, 799, 800)] == [1.0, 1.0, 1.0]
    assert math.isclose(rate(root, 850, 0), 0.5)
    assert math.isclose(rate(root, 962, 0), 0.1)
    assert math.isclose(rate(shaped(Decay.ONE_SQRT, 0.2), 850, 0), 0.2 + 0.8 * 0.5)
    wave = Recipe(1000, (Phase("init", 700, ALL), Phase("cooldown", 300, ALL, 0.1, Decay.COSINE)))
    assert math.isclose(rate(wave, 800, 0), 0.1 + 0.9 * 0.75)


@pytest.mark.parametrize("decay", list(Decay))
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_every_shape_begins_at_the_level_falls_and_reaches_its_end(decay: Decay, end: float) -> None:
    recipe = shaped(decay, end)
    levels = [rate(recipe, p, 0) for p in range(800, 1000)]
    assert levels[0] == 1.0
    assert all(one > other for one, other in pairwise(levels))
    assert math.isclose(rate(recipe, 1000, 0), end, abs_tol=1e-12)


def test_cosine_falls_to_the_end_of_its_last_phase() -> None:
    phases = (Phase("init", 500, ALL, 0.5), Phase("late", 500, ALL, 0.1))
    wave = Recipe(1000, phases, schedule=Schedule.COSINE)
    assert math.isclose(rate(wave, 500, 0), 0.1 + 0.9 * 0.5)
    assert math.isclose(rate(wave, 1000, 0), 0.1)


def test_a_recipe_trains_at_its_own_rate_and_warm_up() -> None:
    setup = Setup("data", "hash", vocabulary=300, sequence=32, tasks=(), batch=4)
    plain, own = recipe((1000, 0.0)), replace(recipe((1000, 0.0)), lr=2.0, warmup=64)
    assert setup.rates(plain) == setup.hyperparameters(plain.params)
    assert setup.rates(own).learning_rate == 2 * setup.rates(plain).learning_rate
    assert (setup.rates(own).warmup_tokens, setup.rates(plain).warmup_tokens) == (64, plain.params)
