"""Units by task and columns by name: what is nearly right is refused or warned of, never taken silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixlaw import InputError, open_study
from mixlaw.adapters.units import Given
from mixlaw.study import preview_import
from test_second_import import HEAD, RUNS, TWO, imported


@pytest.mark.parametrize(
    "unit",
    [["bits/byte", "arc_acc=accuracy"], {"hs": "bits/byte", "arc_acc": "accuracy"}, ["h*=bits/byte", "*_acc=accuracy"]],
)
def test_units_are_given_task_by_task(tmp_path: Path, unit: Any) -> None:
    assert imported(tmp_path, TWO, unit=unit).tasks == {"hs": "bits/byte", "arc_acc": "accuracy"}
    assert open_study(tmp_path / "study").units["arc_acc"] == "accuracy"


@pytest.mark.parametrize(
    "task", ["arc_acc", "acc", "gsm8k/exact_match", "humaneval pass@1", "triviaqa-em", "piqaAcc", "acc5"]
)
def test_one_unit_for_all_is_refused_where_a_name_contradicts_it(tmp_path: Path, task: str) -> None:
    with pytest.raises(InputError, match=rf"{task}' is called like a score, .* give its own: --unit {task}=accuracy"):
        imported(tmp_path, TWO.replace("arc_acc", task))
    found = imported(tmp_path, TWO.replace("arc_acc", task), unit=["bits/byte", f"{task}=bits/byte"])
    assert found.tasks[task] == "bits/byte"


@pytest.mark.parametrize("task", ["code_bpb", "val/loss", "nll", "wiki-ppl"])
def test_a_loss_is_no_accuracy(tmp_path: Path, task: str) -> None:
    with pytest.raises(InputError, match="is called like a loss, which falls, but accuracy rises"):
        imported(tmp_path, RUNS.replace("metric:hs", f"metric:{task}"), unit="accuracy")


@pytest.mark.parametrize("task", ["passage", "accents", "web_acc_loss", "embeddings"])
def test_other_names_say_nothing(tmp_path: Path, task: str) -> None:
    assert imported(tmp_path, RUNS.replace("metric:hs", f"metric:{task}")).tasks == {task: "bits/byte"}


@pytest.mark.parametrize(("unit", "sign"), [("bits/byte", 1), ("accuracy", -1)])
def test_a_task_that_gets_worse_with_size_is_warned_of(tmp_path: Path, unit: str, sign: int) -> None:
    rows = [f"r{i},{10**6 * 2**i},{10**9},{10**8 * (i + 1)},{0.5 + sign * 0.03 * i}" for i in range(8)]
    found = imported(tmp_path, HEAD + "\n".join(rows) + "\n", unit=unit)
    assert any(f"task 'hs' gets worse with size in {unit} (rank correlation 1.00" in w for w in found.warnings)
    right = "accuracy" if unit == "bits/byte" else "bits/byte"
    other = preview_import(tmp_path / "other", tmp_path / "runs.csv", unit=right)
    assert not any("gets worse" in warning for warning in other.warnings)


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (["arc=accuracy", "bits/byte"], "there is no task 'arc'; did you mean 'arc_acc'"),
        (["bits/byte", "accuracy"], "two units for all tasks: bits/byte, accuracy"),
        (["hs=percent"], "unknown unit 'percent'"),
        (["hs=bits/byte"], "task 'arc_acc' has no unit"),
    ],
)
def test_a_unit_that_fits_nothing_is_refused(tmp_path: Path, unit: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        imported(tmp_path, TWO, unit=unit)


def test_a_task_may_have_an_equals_sign() -> None:
    assert Given.of(["k=5=accuracy"]).tasks == {"k=5": "accuracy"}


# Columns, domains and tasks that are nearly right


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("tokens:init:code", "token:init:code", "tokens:init:code"),
        ("tokens:init:code", "Tokens:init:code", "tokens:init:code"),
        ("metric:hs\n", "metric:hs,metrics:he\n", "metric:he"),
        ("metric:hs\n", "metric:hs,lr_ends:init\n", "lr_end:init"),
        ("metric:hs\n", "metric:hs,uniqe:web\n", "unique:web"),
        ("metric:hs\n", "metric:hs,progess\n", "progress"),
        ("metric:hs\n", "metric:hs,Seed\n", "seed"),
        ("metric:hs\n", "metric:hs,shedule\n", "schedule"),
        ("params", "parms", "params"),
        ("run,", "Run,", "run"),
    ],
)
def test_a_column_that_is_nearly_one_that_is_read_is_refused(tmp_path: Path, old: str, new: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{meant}'"):
        imported(tmp_path, RUNS.replace(old, new))


@pytest.mark.parametrize("column", ["n_params", "speed", "comment", "domain:x", "time", "eval:hs", "trend", "rung"])
def test_other_columns_are_ignored_and_named(tmp_path: Path, column: str) -> None:
    assert imported(tmp_path, RUNS.replace("metric:hs\n", f"metric:hs,{column}\n")).ignored == (column,)
