"""Histories and shares as bug reports have them, varied: moments in order, the last one kept, nothing made up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from mixlaw import InputError, import_runs
from mixlaw.adapters.history import MOMENTS
from mixlaw.adapters.importing import Understood

MAP = """join = [{ file = "runs.csv", on = "run" }]
params = "params"
progress = { column = "_step", over = "max_steps" }
tokens = { column = "_step", scale = "tokens_per_step" }
[[phase]]
name = "init"
shares = { "w_*" = "*" }
[tasks]
"eval/*" = { name = "*", unit = "nats/token" }
"""
RUNS = "Name,State,params,max_steps,tokens_per_step,w_web,w_code\nm1,finished,60000000,2000,500000,0.7,0.3\n"
Row = tuple[object, ...]


def imported(
    folder: Path, rows: Sequence[Row], columns: str = "_step,_timestamp,eval/loss", **options: str
) -> Understood:
    lines = [f"run,_runtime,{columns}", *("m1,1," + ",".join(map(str, row)) for row in rows)]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    (folder / "runs.csv").write_text(RUNS)
    (folder / "map.toml").write_text(options.get("mapping", MAP))
    return import_runs(folder / "study", folder / "history.csv", mapping=folder / "map.toml").imported


def moments(understood: Understood, task: str = "loss") -> list[tuple[float, float]]:
    return [(r.progress, r.values[task].value) for r in sorted(understood.records, key=lambda r: r.progress)]


STEPS: list[Row] = [(step, 1_700_000_000 + step, 2 + 300 / step) for step in range(20, 2001, 20)]


@pytest.mark.parametrize("order", ["oldest first", "newest first", "shuffled", "shuffled without times"])
def test_moments_are_kept_to_the_last_in_whatever_order_rows_are(tmp_path: Path, order: str) -> None:
    rows = STEPS[:: -1 if order == "newest first" else 1]
    if order.startswith("shuffled"):
        random.Random(1).shuffle(rows := list(rows))
    if order.endswith("without times"):
        rows = [(step, "", loss) for step, _, loss in rows]
    found = moments(imported(tmp_path, rows))
    assert (len(found), found[-1]) == (MOMENTS, (1.0, 2.15))
    assert max(b[0] - a[0] for a, b in pairwise(found)) < 0.08


@pytest.mark.parametrize("step", ["", "NaN", "null", "-"])
def test_a_row_without_a_step_is_no_moment(tmp_path: Path, step: str) -> None:
    rows: list[Row] = [(500, 5, 250e6, 2.8), (1500, 15, 750e6, 2.4), (step, 16, 800e6, 2.9)]
    mapping = MAP.replace('{ column = "_step", scale = "tokens_per_step" }', '"tokens_seen"')
    found = imported(tmp_path, rows, "_step,_timestamp,tokens_seen,eval/loss", mapping=mapping)
    assert moments(found) == [(0.25, 2.8), (0.75, 2.4)]
    assert "1 rows of the history have no progress and are left out" in found.notes


@pytest.mark.parametrize("word", ["NaN", "Infinity", "inf", "nan", "None"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_losses_that_are_words_are_empty(tmp_path: Path, word: str, ending: str) -> None:
    imported(tmp_path, [(500, 1, 2.9), (2000, 2, 2.3)])
    constant = word if word in ("NaN", "Infinity") else f'"{word}"'
    lines = [
        f'{{"run":"m1","_step":{s},"_timestamp":{s},"_runtime":1,"eval/loss":{v}}}'
        for s, v in ((500, constant), (2000, 2.3))
    ]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))
    (tmp_path / "h.csv").write_text(f"run,_step,_timestamp,_runtime,eval/loss\nm1,500,1,1,{word}\nm1,2000,2,1,2.3\n")
    pl.DataFrame(
        {"run": ["m1"] * 2, "_step": [500, 2000], "_timestamp": [1, 2], "_runtime": [1, 1], "eval/loss": [word, "2.3"]}
    ).write_parquet(tmp_path / "h.parquet")
    study = import_runs(tmp_path / "s", tmp_path / f"h.{ending}", mapping=tmp_path / "map.toml")
    assert moments(study.imported) == [(1.0, 2.3)]


@pytest.mark.parametrize("last", [2001, 2020])
def test_a_step_past_the_last_is_the_end(tmp_path: Path, last: int) -> None:
    assert moments(imported(tmp_path, [(1000, 1, 2.6), (last, 2, 2.3)])) == [(0.5, 2.6), (1.0, 2.3)]
    assert moments(imported(tmp_path / ".", [(1000, 1, 2.6)])) == [(0.5, 2.6)]


def test_of_the_last_step_and_one_past_it_the_later_counts(tmp_path: Path) -> None:
    assert moments(imported(tmp_path, [(1000, 1, 2.6), (2001, 3, 2.3), (2000, 2, 2.4)])) == [(0.5, 2.6), (1.0, 2.3)]
    with pytest.raises(InputError, match=r"row 1, column '_step': 1.05 must be between 0 and 1"):
        imported(tmp_path, [(2100, 1, 2.6)])


@pytest.mark.parametrize("newest_first", [False, True])
def test_what_a_resumed_run_logged_again_counts(tmp_path: Path, newest_first: bool) -> None:
    rows: list[Row] = [(500, 1, 2.9), (1000, 2, 2.7), (1400, 3, 9.0), (1500, 4, 9.0), (1200, 5, 2.6), (1500, 6, 2.5)]
    found = imported(tmp_path, [*rows, (2000, 7, 2.3)][:: -1 if newest_first else 1])
    assert moments(found) == [(0.25, 2.9), (0.5, 2.7), (0.6, 2.6), (0.75, 2.5), (1.0, 2.3)]


def test_a_step_with_two_values_and_no_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows \[1, 2\]: run 'm1' is listed 2 times at progress 0.5"):
        imported(tmp_path, [(1000, "", 2.6), (1000, "", 2.5)])


@pytest.mark.parametrize("times", [("", ""), (1, 2), (2, 1)])
def test_two_lines_of_one_step_with_other_metrics_are_one_moment(tmp_path: Path, times: tuple[object, object]) -> None:
    rows: list[Row] = [(1000, times[0], 2.6, ""), (1000, times[1], "", 2.5)]
    found = imported(tmp_path, rows, "_step,_timestamp,eval/loss,eval/code")
    assert (moments(found), moments(found, "code")) == ([(0.5, 2.6)], [(0.5, 2.5)])


def test_a_history_without_progress_is_refused(tmp_path: Path) -> None:
    mapping = MAP.replace('progress = { column = "_step", over = "max_steps" }\n', "")
    with pytest.raises(InputError, match="a history needs progress"):
        imported(tmp_path, [(2000, 1, 2.6)], mapping=mapping)


def test_a_key_called_run_in_a_configuration_names_no_run(tmp_path: Path) -> None:
    (tmp_path / "page.csv").write_text(
        "Name,State,run,size,w,eval/loss\nx,finished,sweep-3,6e7,1,2.5\ny,finished,sweep-3,6e7,1,2.4\n"
    )
    config = '{""run"": ""sweep-3"", ""size"": 6e7, ""w"": 1}'
    summary = '{""eval/loss"": 2.5, ""run"": 4}'
    (tmp_path / "api.csv").write_text(f'summary,config,name\n"{summary}","{config}",x\n"{summary}","{config}",y\n')
    mapping = 'params = "size"\ntokens = 1e9\nphase = [{ name = "init", shares = { w = "web" } }]\n'
    (tmp_path / "map.toml").write_text(mapping + 'tasks = { "eval/loss" = "nats/token" }\n')
    for name in ("page.csv", "api.csv"):
        found = import_runs(tmp_path / name[:3], tmp_path / name, mapping=tmp_path / "map.toml").imported
        assert [record.run for record in found.records] == ["x", "y"]


# Shares

MIX = 'run = "id"\nparams = 6e7\ntokens = 1e9\n[tasks]\nloss = "nats/token"\n[[phase]]\nname = "init"\n'


def mixed(folder: Path, table: str, phase: str) -> Understood:
    (folder / "mix.csv").write_text(table)
    (folder / "map.toml").write_text(MIX + phase)
    return import_runs(folder / "study", folder / "mix.csv", mapping=folder / "map.toml").imported


@pytest.mark.parametrize("rest", [1 - 0.8 - 0.2, -1e-12, -0.0, 1e-17])
def test_what_rounding_leaves_of_a_share_is_nothing(tmp_path: Path, rest: float) -> None:
    found = mixed(tmp_path, f"id,w_web,w_code,w_math,loss\na,0.8,0.2,{rest!r},2.5\n", 'shares = { "w_*" = "*" }\n')
    assert found.records[0].recipe.phases[0].mixture.share("code") == pytest.approx(0.2)
    assert found.records[0].recipe.phases[0].mixture.share("math") < 1e-16
    with pytest.raises(InputError, match=r"a share of -0.01 is negative"):
        mixed(tmp_path, "id,w_web,w_code,w_math,loss\na,0.81,0.2,-0.01,2.5\n", 'shares = { "w_*" = "*" }\n')


@pytest.mark.parametrize("column", ["code_pct", "code (percent)", "% code"])
@pytest.mark.parametrize(("percent", "share"), [("true", 0.005), ("false", 0.5)])
def test_percent_below_one_beside_a_rest_is_asked_for(tmp_path: Path, column: str, percent: str, share: float) -> None:
    table = f"id,{column},loss\na,0.5,2.5\nb,1,2.4\nc,0.2,2.6\n"
    phase = f'shares = {{ "{column}" = "code" }}\nrest = "web"\n'
    with pytest.raises(InputError, match=r"may be percent or parts of one, .* set percent = true or false"):
        mixed(tmp_path, table, phase)
    found = mixed(tmp_path, table, f"{phase}percent = {percent}\n")
    assert found.records[0].recipe.phases[0].mixture.share("code") == pytest.approx(share)


def test_shares_beside_a_rest_say_how_they_are_read(tmp_path: Path) -> None:
    found = mixed(tmp_path, "id,code,loss\na,0.5,2.5\nb,0.2,2.4\n", 'shares = { code = "code" }\nrest = "web"\n')
    assert any("are read as parts of one, the largest is 0.5" in note for note in found.notes)


@pytest.mark.parametrize(("other", "repeats"), [("0,0,0.996,0.004", False), ("0.002,0.003,0.995,0", True)])
def test_recipes_with_tiny_shares_of_other_domains_are_no_repeats(tmp_path: Path, other: str, repeats: bool) -> None:
    table = f"id,w_arxiv,w_law,w_cc,w_nih,loss\na,0.002,0.003,0.995,0,5.64\nb,{other},7.02\nc,0.3,0.2,0.5,0,4.1\n"
    found = mixed(tmp_path, table, 'shares = { "w_*" = "*" }\n')
    assert any("measured more than once" in note for note in found.notes) == repeats
