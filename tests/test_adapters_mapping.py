"""Mappings: any table becomes the contract's columns, and a table that says something else is refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mixlaw import import_runs
from mixlaw.adapters.gather import gather
from mixlaw.adapters.importing import Understood, understand
from mixlaw.adapters.mapping import captures, read_mapping, starred
from mixlaw.errors import InputError
from mixlaw.study import open_study

RUNS = """exp,size_m,seed,budget_b,weight_web,weight_code,web_loss,web_loss_sd,acc_pct
a,60,1,2,0.75,0.25,3.5,0.01,25
b,60,2,2,1,0,3.25,,50
c,250,1,8,0.5,0.5,,,75
"""
MAPPING = """
run = "exp"
params = { column = "size_m", scale = 1e6 }
seed = "seed"
tokens = { column = "budget_b", scale = 1e9 }
[[phase]]
name = "init"
shares = { "weight_*" = "*" }
[tasks]
"*_loss" = { name = "*", unit = "nats/token", noise = "*_loss_sd" }
acc_pct = { name = "acc", unit = "accuracy", scale = 0.01 }
"""


def understood(folder: Path, runs: str, mapping: str) -> Understood:
    (folder / "runs.csv").write_text(runs)
    (folder / "map.toml").write_text(mapping)
    sheet, _ = gather(folder / "runs.csv", folder / "map.toml")
    return understand(sheet, {})


def test_globs_scales_noise_and_one_total_with_shares_become_records(tmp_path: Path) -> None:
    found = understood(tmp_path, RUNS, MAPPING)
    a, b, c = found.records
    assert (found.tasks, found.ignored) == ({"web": "nats/token", "acc": "accuracy"}, ())
    assert (a.recipe.params, c.recipe.params, a.recipe.seed, b.recipe.seed) == (60_000_000, 250_000_000, 1, 2)
    assert dict(a.tokens["init"]) == {"web": 1.5e9, "code": 0.5e9}
    assert dict(b.tokens["init"]) == {"web": 2e9}
    assert (a.values["web"].value, a.values["acc"].value, dict(a.noise)) == (3.5, 0.25, {"web": 0.01})
    assert set(c.values) == {"acc"}
    assert found.empty == 1


def test_a_share_of_exactly_zero_is_ordinary_in_every_form_it_is_written(tmp_path: Path) -> None:
    for zero in ("0", "0.0", "-0.0", ""):
        found = understood(tmp_path, RUNS.replace("1,0,3.25", f"1,{zero},3.25"), MAPPING)
        assert found.records[1].recipe.mixture.shares == {"web": 1.0}


def test_percent_is_recognised_and_said(tmp_path: Path) -> None:
    runs = RUNS.replace("0.75,0.25", "75,25").replace("1,0,", "100,0,").replace("0.5,0.5", "50,50")
    found = understood(tmp_path, runs, MAPPING)
    assert found.records[0].drawn("init", "code") == 0.5e9
    assert "percent" in found.notes[0]


def test_rounded_shares_are_scaled_and_said_up_to_the_tolerance_and_refused_beyond(tmp_path: Path) -> None:
    found = understood(tmp_path, RUNS.replace("0.75,0.25", "0.748,0.25"), MAPPING)
    assert found.records[0].drawn("init", "web") == pytest.approx(2e9 * 0.748 / 0.998, rel=1e-12)
    assert "shares of 1 of 3 rows sum to 0.998" in found.notes[0]
    off = RUNS.replace("0.75,0.25", "0.74,0.25")
    with pytest.raises(InputError, match=r"row 1, columns 'weight_web' to 'weight_code': .* sum to 0.99, not to 1"):
        understood(tmp_path, off, MAPPING)
    assert understood(tmp_path, off, "tolerance = 0.02\n" + MAPPING).notes
    with pytest.raises(InputError, match=r"row 2, column 'weight_web': a share of -1 is negative"):
        understood(tmp_path, RUNS.replace("1,0,3.25", "-1,2,3.25"), MAPPING)


def test_two_phases_with_a_rest_a_domain_named_by_a_cell_and_phases_of_their_own_length(tmp_path: Path) -> None:
    runs = (
        "n,first,late,late_b,corpus,lr0,lr1,code,bpb\n1,0.25,0.5,1,c4,1e-3,1e-4,1.0,1.2\n2,0,1,2,rw,1e-3,1e-3,0.5,1.1\n"
    )
    found = understood(
        tmp_path,
        runs,
        """
