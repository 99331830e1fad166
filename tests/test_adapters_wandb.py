"""Exports of Weights & Biases: the runs table of the web page, and what a script over the API writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import polars as pl
import pytest

from mixlaw.adapters.gather import gather
from mixlaw.adapters.importing import Understood, understand
from mixlaw.adapters.wandb import unfold
from mixlaw.errors import InputError

# The web page quotes every cell and names nested keys with dots.
PAGE = """"Name","State","Notes","User","Tags","Runtime","Sweep","data.code","data.web","size","eval/code","eval/acc"
"happy-1","finished","-","me","a, b","360","","20","80","60","1.25","0.5"
"happy-2","crashed","","me","","3","","50","50","60","1.5",""
"happy-3","finished","","me","","360","","50","50","60","NaN","0.75"
"""
MAPPING = """
params = { column = "size", scale = 1e6 }
tokens = 1e9
[[phase]]
name = "init"
shares = { "data.*" = "*" }
[tasks]
"eval/acc" = { name = "acc", unit = "accuracy" }
"eval/*" = { name = "*", unit = "bits/byte" }
"""


def understood(folder: Path, runs: str, mapping: str = MAPPING) -> Understood:
    (folder / "runs.csv").write_text(runs)
    (folder / "map.toml").write_text(mapping)
    sheet, _ = gather(folder / "runs.csv", folder / "map.toml")
    return understand(sheet, {})


def test_the_runs_table_of_the_web_page_is_read_without_runs_that_did_not_finish(tmp_path: Path) -> None:
    found = understood(tmp_path, PAGE)
    one, three = found.records
    assert (one.run, three.run, one.recipe.params, one.drawn("init", "code")) == ("happy-1", "happy-3", 60_000_000, 2e8)
    assert {task: m.value for task, m in one.values.items()} == {"code": 1.25, "acc": 0.5}
    assert set(three.values) == {"acc"}
    assert found.warnings == (
        "1 of 3 runs did not finish (crashed): left out",
        "cells that are NaN or infinite, so the runs diverged there: 1, left empty",
    )
    assert found.ignored == ()
    assert "an export of Weights & Biases, as its runs table writes it" in found.notes


def test_rows_keep_the_numbers_they_have_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 3, column 'eval/acc'"):
        understood(tmp_path, PAGE.replace("0.75", "75"))


def test_names_that_repeat_give_way_to_the_id_of_the_run(tmp_path: Path) -> None:
    twice = PAGE.replace('"happy-3"', '"happy-1"')
    with pytest.raises(InputError, match=r"rows \[1, 3\]: run 'happy-1' is listed 2 times"):
        understood(tmp_path, twice)
    lines = twice.splitlines()
    with_id = "\n".join(f'{line},"{"ID" if i == 0 else f"x{i}"}"' for i, line in enumerate(lines)) + "\n"
    assert [r.run for r in understood(tmp_path, with_id).records] == ["x1", "x3"]


CONFIG = [
    {
        "data": {"code": 0.25, "web": 0.75},
        "size": 60,
        "layers": [1, 2],
        "note": None,
        "mlp": {"value": 4, "desc": None},
    },
    {"data": {"code": 0.0, "web": 1.0}, "size": 60, "note": "it's"},
]
SUMMARY = [
    {"eval/code": 1.25, "eval/acc": 0.5, "_step": 10, "hist": {"_type": "histogram", "bins": [1]}},
    {"eval/code": math.nan, "eval/acc": 0.25, "size": 99},
]


@pytest.mark.parametrize("write", [repr, json.dumps], ids=["as pandas writes dicts", "as JSON"])
def test_an_export_through_the_api_is_unfolded(tmp_path: Path, write: object) -> None:
    assert callable(write)
    frame = pl.DataFrame(
        {"": [0, 1], "summary": [write(s) for s in SUMMARY], "config": [write(c) for c in CONFIG], "name": ["a", "b"]}
    )
    found = understood(tmp_path, frame.write_csv(), MAPPING.replace('"size"', '"config.size"'))
    a, b = found.records
    assert {task: m.value for task, m in a.values.items()} == {"code": 1.25, "acc": 0.5}
    assert (set(b.values), b.drawn("init", "web"), b.drawn("init", "code")) == ({"acc"}, 1e9, 0.0)
    assert "NaN or infinite" in found.warnings[0]
    assert set(found.ignored) == {"note", "mlp", "_step", "size"}


def test_a_frame_may_hold_what_the_api_gave_as_it_is() -> None:
    frame = pl.DataFrame({"summary": [{"loss": 1.5}, None], "config": [None, {"size": 60}], "name": ["a", "b"]})
    found = unfold(frame, ("row 1", "row 2"))
    assert found is not None
    assert found.frame.to_dict(as_series=False) == {"run": ["a", "b"], "loss": [1.5, None], "size": [None, 60]}


def test_a_cell_that_is_neither_json_nor_python_is_refused_with_row_and_column(tmp_path: Path) -> None:
    frame = pl.DataFrame({"summary": ["{}", "<Summary>"], "config": ["{}", "{}"], "name": ["a", "b"]})
    with pytest.raises(InputError, match="row 2, column 'summary': '<Summary>' is neither JSON nor a Python dict"):
        understood(tmp_path, frame.write_csv())
    harmful = frame.with_columns(summary=pl.Series(["{}", "__import__('os').getcwd()"]))
    with pytest.raises(InputError, match="row 2, column 'summary'"):
        understood(tmp_path, harmful.write_csv())
