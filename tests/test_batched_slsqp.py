"""Walks in step: each gets its own answers, however long the others walk, and none outlives a failure."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.search.batched_slsqp import Ask, run_batched
from mixlaw.optimizer.search.climb import random_starts, refine, refine_each
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind

Floats = NDArray[np.float64]
GOALS = np.array([1.0, 4.0, 9.0, 16.0])


def heron(ask: Ask, start: Floats) -> Floats:
    """Go to a root by Newton's method; the answers are next points."""
    here = start
    while abs(after := ask(here)) - here[0]:
        here = np.array([after])
    return here


def test_every_walk_ends_where_it_does_alone_and_one_look_serves_all() -> None:
    looks = 0

    def look(points: Floats) -> list[Any]:
        nonlocal looks
        looks += 1
        return [float(x + goal / x) / 2 for (x,), goal in zip(points, GOALS, strict=True)]

    together = run_batched(look, heron, np.full((4, 1), 20.0))
    assert together[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    longest, x = 1, 20.0
    while (after := (x + 1.0 / x) / 2) != x:
        longest, x = longest + 1, after
    assert looks == longest


def test_a_look_that_fails_ends_every_walk() -> None:
    before, asked = threading.active_count(), 0

    def look(points: Floats) -> list[Any]:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt
        return [float(x + 1) for (x,) in points]

    with pytest.raises(KeyboardInterrupt):
        run_batched(look, heron, np.zeros((3, 1)))
    assert threading.active_count() == before


def test_a_walk_that_fails_fails_here() -> None:
    def walk(ask: Ask, start: Floats) -> Floats:
        if start[0] == 1.0:
            raise ZeroDivisionError
        return heron(ask, start)

    with pytest.raises(ZeroDivisionError):
        run_batched(lambda points: [float(x) for (x,) in points], walk, np.array([[2.0], [1.0], [3.0]]))


def test_each_start_is_refined_as_it_would_be_alone() -> None:
    domains = [Domain("web", Kind.TEXT, 10**9), Domain("code", Kind.CODE, 10**9), Domain("math", Kind.MATH, 10**9)]
    allowed = feasible(Target(1_000_000, 10_000_000, caps={"init": {"web": 0.5}}), domains)
    goals = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)

    def near(goal: Tensor, points: Points) -> Tensor:
        return -(points.shares - goal[..., None, :]).square().sum((1, 2))

    starts = random_starts(allowed, 3, seed=1)
    found, values = refine_each(lambda points: near(goals, points), allowed, starts)
    for row, goal in enumerate(goals):
        alone, value = refine(lambda points, goal=goal: near(goal, points), allowed, starts[row : row + 1])  # type: ignore[misc]
        assert torch.allclose(found.shares[row], alone.shares[0], atol=1e-6)
        assert float(values[row]) == pytest.approx(value, abs=1e-9)
    # Worked by hand: where web may be half at most, what it lacks of 0.6 goes to both others alike.
    first = allowed.target.phases.index("init")
    assert found.shares[0, first].tolist() == pytest.approx([0.5, 0.35, 0.15], abs=1e-3)
    assert found.shares[0, first + 1].tolist() == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)
