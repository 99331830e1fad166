"""The audit of imported runs: it finds what was planted in known data, and nothing in data without faults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from mixlaw.adapters.importing import Understood, understand
from mixlaw.adapters.jumps import Model, mixed_units
from mixlaw.errors import InputError

RUNS = 60


def table(seed: int = 0) -> dict[str, Any]:
    """Runs of three domains from a log-linear law with 0.5 % noise."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(3), RUNS)
    loss = 2.5 * np.exp(-0.2 * np.log(shares[:, 0] + 0.01)) * np.exp(0.005 * rng.standard_normal(RUNS))
    return {
        "run": [f"r{i}" for i in range(RUNS)],
        "params": [10**6] * RUNS,
        **{f"tokens:init:d{j}": shares[:, j] * 1e9 for j in range(3)},
        "metric:loss": loss,
        "metric:other": loss**0.5,
    }


def audited(**changes: Any) -> Understood:
    return understand(pl.DataFrame({**table(), **changes}), {"loss": "nats/token", "other": "bits/byte"})


def test_runs_without_faults_give_no_warning() -> None:
    assert audited().warnings == ()
    assert audited().notes == ()


@pytest.mark.parametrize("part", [0.05, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("factor", [math.log(2), 1 / math.log(2), 100.0])
def test_rows_in_another_unit_are_found_one_by_one(part: float, factor: float) -> None:
    off = np.random.default_rng(1).random(RUNS) < part
    values = np.where(off, table()["metric:loss"] * factor, table()["metric:loss"])
    found = audited(**{"metric:loss": values})
    assert len(found.warnings) == 1
    fewer = off if off.sum() <= RUNS / 2 else ~off
    first = [f"row {row + 1}" for row in np.flatnonzero(fewer)[:3]]
    assert f"task 'loss': {fewer.sum()} rows are off by" in found.warnings[0]
    assert ", ".join(first) in found.warnings[0]


def test_a_spread_as_wide_as_the_factor_is_not_taken_for_mixed_units() -> None:
    rng = np.random.default_rng(2)
    model = Model.of(audited().records)
    for spread in (0.05, 0.2, 0.5, 2.0):
        assert mixed_units(model, np.exp(spread * rng.standard_normal(RUNS))) is None


def test_the_jump_of_a_version_is_measured_with_its_error() -> None:
    new = np.arange(RUNS) % 3 == 0
    values = table()["metric:loss"] * np.where(new, 1.03, 1.0)
    version = np.where(new, "v2", "v1")
    warnings = audited(**{"metric:loss": values, "eval_version": version}).warnings
    assert warnings == (
        "eval_version differs between rows (v1 in 40, v2 in 20); 'loss' is +3.0 % (± 0.2 %) elsewhere; "
        "rows measured differently are not comparable",
    )


def test_different_tokenizers_make_losses_per_token_not_comparable() -> None:
    tokenizer = ["llama"] * (RUNS - 1) + ["gpt2"]
    assert "losses per token are not comparable" in audited(tokenizer=tokenizer).warnings[0]
    assert audited(tokenizer=["llama"] * RUNS).warnings == ()


def test_a_repeated_row_counts_once_and_a_copy_under_another_name_is_said() -> None:
    frame = pl.DataFrame(table())
    units = {"loss": "nats/token", "other": "bits/byte"}
    twice = understand(pl.concat([frame, frame[:2]]), units)
    assert (len(twice.records), twice.runs) == (RUNS, RUNS)
    assert twice.warnings == ("ignored 2 duplicate rows: row 61 repeats row 1; row 62 repeats row 2",)
    copy = frame[:1].with_columns(run=pl.lit("again"))
    assert understand(pl.concat([frame, copy]), units).warnings == (
        "1 rows repeat the numbers of another row under another name: row 1 and row 61",
    )


def test_a_checkpoint_listed_twice_and_tokens_that_do_not_grow_are_said() -> None:
    base = {"run": "a", "params": 10, "tokens:init:web": 1e6, "progress": 0.25, "metric:t": 2.0}
    later = {**base, "progress": 0.5}
    units = {"t": "bits/byte"}
    assert "1 checkpoints are listed twice" in understand(pl.DataFrame([base, later]), units).warnings[0]
    planned = understand(pl.DataFrame([base, {**later, "metric:t": 1.5}]), units).warnings[0]
    assert planned.startswith("1 checkpoints have the tokens of an earlier moment")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens:init:web": 5e5}, r"rows \[1, 2\], column 'progress': run 'a' has 1,000,000 tokens at progress 0.25"),
        ({"params": 20}, r"rows \[1, 2\], column 'params': run 'a' has 10 and 20"),
    ],
)
def test_rows_of_one_run_that_contradict_each_other_are_refused(changes: dict[str, float], message: str) -> None:
    base = {"run": "a", "params": 10, "tokens:init:web": 1e6, "progress": 0.25, "metric:t": 2.0}
    with pytest.raises(InputError, match=message):
        understand(pl.DataFrame([base, {**base, "progress": 0.5, "metric:t": 1.5, **changes}]), {"t": "bits/byte"})


