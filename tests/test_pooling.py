"""Partial pooling of tasks against its closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlaw.analysis.fitting.pooling import first, learn
from mixlaw.analysis.laws.base import Parameter

ENTRIES = (
    Parameter("pooled", 0.1, 0.5, between=0.15),
    Parameter("alone", 0.5, 2.0),
    Parameter("held", 1.0, 1.0, between=0.15, held=True),
    Parameter("loose", 0.0, 0.3, between=0.15, held=True, loose=True),
)
FORM: Any = SimpleNamespace(parameters=ENTRIES, free=torch.tensor([0, 1]))


def tasks(*values: float) -> Tensor:
    """Vectors of tasks that differ in the first entry."""
    return torch.tensor([[value, 0.7, 1.0, 0.0] for value in values], dtype=torch.float64)


def test_before_any_data_every_entry_has_its_own_prior_and_what_is_held_does_not_move() -> None:
    prior = first(FORM)
    assert prior.mean.tolist() == [0.1, 0.5, 1.0, 0.0]
    assert prior.spread.tolist() == [0.5, 2.0, 0.0, 0.0]
    assert prior.loose.tolist() == [0.0, 0.0, 0.0, 0.3]
    assert not prior.mean_error.any()


def test_a_pooled_entry_has_the_mean_of_the_tasks_shrunk_to_its_prior_and_their_spread_shrunk_to_the_guess() -> None:
    theta, exact = tasks(0.2, 0.4, 0.6), torch.zeros(3, 2, 2, dtype=torch.float64)
    prior = learn(FORM, first(FORM), theta, exact)
    # Three observations of variance .15**2 about a mean whose prior is N(.1, .5**2).
    mean = (1.2 / 0.15**2 + 0.1 / 0.5**2) / (3 / 0.15**2 + 1 / 0.5**2)
    scatter = sum((value - mean) ** 2 for value in (0.2, 0.4, 0.6))
    spread = math.sqrt((4 * 0.15**2 + scatter) / (4 + 3))
    assert float(prior.mean[0]) == pytest.approx(mean)
    assert float(prior.spread[0]) == pytest.approx(spread)
    assert float(prior.mean_error[0]) == pytest.approx((3 / spread**2 + 1 / 0.5**2) ** -0.5)
    assert (prior.mean[1:].tolist(), prior.spread[1:].tolist()) == ([0.5, 1.0, 0.0], [2.0, 0.0, 0.0])
    assert prior.mean_error[1:].tolist() == [0.0, 0.0, 0.0]


def test_tasks_that_are_hardly_known_say_little_about_the_mean_and_add_their_doubt_to_the_spread() -> None:
    theta, doubt = tasks(0.2, 0.4, 0.6), torch.diag_embed(torch.full((3, 2), 0.25, dtype=torch.float64))
    known = learn(FORM, first(FORM), theta, torch.zeros(3, 2, 2, dtype=torch.float64))
    prior = learn(FORM, first(FORM), theta, doubt)
    assert float(prior.spread[0]) == pytest.approx(math.sqrt(float(known.spread[0]) ** 2 + 3 * 0.25 / 7))
    assert float(prior.mean_error[0]) == pytest.approx((3 / (float(prior.spread[0]) ** 2 + 0.25) + 1 / 0.5**2) ** -0.5)


def test_tasks_never_differ_by_more_than_twice_the_prior() -> None:
    theta = tasks(-50.0, 0.0, 50.0)
    assert float(learn(FORM, first(FORM), theta, torch.zeros(3, 2, 2, dtype=torch.float64)).spread[0]) == 1.0


def test_the_next_round_shrinks_by_the_spread_that_was_learned() -> None:
    theta, exact = tasks(0.2, 0.4, 0.6), torch.zeros(3, 2, 2, dtype=torch.float64)
    before = learn(FORM, first(FORM), theta, exact)
    spread = float(before.spread[0])
    mean = (1.2 / spread**2 + 0.1 / 0.5**2) / (3 / spread**2 + 1 / 0.5**2)
    assert float(learn(FORM, before, theta, exact).mean[0]) == pytest.approx(mean)