run = "r{n}-{corpus}"
params = 1_000_000
[[phase]]
name = "init"
tokens = 8e9
shares = { first = "code" }
rest = "{corpus}"
lr_end = 1.0
[[phase]]
name = "cooldown"
tokens = { column = "late_b", scale = 1e9 }
shares = { late = "code" }
rest = "web"
lr_end = { column = "lr1", over = "lr0" }
[unique]
code = { column = "code", scale = 1e9 }
[tasks]
bpb = "bits/byte"
""",
    )
    one, two = found.records
    assert (one.run, two.run) == ("r1-c4", "r2-rw")
    assert {p: dict(t) for p, t in one.tokens.items()} == {
        "init": {"code": 2e9, "c4": 6e9},
        "cooldown": {"code": 0.5e9, "web": 0.5e9},
    }
    assert {p: dict(t) for p, t in two.tokens.items()} == {"init": {"rw": 8e9}, "cooldown": {"code": 2e9}}
    assert [phase.lr_end for phase in one.recipe.phases] == [1.0, pytest.approx(0.1)]
    assert (one.recipe.unique["code"], two.recipe.unique["code"]) == (10**9, 5 * 10**8)


ANNEALED = """
run = "n"
params = 1_000_000
tokens = { column = "b", scale = 1e9 }
[[phase]]
name = "init"
domain = "web"
[[phase]]
name = "cooldown"
share = { column = "anneal_pct", over = 100 }
domain = "code"
[tasks]
bpb = "bits/byte"
"""


def test_a_phase_whose_share_is_a_column_leaves_the_rest_to_the_other(tmp_path: Path) -> None:
    found = understood(tmp_path, "n,b,anneal_pct,bpb\na,2,10,1.2\nb,4,0,1.1\n", ANNEALED)
    assert [{p: dict(t) for p, t in record.tokens.items()} for record in found.records] == [
        {"init": {"web": 1.8e9}, "cooldown": {"code": 0.2e9}},
        {"init": {"web": 4e9}},
    ]


@pytest.mark.parametrize(("cell", "seen"), [("110", "1.1"), ("", "empty"), ("-5", "-0.05")])
def test_a_share_of_tokens_that_is_none_is_refused_with_its_row(tmp_path: Path, cell: str, seen: str) -> None:
    message = f"row 2: phase 'cooldown' has the share {seen} of the run's tokens, not in 0..1"
    with pytest.raises(InputError, match=message):
        understood(tmp_path, f"n,b,anneal_pct,bpb\na,2,10,1.2\nb,4,{cell},1.1\n", ANNEALED.replace("init", "trunk"))


def test_only_one_phase_may_have_the_rest(tmp_path: Path) -> None:
    alone = ANNEALED.replace('share = { column = "anneal_pct", over = 100 }\n', "")
    with pytest.raises(InputError, match="phase 'init' has no share of the run's tokens; give share or tokens"):
        understood(tmp_path, "n,b,anneal_pct,bpb\na,2,10,1.2\n", alone)


def test_columns_that_hold_tokens_and_columns_of_the_contract_need_no_shares(tmp_path: Path) -> None:
    runs = "run,params,t_web,t_code,metric:x,lr_end:init\na,470M,1.5B,500M,1.1,0.1\n"
    mapping = '[[phase]]\nname = "init"\ndomain_tokens = { "t_*" = "*" }\n[tasks]\n"metric:*" = "bits/byte"\n'
    record = understood(tmp_path, runs, mapping).records[0]
    assert (record.recipe.params, dict(record.tokens["init"])) == (470_000_000, {"web": 1.5e9, "code": 5e8})
    assert (record.recipe.phases[0].lr_end, set(record.values)) == (0.1, {"x"})


def test_a_long_table_is_pivoted_and_rows_can_be_chosen(tmp_path: Path) -> None:
    runs = """model,corpus,python,task,score,sd
