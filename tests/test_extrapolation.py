"""Prediction of runs larger than any that was fitted, on published runs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import observe
from mixlaw.analysis.fit import fit
from mixlaw.analysis.fitting.estimate import FRONTIER, row_weight
from mixlaw.analysis.laws import MUENNIGHOFF_2023, Chinchilla, Law

DATA = Path(os.environ.get("MIXLAW_DATA", Path(__file__).parents[2] / "shared" / "data"))
Floats = NDArray[np.float64]


def read(name: str) -> pl.DataFrame:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here; set MIXLAW_DATA to the folder of the public tables")
    return pl.read_csv(path, infer_schema_length=None)


def predicted(train: pl.DataFrame, test: pl.DataFrame, unit: str, law: type[Law] | None = None) -> Floats:
    units = {c.removeprefix("metric:"): unit for c in train.columns if c.startswith("metric:")}
    found = fit(train, units=units, unique={}, resamples=2, audited=False, law=law)
    return found.predict(Design.from_table(test, {})).mean


def test_harm_of_repeats_learned_below_one_and_a_half_billion_holds_above() -> None:
    raw = read("datablations/c4_data_constrained_runs.csv")
    names = {"params": "params", "tokens": "tokens:train:c4", "unique_tokens": "unique:c4", "val_loss_c4": "metric:c4"}
    table = raw.rename(names).with_columns(run=pl.int_range(pl.len()).cast(pl.String))
    usual = MUENNIGHOFF_2023(Design.from_table(table, {})).numpy()
    table = table.filter(pl.col("metric:c4") < pl.Series(1.5 * usual))  # diverged runs are out
    small, large = table.filter(pl.col("params") < 1.5e9), table.filter(pl.col("params") >= 1.5e9)
    truth = large["metric:c4"].to_numpy()
    often = (large["epochs"] > 4).to_numpy()

    def error(law: type[Law] | None) -> float:
        return float(np.sqrt(np.mean(np.log(predicted(small, large, "nats/token", law)[often, 0] / truth[often]) ** 2)))

    published = np.sqrt(np.mean(np.log(MUENNIGHOFF_2023(Design.from_table(large, {})).numpy() / truth)[often] ** 2))
    ours = error(None)
    assert ours < 0.5 * error(Chinchilla)
    assert ours < 0.5 * published


def test_losses_of_the_ladder_at_three_billion_are_predicted_within_one_percent() -> None:
    raw = read("olmo_ladder/tidy_final_rows.csv")
    losses = {f"metric:{c}": raw[c] for c in raw.columns if c.endswith("CrossEntropyLoss")}
    tokens = raw["_step"] * raw["batch_size_in_tokens"]
    table = pl.DataFrame({"run": raw["run"], "params": raw["n"], "tokens:train:dolma": tokens} | losses)
    small, large = table.filter(pl.col("params") < 2e9), table.filter(pl.col("params") > 2e9)
    truth = large.select(list(losses)).to_numpy()
    error = np.abs(np.log(predicted(small, large, "nats/token") / truth))
    flat = np.abs(np.log(predicted(small, large, "nats/token", Chinchilla) / truth))
    assert np.median(error) < 0.01
    assert np.median(error) < np.median(flat)


def weights(table: pl.DataFrame) -> torch.Tensor:
    observed = observe(table, {"x": "nats/token", "y": "nats/token"}, {})
    return row_weight(Chinchilla.form(observed.design), observed)


def ladder(rows: int) -> pl.DataFrame:
    size = np.geomspace(1e6, 1e8, rows)
    columns = {"params": size, "tokens:train:text": 1e14 / size**0.7}
    values = {"metric:x": np.linspace(4, 3, rows), "metric:y": np.linspace(3, 2, rows)}
    return pl.DataFrame({"run": [f"r{i}" for i in range(rows)]} | columns | values)


def test_rows_count_by_their_compute_and_not_at_all_where_nothing_was_measured() -> None:
    table = ladder(20)
    full = weights(table)[0]
    compute = (table["params"] * table["tokens:train:text"]).to_torch()
    assert torch.allclose(
        full / full[-1], (compute / compute[-1]) ** (FRONTIER * 15 / 20)
    )  # Chinchilla has five entries
    assert torch.isclose(full.mean(), torch.ones((), dtype=torch.float64))
    gap = weights(table.with_columns(pl.when(pl.col("run") != "r3").then(pl.col("metric:x")).alias("metric:x")))
    assert gap[0, 3] == 0
    assert torch.equal(gap[1], full)


def test_rows_count_alike_where_runs_are_scarce() -> None:
    assert torch.equal(weights(ladder(5)), torch.ones(2, 5, dtype=torch.float64))
