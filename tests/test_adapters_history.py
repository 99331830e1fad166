"""Histories of Weights & Biases: charts as the web page exports them, frames of the API, joined to the runs table."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mixlaw.adapters.gather import gather
from mixlaw.adapters.history import MOMENTS
from mixlaw.adapters.importing import Understood, understand
from mixlaw.errors import InputError

# The page quotes every cell, writes the metric thrice, and leaves a cell empty where a run logged nothing.
HEAD = ",".join(f'"{run} - eval/code{end}"' for run in ("web-30 - a", "b", "dead") for end in ("", "__MIN", "__MAX"))
CHART = f""""Step",{HEAD}
"0","8.5","8.5","8.5","8.6","8.6","8.6","8.7","8.7","8.7"
"50","2.5","2.5","2.5","2.25","2.25","2.25","NaN","NaN","NaN"
"95","","","","2.125","2.125","2.125","","",""
"100","1.5","1.5","1.5","1.25","1.25","1.25","","",""
"""
RUNS = """"Name","State","size","max_steps","code","web"
"web-30 - a","finished","60","100","0.25","0.75"
"b","finished","60","100","0.5","0.5"
"dead","crashed","60","100","0.5","0.5"
"""
MAPPING = """
params = { column = "size", scale = 1e6 }
progress = { column = "Step", over = "max_steps" }
tokens = { column = "Step", scale = 1e6 }
join = [{ file = "runs.csv", on = "run" }]
[[phase]]
name = "init"
shares = { code = "code", web = "web" }
[tasks]
"eval/code" = { name = "code", unit = "bits/byte" }
"""


def understood(folder: Path, history: str, mapping: str = MAPPING, runs: str = RUNS) -> Understood:
    (folder / "chart.csv").write_text(history)
    (folder / "runs.csv").write_text(runs)
    (folder / "map.toml").write_text(mapping)
    sheet, _ = gather(folder / "chart.csv", folder / "map.toml")
    return understand(sheet, {})


def test_a_chart_joined_to_the_runs_table_gives_checkpoints(tmp_path: Path) -> None:
    found = understood(tmp_path, CHART)
    moments = [(r.run, r.progress, r.recipe.tokens, r.values["code"].value) for r in found.records]
    assert moments == [
        ("web-30 - a", 0.5, 50_000_000, 2.5),
        ("web-30 - a", 1.0, 100_000_000, 1.5),
        ("b", 0.5, 50_000_000, 2.25),
        ("b", 0.95, 95_000_000, 2.125),
        ("b", 1.0, 100_000_000, 1.25),
    ]
    assert found.records[0].drawn("init", "code") == 0.25 * 50_000_000
    assert "3 runs over 'Step'" in found.notes[0]
    assert found.warnings == ("1 runs of chart are not in runs and are left out: dead",)


def test_what_the_runs_table_says_of_a_metric_is_not_taken_for_its_history(tmp_path: Path) -> None:
    lines = RUNS.splitlines()
    runs = "\n".join(f'{line},"{"eval/code" if n == 0 else 9.5}"' for n, line in enumerate(lines)) + "\n"
    plain, told = understood(tmp_path, CHART), understood(tmp_path, CHART, runs=runs)
    assert [record.values for record in told.records] == [record.values for record in plain.records]


def test_phases_of_a_checkpoint_are_those_it_has_seen(tmp_path: Path) -> None:
    phases = '[[phase]]\nname = "init"\nshare = 0.9\nshares = { code = "code", web = "web" }\n'
    phases += '[[phase]]\nname = "cooldown"\nshare = 0.1\nshares = { code = "web", web = "code" }\n'
    head, tasks = MAPPING.split("[[phase]]")[0], "[tasks]" + MAPPING.split("[tasks]")[1]
    found = understood(tmp_path, CHART, head + phases + tasks)
    seen = [[(p.name, p.tokens) for p in r.recipe.phases] for r in found.records if r.run == "b"]
    assert seen == [
        [("init", 50_000_000)],
        [("init", 90_000_000), ("cooldown", 5_000_000)],
        [("init", 90_000_000), ("cooldown", 10_000_000)],
    ]
    with pytest.raises(InputError, match="several phases needs progress"):
        understood(tmp_path, CHART, head.replace("progress =", "seed =") + phases + tasks)


def test_long_histories_are_thinned_to_moments_that_end_with_the_last(tmp_path: Path) -> None:
    lines = ['"Step","b - eval/code","b - eval/code__MIN","b - eval/code__MAX"']
    lines += [f'"{step}","{9 - step / 125}","1","9"' for step in range(1001)]
    runs = RUNS.replace('"100"', '"1000"')
    (tmp_path / "runs.csv").write_text(runs)
    (tmp_path / "chart.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "map.toml").write_text(MAPPING)
    sheet, _ = gather(tmp_path / "chart.csv", tmp_path / "map.toml")
    found = understand(sheet, {})
    assert len(found.records) == MOMENTS
    assert found.records[-1].progress == 1.0
    assert found.records[-1].values["code"].value == 1.0
    assert max(b.progress - a.progress for a, b in zip(found.records, found.records[1:], strict=False)) < 0.064
    assert f"of 1000 moments, {MOMENTS} are kept" in found.notes[1]


def test_frames_of_the_api_are_read_with_the_run_they_name(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"": [0, 1], "_step": [50, 100], "eval/code": [2.25, 1.25], "_runtime": [5.0, 9.0], "run_id": ["b", "b"]}
    )
    found = understood(tmp_path, frame.write_csv(), MAPPING.replace('"Step"', '"_step"'))
    assert [(r.run, r.progress, r.values["code"].value) for r in found.records] == [("b", 0.5, 2.25), ("b", 1, 1.25)]
    with pytest.raises(InputError, match=r"names no run; .* or export all of them with api.runs\(...\).histories\(\)"):
        understood(tmp_path, frame.drop("run_id").write_csv())


def test_of_two_lines_of_one_step_the_later_one_says_more_and_the_earlier_one_the_rest(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "": [0, 1, 2],
            "_step": [50, 100, 100],
            "_timestamp": [1.0, 2.0, 3.0],
            "eval/code": [2.25, 1.5, None],
            "eval/text": [3.25, 3.0, 2.5],
            "run_id": ["b", "b", "b"],
        }
    )
    mapping = MAPPING.replace('"Step"', '"_step"') + '"eval/text" = { name = "text", unit = "bits/byte" }\n'
    found = understood(tmp_path, frame.write_csv(), mapping)
    values = [(r.progress, r.values["code"].value, r.values["text"].value) for r in found.records]
    assert values == [(0.5, 2.25, 3.25), (1.0, 1.5, 2.5)]


def test_a_history_without_mixtures_says_which_export_is_missing(tmp_path: Path) -> None:
    (tmp_path / "chart.csv").write_text(CHART)
    with pytest.raises(InputError, match="export the runs table too, and join both"):
        gather(tmp_path / "chart.csv")


def test_charts_of_two_metrics_join_by_run_and_step(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text(CHART.replace("eval/code", "eval/text"))
    mapping = MAPPING.replace("join = [", 'join = [{ file = "other.csv", on = ["run", "Step"] }, ')
    found = understood(tmp_path, CHART, mapping + '"eval/text" = { name = "text", unit = "bits/byte" }\n')
    assert all(set(r.values) == {"code", "text"} for r in found.records)
    assert len(found.records) == 5


def test_a_table_in_the_contract_may_carry_steps(tmp_path: Path) -> None:
    frame = pl.DataFrame({"run": ["a"], "params": [9], "tokens:p:web": [5], "metric:t": [1.0], "_step": [3]})
    (tmp_path / "t.csv").write_text(frame.with_columns(_timestamp=pl.lit(1.5)).write_csv())
    sheet, _ = gather(tmp_path / "t.csv")
    assert understand(sheet, {"t": "bits/byte"}).ignored == ("_step", "_timestamp")
