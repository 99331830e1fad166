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
    SCALE,
    Discrepancy,
    expected_discrepancy,
    in_mixture_of,
    learn_discrepancy,
    typical_run,
)

TASKS, EACH = 40, 30


def observed(jump: float = 0.0, seed: int = 0) -> Observed:
    """30 recipes at each of three sizes, tenfold apart; at the largest every level is off by a normal of sd `jump`."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat([1e6, 1e7, 1e8], EACH)
    share = np.tile(rng.uniform(0.1, 0.9, EACH), 3)
    columns = {"run": [f"r{i}" for i in range(3 * EACH)], "params": sizes.tolist()}
    columns |= {"tokens:all:web": (20 * sizes * share).tolist(), "tokens:all:code": (20 * sizes * (1 - share)).tolist()}
    off = jump * rng.normal(size=TASKS)
    values = {
        f"metric:t{t}": np.exp(0.2 * share + (sizes == 1e8) * off[t] + 0.005 * rng.normal(size=3 * EACH)).tolist()
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
