"""The discrepancy between sizes: where it acts, how large it is drawn, and that folds teach it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mixlaw.analysis.audit.held import LARGEST, Fold, Held
from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import tenfolds
from mixlaw.analysis.data.observed import Observed, observe
from mixlaw.analysis.surface.discrepancy import (
    LEVEL,
    LEVEL_OF_ONE_SIZE,
    MIXTURE,
    SCALE,
    Discrepancy,
    expected_discrepancy,
    in_mixture_of,
    learn_discrepancy,
    typical_run,
)

TASKS, EACH = 40, 30


def observed(jump: float = 0.0, seed: int = 0, tenfolds: int = 1, noise: float = 0.005) -> Observed:
    """30 recipes at each of three sizes, the last far apart; there every level is off by a normal of sd `jump`."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat([1e6, 1e7, 1e7 * 10**tenfolds], EACH)
    share = np.tile(rng.uniform(0.1, 0.9, EACH), 3)
    columns = {"run": [f"r{i}" for i in range(3 * EACH)], "params": sizes.tolist()}
    columns |= {"tokens:all:web": (20 * sizes * share).tolist(), "tokens:all:code": (20 * sizes * (1 - share)).tolist()}
    off = jump * rng.normal(size=TASKS)
    values = {
        f"metric:t{t}": np.exp(0.2 * share + (sizes > 1e7) * off[t] + noise * rng.normal(size=3 * EACH)).tolist()
        for t in range(TASKS)
    }
    frame = pl.DataFrame(columns | values)
    return observe(frame, {f"t{t}": "bits/byte" for t in range(TASKS)}, {})


def held(data: Observed) -> list[Held]:
    """Leave the largest size out: what is predicted is the task's mean response at the smaller sizes, exactly."""
    rows = torch.arange(3 * EACH)
    fold = Fold(LARGEST, rows[: 2 * EACH], rows[2 * EACH :], extrapolates=True)
    mean = data.target[:, :EACH].add(data.target[:, EACH : 2 * EACH]).div(2).T
    return [Held(fold, mean, mean, torch.full_like(mean, 0.006))]


def test_what_mixtures_differ_by_is_the_same_however_levels_fall_with_size_and_budget() -> None:
    data = observed()
    one_size = expected_discrepancy(data.select(torch.arange(EACH))).mixture
    fallen = data.target - 0.3 * data.design.params.log() - 0.1 * data.design.total.log()
    for target in (data.target, fallen):
        found = expected_discrepancy(replace(data, target=target)).mixture
        assert torch.allclose(found, one_size, rtol=0.05)
    share = data.design.mixture[:EACH, data.design.domains.index("web")]
    assert float(one_size.mean()) == pytest.approx(0.1 * 0.2 * float(share.std()), rel=0.03)


def test_one_size_says_little_of_levels_and_few_recipes_nothing_of_mixtures() -> None:
    data = observed()
    for sizes, level in ((1, LEVEL_OF_ONE_SIZE), (2, LEVEL), (3, LEVEL)):
        assert expected_discrepancy(data.select(torch.arange(sizes * EACH))).level.tolist() == [level] * TASKS
    seen = torch.zeros_like(data.seen)
    seen[0, :1], seen[1, :2], seen[2:] = True, True, True
    none, two = expected_discrepancy(replace(data, seen=seen)).mixture[:2].tolist()
    assert none == 0
    assert two == pytest.approx(MIXTURE * float(data.target[1, :2].std()))


def test_it_acts_beyond_the_measured_sizes_and_budgets_alone() -> None:
    design = observed().design
    inside = replace(design, params=design.params * 0.99, tokens=design.tokens * 0.99).select([EACH, 2 * EACH])
    assert torch.equal(tenfolds(inside, design), torch.zeros(2, dtype=torch.float64))
    large = replace(design, params=design.params * 10).select([2 * EACH])
    long = replace(design, tokens=design.tokens * 100).select([2 * EACH])
    assert tenfolds(large, design).tolist() == pytest.approx([1.0])
    assert 1.9 < float(tenfolds(long, design)) < 2.3  # the longest run has a few more tokens than this one


def test_draws_have_the_spread_and_the_correlation_that_they_are_to_have() -> None:
    design = observed().design
    features, beyond = Features.of(design), replace(design, params=design.params * 1e4).select(list(range(EACH)))
    tied = torch.linalg.cholesky(torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64))
    effect = Discrepancy(torch.tensor([0.03, 0.06]).double(), torch.zeros(2).double(), torch.zeros(()).double())
    nothing = torch.zeros(EACH, 2).double()
    shift = effect.shifts(beyond, design, features, tied, nothing, 256) / tenfolds(beyond, design)[0]
    assert shift[:, 0].std(0).tolist() == pytest.approx([0.03, 0.06], rel=0.1)
    assert float(torch.corrcoef(shift[:, 0].T)[0, 1]) == pytest.approx(0.8, abs=0.08)
    few = effect.shifts(beyond, design, features, tied, nothing, 7)
    assert torch.equal(few, effect.shifts(beyond, design, features, tied, nothing, 64)[:7])
    assert torch.allclose(shift[:, 0], shift[:, 1])  # a level is common to all recipes: gains do not feel it