2.8B,C4,0,ARC,3.5,1.0
2.8B,C4,0,COPA,10,
2.8B,C4,50,ARC,4,2
2.8B,OSCAR,0,ARC,9,
"""
    mapping = """
run = "{model}-{python}"
params = "model"
tokens = 55e9
only = { corpus = "C4" }
ignore = ["corpus"]
pivot = { by = ["model", "corpus", "python"], task = "task", value = "score", noise = "sd" }
[[phase]]
name = "init"
shares = { python = "code" }
rest = "c4"
percent = true
[tasks]
"score/*" = { name = "*", unit = "accuracy", scale = 0.01, noise = "sd/*" }
"""
    one, two = understood(tmp_path, runs, mapping).records
    assert {task: m.value for task, m in one.values.items()} == {"ARC": pytest.approx(0.035), "COPA": 0.1}
    assert (set(two.values), dict(two.noise), two.recipe.mixture["code"]) == ({"ARC"}, {"ARC": 0.02}, 0.5)
    with pytest.raises(InputError, match="row 1: task 'ARC' of this run occurs twice"):
        understood(tmp_path, runs + "2.8B,C4,0,ARC,1,\n", mapping)


def test_the_mean_of_several_seeds_has_less_noise_than_one(tmp_path: Path) -> None:
    runs = "run,params,task,loss,sd,n\na,1e6,x,3.1,0.2,4\na,1e6,y,2.5,,1\n"
    mapping = """
