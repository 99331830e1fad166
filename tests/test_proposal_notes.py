"""What a proposal says beside its gain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mixlaw.analysis.data.recipes import design_of
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import random_world

DOMAINS = (
    Domain("web", Kind.TEXT, 4_000_000),
    Domain("books", Kind.TEXT, 300_000),
    Domain("python", Kind.CODE, 2_000_000),
    Domain("readme", Kind.MARKUP, 200_000),
)


def test_a_domain_that_is_read_more_often_than_by_any_run_is_named() -> None:
    # Only python serves, and the target reads it 3.3 times.
    base = random_world(DOMAINS, tasks=2, seed=0)
    world = replace(base, worth=torch.tensor([[0.01, 0.01, 0.97, 0.01]] * 2).double(), repeats=1e6)
    target = Target(330_000, 6_600_000, cooldown=(0.1, 0.2), guard=None)
    unique = {d.name: float(d.unique_tokens) for d in DOMAINS}
    small = Recipe(47_000, (Phase("init", 940_000, Mixture({"web": 0.4, "python": 0.6})),))

    def notes(pools: dict[str, int]) -> str:
        measured = design_of([replace(small, unique=pools)], world.phases, world.domains, unique)
        found = propose(world, target, DOMAINS, measured=measured, draws=8, starts=6, sizes=[])
        assert found.recipe.domain_tokens("python") / 2e6 == pytest.approx(3.3, abs=0.05)
        return "; ".join(found.warnings)

    assert "reads python 3.3 times, more often than any run" in notes({})
    assert "more often than any run" not in notes({"python": 200_000})
