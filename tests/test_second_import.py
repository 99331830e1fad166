"""Imports into a study that has runs already: what is added, refused and replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixlaw import InputError, import_runs, open_study
from mixlaw.adapters.importing import Understood
from mixlaw.study import preview_import

HEAD = "run,params,tokens:init:web,tokens:init:code,metric:hs\n"
RUNS = HEAD + "a,60000000,900000000,100000000,0.912\nb,60000000,700000000,300000000,0.915\n"
TWO = RUNS.replace("metric:hs", "metric:hs,metric:arc_acc").replace("0.912", "0.912,0.3").replace("0.915", "0.915,0.4")


def imported(folder: Path, text: str, **options: Any) -> Understood:
    (folder / "runs.csv").write_text(text)
    options = {"unit": "bits/byte"} | options
    return import_runs(folder / "study", folder / "runs.csv", **options).imported


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Units


def test_domains_of_a_file_are_those_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('[wbe]\nkind = "text"\n')
    with pytest.raises(
        InputError, match="--domains describes 'wbe', which the table does not have; did you mean 'web'"
    ):
        imported(tmp_path, RUNS, domains=tmp_path / "d.toml")
    (tmp_path / "d.toml").write_text('[web]\nkind = "text"\n[german]\nkind = "text"\n')
    assert (
        "domains that the table does not have are left out: german"
        in imported(tmp_path, RUNS, domains=tmp_path / "d.toml").notes
    )


def test_new_tasks_and_domains_with_nearly_known_names_are_warned_of(tmp_path: Path) -> None:
    imported(tmp_path, RUNS.replace("metric:hs", "metric:hellaswag"))
    text = RUNS.replace("metric:hs", "metric:hella_swag").replace("init:code", "init:codes").replace("\na,", "\nc,")
    found = imported(tmp_path, text.replace("\nb,", "\nd,"))
    assert "task 'hella_swag' is new in this study; did you mean 'hellaswag'?" in found.warnings
    assert "domain 'codes' is new in this study; did you mean 'code'?" in found.warnings


# A second import


def test_a_second_import_adds_tasks_rows_and_standard_errors(tmp_path: Path) -> None:
    imported(tmp_path, RUNS)
    later = (
        TWO.replace("metric:hs,", "").replace("0.912,", "").replace("0.915,", "")
        + "c,150000000,2250000000,250000000,0.5\n"
    )
    found = imported(tmp_path, later, unit="accuracy")
    table = open_study(tmp_path / "study").table().sort("run")
    assert table["metric:hs"].to_list() == [0.912, 0.915, None]
    assert table["metric:arc_acc"].to_list() == [0.3, 0.4, 0.5]
    assert "1 rows are new, 2 are in the study already, of which 2 change and gain arc_acc" in found.notes
    before = snapshot(tmp_path / "study")
    imported(tmp_path, later, unit="accuracy")
    assert snapshot(tmp_path / "study") == before


def test_results_may_come_later(tmp_path: Path) -> None:
    imported(tmp_path, RUNS)
    (tmp_path / "r.json").write_text('{"results": {"arc": {"acc,none": 0.5}}, "model_name": "b"}')
    imported(tmp_path, RUNS, results=[tmp_path / "r.json"])
    assert open_study(tmp_path / "study").table().sort("run")["metric:arc/acc"].to_list() == [None, 0.5]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.912", "0.95", "run 'a', task 'hs': 0.912, now 0.95"),
        ("a,60000000", "a,61000000", "run 'a', params: 60000000, now 61000000"),
        ("900000000,1", "800000000,1", "run 'a', tokens:init:web: 900,000,000, now 800,000,000"),
    ],
)
def test_a_contradiction_names_old_and_new_and_replace_settles_it(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    imported(tmp_path, RUNS)
    before = snapshot(tmp_path / "study")
    with pytest.raises(InputError, match=f"{said}; correct the table, or give --replace to take its values"):
        imported(tmp_path, RUNS.replace(old, new))
    assert snapshot(tmp_path / "study") == before
    imported(tmp_path, RUNS.replace(old, new), replace=True)
    import_runs(tmp_path / "fresh", tmp_path / "runs.csv", unit="bits/byte")
    found, wanted = (open_study(tmp_path / name).table().sort("run") for name in ("study", "fresh"))
    assert found.equals(wanted)


DOMAINS = '[domains.web]\nkind = "text"\nunique_tokens = "1B"\n'
TASK = '[tasks]\n"hs" = { unit = "accuracy", name = "hs", chance = 0.25, stderr = "se", noise = "noise" }\n'
SCORES = """run,params,seed,lr,tokens:init:web,hs,se,noise
a,60000000,1,1,1000000000,0.4,0.01,0.02
b,60000000,2,1,1000000000,0.5,0.01,0.02
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"1B"', '"2B"', "domain 'web', unique_tokens: 1,000,000,000, now 2,000,000,000"),
        ('kind = "text"', 'kind = "code"', "domain 'web', kind: text, now code"),
        ("chance = 0.25", "chance = 0.5", "task 'hs', chance: 0.25, now 0.5"),
        ("0.4,0.01,", "0.4,0.03,", "run 'a', standard error of 'hs': 0.01, now 0.03"),
        ("0.01,0.02\nb", "0.01,0.05\nb", "run 'a', noise of 'hs': 0.02, now 0.05"),
        ("a,60000000,1,", "a,60000000,3,", "run 'a', seed: 1, now 3"),
        ("a,60000000,1,1,", "a,60000000,1,0.5,", "run 'a', lr: 1.0, now 0.5"),
    ],
)
def test_all_that_a_table_and_what_describes_it_say_otherwise_needs_replace(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    def write(*texts: str) -> dict[str, Any]:
        for name, text in zip(("domains.toml", "map.toml", "runs.csv"), texts, strict=True):
            (tmp_path / name).write_text(text)
        return {"domains": tmp_path / "domains.toml", "mapping": tmp_path / "map.toml"}

    files = (DOMAINS, TASK, SCORES)
    import_runs(tmp_path / "study", tmp_path / "runs.csv", **write(*files))
    before = snapshot(tmp_path / "study")
    given = write(*(text.replace(old, new) for text in files))
    with pytest.raises(InputError, match=f"1 value contradicts .*: {said}; .* give --replace"):
        import_runs(tmp_path / "study", tmp_path / "runs.csv", **given)
    assert snapshot(tmp_path / "study") == before
    notes = import_runs(tmp_path / "study", tmp_path / "runs.csv", **given, replace=True).imported.notes
    assert f"1 value was replaced: {said}" in notes
    import_runs(tmp_path / "fresh", tmp_path / "runs.csv", **given)
    found, wanted = (open_study(tmp_path / name) for name in ("study", "fresh"))
    assert found.table().equals(wanted.table())
    assert (found.settings.domains, found.settings.tasks) == (wanted.settings.domains, wanted.settings.tasks)


COUNTS = pl.DataFrame({"run": ["a"], "params": [6e7], "tokens:p:web": [1e9], "metric:hs": [0.4], "count:hs": [100.0]})


def test_another_count_of_items_needs_replace(tmp_path: Path) -> None:
    import_runs(tmp_path / "study", COUNTS, unit="accuracy")
    import_runs(tmp_path / "study", COUNTS.drop("count:hs"), unit="accuracy")  # which says nothing of it
    other = COUNTS.with_columns(pl.lit(200).alias("count:hs"))
    before = snapshot(tmp_path / "study")
    with pytest.raises(InputError, match=r"1 value contradicts .*: run 'a', count of 'hs': 100, now 200; .*--replace"):
        import_runs(tmp_path / "study", other, unit="accuracy")
    assert snapshot(tmp_path / "study") == before
    import_runs(tmp_path / "study", other, unit="accuracy", replace=True)
    (record,) = open_study(tmp_path / "study").records()
    assert record.values["hs"].count == 200


def test_no_table_replaces_runs_that_were_trained_here(tmp_path: Path) -> None:
    imported(tmp_path, RUNS)
    (path,) = (p for p in (tmp_path / "study/runs").glob("*/record.json") if '"a"' in p.read_text())
    data = json.loads(path.read_text())
    data["recipe"]["data"] = "0123456789abcdef"  # as training writes it: the digest of the shards
    path.write_text(json.dumps(data))
    before = snapshot(tmp_path / "study")
    for options in ({}, {"replace": True}):
        with pytest.raises(
            InputError, match=r"1 value contradicts runs that .* trained itself, which no table replaces"
        ):
            imported(tmp_path, RUNS.replace("0.912", "0.95"), **options)
        assert snapshot(tmp_path / "study") == before
    imported(tmp_path, RUNS.replace("metric:hs", "metric:he"))  # a task that they lack is no contradiction


PHASES = """run = "run"
params = 6e7
tokens = 1e9
[[phase]]
name = "stable"
shares = { "a_*" = "*" }
share = 0.8
[[phase]]
name = "decay"
shares = { "b_*" = "*" }
share = 0.2
[tasks]
hs = { unit = "bits/byte" }
"""
STABLE = "[[phase]]" + PHASES.split("[[phase]]")[1]
TURNED = PHASES.replace(STABLE, "").replace("[tasks]", STABLE + "[tasks]")


def test_another_order_of_phases_needs_replace_and_all_runs_again(tmp_path: Path) -> None:
    def bring(names: str, mapping: str, **options: Any) -> Understood:
        (tmp_path / "map.toml").write_text(mapping)
        rows = "".join(f"{name},0.9,0.1,0.5,0.5,0.9\n" for name in names)
        return imported(
            tmp_path, f"run,a_web,a_code,b_web,b_code,hs\n{rows}", mapping=tmp_path / "map.toml", unit=None, **options
        )

    bring("ab", PHASES)
    before = snapshot(tmp_path / "study")
    for names in ("cd", "ab"):  # new runs, or those that are there
        with pytest.raises(InputError, match=r"order of phases: stable, decay, now decay, stable.* give --replace"):
            bring(names, TURNED)
    with pytest.raises(InputError, match="run 'b', which the table does not have again, with stable, decay; give all"):
        bring("ac", TURNED, replace=True)
    assert snapshot(tmp_path / "study") == before
    assert any("order of phases" in note for note in bring("abc", TURNED, replace=True).notes)
    study = open_study(tmp_path / "study")
    assert [phase.name for phase in study.settings.phases] == ["decay", "stable"]
    assert {tuple(phase.name for phase in record.recipe.phases) for record in study.records()} == {("decay", "stable")}
    assert bring("d", TURNED).runs == 1


def test_an_assumed_kind_is_no_fact_that_a_later_one_contradicts(tmp_path: Path) -> None:
    assert any("no kind given for web, code: assuming text" in note for note in imported(tmp_path, RUNS).notes)
    (tmp_path / "d.toml").write_text('code = { kind = "code", unique_tokens = "1B" }\n')
    imported(tmp_path, RUNS, domains=tmp_path / "d.toml")
    assert open_study(tmp_path / "study").settings.domains["code"].kind.value == "code"


@pytest.mark.parametrize("unit", ["accuracy", "hs=accuracy"])
def test_another_unit_needs_replace_and_all_values_again(tmp_path: Path, unit: str) -> None:
    imported(tmp_path, RUNS)
    before = snapshot(tmp_path / "study")
    with pytest.raises(InputError, match=r"bits/byte.* give --replace"):
        imported(tmp_path, RUNS, unit=unit)
    with pytest.raises(InputError, match=r"hs' would be in accuracy, .* does not have again: run 'b'; give all"):
        imported(tmp_path, RUNS.split("\nb,")[0] + "\n", unit=unit, replace=True)
    assert snapshot(tmp_path / "study") == before
    assert "1 value was replaced: task 'hs', unit: bits/byte, now accuracy" in str(
        imported(tmp_path, RUNS, unit=unit, replace=True)
    )
    assert open_study(tmp_path / "study").units["hs"] == "accuracy"


def test_all_contradictions_are_in_one_message(tmp_path: Path) -> None:
    imported(tmp_path, RUNS)
    with pytest.raises(
        InputError, match=r"2 values contradict .* run 'a', task 'hs': .* run 'b', task 'hs': 0.915, now 0.8"
    ):
        imported(tmp_path, RUNS.replace("0.912", "0.9").replace("0.915", "0.8"))


def test_what_a_later_table_leaves_open_stays_as_it_was(tmp_path: Path) -> None:
    imported(tmp_path, RUNS.replace("metric:hs", "lr_end:init,unique:web,metric:hs").replace(",0.91", ",0.1,5e8,0.91"))
    imported(tmp_path, RUNS.replace("metric:hs", "metric:he"))
    table = open_study(tmp_path / "study").table().sort("run")
    assert (table["lr_end:init"].to_list(), table["unique:web"].to_list()) == ([0.1, 0.1], [5e8, 5e8])
    assert (table["metric:hs"].to_list(), table["metric:he"].to_list()) == ([0.912, 0.915],) * 2


def test_a_later_checkpoint_must_agree_with_the_run(tmp_path: Path) -> None:
    imported(tmp_path, RUNS)
    text = RUNS.replace("params", "params,progress").replace("a,60000000", "a,60000000,0.5").split("\nb,")[0] + "\n"
    with pytest.raises(InputError, match=r"run 'a' has 2,100,000,000 tokens at progress 0.5 and 1,000,000,000 at 1"):
        imported(tmp_path, text.replace(",900000000", ",2000000000"))
    assert len(imported(tmp_path, text.replace(",900000000", ",400000000")).records) == 1
    assert open_study(tmp_path / "study").table().height == 3


def test_a_new_phase_is_added_where_it_belongs(tmp_path: Path) -> None:
    both = {"run": ["a"], "params": [6e7], "tokens:init:web": [8e8], "tokens:cooldown:web": [2e8], "metric:hs": [1.0]}
    import_runs(tmp_path / "study", pl.DataFrame(both), unit="bits/byte")
    more = pl.DataFrame({**both, "run": ["b"], "tokens:continue:web": [1e9]})
    found = import_runs(tmp_path / "study", more, unit="bits/byte").imported
    assert [(p.name, p.share) for p in open_study(tmp_path / "study").settings.phases] == [
        ("init", 0.6),
        ("continue", 0.25),
        ("cooldown", 0.15),
    ]
    assert (
        "phase continue is new and was added to [[phases]] of study.toml; check the shares and lr_end there"
        in found.notes
    )


def test_shares_and_ends_of_phases_are_rounded_and_those_of_most_runs(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "run": ["a", "b", "c"],
            "params": [6e7] * 3,
            "tokens:init:web": [800000001.0, 8e8, 8e8],
            "tokens:cooldown:web": [2e8] * 3,
            "lr_end:cooldown": [0.1, 0.1, 0.5],
            "metric:hs": [1.0, 1.1, 1.2],
        }
    )
    study = import_runs(tmp_path / "study", rows, unit="bits/byte")
    assert [(p.share, p.lr_end) for p in study.settings.phases] == [(0.8, 1.0), (0.2, 0.1)]
    assert "no lr_end given" not in str(study.imported)
    assert "no lr_end given for cooldown: assuming" in str(
        import_runs(tmp_path / "other", rows.drop("lr_end:cooldown"), unit="bits/byte").imported
    )


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    preview = preview_import(tmp_path / "study", tmp_path / "runs.csv", unit="bits/byte")
    assert preview.page().answer == "2 rows of 2 runs; a dry run: nothing was written"
    assert not (tmp_path / "study").exists()
    imported(tmp_path, RUNS)
    before = snapshot(tmp_path / "study")
    (tmp_path / "runs.csv").write_text(RUNS.replace("0.912", "0.9"))
    preview_import(tmp_path / "study", tmp_path / "runs.csv", replace=True)
    assert snapshot(tmp_path / "study") == before