def test_all_differences_of_a_task_grow_by_one_factor_of_mean_one() -> None:
    design = observed().design
    features, beyond = (
        Features.of(design),
        replace(design, params=design.params * 100).select(range(2 * EACH, 3 * EACH)),
    )
    tied, none = torch.eye(2).double(), torch.zeros(2).double()
    apart = torch.randn(EACH, 2, generator=torch.Generator().manual_seed(0)).double()
    effect = Discrepancy(none, none, torch.tensor(0.3).double())
    factor = (apart + effect.shifts(beyond, design, features, tied, apart, 256)) / apart
    assert torch.allclose(factor, factor[:, :1].expand_as(factor))  # the same for all recipes
    logs, expected = factor[:, 0].log(), 0.3 * float(tenfolds(beyond, design)[0])
    assert logs.std(0).tolist() == pytest.approx([expected] * 2, rel=0.1)
    assert float(torch.corrcoef(logs.T)[0, 1]) == pytest.approx(0.5, abs=0.1)
    assert factor[:, 0].mean(0).tolist() == pytest.approx([1, 1], abs=0.15)


def test_levels_mixtures_and_the_factor_are_drawn_apart_from_each_other() -> None:
    design = observed().design
    features, beyond = Features.of(design), replace(design, params=design.params * 10).select(range(2 * EACH, 3 * EACH))
    tied, apart = torch.eye(1).double(), torch.ones(EACH, 1).double()
    x = float(tenfolds(beyond, design)[0])

    def drawn(*sizes: float) -> Tensor:
        level, mixture, scale = torch.tensor(sizes).double()
        return Discrepancy(level[None], mixture[None], scale).shifts(beyond, design, features, tied, apart, 256)[..., 0]

    parts = [drawn(0.1, 0, 0), drawn(0, 0.1, 0), drawn(0, 0, 0.1)]
    assert float(parts[1].var(0).mean().sqrt()) == pytest.approx(0.1 * x, rel=0.15)  # over the measured recipes
    for row in range(0, EACH, 5):
        together = torch.corrcoef(torch.stack([part[:, row] for part in parts]))
        assert float((together - torch.eye(3)).abs().max()) < 0.2


def test_a_typical_mixture_has_the_size_and_budget_of_the_recipe_and_a_mixture_near_the_mean() -> None:
    design = observed().design
    rows = replace(design, params=design.params * 7, unique=design.unique.clamp(max=1e6)).select([0, EACH])
    typical = in_mixture_of(typical_run(design, Features.of(design)), rows)
    assert torch.equal(typical.params, rows.params)
    assert torch.allclose(typical.total, rows.total)
    assert torch.allclose(typical.mixture, design.mixture.mean(0).expand(2, -1), atol=0.05)
    assert not typical.repeated.any()


def _level(found: Discrepancy) -> float:
    return float(found.level.square().mean().sqrt())


@pytest.mark.parametrize("jump", [0.1, 0.3])
def test_a_level_that_jumps_at_the_largest_size_is_expected_to_jump_again(jump: float) -> None:
    data = observed(jump)
    learned = learn_discrepancy(data, held(data), torch.ones(TASKS, dtype=torch.float64))
    # One fold beside a prior fold: the root of the mean of the two squares.
    assert _level(learned) == pytest.approx(
        float(np.sqrt((jump**2 + _level(expected_discrepancy(data)) ** 2) / 2)), rel=0.3
    )
    assert float((learned.mixture / expected_discrepancy(data).mixture).max()) < 1.5  # gains were predicted well


@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_differences_that_grew_by_another_factor_are_expected_to_do_so_again(factor: float) -> None:
    data, ones = observed(), torch.ones(TASKS, dtype=torch.float64)
    (fold,) = held(data)
    # What was predicted is smaller than what was measured by the factor, on every task.
    off = data.target[:, 2 * EACH :].T
    smaller = replace(fold, mean=off.mean(0) + (fold.mean - fold.mean.mean(0)) / factor)
    learned = learn_discrepancy(data, [smaller], ones)
    expected = np.sqrt((SCALE**2 + (factor - 1) ** 2) / 2)  # one tenfold beyond, one fold beside the prior
    assert float(learned.scale) == pytest.approx(expected, rel=0.1)
    plain = learn_discrepancy(data, [fold], ones).mixture
    assert torch.allclose(learned.mixture, plain, rtol=0.1)  # nothing of it counts as a change of single domains
    unsure = replace(smaller, deviation=torch.ones_like(fold.deviation))
    assert float(learn_discrepancy(data, [unsure], ones).scale) == pytest.approx(SCALE)  # the laws expected as much


