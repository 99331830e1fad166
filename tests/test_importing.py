"""Foreign runs: what a table may hold, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw import import_runs
from mixlaw.adapters.importing import understand
from mixlaw.errors import InputError
from mixlaw.study import open_study

GOOD = {
    "run": ["a", "b", "b"],
    "params": [1_000_000, 2_000_000, 2_000_000],
    "progress": [1.0, 0.5, 1.0],
    "tokens:init:web": [10e6, 5e6, 5e6],
    "tokens:init:code": [0.0, 5e6, 5e6],
    "tokens:cooldown:web": [2e6, None, 1e6],
    "metric:web": [3.1, 3.0, None],
    "noise:web": [0.01, None, None],
    "comment": ["x", "y", "z"],
}


def write(folder: Path, **changes: Sequence[object]) -> Path:
    path = folder / "runs.csv"
    pl.DataFrame({**GOOD, **changes}).write_csv(path)
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson"])
def test_a_table_comes_back_as_it_went_in(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame(GOOD)
    path = tmp_path / f"runs.{ending}"
    write: dict[str, Callable[[Path], object]] = {
        "csv": frame.write_csv,
        "parquet": frame.write_parquet,
        "ndjson": frame.write_ndjson,
    }
    write[ending](path)
    understood = import_runs(tmp_path / "study", path, unit="nats/token").imported
    assert (understood.runs, understood.ignored) == (2, ("comment",))
    found = open_study(tmp_path / "study").table().sort("run", "progress")
    wanted = frame.drop("comment").with_columns(pl.col("tokens:cooldown:web").fill_null(0.0))
    assert found.select(wanted.columns).equals(wanted)
    assert found["tokens:cooldown:code"].to_list() == [0.0, 0.0, 0.0]


def test_what_was_learned_stands_in_study_toml_and_comments_stay(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.toml").write_text('# ours\nversion = 1\n[domains]\nweb = { kind = "text" } # big\n')
    domains = tmp_path / "domains.toml"
    domains.write_text('[code]\nkind = "code"\nunique_tokens = 3_000_000\n')
    import_runs(tmp_path / "study", write(tmp_path), unit="nats/token", domains=domains)
    text = (tmp_path / "study" / "study.toml").read_text()
    study = open_study(tmp_path / "study")
    assert "# ours" in text
    assert study.units == {"web": "nats/token"}
    assert study.settings.domains["code"].unique_tokens == 3_000_000
    assert [p.name for p in study.settings.phases] == ["init", "cooldown"]
    assert study.settings.phases[-1].lr_end == 0


def test_importing_twice_changes_nothing_and_other_values_are_refused(tmp_path: Path) -> None:
    import_runs(tmp_path / "study", write(tmp_path), unit="nats/token")
    before = snapshot(tmp_path / "study")
    import_runs(tmp_path / "study", write(tmp_path))
    assert snapshot(tmp_path / "study") == before
    with pytest.raises(InputError, match=r"run 'a', task 'web': 3.1, now 3.2; correct the table, or"):
        import_runs(tmp_path / "study", write(tmp_path, **{"metric:web": [3.2, 3.0, None]}))
    assert snapshot(tmp_path / "study") == before


BAD: dict[str, tuple[dict[str, Sequence[object]], str]] = {
    "negative tokens": ({"tokens:init:web": [-1.0, 5e6, 5e6]}, r"row 1, column 'tokens:init:web': -1"),
    "no tokens": ({"tokens:init:web": [0.0, 5e6, 5e6], "tokens:cooldown:web": [0.0, 0, 0]}, "row 1: no tokens"),
    "progress": ({"progress": [1.5, 0.5, 1.0]}, r"row 1, column 'progress': 1.5 must be between 0 and 1"),
    "twins": ({"progress": [1.0, 1.0, 1.0]}, r"rows \[2, 3\]: run 'b' is listed 2 times at progress 1"),
    "no params": ({"params": [1_000_000, None, 2_000_000]}, r"row 2, column 'params': the cell is empty"),
    "not a number": ({"metric:web": ["3.1", "many", "3"]}, r"row 2, column 'metric:web': 'many' is not a number"),
    "infinite": ({"tokens:init:web": [1e6, float("inf"), 3e6]}, r"row 2, column 'tokens:init:web': inf"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_contradiction_names_row_and_column_and_leaves_the_study_alone(tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    import_runs(tmp_path / "study", write(tmp_path), unit="nats/token")
    before = snapshot(tmp_path / "study")
    with pytest.raises(InputError, match=message):
        import_runs(tmp_path / "study", write(tmp_path, **changes))
    assert snapshot(tmp_path / "study") == before


def test_a_metric_without_a_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="task 'web' has no unit"):
        import_runs(tmp_path / "study", write(tmp_path))
    with pytest.raises(InputError, match="unknown unit 'perplexity'"):
        import_runs(tmp_path / "study", write(tmp_path), unit="perplexity")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs.xlsx", "", r"supported are .csv.*; save the sheet as CSV \(UTF-8\)"),
        ("runs.xlsx", "PK\x03\x04", r"save the sheet as CSV \(UTF-8\)"),
        ("runs.csv", "PK\x03\x04\udcff", "a zip archive.*; of a workbook of Excel, save the sheet as CSV"),
        ("runs.xls", "run,params\n", r"let its name end in .csv \(commas"),
        ("runs.txt", "run\tparams\n", r"or .tsv \(tabs\)"),
        ("runs.json", "[]", "an object per line and name it .jsonl"),
        ("runs.csv.zst", "", "unpack it, or pack it as .gz"),
        ("runs.feather", "ARROW1", "write_parquet"),
        ("runs.parquet", "not parquet", "cannot be read as parquet"),
        ("gone.csv", None, "there is no table"),
        ("runs.csv", "run,params\na,1\n", "no column tokens:<phase>:<domain>"),
        ("runs.csv", "params,tokens:init:web,metric:web\n1,1,1\n", "column 'run' is missing"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        import_runs(tmp_path / "study", tmp_path / name, unit="nats/token")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.just(0.0) | st.floats(1, 1e12), min_size=2, max_size=6).filter(lambda tokens: sum(tokens) >= 1000))
def test_tokens_are_kept_exactly_whatever_the_shares(tokens: list[float]) -> None:
    row = {"run": "a", "params": 10**7, "metric:t": 1.0} | {f"tokens:p:d{i}": value for i, value in enumerate(tokens)}
    record = understand(pl.DataFrame([row]), {"t": "bits/byte"}).records[0]
    assert [record.drawn("p", f"d{i}") for i in range(len(tokens))] == tokens
    assert json.loads(json.dumps(record.as_json()))["tokens"]["p"] == {f"d{i}": v for i, v in enumerate(tokens) if v}


def test_the_command_prints_one_document_and_refuses_in_one_sentence(tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mixlaw", "import", str(tmp_path / "study"), str(write(tmp_path)), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = run("--mapping", str(tmp_path / "gone.toml"))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "gone.toml is no mapping" in refused.stderr
    done = run("--unit", "nats/token", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["runs"], found["empty"], found["ignored"], found["warnings"]) == (2, 1, ["comment"], [])
