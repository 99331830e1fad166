"""The learning rate against its closed forms."""

from __future__ import annotations

import math

import pytest

from mixlaw.recipe import Mixture, Phase, Recipe, Schedule
from mixlaw.runner.schedule import rate

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
