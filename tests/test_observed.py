"""What a table measured: repeats, their noise, and what is no repeat."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from mixlaw.analysis.data import observed
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import from_log_loss, observe, slope, to_log_loss

SPREAD = 0.02


def table(groups: int, repeats: int, tasks: int, seed: int = 0) -> pl.DataFrame:
    """`groups` recipes of `repeats` runs each; tasks differ in nothing but their noise, SPREAD in log loss."""
    rng = np.random.default_rng(seed)
    recipe = np.repeat(np.arange(groups), repeats)
    columns = {"run": [f"r{i}" for i in range(len(recipe))], "params": [1_000_000] * len(recipe)}
    columns |= {"tokens:all:web": (1e7 + 1e6 * recipe).tolist(), "tokens:all:code": [5e6] * len(recipe)}
    level = np.log(2 + 0.1 * recipe)
    values = {f"metric:t{t}": np.exp(level + SPREAD * rng.normal(size=len(recipe))).tolist() for t in range(tasks)}
    return pl.DataFrame(columns | values)


def noise(frame: pl.DataFrame) -> NDArray[np.float64]:
    units = {c.removeprefix("metric:"): "bits/byte" for c in frame.columns if c.startswith("metric:")}
    return observe(frame, units, {}).noise.numpy()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_noise_from_few_repeats_is_right_in_the_mean_of_its_logarithm(groups: int) -> None:
    # Three runs of a recipe have 2 degrees of freedom. Without the expectation of log chi-squared the geometric mean
    # would be .75, .87 and .94 of the truth.
    ratio = noise(table(groups, 3, 400, seed=groups)) / SPREAD
    assert np.exp(np.log(ratio).mean()) == pytest.approx(1.0, abs=0.05)


def test_the_standard_error_of_log_noise_covers_the_truth() -> None:
    frame = table(3, 3, 300)
    units = {f"t{t}": "bits/byte" for t in range(300)}
    seen = observe(frame, units, {})
    off = np.abs(np.log(seen.noise.numpy() / SPREAD)) / seen.noise_error.numpy()
    assert np.mean(off < 1.645) > 0.85


def test_noise_is_the_same_whatever_number_of_recipes_is_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table(7, 3, 2)
    whole = noise(frame)
    monkeypatch.setattr(observed, "GROUPS", 2)
    assert np.allclose(noise(frame), whole, rtol=1e-12)


def test_runs_that_repeat_other_pools_are_no_repeats_and_unused_pools_do_not_matter() -> None:
    frame = table(1, 4, 1)
    pools = frame.with_columns(pl.Series("unique:web", [5e6, 5e6, 1e6, 1e6]))
    a, b, c, d = Design.from_table(pools, {}).recipe_index.tolist()
    assert a == b != c == d
    enough = frame.with_columns(pl.Series("unique:web", [2e7, 3e7, 2e7, 3e7]))  # more than any run draws
    assert len(set(Design.from_table(enough, {}).recipe_index.tolist())) == 1


@pytest.mark.parametrize(("unit", "rises"), [("bits/byte", 1), ("accuracy", -1)])
def test_the_slope_of_a_value_is_that_of_differences(unit: str, rises: int) -> None:
    value, step = torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64), 1e-6
    log_loss = to_log_loss(value, unit)
    assert from_log_loss(log_loss, unit).tolist() == pytest.approx(value.tolist())
    differences = from_log_loss(log_loss + step, unit) - from_log_loss(log_loss - step, unit)
    assert slope(value, unit).tolist() == pytest.approx((rises * differences / (2 * step)).tolist(), rel=1e-6)
