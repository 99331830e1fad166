"""`mixlaw import --sketch`: a draft is a valid mapping, asks for what is not certain, and then imports."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.adapters.mapping import read_mapping
from mixlaw.adapters.sketch import draft, sketch
from mixlaw.adapters.tables import read_source
from mixlaw.errors import InputError
from mixlaw.study import import_runs, open_study
from tables import as_csv, odd_cells, tables
from test_cli import check_document

WIDE = """id,size_m,billion,web_pct,python_pct,hellaswag_bpb
s1,60,1.2,90,10,0.912
s2,150,3.0,70,30,0.855
"""
PHASED = """Name,n_params,Tokens,init_web,init_code,cool_web,cool_code,arc_acc,arc_acc_se,val_loss,lr,cooldown_frac
x1,60M,1000000000,0.8,0.2,0.4,0.6,45.2,1.1,3.1,3e-4,0.1
x2,60M,1000000000,0.6,0.4,0.5,0.5,47.2,1.1,3.0,3e-4,0.2
"""
PREFIXED = """Name,n_params,tokens_total,pct_web,pct_code,cd_pct_web,cd_pct_code,arc_acc
x1,60000000,1200000000,24.9,75.1,42.3,57.7,0.35
x2,60000000,1200000000,70.4,29.6,14.8,85.2,0.36
"""
LONG = """model,parameters,tokens_web,tokens_code,task,score
m1,60000000,900000000,300000000,arc_acc,0.3
m1,60000000,900000000,300000000,code_bpb,0.9
m2,60000000,600000000,500000000,arc_acc,0.31
m2,60000000,600000000,500000000,code_bpb,0.8
"""
REST = "exp,size,total_tokens_b,code_pct,hellaswag\ne1,60,1.2,10,0.3\ne2,60,1.2,0.5,0.31\n"
NEIGHBOURS = "model,params,tokens,web,code,maths,arc_easy\na,1e6,1e9,0.5,0.3,0.2,0.41\nb,1e6,1e9,0.2,0.2,0.6,0.42\n"
CURVE = "run,step,max_steps,params,tokens,mix/web,mix/code,loss\n" + "".join(
    f"r{run},{step},10,1e6,{step}e8,0.{run},0.{10 - run},{3 - step / 10}\n" for run in (4, 7) for step in (5, 10)
)
SHEET = """Run Name;Model;Tokens (B);Web %;Code %;Cooldown Web %;Cooldown Code %;Cooldown frac;val_loss;GSM8K (%)
a 1;60M;1,2;39,5%;60,5%;80%;20%;20%;1,0002;40,1
a 2;60M;2,4;52,9%;47,1%;3,8%;96,2%;20%;1,0105;NA
"""
#: Table, blanks (what is written in their place), tokens of each row, values of each row.
CASES = {
    "wide": (WIDE, {}, [1.2e9, 3e9], [{"hellaswag_bpb": 0.912}, {"hellaswag_bpb": 0.855}]),
    "phases": (PHASED, {}, [1e9, 1e9], [{"arc_acc": 0.452, "val_loss": 3.1}, {"arc_acc": 0.472, "val_loss": 3.0}]),
    "long": (
        LONG,
        {},
        [1.2e9, 1.1e9],
        [{"score/arc_acc": 0.3, "score/code_bpb": 0.9}, {"score/arc_acc": 0.31, "score/code_bpb": 0.8}],
    ),
    "rest": (
        REST,
        {'scale = "FILL"': "scale = 1e6", '"{FILL}"': '"web"', "# FILL: ": ""},
        [1.2e9, 1.2e9],
        [{"hellaswag": 0.3}, {"hellaswag": 0.31}],
    ),
    "neighbours": (NEIGHBOURS, {"# FILL: ": ""}, [1e9, 1e9], [{"arc_easy": 0.41}, {"arc_easy": 0.42}]),
    "sheet": (
        SHEET,
        {"# FILL: ": ""},
        [1.2e9, 2.4e9],
        [{"val_loss": 1.0002, "GSM8K (%)": 0.401}, {"val_loss": 1.0105}],
    ),
    "curve": (CURVE, {}, [5e8, 1e9, 5e8, 1e9], [{"loss": 2.5}, {"loss": 2.0}] * 2),
}


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixlaw", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES)
def test_a_draft_is_valid_and_imports_once_it_is_filled(case: str, tmp_path: Path) -> None:
    table, blanks, tokens, values = CASES[case]
    (tmp_path / "runs.csv").write_text(table)
    out = tmp_path / "map.toml"
    said = cli("import", tmp_path / "S", tmp_path / "runs.csv", "--sketch", out, "--json")
    assert said.returncode == 0, said.stderr
    check_document("import", json.loads(said.stdout))
    assert not (tmp_path / "S").exists()
    text = out.read_text()
    assert read_mapping(out)
    assert ("FILL" in "".join(text.splitlines()[3:])) == bool(blanks)
    for blank, filling in blanks.items():
        assert blank in text
        text = text.replace(blank, filling)
    out.write_text(text)
    assert cli("import", tmp_path / "S", tmp_path / "runs.csv", "--mapping", out).returncode == 0
    records = sorted(open_study(tmp_path / "S").records(), key=lambda r: (r.run, r.progress))
    assert [record.recipe.tokens for record in records] == tokens
    assert [{task: pytest.approx(v.value) for task, v in r.values.items()} for r in records] == values


def test_phases_have_their_own_shares_and_lengths(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(PHASED)
    cli("import", tmp_path / "S", tmp_path / "runs.csv", "--sketch", tmp_path / "m.toml")
    cli("import", tmp_path / "S", tmp_path / "runs.csv", "--mapping", tmp_path / "m.toml")
    one, two = sorted(open_study(tmp_path / "S").records(), key=lambda record: record.run)
    phases = [(p.name, p.tokens, round(p.mixture.share("code"), 6)) for r in (one, two) for p in r.recipe.phases]
    assert phases == [("init", 9e8, 0.2), ("cool", 1e8, 0.6), ("init", 8e8, 0.4), ("cool", 2e8, 0.5)]
    assert one.values["arc_acc"].value == pytest.approx(0.452)


def test_shares_before_any_phase_and_those_of_cd_are_the_same_domains(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(PREFIXED)
    text = draft(read_source(tmp_path / "runs.csv"), "runs.csv")
    assert text.index('name = "pretrain"') < text.index('"pct_code" = "code"') < text.index('name = "cd"')
    assert text.index('name = "cd"') < text.index('"cd_pct_code" = "code"')


def test_a_blank_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(REST)
    cli("import", tmp_path / "S", tmp_path / "runs.csv", "--sketch", tmp_path / "m.toml")
    refused = cli("import", tmp_path / "S", tmp_path / "runs.csv", "--mapping", tmp_path / "m.toml")
    assert refused.returncode == 2
    assert "still says FILL" in refused.stderr
    assert not (tmp_path / "S").exists()
    again = cli("import", tmp_path / "S", tmp_path / "runs.csv", "--sketch", tmp_path / "m.toml")
    assert again.returncode == 2
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("column", "cells", "line"),
    [
        ("arc_acc", (0.41, 0.52), '"arc_acc" = "accuracy"  # cells 0.41 to 0.52'),
        ("arc_acc", (41, 52), '"arc_acc" = { unit = "accuracy", scale = 0.01 }  # cells 41 to 52'),
        ("arc_acc_pct", (0.4, 0.9), '# FILL: "arc_acc_pct"'),
        ("arc_acc", (-1, 0.52), '# FILL: "arc_acc"'),
        ("eval/bits_per_byte", (0.8, 0.9), '"eval/bits_per_byte" = "bits/byte"'),
        ("bpb", (80, 90), '# FILL: "bpb"'),
        ("wiki_ppl", (31, 35), '# FILL: "wiki_ppl"'),
        ("humaneval_pass@1", (0.1, 0.2), '"humaneval_pass@1" = "pass@1"'),
        ("hellaswag", (0.3, 0.4), '# FILL: "hellaswag" = "accuracy"'),
        ("learning_rate", (3e-4, 3e-4), ""),
    ],
)
def test_units_are_guessed_by_name_and_doubted_by_cells(
    column: str, cells: tuple[float, float], line: str, tmp_path: Path
) -> None:
    rows = "".join(f"{i},60000000,1000000000,0.5,0.5,{cell}\n" for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"run,params,tokens,w_web,w_code,{column}\n{rows}")
    text = draft(read_source(tmp_path / "t.csv"), "t.csv")
    assert (line in text) if line else (column not in text)
    assert f"\n{line.partition(' =')[0]}" in text


NAMES = st.lists(st.text(max_size=8) | st.sampled_from(["web_pct", "code_pct", "loss"]), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(NAMES, st.lists(st.lists(odd_cells, min_size=5, max_size=5), min_size=1, max_size=3))
def test_the_draft_of_any_table_is_a_mapping(names: list[str], rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "t.csv", Path(folder) / "m.toml"
        path.write_bytes(as_csv([names, *(row[: len(names)] for row in rows)]).encode("utf-8", "surrogatepass"))
        try:
            source = read_source(path)
        except InputError:
            return
        out.write_text(draft(source, "t.csv"), encoding="utf-8")
        assert read_mapping(out)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(tables())
def test_a_table_in_the_columns_of_mixlaw_needs_no_guesses(table: pl.DataFrame) -> None:
    text = draft(read_source(table), "t")
    assert "[[phase]]" not in text
    assert "params" not in text


def test_tokens_of_phases_are_not_a_phase_of_their_own(tmp_path: Path) -> None:
    columns = [f"data.{phase}.{what}" for phase in ("stable", "anneal") for what in ("web", "code", "tokens")]
    rows = ["m1,1e6,1000000000,0.3,0.7,900000000,0.5,0.5,100000000,0.9", "m2,1e6,1e9,0.6,0.4,8e8,0.2,0.8,2e8,0.8"]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([f"Name,n_params,total_tokens,{','.join(columns)},code_bpb", *rows]) + "\n")
    made = draft(read_source(path), "runs.csv")
    assert 'name = "stable"\ntokens = "data.stable.tokens"' in made
    assert made.count("[[phase]]") == 2
    assert "FILL" not in made.split("\n", 3)[3]


def test_the_length_of_a_phase_is_no_domain_and_n_and_d_are_size_and_tokens(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        "model,N,D,pre_web,pre_code,anneal_web,anneal_code,anneal_frac,hs_bpb\n"
        "s0,60M,1.2B,0.7,0.3,0.4,0.6,0.2,1.01\ns1,130M,2.6B,0.5,0.5,0.2,0.8,0.1,0.97\n"
    )
    out = tmp_path / "draft.toml"
    assert sketch(tmp_path / "runs.csv", out).blanks == 0
    found = tomllib.loads(out.read_text())
    assert (found["params"], found["tokens"], found["tasks"]) == ("N", "D", {"hs_bpb": "bits/byte"})
    assert [(p["name"], p.get("share"), [*p["shares"].values()]) for p in found["phase"]] == [
        ("pre", None, ["web", "code"]),
        ("anneal", "anneal_frac", ["web", "code"]),
    ]


def test_a_phase_whose_length_is_in_percent_is_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        "run,size,tokens (B),anneal %,main.web,main.code,anneal.web,anneal.code,web_bpb\n"
        "a,60M,1.2,20,70,30,40,60,1.01\nb,130M,2.6,10,50,50,20,80,0.97\n"
    )
    out = tmp_path / "draft.toml"
    assert sketch(tmp_path / "runs.csv", out).blanks == 0
    import_runs(tmp_path / "study", tmp_path / "runs.csv", mapping=out)
    lengths = {r.run: [p.tokens for p in r.recipe.phases] for r in open_study(tmp_path / "study").records()}
    assert lengths == {"a": [960_000_000, 240_000_000], "b": [2_340_000_000, 260_000_000]}
