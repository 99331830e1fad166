"""Uncertainty over tasks is joint: what one task's law misses the next ones miss too."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fitting.estimate import shrunk_covariance
from mixlaw.analysis.surface.surface import Surfaces
from studies import quick_fit

TASKS, SHARED, OWN = 12, 0.02, 0.01
UNITS = {f"t{t}": "bits/byte" for t in range(TASKS)}


def runs(count: int, seed: int) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Runs whose seed is good or bad for all tasks alike, SHARED, and for each of them, OWN; and their log losses."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.1, 0.9, count)
    columns = {"run": [f"r{seed}-{i}" for i in range(count)], "params": [1e7] * count}
    columns |= {"tokens:all:web": (2e8 * share).tolist(), "tokens:all:code": (2e8 * (1 - share)).tolist()}
    slope = np.linspace(-0.3, 0.3, TASKS)
    common = SHARED * rng.normal(size=(count, 1))
    value = 0.5 + slope * share[:, None] + common + OWN * rng.normal(size=(count, TASKS))
    return pl.DataFrame(columns | {f"metric:t{t}": np.exp(value[:, t]) for t in range(TASKS)}), value


@pytest.fixture(scope="module")
def surfaces() -> Surfaces:
    return quick_fit(runs(60, 0)[0], UNITS, {})


def test_the_correlation_of_tasks_is_that_of_their_residuals(surfaces: Surfaces) -> None:
    member = surfaces.members[0]
    off = member.correlation(surfaces.observed)[~torch.eye(TASKS, dtype=torch.bool)]
    true = SHARED**2 / (SHARED**2 + OWN**2)
    assert float(off.mean()) == pytest.approx(true, abs=0.12)


def test_nine_in_ten_means_over_tasks_lie_inside_their_intervals(surfaces: Surfaces) -> None:
    table, value = runs(200, 1)
    samples = surfaces.new_runs(Design.from_table(table, {}), 256).log().mean(-1).numpy()
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    inside = (value.mean(1) >= low) & (value.mean(1) <= high)
    assert 0.82 < inside.mean() < 0.97
    # Drawn task by task the same widths would hold about half of them.
    half = 1.645 * samples.std(0).mean()
    alone = 1.645 * np.sqrt((SHARED**2 + OWN**2) / TASKS)
    assert half > 2 * alone


@pytest.mark.parametrize(("rows", "columns"), [(200, 3), (6, 9), (2, 4), (12, 1), (40, 40)])
def test_shrinkage_is_that_of_scikit_learn(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    drawn = torch.randn(rows, columns, dtype=torch.float64, generator=generator) @ torch.diag(
        torch.arange(1.0, columns + 1, dtype=torch.float64)
    )
    expected, _ = ledoit_wolf(drawn.numpy(), assume_centered=True)
    torch.testing.assert_close(shrunk_covariance(drawn), torch.tensor(expected), rtol=1e-10, atol=1e-12)
