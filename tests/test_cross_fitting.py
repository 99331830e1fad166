"""The gain that is reported is neither flattered by the search nor hurt by judging it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.optimizer.answers.propose import propose
from mixlaw.optimizer.goal.gains import cross_fitted
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import Known

DOMAINS = tuple(Domain(name, Kind.TEXT, 10**9) for name in "abc")
CENTRE = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
EVEN = Recipe(1_000, (Phase("all", 30_000, Mixture({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}), 0.0),))
WORLDS, SPREAD, STEEP = 8, 0.06, 4.0


@dataclass(frozen=True)
class Bowls:
    """Worlds whose log loss is STEEP / 2 |x - c_s|^2 with optima c_s drawn around the truth, on the simplex."""

    seed: int
    tasks: tuple[str, ...] = ("task",)
    phases: tuple[str, ...] = ("all",)
    domains: tuple[str, ...] = ("a", "b", "c")

    @property
    def units(self) -> dict[str, str]:
        return {"task": "bits/byte"}

    @property
    def calibration(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)

    @property
    def log_noise(self) -> Tensor:
        return torch.full((1,), 0.01, dtype=torch.float64)

    def spread(self, design: Design) -> Tensor:
        return self.log_noise.expand(len(design), -1)

    def optima(self) -> Tensor:
        steps = torch.randn(WORLDS, 3, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        return CENTRE + SPREAD * (steps - steps.mean(1, keepdim=True))

    def draws(self, design: Design, count: int) -> Tensor:
        away = design.shares.sum(1)[None] - self.optima()[:count, None]
        return torch.exp(STEEP / 2 * away.square().sum(-1))[..., None]

    def predict(self, design: Design) -> Known:
        mean = self.draws(design, WORLDS).mean(0).detach().numpy()
        return Known(mean, mean, mean, mean, np.zeros(len(mean)))


def test_where_optima_are_known_the_plain_gain_is_too_high_and_the_reported_one_is_right() -> None:
    # With optima of variance v = SPREAD^2 in d = 2 directions the mean of S worlds flatters its own optimum by
    # STEEP v d / S: they lie (1 - 1/S) v d around their mean, and (1 + 1/S) v d around a mean that others chose.
    plain, told = [], []
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    for seed in range(16):
        beliefs = Bowls(seed)
        found = propose(
            beliefs,
            Target(1_000, 30_000, ("all",)),
            DOMAINS,
            baselines={"even": EVEN},
            draws=WORLDS,
            starts=2,
            caution=0.0,
            sizes=(),
        )
        x = torch.tensor([found.recipe.mixture.share(name) for name in "abc"], dtype=torch.float64)
        truth = STEEP / 2 * float((even - CENTRE).square().sum() - (x - CENTRE).square().sum())
        # What a recipe that the draws did not choose gains by their luck is known, and taken off.
        luck = STEEP * float((CENTRE - even) @ (beliefs.optima().mean(0) - CENTRE))
        plain.append(found.plain - 100 * (truth + luck))
        told.append(found.gain.mean - 100 * (truth + luck))
    expected = 100 * STEEP * SPREAD**2 * 2 / WORLDS
    error = np.std(plain) / 4, np.std(told) / 4
    assert abs(np.mean(plain) - expected) < 2.5 * error[0]
    assert np.mean(plain) > 2.5 * error[0]
    assert abs(np.mean(told)) < min(2.5 * float(error[1]), expected / 3)


def test_the_winner_among_equal_recipes_gains_nothing() -> None:
    # 50 recipes that are worth nothing: the winner of 40 worlds shows the greatest of 50 normal means, 2.249 / sqrt(40)
    # (expected maximum of 50 standard normals, Harter 1961). What the other half says of each half's winner is 0.
    draw, own, others = np.random.default_rng(0), [], []
    for _ in range(400):
        gains = draw.normal(size=(40, 50))
        halves = [torch.arange(0, 40, 2), torch.arange(1, 40, 2)]
        best = torch.tensor(gains[:, gains.mean(0).argmax()])[:, None]
        chosen = [torch.tensor(gains[:, gains[half].mean(0).argmax()])[:, None] for half in halves]
        own.append(float(best.mean()))
        others.append(float(((3 * cross_fitted(best, halves, chosen) - best) / 2).mean()))
    assert abs(np.mean(own) - 2.249 / np.sqrt(40)) < 3 * np.std(own) / 20
    assert abs(np.mean(others)) < 3 * np.std(others) / 20