def test_near_recipes_with_different_values_are_said_and_repeats_are_noted() -> None:
    frame = table()
    for column in [name for name in frame if name.startswith(("tokens", "metric"))]:
        frame[column] = np.array(frame[column])
        frame[column][1] = frame[column][0] * (1.0005 if column.startswith("tokens") else 1.002)
    found = understand(pl.DataFrame(frame), {"loss": "nats/token", "other": "bits/byte"})
    assert found.warnings == ()
    assert found.notes[0].startswith("1 recipe was measured more than once (2 rows); their values differ by 0.20 %")
    frame["metric:loss"][1] = frame["metric:loss"][0] * 1.12
    found = understand(pl.DataFrame(frame), {"loss": "nats/token", "other": "bits/byte"})
    assert found.warnings == ("task 'loss' differs by 11.3 % between rows of nearly one recipe: row 1, row 2",)


def test_a_task_that_never_changes_is_said() -> None:
    assert audited(**{"metric:other": [0.5] * RUNS}).warnings == ("task 'other' has the same value in all rows",)


def test_a_single_run_that_diverged_is_no_mixed_unit() -> None:
    """One loss of a third more is a bad run, not nats among bits; one percentage among shares is a unit."""
    from mixlaw.adapters.jumps import Model, mixed_units

    rng = np.random.default_rng(0)
    values = np.exp(0.01 * rng.standard_normal(24))
    model = Model(rng.standard_normal((24, 2)))
    assert mixed_units(model, np.where(np.arange(24) == 5, values / np.log(2), values)) is None
    two = mixed_units(model, np.where(np.arange(24) % 12 == 5, values / np.log(2), values))
    assert two is not None
    assert two[0] == [5, 17]
    one = mixed_units(model, np.where(np.arange(24) == 5, values * 100, values))
    assert one is not None
    assert one[0] == [5]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_runs_that_diverged_each_by_its_own_part_are_no_mixed_unit(count: int) -> None:
    """Losses of a fourth to a half more, in 2 to 4 of 40 rows and over 40 seeds: bits and nats differ by one factor."""
    called = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model = Model(rng.standard_normal((40, 2)))
        excess = np.zeros(40)
        excess[rng.choice(40, count, replace=False)] = rng.uniform(0.2, 0.6, count)
        called += mixed_units(model, np.exp(0.01 * rng.standard_normal(40) + excess)) is not None
    assert called <= 5


@pytest.mark.parametrize("column", ["lr", "warmup", "lr_end:init", "decay:init", "schedule"])
def test_runs_that_differ_in_their_learning_rate_are_no_repeats(column: str) -> None:
    values: dict[str, list[Any]] = {
        "lr": [1.0, 2.0],
        "warmup": [1e6, 2e7],
        "lr_end:init": [0.0, 0.1],
        "decay:init": ["linear", "1-sqrt"],
        "schedule": ["wsd", "cosine"],
    }
    same = {name: [cells[0]] * 2 for name, cells in table().items() if name != "run"} | {"run": ["a", "b"]}
    same |= {"lr_end:init": [0.0, 0.0], "metric:loss": [2.0, 2.5], "metric:other": [1.0, 1.1]}

    def notes(extra: dict[str, Any]) -> str:
        units = {"loss": "nats/token", "other": "bits/byte"}
        return " ".join(understand(pl.DataFrame(same | extra), units).notes)

    assert "measured more than once" in notes({column: [values[column][0]] * 2})
    assert "measured more than once" not in notes({column: values[column]})