def test_a_study_that_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    table = "run,params,tokens:init:web,metric:hs\na,1000000,1000000,0.9\n"
    (tmp_path / "runs.csv").write_text(table)
    import_runs(tmp_path / "S", tmp_path / "runs.csv", unit="bits/byte")
    path = tmp_path / "S" / "study.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (tmp_path / "more.csv").write_text(table.replace("metric:hs", "metric:arc").replace("a,", "b,", 1))
    study = import_runs(tmp_path / "S", tmp_path / "more.csv", unit="bits/byte")
    assert set(study.settings.tasks) == {"hs", "arc"}


@pytest.mark.parametrize("option", ["table", "domains", "mapping", "results"])
def test_a_name_too_long_for_a_file_is_one_sentence(option: str, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    long = tmp_path / ("9" * 300)
    given: dict[str, Any] = {"unit": "bits/byte", option: [long] if option == "results" else long}
    with pytest.raises(InputError, match=r"9{255}"):
        import_runs(tmp_path / "study", **{"table": tmp_path / "runs.csv"} | given)
    assert not (tmp_path / "study").exists()


def test_a_join_with_a_file_whose_name_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    (tmp_path / "m.toml").write_text(f'[[join]]\nfile = "{"9" * 300}"\non = "run"\n')
    with pytest.raises(InputError, match="999"):
        import_runs(tmp_path / "study", tmp_path / "runs.csv", unit="bits/byte", mapping=tmp_path / "m.toml")
