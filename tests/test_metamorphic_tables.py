"""What a table means does not depend on its form; and whatever a file holds, it is read or refused in a sentence."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw import InputError, Record, import_runs, open_study
from mixlaw.adapters.gather import gather
from mixlaw.adapters.importing import understand
from mixlaw.study import preview_import
from tables import FORMS, odd_cells, odd_files, tables

UNITS = {"hs": "bits/byte", "arc": "bits/byte", "k=5": "bits/byte"}


def records(table: Any, mapping: Path | None = None) -> list[Record]:
    """Records of a table, by run."""
    sheet, _ = gather(table, mapping)
    return sorted(understand(sheet, UNITS).records, key=lambda record: record.run)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, deadline=None)
@given(table=tables())
def test_the_form_of_a_table_changes_no_record(form: str, table: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert records(FORMS[form](table, Path(folder))) == records(table)


@settings(max_examples=15, deadline=None)
@given(table=tables(), cut=st.integers(1, 4), by_task=st.booleans())
def test_two_imports_are_one(table: pl.DataFrame, cut: int, by_task: bool) -> None:
    tasks = [name for name in table.columns if name.startswith("metric:")]
    parts = [table[:cut], table[cut:]]
    if by_task:
        parts = [table.drop(tasks[1:]), table.drop(tasks[:1]) if tasks[1:] else table]
    with tempfile.TemporaryDirectory() as folder:
        for part in (part for part in parts if part.height):
            import_runs(f"{folder}/two", part, unit="bits/byte")
        import_runs(f"{folder}/one", table, unit="bits/byte")
        one, two = (sorted(open_study(f"{folder}/{name}").records(), key=lambda r: r.run) for name in ("one", "two"))
    assert two == one


@settings(max_examples=15, deadline=None)
@given(table=tables(), names=st.permutations(["007", "7", "1e5", "12e4567", "1.10"]))
def test_renaming_runs_changes_nothing_but_names(table: pl.DataFrame, names: list[str]) -> None:
    new = dict(zip(table["run"], names, strict=False))
    renamed = table.with_columns(pl.Series("run", [new[run] for run in table["run"]]))
    with tempfile.TemporaryDirectory() as folder:
        found = {record.run: record for record in records(FORMS["csv"](renamed, Path(folder)))}
    for record in records(table):
        other = found[new[record.run]]
        assert (other.recipe, other.values, other.tokens) == (record.recipe, record.values, record.tokens)


@settings(max_examples=15, deadline=None)
@given(table=tables())
def test_a_row_per_run_and_task_means_the_same_through_a_mapping(table: pl.DataFrame) -> None:
    tasks = [name for name in table.columns if name.startswith("metric:")]
    keys = [name for name in table.columns if name not in tasks]
    long = table.unpivot(tasks, index=keys, variable_name="task", value_name="score")
    columns = ", ".join(json.dumps(key) for key in keys)
    phases = dict.fromkeys(name.split(":")[1] for name in keys if name.startswith("tokens:"))
    mapping = f'pivot = {{ by = [{columns}], task = "task", value = "score" }}\nparams = "params"\n'
    for phase in phases:
        mapping += f'[[phase]]\nname = "{phase}"\ndomain_tokens = {{ "tokens:{phase}:*" = "*" }}\n'
    mapping += '[tasks]\n"score/metric:*" = { name = "*", unit = "bits/byte" }\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.toml"
        path.write_text(mapping)
        assert records(FORMS["csv"](long, Path(folder)), path) == records(table)


@settings(max_examples=60, deadline=None)
@given(table=tables(), column=st.integers(0, 20), row=st.integers(0, 5), cell=odd_cells)
def test_a_cell_of_any_kind_is_read_or_refused(table: pl.DataFrame, column: int, row: int, cell: str) -> None:
    text = table.with_columns(pl.all().cast(pl.String))
    name, row = table.columns[column % table.width], row % table.height
    odd = text.with_columns(pl.Series(name, [cell if i == row else old for i, old in enumerate(text[name])]))
    with tempfile.TemporaryDirectory() as folder:
        refused_or_read(Path(folder), odd)
        assert not list(Path(folder).iterdir())


@settings(max_examples=60, deadline=None)
@given(content=odd_files, ending=st.sampled_from(["csv", "tsv", "ndjson", "jsonl", "parquet", "csv.gz"]))
def test_a_file_of_any_content_is_read_or_refused(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"t.{ending}").write_bytes(content)
        refused_or_read(Path(folder) / "study", Path(folder) / f"t.{ending}")


RUNS = pl.DataFrame({"run": ["a"], "params": [6e7], "tokens:init:web": [1e9], "metric:hs": [1.0]})
KEYS = ["run", "params", "progress", "tokens", "tasks", "phase", "join", "pivot", "only", "table", "results", "domains"]
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5), st.sampled_from(["a", "hs"])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*KEYS, "a", "acc,none"]), inner, max_size=3)
    ),
)


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(st.sampled_from(KEYS), values, max_size=3), content=odd_files, whole=st.booleans())
def test_a_mapping_of_any_content_is_read_or_refused(data: dict[str, Any], content: bytes, whole: bool) -> None:
    import tomlkit

    try:
        text = tomlkit.dumps(data).encode("utf-8", "surrogatepass")
    except Exception:  # what TOML has no words for
        text = content
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "map.toml").write_bytes(text if whole else content)
        refused_or_read(Path(folder) / "study", RUNS, mapping=Path(folder) / "map.toml")
        refused_or_read(Path(folder) / "study", RUNS, domains=Path(folder) / "map.toml")


RESULT_KEYS = ["results", "config", "versions", "n-shot", "n-samples", "date", "model_name", "config_general"]


@settings(max_examples=80, deadline=None)
@given(
    data=st.dictionaries(st.sampled_from(RESULT_KEYS), values, max_size=5),
    tasks=st.dictionaries(
        st.text(max_size=4), st.dictionaries(st.sampled_from(["acc,none", "acc", "acc_stderr"]), leaves)
    ),
)
def test_results_of_any_content_are_read_or_refused(data: dict[str, Any], tasks: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "r.json").write_text(
            json.dumps(data | {"results": tasks, "model_name": data.get("model_name", "a")})
        )
        refused_or_read(Path(folder) / "study", RUNS, results=[Path(folder) / "r.json"])


def refused_or_read(study: Path, table: Any, **options: Any) -> None:
    """An import that may be refused, but in one sentence, and that writes nothing."""
    with suppress(InputError):
        preview_import(study, table, unit="bits/byte", **options)
