"""Doors that a hunt for silent wrong numbers found open: columns, names, sizes and units that are nearly right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixlaw import InputError, import_runs
from mixlaw.adapters.importing import Understood
from mixlaw.runner.corpora.sources.registry import notes, read

HEAD = "run,params,tokens:init:web,tokens:init:code,metric:hs"
ROWS = ["a,60M,9e8,1e8,0.9", "b,60M,8e8,2e8,0.91"]
MAPPING = """
run = "run"
params = "params"
{top}
[[phase]]
name = "init"
share = 0.8
shares = {{ web = "web", code = "code" }}
[[phase]]
name = "cool"
share = 0.2
shares = {{ web = "web", code = "code" }}
[tasks]
loss = "nats/token"
"""


def imported(folder: Path, *lines: str, mapping: str | None = None, **options: Any) -> Understood:
    """What was understood of the lines of a CSV."""
    (folder / "runs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if mapping is not None:
        (folder / "mapping.toml").write_text(mapping)
        return import_runs(folder / "study", folder / "runs.csv", mapping=folder / "mapping.toml", **options).imported
    return import_runs(folder / "study", folder / "runs.csv", **{"unit": "bits/byte"} | options).imported


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("tokens_init_math", "tokens:init:math"),
        ("tokens.init.math", "tokens:init:math"),
        ("tokens/init/math", "tokens:init:math"),
        ("tokens;init;math", "tokens:init:math"),
        ("Tokens init math", "tokens:init:math"),
        ("tokens_cool_code", "tokens:cool:code"),
        ("metric.arc", "metric:arc"),
        ("metric_arc", "metric:arc"),
        ("unique_code", "unique:code"),
        ("lr_end_init", "lr_end:init"),
        ("lr_end", "lr_end:init"),
        ("noise.hs", "noise:hs"),
    ],
)
def test_other_separators_than_colons_are_refused_by_name(tmp_path: Path, column: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"'{column}' is not read; did you mean '{meant}'"):
        imported(tmp_path, f"{HEAD},{column}", *(f"{row},1" for row in ROWS))


@pytest.mark.parametrize("column", ["tokens_seen", "tokens/s", "tokens_total", "decay", "count_of_gpus", "notes"])
def test_columns_that_only_begin_like_others_are_ignored(tmp_path: Path, column: str) -> None:
    assert imported(tmp_path, f"{HEAD},{column}", *(f"{row},1" for row in ROWS)).ignored == (column,)


@pytest.mark.parametrize("column", ["tokens: init:code", "tokens:init: code", "tokens :init:code", "tokens:init :code"])
def test_blanks_around_the_parts_of_a_column_make_no_other_phase(tmp_path: Path, column: str) -> None:
    understood = imported(tmp_path, HEAD.replace("tokens:init:code", column), *ROWS)
    assert (understood.phases, understood.domains) == (("init",), ("web", "code"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("Code", "code"), ("caf\u00e9", "cafe\u0301"), ("we\u200bb", "web"), ("a_b", "a-b"), ("A B", "a.b")],
)
def test_names_that_the_eye_cannot_tell_apart_are_two_and_warned_of(tmp_path: Path, one: str, other: str) -> None:
    head = f"run,params,tokens:init:{one},tokens:init:{other},metric:hs"
    understood = imported(tmp_path, head, *ROWS)
    assert understood.domains == (one, other)
    assert any("differ in capitals, blanks or marks alone" in warning for warning in understood.warnings)


def test_a_task_or_run_that_the_study_has_in_other_letters_is_warned_of(tmp_path: Path) -> None:
    imported(tmp_path, HEAD, *ROWS)
    warnings = imported(tmp_path, HEAD.replace("hs", "HS"), ROWS[0].replace("a,", "A,", 1)).warnings
    assert [warning.split(" differ")[0] for warning in warnings] == ["tasks 'hs' and 'HS'", "runs 'A' and 'a'"]


def test_c_and_c_plus_plus_are_no_twins(tmp_path: Path) -> None:
    head = "run,params,tokens:init:c,tokens:init:c++,tokens:init:c#,metric:hs"
    assert not imported(tmp_path, head, "a,60M,9e8,1e8,1e8,0.9").warnings


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("c,60M,9e8,0.1,0.9", "row 3, column 'tokens:init:code': 0.1 of a token; give absolute token counts"),
        ("c,60,9e8,1e8,0.9", "row 3: 1,000,000,000 tokens for 60 params; give absolute parameter counts such as 60M"),
        ("c,0.06B,0.7,0.3,0.9", "2 cells are wrong"),
    ],
)
def test_shares_among_tokens_and_sizes_in_millions_are_refused(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        imported(tmp_path, HEAD, *ROWS, row)


@pytest.mark.parametrize(("unit", "refused"), [("nats/token", True), ("accuracy", True), ("bits/byte", False)])
def test_a_unit_that_contradicts_every_task_of_the_study_is_refused(tmp_path: Path, unit: str, refused: bool) -> None:
    imported(tmp_path, HEAD, *ROWS)
    if refused:
        with pytest.raises(InputError, match=f"--unit {unit}, but the study .* in bits/byte"):
            imported(tmp_path, HEAD, "c,60M,7e8,3e8,0.6", unit=unit)
    else:
        imported(tmp_path, HEAD, "c,60M,7e8,3e8,0.6", unit=unit)


STEPS = 'tokens = { column = "step", scale = 1e6 }\nprogress = { column = "step", over = "max_steps" }'


def test_checkpoints_of_any_table_have_their_phases_one_after_another(tmp_path: Path) -> None:
    """At step 500 of 1000 nothing was trained in the cooldown of the last fifth; at 900 half of it."""
    lines = [
        "run,params,step,max_steps,web,code,loss",
        *(f"a,60M,{n},1000,0.75,0.25,{loss}" for n, loss in ((500, 3), (900, 2.5), (1000, 2))),
    ]
    records = imported(tmp_path, *lines, mapping=MAPPING.format(top=STEPS)).records
    drawn = {record.progress: record.tokens for record in records}
    assert {at: {phase: sum(by.values()) for phase, by in amounts.items()} for at, amounts in drawn.items()} == {
        0.5: {"init": pytest.approx(5e8)},
        0.9: {"init": pytest.approx(8e8), "cool": pytest.approx(1e8)},
        1.0: {"init": pytest.approx(8e8), "cool": pytest.approx(2e8)},
    }


def test_a_row_without_progress_is_no_finished_run_where_a_mapping_gives_it(tmp_path: Path) -> None:
    lines = ["run,params,step,max_steps,web,code,loss", "a,60M,1000,1000,0.75,0.25,2", "b,60M,1000,,0.75,0.25,2.5"]
    understood = imported(tmp_path, *lines, mapping=MAPPING.format(top=STEPS))
    assert [record.run for record in understood.records] == ["a"]
    assert any(note.startswith("1 rows have no progress and are left out") for note in understood.notes)


def test_empty_progress_beside_others_counts_as_finished_and_is_said(tmp_path: Path) -> None:
    head = HEAD + ",progress"
    understood = imported(tmp_path, head, "a,60M,4.5e8,.5e8,1.9,0.5", "a,60M,9e8,1e8,0.9,")
    assert sorted(record.progress for record in understood.records) == [0.5, 1.0]
    assert "progress of 1 rows is empty and counts as 1, finished: row 2" in understood.notes


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('tokns = "step"', "tokns: is not known; did you mean 'tokens'?"),
        ('join = [{ table = "e.csv", on = "run" }]', "join.0.table: is not known; there are file, on, prefix"),
        ('"a\\nb" = 1', r"'a\nb': is not known; there are file, run"),
        ('seed = { colum = "x" }', "colum: is not known; did you mean 'column'?"),
    ],
)
def test_keys_that_a_mapping_does_not_have_lead_on(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        imported(tmp_path, "run,params,step,max_steps,web,code,loss", mapping=MAPPING.format(top=f"{STEPS}\n{more}"))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.txt",
            '{"text": "one"}\n{"text": "two"}\n',
            "holds JSON lines with a field 'text': let its name end in .jsonl",
        ),
        ("a", '{"id": 1, "text": "one"}\n', "holds JSON lines with a field 'text'"),
        ("a.csv", 'id,"text"\n1,one\n', "is a table with a column 'text': write its rows as .parquet or .jsonl"),
        ("a.TSV", "id\ttext\n1\tone\n", "is a table with a column 'text'"),
    ],
)
def test_rows_under_the_name_of_another_format_are_no_document(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        list(read(name, tmp_path))


@pytest.mark.parametrize("text", ['{"a": 1}', "{text}", "text, and more of it", "[1, 2]"])
def test_other_text_is_a_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert [document.text for document in read("a.txt", tmp_path)] == [text]


@pytest.mark.parametrize("name", ["SHA256SUMS", "md5.txt", "checksums.txt", "a.jsonl.md5", "MD5SUMS", "a.parquet.crc"])
def test_checksums_beside_documents_are_left_out_and_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "d" / name).write_text("0123 a.jsonl\n")
    assert [document.text for document in read("d", tmp_path)] == ["one"]
    assert any(name in note for note in notes("d", tmp_path))


def harness(model: str, task: str, value: Any, **config: Any) -> str:
    return json.dumps(
        {"results": {task: {"acc,none": value}}, "config": {"model_args": f"pretrained={model}", **config}}
    )


def results(folder: Path, name: str, content: str) -> Understood:
    (folder / "r").mkdir()
    (folder / "r" / name).write_text(content)
    head, rows = HEAD.rpartition(",")[0], [row.rpartition(",")[0] for row in ROWS]
    return imported(folder, head, *rows, unit=None, results=[folder / "r"])


def test_results_of_the_first_items_alone_are_warned_of(tmp_path: Path) -> None:
    warnings = results(tmp_path, "r.json", harness("org/a", "arc", 0.5, limit=10)).warnings
    assert "1 result files are of the first items of each task alone (limit): r.json" in warnings


def test_results_are_found_under_a_name_in_capitals(tmp_path: Path) -> None:
    assert results(tmp_path, "R.JSON", harness("org/a", "arc", 0.5)).tasks == {"arc/acc": "accuracy"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.json", harness("a", "arc", "0.5"), "the results have no metric of which the unit is known"),
        ("metrics-all.jsonl", '{"task_name": "arc"}\n', "holds no results of OLMES: line 1 has no key 'task_config'"),
    ],
)
def test_results_without_any_say_so(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        results(tmp_path, name, content)


def test_a_learning_rate_that_a_history_logged_is_not_that_of_the_contract(tmp_path: Path) -> None:
    """0.02 is below every ratio that a run is likely to have, and no cell of it was meant as one."""
    mapping = STEPS.replace("step", "_step", 1).replace('"step"', '"_step"')
    lines = [f"a,{n},{n},60M,1000,0.75,0.25,2.5,0.02" for n in (500, 1000)]
    head = "run,_step,_timestamp,params,max_steps,web,code,loss,lr"
    understood = imported(tmp_path, head, *lines, mapping=MAPPING.format(top=mapping))
    assert [record.recipe.lr for record in understood.records] == [1.0, 1.0]
    assert "logged.lr" in understood.ignored


@pytest.mark.parametrize("size", ["60", "999"])
def test_sizes_in_millions_are_warned_of_also_beside_tokens_in_them(tmp_path: Path, size: str) -> None:
    (warning,) = imported(tmp_path, HEAD, f"a,{size},900,100,0.9").warnings
    assert f"the largest model has {size} params; if these are millions or billions, give absolute counts" in warning


@pytest.mark.parametrize("domains", ["web = { unique_tokens = 900 }", '[domains]\nweb = { unique_tokens = "1K" }'])
def test_unique_tokens_in_millions_or_billions_are_warned_of(tmp_path: Path, domains: str) -> None:
    (tmp_path / "domains.toml").write_text(domains)
    (warning,) = imported(tmp_path, HEAD, *ROWS, domains=tmp_path / "domains.toml").warnings
    assert "run 'a' drew 900,000,000 tokens of 'web', which has" in warning
    (warning,) = imported(tmp_path, HEAD + ",unique:web", *(f"{row},90" for row in ROWS), replace=True).warnings
    assert "'web', which has 90 unique; if these are millions" in warning


@pytest.mark.parametrize(
    "column", ["metric:hs.1", "tokens:init:web.1", "tokens:init:web_duplicated_0", "metric:hs (2)"]
)
def test_a_column_that_was_there_twice_is_warned_of(tmp_path: Path, column: str) -> None:
    found = imported(tmp_path, f"{HEAD},{column}", *(f"{row},0" if "web" in column else f"{row},0.8" for row in ROWS))
    assert any(f"{column.split(':')[-1]!r} is called like a column that was there twice" in w for w in found.warnings)


@pytest.mark.parametrize("name", ["mean", "Total", "Grand total", "average:", "STD"])
def test_a_line_that_sums_up_the_others_is_warned_of(tmp_path: Path, name: str) -> None:
    assert any(
        f"run {name!r} is called like a summary" in warning
        for warning in imported(tmp_path, HEAD, *ROWS, f"{name},60M,8.5e8,1.5e8,0.905").warnings
    )
    assert not imported(tmp_path, HEAD, *ROWS, "meander,60M,8.5e8,1.5e8,0.905").warnings


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("900.000.000", "write 900000000"),
        ("900 000 000", "write 900000000"),
        ("900\u202f000\u202f000", "write 900000000"),
        ("900'000'000", "write 900000000"),
        ("\u22125e8", "write -5e8"),
    ],
)
def test_numbers_as_other_countries_write_them_are_refused_with_how_to(tmp_path: Path, cell: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"is not a number \\({hint}\\)"):
        imported(tmp_path, HEAD, f"a,60M,{cell},1e8,0.9")


@pytest.mark.parametrize("above", ["# sweep of May", "Sweep of May"])
def test_a_title_above_the_header_is_refused_as_such(tmp_path: Path, above: str) -> None:
    with pytest.raises(InputError, match=f"begins with '{above}', which is no header; remove what stands above it"):
        imported(tmp_path, above, HEAD, *ROWS)


def test_a_row_whose_domain_is_empty_is_named(tmp_path: Path) -> None:
    mapping = 'tokens = "1B"\n[[phase]]\nname = "init"\ndomain = "{of}"\n[tasks]\nhs = "bits/byte"\n'
    with pytest.raises(InputError, match="row 2, column 'of': the cell is empty; fill it"):
        imported(tmp_path, "run,params,of,hs", "a,60M,web,0.9", "b,60M,,0.9", mapping=mapping.replace('"1B"', "1e9"))


HISTORY = """
params = 60000000
tokens = { column = "_step", scale = 1e6 }
progress = { column = "_step", over = 1000 }
[[phase]]
name = "init"
domain = "web"
[tasks]
loss = "nats/token"
"""


def test_two_runs_of_one_name_in_a_history_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    rows = [
        f"a,{run},{step},{step},{step + late},{loss}"
        for run, late, loss in (("x", 0, 3), ("y", 1, 2))
        for step in (500, 1000)
    ]
    head = "name,run_id,_step,_runtime,_timestamp,loss"
    found = imported(tmp_path, head, *rows, mapping=HISTORY)
    assert {(r.run, r.progress, r.values["loss"].value) for r in found.records} == {
        ("x", 0.5, 3),
        ("x", 1, 3),
        ("y", 0.5, 2),
        ("y", 1, 2),
    }
    assert any("names of runs repeat: the column 'run_id' names them" in note for note in found.notes)
    again = imported(tmp_path / "study", head, *rows[:2], mapping=HISTORY)  # one run of each name: by its name
    assert {record.run for record in again.records} == {"a"}
    with pytest.raises(InputError, match=r"no row of the history has tokens, a metric and progress \('_step'\)"):
        imported(tmp_path, head, "a,x,,1,1,3", mapping=HISTORY)


def write_results(folder: Path, **dates: str | float) -> None:
    for number, date in enumerate(dates.values()):
        value = {"results": {"arc": {"acc,none": (number + 1) / 10}}, "model_name": "a", "date": date}
        (folder / f"{9 - number}.json").write_text(json.dumps(value))


def test_the_later_of_two_results_counts_also_where_its_date_is_text(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    write_results(tmp_path / "r", one="2025-06-01T00:00:00+00:00", two="2025-07-01T00:00:00+00:00")
    found = imported(tmp_path, HEAD, *ROWS, results=[tmp_path / "r"])
    assert found.records[0].values["arc/acc"].value == 0.2
