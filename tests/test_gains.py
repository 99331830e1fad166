"""What an objective takes off a gain, in closed form."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from mixlaw.optimizer.goal.gains import Gain, Guarded, Objective, above, gain_of, lower_bound
from mixlaw.optimizer.goal.goal import Goal, utility_of
from mixlaw.optimizer.goal.values import Interval, chance, interval, probability, widened
from mixlaw.optimizer.policy import GUARD_PRICE, RADIUS_PRICE
from mixlaw.optimizer.target.feasible import feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Kind, Mixture, Phase, Recipe
from mixlaw.testing.worlds import random_world

DOMAINS = (Domain("web", Kind.TEXT, 4_000_000), Domain("code", Kind.CODE, 4_000_000))
WORLD = random_world(DOMAINS, tasks=2, seed=0)
ALLOWED = feasible(Target(params=1_000_000, tokens=1_000_000, cooldown=(0.1, 0.3)), DOMAINS)
#: Log losses of one recipe in three draws: gains of 4, 2 and 0 % and of 1, 3 and -1 %, weighed 3 to 1.
LOSSES = torch.tensor([[[-0.04, -0.01]], [[-0.02, -0.03]], [[0.0, 0.01]]], dtype=torch.float64)
MEAN, SPREAD = (3.25 + 2.25 - 0.25) / 3, ((1.5**2 + 0.5**2 + 2**2) / 2) ** 0.5


def objective(points: Points, moved: float = 0.0, radius: float = 0.1, guarded: Guarded | None = None) -> Objective:
    """Beside one measured recipe whose last phase differs in a share."""
    near = points.shares.clone()
    near[:, -1] += torch.tensor([-moved, moved], dtype=torch.float64)
    none = torch.zeros(3, 2, dtype=torch.float64)
    utility = utility_of(Goal({"task0": 3.0, "task1": 1.0}), WORLD)
    return Objective(WORLD, ALLOWED, utility, none, torch.arange(3), 0.5, near, radius, guarded)


def points() -> Points:
    return ALLOWED.points(torch.zeros(1, ALLOWED.size, dtype=torch.float64))


def value(found: Tensor) -> float:
    return float(found[0])


def test_caution_takes_standard_deviations_off_the_mean() -> None:
    assert value(objective(points()).judge(points(), LOSSES)) == pytest.approx(MEAN - 0.5 * SPREAD)
    assert value(lower_bound(LOSSES[:1, :, 0], 2.0)) == pytest.approx(-0.04)  # one draw has no spread
    assert value(lower_bound(LOSSES[:2, :, 0], 2.0)) == pytest.approx(-0.03 - 2 * 0.02 / 2**0.5, abs=1e-6)


@pytest.mark.parametrize(("moved", "charged"), [(0.05, 0.0), (0.1, 0.0), (0.3, 0.2)])
def test_only_what_is_beyond_the_trust_radius_is_charged(moved: float, charged: float) -> None:
    far = objective(points(), moved)
    assert value(far.distance(points())[0]) == pytest.approx(moved)
    assert value(far.charges(points())) == pytest.approx(RADIUS_PRICE * charged)
    assert value(far.judge(points(), LOSSES)) == pytest.approx(MEAN - 0.5 * SPREAD - RADIUS_PRICE * charged)


def test_a_guarded_task_is_charged_for_what_it_may_lose_with_the_probability_that_is_left() -> None:
    sure = NormalDist().cdf(1.0)  # one standard deviation: the second task, 1 +- 2 %, may lose 1 %
    most = torch.tensor([torch.inf, 0.4], dtype=torch.float64)
    guarded = Guarded(torch.zeros(3, 2, dtype=torch.float64), most, sure, "proportional")
    held = objective(points(), guarded=guarded)
    assert held.over_guard(LOSSES)[0].tolist() == pytest.approx([0.0, 0.6])
    assert value(held.judge(points(), LOSSES)) == pytest.approx(MEAN - 0.5 * SPREAD - GUARD_PRICE * 0.6)


def test_a_rounded_kink_is_a_parabola_that_meets_the_hinge_with_its_slopes() -> None:
    excess = torch.tensor([-torch.inf, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
    rounded = above(excess, 0.2)
    assert rounded.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.00625, 0.025, 0.05625, 0.1, 0.3])
    (slope,) = torch.autograd.grad(rounded.sum(), excess)
    assert slope[[0, 1, 3, 4, 5, 7]].tolist() == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.75, 1.0])
    assert above(excess).tolist() == pytest.approx([0.0] * 5 + [0.05, 0.1, 0.3])


def test_a_recipe_that_is_read_keeps_its_shares_lengths_and_end_of_the_rate() -> None:
    phases = ALLOWED.target.phases
    mixtures = [Mixture({"web": 0.5 + 0.1 * i, "code": 0.5 - 0.1 * i}) for i in range(len(phases))]
    tokens, ends = [700_000, *[100_000] * (len(phases) - 2), 200_000], [1.0] * (len(phases) - 1) + [0.1]
    recipe = Recipe(1_000_000, tuple(map(Phase, phases, tokens, mixtures, ends)))
    read = ALLOWED.read([recipe])
    assert read.shares[0, :, 0].tolist() == pytest.approx([0.5 + 0.1 * i for i in range(len(phases))])
    assert read.lengths[0].tolist() == pytest.approx([count / sum(tokens) for count in tokens])
    assert (value(read.lr_end), value(read.params)) == (0.1, 1_000_000)


@pytest.mark.parametrize(("share", "written"), [(0.0123, 0.0123), (0.01236, 0.0124), (0.0004, 0.0)])
def test_shares_are_written_to_a_hundredth_of_a_percent_and_dropped_below_a_twentieth(
    share: float, written: float
) -> None:
    point = points()
    point.shares[:, 0] = torch.tensor([1 - share, share], dtype=torch.float64)
    assert ALLOWED.recipe(point).phases[0].mixture.share("code") == pytest.approx(written, abs=1e-9)


@pytest.mark.parametrize(("mean", "spread"), [(1.0, 2.0), (-3.0, 0.5), (0.0, 1.0)])
def test_intervals_and_probabilities_of_draws_are_those_of_a_normal(mean: float, spread: float) -> None:
    draws = mean + spread * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)  # of standard deviation `spread`
    found, normal = interval(draws), NormalDist(mean, spread)
    assert (found.lo90, found.hi90) == pytest.approx((normal.inv_cdf(0.05), normal.inv_cdf(0.95)), rel=1e-4)
    assert probability(draws) == pytest.approx(1 - normal.cdf(0.0))
    noisy = widened(found, 3.0)
    wide = NormalDist(mean, (spread**2 + 9) ** 0.5)
    assert (noisy.mean, noisy.lo90, noisy.hi90) == pytest.approx((mean, *map(wide.inv_cdf, (0.05, 0.95))), rel=1e-4)


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.234, 1.0, 1.468), "1.23 ± 0.23"),
        ((12.34, 9.0, 15.68), "12.3 ± 3.3"),
        ((0.1, 0.08, 0.2), "0.100 (0.080 to 0.200)"),  # twice as wide above
        ((1.0, 1.0, 1.0), "1.0000 ± 0.0000"),
        ((1.0, 0.9991, 1.0009), "1.00000 ± 0.00090"),  # a loss is written out
        ((0.0, -0.00096, 0.00096), "0.000 ± 0.001"),  # a gain of nothing is not
        ((-0.0042, -0.005, -0.0034), "-0.004 ± 0.001"),
    ],
)
def test_a_value_is_rounded_to_two_digits_of_its_half_width(ends: tuple[float, float, float], text: str) -> None:
    assert Interval(*ends).text() == text


def test_tasks_that_lose_are_named_the_worst_first() -> None:
    losses = {"a": -2.0, "b": -5.0, "c": 1.0, "d": -3.0}
    gain = Gain(Interval(0.0, 0.0, 0.0), {task: Interval(mean, mean, mean) for task, mean in losses.items()}, 0.5, {})
    assert gain.losing == ("b", "d", "a")


@pytest.mark.parametrize(
    ("share", "tone", "text"),
    [
        (0.995, "better", ">99 %"),
        (0.96, "better", "96 %"),
        (0.94, "", "94 %"),
        (0.07, "", "7 %"),
        (0.001, "worse", "<1 %"),
    ],
)
def test_the_chance_of_being_better_has_a_tone_from_95_percent(share: float, tone: str, text: str) -> None:
    assert (chance(share).tone, chance(share).text) == (tone, text)


@pytest.mark.parametrize(
    ("ends", "tone"), [((1.0, 0.5, 1.5), "better"), ((-1.0, -1.5, -0.5), "worse"), ((0.0, -1.0, 1.0), "")]
)
def test_a_gain_has_a_tone_where_its_interval_is_clear_of_zero(ends: tuple[float, float, float], tone: str) -> None:
    assert Interval(*ends).tone == tone


def test_a_gain_is_told_by_task_group_share_and_without_each_task() -> None:
    # Gains of task0 are 2 % in the mean, those of task1 1 %; 3 to 1 are 1.75, of which task0 has 1.5.
    goal = Goal({"task0": 3.0, "task1": 1.0}, groups={"one": ["task0"], "other": ["task1"]})
    gain = gain_of(utility_of(goal, WORLD), LOSSES[:, 0], torch.zeros(3, 2, dtype=torch.float64))
    assert gain.total.mean == pytest.approx(MEAN)
    for found, expected in ((gain.by_task, (2, 1)), (gain.by_group, (2, 1)), (gain.without, (1, 2))):
        assert [each.mean for each in found.values()] == pytest.approx(expected)
    assert list(gain.parts.values()) == pytest.approx([1.5, 0.25])
    assert gain.better_groups == {"one": gain.better["task0"], "other": gain.better["task1"]}
