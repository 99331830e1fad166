"""Value of information against closed forms, and batches that follow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from mixlaw.optimizer.next_runs.value import Predictions, choose_batch, plausible

WORLDS = 4000
NORMAL = NormalDist()


def latent(count: int, seed: int = 0) -> Tensor:
    """Independent standard normal columns, exactly centred and scaled, (WORLDS, count)."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(WORLDS, count, generator=generator, dtype=torch.float64)
    orthogonal: Tensor = torch.linalg.qr(raw - raw.mean(0))[0]
    return orthogonal * math.sqrt(WORLDS - 1)


def flat(*prices: float) -> Tensor:
    return torch.tensor(prices, dtype=torch.float64)


def alike(noise: float, candidates: int) -> Tensor:
    """The same noise of every candidate in one task."""
    return torch.full((candidates, 1), noise, dtype=torch.float64)


def duel(
    behind: float, spread: float, shown: Sequence[tuple[float, int]], noise: float, columns: int = 4
) -> Predictions:
    """Two contenders, the second behind by a normal amount; candidates show scale x column of the latent normals.

    The contest turns on column 0.
    """
    z = latent(columns)
    gains = torch.stack([torch.zeros(WORLDS, dtype=torch.float64), spread * z[:, 0] - behind], 1)
    outcomes = torch.stack([scale * z[:, column] for scale, column in shown], 1)
    return Predictions(outcomes[..., None], gains[..., None], alike(noise, len(shown)))


def worth(behind: float, slope: float) -> float:
    """E max(slope z - behind, 0)."""
    return slope * NORMAL.pdf(behind / slope) - behind * NORMAL.cdf(-behind / slope)


@pytest.mark.parametrize(
    ("behind", "spread", "noise"), [(0.0, 1.0, 0.5), (0.5, 1.0, 1.0), (1.0, 0.8, 0.1), (2.0, 2.0, 3.0)]
)
def test_one_run_is_worth_what_the_closed_form_says(behind: float, spread: float, noise: float) -> None:
    found = choose_batch(duel(behind, spread, [(1.0, 0)], noise), lambda _: flat(1.0), 1)
    slope = spread / math.sqrt(1 + noise**2)  # covariance spread, standard deviation of the outcome with its noise
    assert found.value == pytest.approx(worth(behind, slope), rel=0.04, abs=1e-3)
    assert found.regret == pytest.approx(worth(behind, spread), rel=0.04)


def test_two_runs_together_are_worth_what_their_mean_is() -> None:
    # Two noisy looks at one quantity are one look with half the noise variance.
    found = choose_batch(duel(0.5, 1.0, [(1.0, 0), (1.0, 0)], 1.0), lambda _: flat(1.0, 1.0), 2)
    assert found.value == pytest.approx(worth(0.5, 1 / math.sqrt(1.5)), abs=0.02)  # 256 paths
    assert found.values[1] < found.values[0]


def test_what_has_nothing_to_do_with_the_contest_is_worth_nothing() -> None:
    found = choose_batch(duel(0.5, 1.0, [(5.0, 1), (0.2, 0), (9.0, 2)], 0.1), lambda _: flat(1.0, 1.0, 1.0), 3)
    assert found.chosen[0] == 1
    assert all(abs(value) < 1e-3 for value in found.values[1:])


def test_of_two_looks_at_one_thing_the_clearer_is_taken() -> None:
    # Noise differs between recipes; the noisy one is the more widely spread of the two, and yet tells less.
    even = duel(0.5, 1.0, [(2.0, 0), (1.0, 0)], 0.0)
    found = choose_batch(
        replace(even, noise=torch.tensor([[4.0], [0.5]], dtype=torch.float64)), lambda _: flat(1.0, 1.0), 1
    )
    assert found.chosen == (1,)
    assert found.value == pytest.approx(worth(0.5, 1 / math.sqrt(1.25)), rel=0.04)


def test_runs_that_show_the_same_are_not_bought_twice() -> None:
    # Contest of column 0 plus column 3; candidates 0 and 1 show column 0 almost without noise, 2 shows column 3.
    z = latent(4)
    gains = torch.stack([torch.zeros(WORLDS, dtype=torch.float64), z[:, 0] + 0.8 * z[:, 3]], 1)
    outcomes = torch.stack([z[:, 0], z[:, 0], z[:, 3]], 1)
    predictions = Predictions(outcomes[..., None], gains[..., None], alike(0.05, 3))
    found = choose_batch(predictions, lambda _: flat(1.0, 1.0, 1.0), 2)
    assert {found.chosen[0] in (0, 1), found.chosen[1] == 2} == {True}
    waiting = choose_batch(predictions, lambda _: flat(1.0, 1.0, 1.0), 1, pending=[0])
    assert waiting.chosen == (2,)
    assert waiting.regret < found.regret