tokens = 1e9
pivot = { by = ["run", "params"], task = "task", value = "loss", noise = "sd", seeds = "n" }
phase = [{ name = "init", domain = "web" }]
tasks = { "loss/*" = { name = "*", unit = "nats/token", noise = "sd/*" } }
"""
    record = understood(tmp_path, runs, mapping).records[0]
    assert dict(record.noise) == {"x": pytest.approx(0.1)}
    with pytest.raises(InputError, match="row 1, column 'n': 'four' is not a number"):
        understood(tmp_path, runs.replace(",4\n", ",four\n"), mapping)


JOIN = """
run = "id"
params = 1_000_000
tokens = 1e9
join = [{ file = "losses.csv", KEY }]
[[phase]]
name = "init"
shares = { web = "web", code = "code" }
[tasks]
"loss *" = { name = "*", unit = "nats/token" }
"""
MIXTURES = "id,web,code\n1,0.5,0.5\n2,1,0\n3,0,1\n"


def test_files_join_on_a_key_whatever_their_order_and_say_what_has_no_partner(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("id,web,github\n3.0,3.5,1.5\n1.0,3.1,2.0\n9.0,1,1\n")
    found = understood(tmp_path, MIXTURES, JOIN.replace("KEY", 'on = "id", prefix = "loss "'))
    assert [r.values["github"].value if r.values else None for r in found.records] == [2.0, None, 1.5]
    assert found.warnings == (
        "1 rows have no partner in losses; its cells stay empty there",
        "1 rows of losses have no partner and are left out",
    )


def test_files_whose_rows_correspond_join_row_by_row_unless_they_contradict(tmp_path: Path) -> None:
    mapping = JOIN.replace(", KEY", "").replace('"loss *" = { name = "*",', '"loss_*" = { name = "*",')
    (tmp_path / "losses.csv").write_text("id,loss_web\n1,3.1\n2,3.2\n3,3.3\n")
    assert [r.values["web"].value for r in understood(tmp_path, MIXTURES, mapping).records] == [3.1, 3.2, 3.3]
    (tmp_path / "losses.csv").write_text("id,loss_web\n1,3.1\n3,3.2\n2,3.3\n")
    with pytest.raises(
        InputError, match="row 2, column 'id': '2' in runs but '3' in losses; the rows do not correspond"
    ):
        understood(tmp_path, MIXTURES, mapping)
    (tmp_path / "losses.csv").write_text("loss_web\n3.1\n3.2\n")
    with pytest.raises(InputError, match="runs has 3 rows and losses 2"):
        understood(tmp_path, MIXTURES, mapping)


def test_a_column_of_both_files_fills_cells_and_may_not_contradict(tmp_path: Path) -> None:
    mapping = JOIN.replace("KEY", 'on = "id"').replace('"loss *" = { name = "*",', '"loss_*" = { name = "*",')
    (tmp_path / "losses.csv").write_text("id,web,loss_web\n3,0,3.3\n1,0.50,3.1\n2,1,3.2\n")
    found = understood(tmp_path, MIXTURES.replace("2,1,0", "2,,0"), mapping)
    assert [(r.recipe.mixture.share("web"), r.values["web"].value) for r in found.records] == [
        (0.5, 3.1),
        (1.0, 3.2),
        (0.0, 3.3),
    ]
    (tmp_path / "losses.csv").write_text("id,web,loss_web\n3,0,3.3\n1,0.4,3.1\n2,1,3.2\n")
    with pytest.raises(InputError, match=r"row 1, column 'web': '0.5' in runs but '0.4' in losses"):
        understood(tmp_path, MIXTURES, mapping)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("id,github\n1,2\n1,3\n", "losses has '1' twice in id"),
        ("id,github\n7,2\n8,3\n", "no row of runs has a partner in losses"),
        ("key,github\n7,2\n", "losses has no column 'id' to join on"),
    ],
)
def test_a_join_that_cannot_be_right_is_refused(tmp_path: Path, losses: str, message: str) -> None:
    (tmp_path / "losses.csv").write_text(losses)
    with pytest.raises(InputError, match=message):
        understood(tmp_path, MIXTURES, JOIN.replace("KEY", 'on = "id", prefix = "loss "'))


WRONG = {
    "a glob that matches nothing": ('"weight_*"', '"share_*"', "domains 'share_.' matches no column"),
    "no such column": ('seed = "seed"', 'seed = "sid"', "there is no column 'sid'"),
    "a unit without direction": ('"nats/token"', '"perplexity"', "unknown unit 'perplexity'"),
    "a key that is not known": ('seed = "seed"', 'sead = "seed"', "sead: is not known"),
    "a key that is not known inside": ("scale = 1e6", "scales = 1e6", "params.scales: is not known"),
    "no total": ('tokens = { column = "budget_b", scale = 1e9 }', "", "phase 'init' has no tokens"),
    "a domain with a colon": ('"weight_*" = "*"', '"weight_*" = "a:*"', "domain 'a:web' needs a name without a colon"),
    "two tasks of one name": ('name = "acc"', 'name = "web"', "both become 'metric:web'"),
    "two columns of one domain": ('"weight_*" = "*"', '"weight_*" = "x"', "are both domain 'x'"),
    "percent as accuracy": (", scale = 0.01", "", r"row 1, column 'acc_pct': 25 in accuracy must be between 0"),
    "a loss below zero": (
        '"nats/token", noise',
        '"nats/token", offset = -3.25, noise',
        "row 2, column 'web_loss': 0 in",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mapping_that_does_not_fit_is_refused_with_the_name_of_the_column(tmp_path: Path, name: str) -> None:
    old, new, message = WRONG[name]
    assert old in MAPPING
    with pytest.raises(InputError, match=message):
        understood(tmp_path, RUNS, MAPPING.replace(old, new))


def test_a_study_keeps_kinds_and_refuses_another_unit(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    (tmp_path / "map.toml").write_text(MAPPING + '[domains]\n"c*" = { kind = "code", unique_tokens = 7 }\n')
    found = import_runs(tmp_path / "study", tmp_path / "runs.csv", mapping=tmp_path / "map.toml").imported
    domains = open_study(tmp_path / "study").settings.domains
    assert (domains["code"].kind.value, domains["code"].unique_tokens, domains["web"].kind.value) == ("code", 7, "text")
    assert any("no kind given for web" in note for note in found.notes)
    (tmp_path / "map.toml").write_text(MAPPING.replace("nats/token", "bits/byte"))
    with pytest.raises(InputError, match=r"'web' is in nats/token \(study\) and in bits/byte"):
        import_runs(tmp_path / "study", tmp_path / "runs.csv", mapping=tmp_path / "map.toml")


def test_a_folder_needs_a_mapping_that_names_its_files_and_rows_say_their_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give one table, or a mapping"):
        gather(tmp_path)
    (tmp_path / "a.csv").write_text(RUNS)
    (tmp_path / "b.csv").write_text(RUNS.replace("0.75,0.25", "0.7,0.2"))
    (tmp_path / "map.toml").write_text(
        MAPPING.replace('run = "exp"', 'run = "{file}-{exp}"')
        + '[[table]]\nfile = "a.csv"\n[[table]]\nfile = "b.csv"\n[[table]]\nfile = "c.csv"\nparams = 7\n'
    )
    with pytest.raises(InputError, match=r"b.csv, row 1, columns 'weight_web'"):
        gather(tmp_path, tmp_path / "map.toml")
    (tmp_path / "b.csv").write_text(RUNS)
    sheet, _ = gather(tmp_path, tmp_path / "map.toml")
    assert sheet.frame["run"].to_list() == ["a-a", "a-b", "a-c", "b-a", "b-b", "b-c"]
    assert sheet.warnings[0].startswith("c.csv is not in")
    with pytest.raises(InputError, match=r"the mapping is for a.csv, b.csv, c.csv, not for map.csv"):
        gather(tmp_path / "map.csv", tmp_path / "map.toml")
    assert [entry.params for entry in read_mapping(tmp_path / "map.toml")][-1] == 7


def test_keys_that_are_empty_have_no_partner_and_numbers_can_name_runs(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("id,web\n,3.5\n1,3.1\n")
    found = understood(tmp_path, MIXTURES, JOIN.replace("KEY", 'on = "id", prefix = "loss "'))
    assert [set(r.values) for r in found.records] == [{"web"}, set(), set()]
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"run,params,tokens:p:web,metric:{name}\n1,5,7,2\n2,5,7,2\n")
    (tmp_path / "map.toml").write_text('[[table]]\nfile = "a.csv"\nrun = "{file}-{run}"\n[[table]]\nfile = "b.csv"\n')
    sheet, _ = gather(tmp_path, tmp_path / "map.toml")
    assert [r.run for r in understand(sheet, {}, "bits/byte").records] == ["a-1", "a-2", "1", "2"]


def test_a_column_that_is_there_twice_or_belongs_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("run,params,tokens:p:web,metric:x,metric:x\na,1,5,1,2\n")
    with pytest.raises(InputError, match="column 'metric:x' occurs twice"):
        gather(tmp_path / "t.csv")
    for column in ("noise:y", "unique:code", "lr_end:q", "tokens:p:a:b"):
        row = {"run": "a", "params": 1, "tokens:p:web": 5, "metric:x": 1.0, column: 0.5}
        with pytest.raises(InputError, match=f"column '{column}'"):
            understand(pl.DataFrame([row]), {"x": "bits/byte"})


def test_stars_stand_for_what_stars_matched() -> None:
    assert captures("eval/*/bpb", "eval/code/bpb") == ["code"]
    assert captures("eval/*/bpb", "eval/code/acc") is None
    assert captures("a[1].*", "a[1].b") == ["b"]
    assert starred("*-*", ["x", "y"]) == "x-y"