def test_sizes_that_were_predicted_well_narrow_it_and_no_fold_leaves_the_prior() -> None:
    data, ones = observed(), torch.ones(TASKS, dtype=torch.float64)
    prior = expected_discrepancy(data)
    assert _level(learn_discrepancy(data, held(data), ones)) < 0.8 * _level(prior)
    nothing: Tensor = learn_discrepancy(data, [], ones).level
    assert torch.allclose(nothing, prior.level)


def _squares(found: Discrepancy, before: Discrepancy) -> tuple[float, float, float]:
    """What one fold has added to the three variances."""
    mixture = float((found.mixture / before.mixture).mean()) * MIXTURE
    prior = zip((_level(found), mixture, float(found.scale)), (LEVEL, MIXTURE, SCALE), strict=True)
    return tuple(2 * now**2 - then**2 for now, then in prior)  # type: ignore[return-value]


def test_an_error_over_several_tenfolds_counts_for_each_of_them() -> None:
    ones, added = torch.ones(TASKS, dtype=torch.float64), []
    for far in (1, 3):
        data = observed(tenfolds=far, noise=0.05)
        (fold,) = held(data)
        fold = replace(fold, mean=fold.mean / 1.6, deviation=torch.zeros_like(fold.deviation))
        added.append(_squares(learn_discrepancy(data, [fold], ones), expected_discrepancy(data)))
    assert [near / far for near, far in zip(*added, strict=True)] == pytest.approx([9] * 3, rel=0.02)


def test_what_the_discrepancy_expected_is_not_counted_as_the_laws_own() -> None:
    data, ones = observed(0.1, tenfolds=3), torch.ones(TASKS, dtype=torch.float64)
    (fold,) = held(data)
    alone = expected_discrepancy(data.select(fold.fold.train))
    apart = fold.mean - fold.mean.mean(0)
    expected = 3 * (alone.level**2 + alone.mixture**2 + (alone.scale**2 * apart**2).mean(0)).sqrt()
    sure, same = (
        learn_discrepancy(data, [replace(fold, deviation=deviation.expand_as(fold.mean))], ones)
        for deviation in (torch.zeros(()), expected)
    )
    assert torch.allclose(sure.level, same.level)
    assert torch.allclose(sure.mixture, same.mixture)
    unsure = learn_discrepancy(data, [replace(fold, deviation=1.5 * expected.expand_as(fold.mean))], ones)
    assert _level(unsure) < 0.95 * _level(sure)


def test_the_unit_of_a_task_and_what_was_not_measured_change_nothing() -> None:
    data, ones = observed(0.1, noise=0.03), torch.ones(TASKS, dtype=torch.float64)
    fold = replace(held(data)[0], deviation=torch.zeros(EACH, TASKS, dtype=torch.float64))
    usual = learn_discrepancy(data, [fold], ones)
    unit = torch.where(torch.arange(TASKS) % 2 == 0, 1.0, 10.0).double()
    other = learn_discrepancy(
        replace(data, target=data.target * unit[:, None]), [replace(fold, mean=fold.mean * unit)], ones
    )
    assert torch.allclose(other.mixture, usual.mixture * unit)
    assert torch.allclose(other.scale, usual.scale)

    seen = data.seen.clone()
    seen[::3, ::2] = False
    one, two = (
        learn_discrepancy(replace(data, seen=seen, target=torch.where(seen, data.target, any_value)), [fold], ones)
        for any_value in (7.0, -7.0)
    )
    assert torch.equal(one.level, two.level)
    assert _level(one) == pytest.approx(_level(usual), rel=0.05)
    assert float(one.scale) == pytest.approx(float(two.scale))
    assert torch.allclose(one.mixture, usual.mixture, rtol=0.1)


def test_noise_is_no_factor_and_counts_as_a_change_of_single_domains() -> None:
    data = observed(noise=0.05)
    (fold,), before = held(data), expected_discrepancy(data)
    true = (0.2 * data.design.mixture[2 * EACH :, data.design.domains.index("web")])[:, None].expand_as(fold.mean)
    sure = replace(fold, mean=true, deviation=torch.zeros_like(fold.deviation))
    _, mixture, scale = _squares(learn_discrepancy(data, [sure], torch.ones(TASKS, dtype=torch.float64)), before)
    assert scale == pytest.approx(0, abs=0.01)  # 0.04 where the slope's own error is not taken off
    off = (data.target[:, 2 * EACH :] - true.T).numpy()
    rest = [
        np.var(y, ddof=1) - np.cov(x, y)[0, 1] ** 2 / np.var(x, ddof=1)
        for x, y in zip(true.T.numpy(), off, strict=True)
    ]
    assert mixture == pytest.approx(float(np.mean(np.array(rest) / (before.mixture.numpy() / MIXTURE) ** 2)))
