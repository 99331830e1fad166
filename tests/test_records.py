"""Records: one atomic file per run, one table over all of them."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InputError
from mixlaw.files import sealed
from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.records import (
    MEASURED_ON,
    Measurement,
    Record,
    Unit,
    is_measured_on,
    phase_order,
    read_record,
    read_records,
    to_table,
    write_record,
)
from processes import wait_until

TEXT, CODE = Mixture({"text": 1.0}), Mixture({"text": 0.25, "code": 0.75})


def recipe(*phases: Phase, **more: Any) -> Recipe:
    return Recipe(24_000, phases, **more)


FULL = Record(
    run="foreign",
    recipe=recipe(Phase("init", 4000, CODE), Phase("cooldown", 1000, TEXT, 0.0), seed=2, unique={"code": 900}),
    values={"bpb": Measurement(1.5, 0.01, 40), "acc": Measurement(0.3)},
    progress=0.5,
    noise={"bpb": 0.02},
    tokens={"init": {"text": 992.0, "code": 3008.0}},
    details={"note": "x"},
)

finite = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    Record,
    run=st.text(min_size=1, max_size=10),
    recipe=st.sampled_from([FULL.recipe, recipe(Phase("only", 7, TEXT, None))]),
    values=st.dictionaries(
        st.text(max_size=5),
        st.builds(Measurement, finite, st.none() | st.floats(0, 9), st.none() | st.integers(0, 99)),
    ),
    progress=st.floats(0, 1),
    noise=st.dictionaries(st.text(max_size=5), st.floats(0, 9)),
    tokens=st.dictionaries(st.text(max_size=5), st.dictionaries(st.text(max_size=5), st.floats(0, 1e15))),
    details=st.dictionaries(st.text(max_size=5), st.lists(st.integers())),
)


@settings(max_examples=50)
@given(records)
def test_a_record_survives_json(record: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(record.as_json()))) == record


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    path = write_record(tmp_path, FULL)
    assert path == tmp_path / FULL.key / "record.json"
    assert read_record(path) == FULL
    assert read_records(tmp_path) == [FULL]
    assert json.loads(path.read_text())["format"] == 1


def test_our_own_run_lies_under_its_lineage_and_a_foreign_one_under_a_name_of_its_own() -> None:
    own = Record(FULL.recipe.lineage, FULL.recipe, {})
    assert own.key == FULL.recipe.lineage
    keys = {FULL.key, own.key, Record("foreign", FULL.recipe, {}).key, Record("other", FULL.recipe, {}).key}
    assert len(keys) == 4


def test_the_smallest_effect_is_that_of_a_two_sided_test_of_two_equal_errors_at_five_percent() -> None:
    effect = Measurement(0.5, 0.01).smallest_effect
    assert effect is not None
    assert math.erfc(effect / 0.01 / math.sqrt(2) / math.sqrt(2)) == pytest.approx(0.05, abs=1e-4)
    assert Measurement(0.5).smallest_effect is None


@pytest.mark.parametrize(
    ("measured_on", "wanted", "same"),
    [
        ({"bpb": "a"}, {"bpb": "a"}, True),
        ({"bpb": "a"}, {"bpb": "b"}, False),
        ({"bpb": "a"}, {"bpb": "a", "acc": "c"}, False),
        ({"bpb": "a", "acc": "c"}, {"bpb": "a"}, True),
        ({"bpb": "a"}, {}, True),
        (None, {"bpb": "a"}, True),
    ],
    ids=["same text", "other text", "one task lacks", "one task more", "nothing wanted", "foreign"],
)
def test_whether_a_record_was_measured_on_the_text_that_is_held_out_now(
    tmp_path: Path, measured_on: dict[str, str] | None, wanted: dict[str, str], same: bool
) -> None:
    details = {} if measured_on is None else {MEASURED_ON: measured_on}
    path = write_record(tmp_path, Record("own", FULL.recipe, {"bpb": Measurement(1.5)}, details=details))
    assert is_measured_on(path, wanted) is same


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_measurement_is_a_finite_number(value: float) -> None:
    with pytest.raises(InputError):
        Measurement(value)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_progress_is_a_share(progress: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Record("run", FULL.recipe, {}, progress)


def spoilt(**change: Any) -> str:
    return json.dumps({**FULL.as_json(), **change})


WHOLE = json.dumps(FULL.as_json())
DAMAGED = {
    "truncated": WHOLE[: len(WHOLE) // 2],
    "empty": "",
    "no object": "[1, 2]",
    "other format": spoilt(format=99),
    "no recipe": json.dumps({key: value for key, value in FULL.as_json().items() if key != "recipe"}),
    "bad shares": WHOLE.replace("0.75", "0.95"),
    "unknown schedule": WHOLE.replace('"wsd"', '"triangle"'),
    "not a number": spoilt(values={"bpb": [math.nan, None, None]}),
    "text for a number": spoilt(values={"bpb": ["low", None, None]}),
    "text for a table": spoilt(values="none"),
    "negative tokens": WHOLE.replace("4000", "-4000"),
    "progress beyond the end": spoilt(progress=2),
    "another digit": json.dumps(sealed(FULL.as_json())).replace("4000", "4001"),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_refused_by_name_and_left_as_it_is(text: str, tmp_path: Path) -> None:
    write_record(tmp_path, Record("whole", FULL.recipe, {}))
    path = tmp_path / "broken" / "record.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="record") as caught:
        read_records(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text(encoding="utf-8") == text


def test_a_record_of_bytes_that_are_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="truncated or damaged"):
        read_record(tmp_path / "record.json")


WRITER = """
import sys
from pathlib import Path
from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.records import Measurement, Record, write_record
recipe = Recipe(24_000, (Phase("init", 4000, Mixture({"text": 1.0})),))
values = {f"task-{i}": Measurement(float(i), 0.1, i) for i in range(3000)}
print("ready", flush=True)
for number in range(10**6):
    write_record(Path(sys.argv[1]), Record("same", recipe, values, details={"number": number}))
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_record_or_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        wait_until(lambda: [*tmp_path.glob("*/record.json")])  # the first takes long on a busy machine
        time.sleep(rng.uniform(0.02, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        seen += read_records(tmp_path)
    assert len(seen) == 5
    assert all(len(record.values) == 3000 for record in seen)


def test_the_columns_of_the_table_are_those_of_the_contract_in_order() -> None:
    other = Record("b", recipe(Phase("init", 100, TEXT), Phase("continue", 50, CODE)), {"new": Measurement(2.0)})
    table = to_table([FULL, other], domains=["text", "code", "spare"], tasks=["acc"])
    assert table.columns == [
        *("run", "params", "seed", "progress"),
        *("tokens:init:text", "tokens:init:code", "tokens:init:spare"),
        *("tokens:cooldown:text", "tokens:cooldown:code", "tokens:cooldown:spare"),
        *("tokens:continue:text", "tokens:continue:code", "tokens:continue:spare"),
        *("lr_end:init", "lr_end:cooldown", "lr_end:continue"),
        "unique:code",
        *("metric:acc", "metric:bpb", "metric:new"),
        "noise:bpb",
    ]
    first, second = table.to_dicts()
    # What was drawn goes before what the shares say; without a record of it, the shares are exact.
    assert (first["tokens:init:text"], first["tokens:init:code"]) == (992.0, 3008.0)
    assert (first["tokens:cooldown:text"], first["tokens:continue:code"]) == (1000.0, 0.0)
    assert (second["tokens:continue:text"], second["tokens:continue:code"]) == (12.5, 37.5)
    assert (first["lr_end:init"], first["lr_end:cooldown"], first["lr_end:continue"]) == (1.0, 0.0, None)
    assert (first["unique:code"], second["unique:code"]) == (900.0, None)
    assert (first["metric:acc"], first["metric:bpb"], first["metric:new"]) == (0.3, 1.5, None)
    assert (first["noise:bpb"], second["noise:bpb"]) == (0.02, None)
    assert (first["params"], first["seed"], first["progress"]) == (24_000, 2, 0.5)


def test_optional_columns_are_absent_where_no_record_has_them() -> None:
    table = to_table([Record("b", recipe(Phase("init", 100, TEXT, None)), {})])
    assert table.columns == ["run", "params", "seed", "progress", "tokens:init:text"]


def test_a_table_of_no_records_has_the_columns_of_a_record() -> None:
    table = to_table([], domains=["text"], tasks=["bpb"])
    assert table.columns == ["run", "params", "seed", "progress", "metric:bpb"]
    assert table.schema["metric:bpb"] == pl.Float64
    assert table.is_empty()


@pytest.mark.parametrize(
    ("runs", "order"),
    [
        ([("init", "cooldown"), ("init", "continue", "cooldown")], ["init", "continue", "cooldown"]),
        ([("continue", "cooldown"), ("init", "continue")], ["init", "continue", "cooldown"]),
        ([("only",)], ["only"]),
        ([], []),
        ([("a", "b"), ("b", "a")], ["a", "b"]),  # they disagree: in order of appearance
    ],
)
def test_phases_stand_in_an_order_that_every_run_agrees_with(runs: list[tuple[str, ...]], order: list[str]) -> None:
    assert phase_order(runs) == order


def test_units_tell_the_direction_and_an_unknown_one_is_refused() -> None:
    assert {unit.value for unit in Unit if unit.lower_is_better} == {"nats/token", "bits/byte"}
    assert Unit.parse("pass@1", "humaneval") is Unit.PASS_AT_1
    with pytest.raises(InputError, match=r"'bpb' .*unknown unit 'bits'.* use one of nats/token, bits/byte"):
        Unit.parse("bits", "bpb")


def test_a_table_without_a_schedule_of_its_own_has_no_columns_for_one() -> None:
    plain = Record("plain", recipe(Phase("init", 4000, CODE), Phase("cooldown", 1000, TEXT, 0.0)), {})
    columns = to_table([plain]).columns
    assert not [name for name in columns if name in ("lr", "warmup", "schedule") or name.startswith("decay:")]


def test_rates_and_schedules_survive_the_way_through_a_table(tmp_path: Path) -> None:
    import mixlaw

    phases = Phase("init", 4000, CODE), Phase("cooldown", 1000, TEXT, 0.1, Decay.ONE_SQRT)
    values = {"bpb": Measurement(1.5)}
    recipes = [
        recipe(*phases, lr=0.5, warmup=300),
        recipe(*phases),
        recipe(Phase("init", 4000, CODE, 1.0), Phase("cooldown", 1000, TEXT, 0.1), schedule=Schedule.COSINE),
        recipe(Phase("init", 5000, CODE, 0.5, Decay.COSINE), lr=2.0),
    ]
    table = to_table([Record(f"run{i}", r, values) for i, r in enumerate(recipes)])
    study = mixlaw.import_runs(tmp_path / "study", table, unit="bits/byte")
    again = {record.run: record.recipe for record in study.records()}
    assert [again[f"run{i}"] for i in range(4)] == recipes
    assert study.table().select(table.columns).sort("run").equals(table)


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("lr", 3e-4, "row 1, column 'lr': 0.0003 is a learning rate"),
        ("schedule", "step", "'step' must be one of wsd, cosine"),
        ("decay:cooldown", "exponential", "'exponential' must be one of linear, cosine, 1-sqrt"),
    ],
)
def test_a_schedule_that_is_none_is_refused(tmp_path: Path, column: str, cell: float | str, problem: str) -> None:
    import mixlaw

    record = Record(
        "a", recipe(Phase("init", 4000, CODE), Phase("cooldown", 1000, TEXT, 0.0)), {"bpb": Measurement(1.5)}
    )
    table = to_table([record]).with_columns(pl.lit(cell).alias(column))
    with pytest.raises(InputError, match=re.escape(problem)):
        mixlaw.import_runs(tmp_path / "study", table, unit="bits/byte")