def test_value_is_weighed_against_cost_and_the_budget_is_kept() -> None:
    predictions = duel(0.2, 1.0, [(1.0, 0), (1.0, 0), (1.0, 0)], 2.0)
    dear = choose_batch(predictions, lambda _: flat(8.0, 2.0, 4.0), 1)
    assert dear.chosen == (1,)
    both = choose_batch(predictions, lambda _: flat(8.0, 2.0, 4.0), 3, budget=6.0)
    assert sorted(both.chosen) == [1, 2]
    assert both.cost == 6.0
    assert choose_batch(predictions, lambda _: flat(8.0, 2.0, 4.0), 3, budget=1.0).chosen == ()


def test_a_dear_run_is_bought_where_cheap_ones_tell_little() -> None:
    # One exact look for 10, or three noisy ones for 1 each: with three places the exact one is in the better batch.
    predictions = duel(0.3, 1.0, [(1.0, 0), (0.05, 0), (0.05, 0), (0.05, 0)], 0.3)
    found = choose_batch(predictions, lambda _: flat(10.0, 1.0, 1.0, 1.0), 3, budget=10.0)
    assert found.chosen[0] == 0


def test_a_price_that_falls_with_what_is_chosen_is_seen() -> None:
    # A branch costs 5 alone and 0.5 on the trunk of candidate 0.
    def prices(chosen: Sequence[int]) -> Tensor:
        return flat(4.0, 0.5 if 0 in chosen else 5.0, 4.5)

    z = latent(3)
    gains = torch.stack([torch.zeros(WORLDS, dtype=torch.float64), z.sum(1)], 1)
    predictions = Predictions(z[..., None], gains[..., None], alike(0.1, 3))
    found = choose_batch(predictions, prices, 2, budget=9.0)
    assert found.chosen == (0, 1)
    assert found.costs == (4.0, 0.5)


def test_chance_correlations_of_few_worlds_are_not_sold_as_knowledge() -> None:
    # 64 worlds, 400 candidates that know nothing: the best of them looks as if it explained 15 % of the contest.
    generator = torch.Generator().manual_seed(3)
    gains = torch.randn(64, 2, 1, generator=generator, dtype=torch.float64)
    outcomes = torch.randn(64, 400, 1, generator=generator, dtype=torch.float64)
    found = choose_batch(
        Predictions(outcomes, gains, alike(0.1, 400)), lambda _: torch.ones(400, dtype=torch.float64), 1
    )
    truth = choose_batch(
        Predictions(torch.cat([outcomes, gains[:, 1:] - gains[:, :1]], 1), gains, alike(0.1, 401)),
        lambda _: torch.ones(401, dtype=torch.float64),
        1,
    )
    assert truth.chosen == (400,)
    assert found.value < 0.4 * truth.value


def test_tasks_add_up_and_the_telling_one_is_named() -> None:
    # The contest is the sum of two tasks; the candidate shows the second three times as clearly.
    z = latent(2)
    task_gains = torch.stack([torch.zeros(WORLDS, 2, dtype=torch.float64), z - 0.2], 1)
    predictions = Predictions(z[:, None], task_gains, torch.tensor([[3.0, 0.5]], dtype=torch.float64))
    found = choose_batch(predictions, lambda _: flat(1.0), 1)
    slope = math.sqrt(1 / 10 + 1 / 1.25)  # squares of 1 / sqrt(1 + noise^2) add, for the tasks are independent
    assert found.value == pytest.approx(worth(0.4, slope), rel=0.06)
    assert found.tasks == (1,)


def test_plausible_contenders_hold_the_best_of_every_world() -> None:
    generator = torch.Generator().manual_seed(1)
    gains = torch.randn(64, 900, generator=generator, dtype=torch.float64)
    kept = set(plausible(gains).tolist())
    assert set(gains.argmax(1).tolist()) <= kept
    assert int(gains.mean(0).argmax()) in kept
    assert len(kept) <= 64 + 32
