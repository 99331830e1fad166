"""Recipes for `predict` and tables in Python: the same cells mean the same as on import, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import mixlaw
from mixlaw import Design, InputError, Study, import_runs
from mixlaw.adapters.gather import recipes
from mixlaw.output import table_writer
from test_cli import here, refused_here

pd: Any = pytest.importorskip("pandas")

LAW = {"params": [6e7, 1.5e8, 3e8], "tokens": [1.2e9, 3e9, 6e9]}
UNITS = {"hs": "bits/byte"}


def runs() -> pl.DataFrame:
    """Runs of three sizes whose loss is a plain function of size and code."""
    rows = []
    for i in range(18):
        params, tokens, code = LAW["params"][i % 3], LAW["tokens"][i % 3], 0.1 + 0.05 * (i // 3)
        rows.append(
            {
                "run": f"{i:03}",
                "params": params,
                "tokens:init:web": tokens * (1 - code),
                "tokens:init:code": tokens * code,
                "metric:hs": 0.6 + 30 * params**-0.25 + 0.3 * code,
            }
        )
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = import_runs(tmp_path_factory.mktemp("predict") / "study", runs(), unit="bits/byte")
    study.fit(law="Chinchilla", save=True)
    return study


HEAD = "run,params,tokens:init:web,tokens:init:code\n"
PLAIN = HEAD + "x,7e9,126e9,14e9\n"


def predicted(study: Study, folder: Path, text: str) -> pl.DataFrame:
    (folder / "recipes.csv").write_text(text)
    return study.predict(folder / "recipes.csv")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("14e9", "14B").replace("7e9", "7B"),
        PLAIN.replace("14e9", '"14 B"'),
        PLAIN.replace("params", "params,progress").replace("7e9", "7e9,"),
        PLAIN.replace("\n", ",note\n", 1).replace("14e9", "14e9,NaN"),
        HEAD.replace("web", "code", 1).replace("init:code\n", "init:web\n") + "x,7e9,14e9,126e9\n\n",
        PLAIN.replace("params", "metric:hs,params").replace("7e9", "text,7e9"),
    ],
)
def test_recipes_are_read_as_runs_are(study: Study, tmp_path: Path, text: str) -> None:
    assert predicted(study, tmp_path, text).equals(predicted(study, tmp_path, PLAIN))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("14e9", '"14,000,000,000"', r"'14,000,000,000' is not a number \(write 14000000000\)"),
        ("14e9", "10%", r"'10%' is not a number \(give a count, not a percentage\)"),
        ("14e9", "many", "row 1, column 'tokens:init:code': 'many' is not a number"),
        ("126e9,14e9", "0.9,0.1", "give absolute token counts|tokens in all for 7,000,000,000 params"),
        ("126e9,14e9", "70,30", "tokens in all for 7,000,000,000 params"),
        ("7e9", "1.5", "1.5 must be a whole number"),
        ("7e9", "", "row 1, column 'params': the cell is empty"),
        ("14e9", "-1", "-1 must be between 0 and"),
        ("init:code", "init:cod", "cod never measured"),
        ("tokens:init:code", "token:init:code", "did you mean 'tokens:init:code'"),
    ],
)
def test_what_import_refuses_predict_refuses(study: Study, tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        predicted(study, tmp_path, PLAIN.replace(old, new))


@pytest.mark.parametrize("progress", ["150%", "50", "1.2", "-0.1", "half"])
def test_progress_is_a_share(study: Study, tmp_path: Path, progress: str) -> None:
    with pytest.raises(InputError, match="row 1, column 'progress'"):
        predicted(study, tmp_path, PLAIN.replace("params", "params,progress").replace("7e9", f"7e9,{progress}"))


def test_runs_are_called_as_they_are_written_and_the_output_is_what_its_name_says(study: Study, tmp_path: Path) -> None:
    table = predicted(study, tmp_path, PLAIN.replace("x,", "007,"))
    read = {"p.csv": lambda p: pl.read_csv(p, infer_schema=False), "p.parquet": pl.read_parquet}
    for name in ("p.csv", "p.parquet", "p.ndjson", "p.JSONL"):
        table_writer(tmp_path / name)(table)
        assert read.get(name, pl.read_ndjson)(tmp_path / name)["run"].to_list() == ["007"]
    for name in ("p.xlsx", "p", "p.csv.gz"):
        with pytest.raises(InputError, match=r"tables end in .csv, .parquet, .ndjson, .jsonl; name it so"):
            table_writer(tmp_path / name)


def test_the_command_writes_parquet_and_refuses_another_ending(study: Study, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(PLAIN)
    here("predict", study.path, tmp_path / "r.csv", "-o", tmp_path / "p.parquet")
    assert pl.read_parquet(tmp_path / "p.parquet")["run"].to_list() == ["x"]
    assert "tables end in" in refused_here(
        study.path, "predict", study.path, tmp_path / "r.csv", "-o", tmp_path / "p.xlsx"
    )
    assert not (tmp_path / "p.xlsx").exists()


def test_polars_and_pandas_frames_mean_the_same_in_every_verb(study: Study) -> None:
    wanted = pl.DataFrame({"run": ["x"], "params": [7e9], "tokens:init:web": ["126B"], "tokens:init:code": [14e9]})
    frame = pd.DataFrame(wanted.to_dict(as_series=False))
    assert study.predict(frame).equals(study.predict(wanted))
    assert study.predict(frame.set_index("run")).equals(study.predict(wanted.lazy()))
    table = pd.DataFrame(runs().to_dict(as_series=False))
    fits = [mixlaw.fit(t, units=UNITS, unique={}, resamples=4, audited=False) for t in (runs(), table)]
    design = Design.from_table(runs(), {})
    one, other = (fit.predict(design).mean for fit in fits)
    assert np.array_equal(one, other)


def test_cells_of_tables_in_python_are_numbers_sizes_or_refused() -> None:
    table = runs()
    table = table.with_columns(pl.col("tokens:init:web").round())
    text = table.with_columns(pl.col("params", "tokens:init:web").cast(pl.Int64).cast(pl.String))
    assert Design.from_table(text, {}).total.tolist() == Design.from_table(table, {}).total.tolist()
    sized = table.with_columns(pl.lit("1B").alias("tokens:init:web"))
    assert Design.from_table(sized, {}).tokens[0, 0, 0] == 1e9
    for column, cell in (("tokens:init:web", "50%"), ("params", "many"), ("metric:hs", "0,9"), ("metric:hs", "1B")):
        with pytest.raises(InputError, match=rf"row 0 \(run 000\).*, column '{column}': '{cell}' is"):
            mixlaw.fit(table.with_columns(pl.lit(cell).alias(column)), units=UNITS, unique={}, audited=False)
    with pytest.raises(InputError, match="has a bad progress; give a finite number >= 0 and <= 1"):
        Design.from_table(table.with_columns(progress=50.0), {})
    shares = table.with_columns(pl.lit(0.7).alias("tokens:init:web"), pl.lit(0.3).alias("tokens:init:code"))
    with pytest.raises(InputError, match="run 000 has 1 tokens for 60,000,000 params; give tokens, not shares"):
        mixlaw.fit(shares, units=UNITS, unique={}, audited=False)


def test_a_phase_that_no_recipe_uses_is_still_the_last_one() -> None:
    table = pl.DataFrame({"params": [6e7], "tokens:init:web": [1e9], "tokens:cooldown:web": [0.0]})
    assert Design.from_table(recipes(table), {}).lr_end.tolist() == [[1.0, 1.0]]
    assert Design.from_table(recipes(table.drop("tokens:cooldown:web")), {}).lr_end.tolist() == [[0.0]]


def test_a_table_without_recipes_is_refused(study: Study, tmp_path: Path) -> None:
    for empty in (HEAD, HEAD + ",,,\n"):
        with pytest.raises(InputError, match="the table has no rows; give at least one recipe"):
            predicted(study, tmp_path, empty)
    assert not Design.from_table(pl.DataFrame({"params": [1], "tokens:init:web": [1.0]}).clear(), {}).runs
