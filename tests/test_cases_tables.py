"""Tables, mappings and domain files as public bug reports have them, varied: the right value, or one sentence."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixlaw import Design, InputError, Record, import_runs, open_study
from mixlaw.adapters.importing import Understood

pd: Any = pytest.importorskip("pandas")

HEAD = "run,params,tokens:init:web,tokens:init:code,metric:hs\n"
RUNS = HEAD + "a,60000000,900000000,100000000,0.912\nb,60000000,700000000,300000000,0.915\n"
#: As sheets write it where numbers have commas.
SHEET = RUNS.replace(",", ";").replace(".", ",")
LINES = [
    {"run": "a", "params": 60000000, "tokens:init:web": 9e8, "tokens:init:code": 1e8, "metric:hs": 0.912},
    {"run": "b", "params": 60000000, "tokens:init:web": 7e8, "tokens:init:code": 3e8, "metric:hs": 0.915},
]


def written(folder: Path, **files: str | bytes) -> Path:
    """Files by name, an underscore for the dot before the ending; returns the folder."""
    for name, content in files.items():
        path = folder / ".".join(name.rsplit("_", 1))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def imported(folder: Path, table: Any, **options: Any) -> Understood:
    """What an import into a new study understood; a table may be the text of a CSV."""
    if isinstance(table, str) and "\n" in table:
        table = written(folder, runs_csv=table) / "runs.csv"
    options = {"unit": "bits/byte"} | options
    return import_runs(folder / "study", table, **options).imported


def names(understood: Understood) -> list[str]:
    return [record.run for record in understood.records]


def drawn(record: Record) -> dict[str, float]:
    return {f"{phase}:{domain}": n for phase, by in record.tokens.items() for domain, n in by.items()}


# Names that look like numbers


@pytest.mark.parametrize(
    "runs", [("001", "010"), ("1e5", "12e45"), ("1.1", "1.10"), ("007", "7"), ("12e4567", "12e4568"), ("True", "-1")]
)
@pytest.mark.parametrize("quoted", [False, True], ids=["bare", "quoted"])
def test_names_of_runs_stay_as_they_are_written(tmp_path: Path, runs: tuple[str, str], quoted: bool) -> None:
    a, b = (f'"{name}"' if quoted else name for name in runs)
    text = RUNS.replace("\na,", f"\n{a},").replace("\nb,", f"\n{b},")
    assert names(imported(tmp_path, text)) == list(runs)
    lines = "\n".join(json.dumps(line | {"run": name}) for line, name in zip(LINES, runs, strict=True))
    assert names(imported(tmp_path / "x", written(tmp_path, runs_jsonl=lines) / "runs.jsonl")) == list(runs)


def test_numbers_as_names_in_data_frames_have_no_point_that_pandas_added(tmp_path: Path) -> None:
    frame = pd.DataFrame(LINES).assign(run=[7, 8])
    assert names(imported(tmp_path / "a", frame)) == ["7", "8"]
    assert names(imported(tmp_path / "b", frame.assign(run=[7.0, 8.0]))) == ["7", "8"]
    assert names(imported(tmp_path / "c", frame.assign(run=[1.5, 2.0]))) == ["1.5", "2.0"]
    assert names(imported(tmp_path / "d", frame.set_index("run"))) == ["7", "8"]


MIX = 'run = "id"\nparams = 6e7\ntokens = 1e9\nphase = [{ name = "init", shares = { "w_*" = "*" } }]\n'
JOIN = 'join = [{ file = "loss.csv", on = "id" }]\ntasks = { loss = "nats/token" }\n'


@pytest.mark.parametrize("keys", [("001", "002"), ("1e5", "2e5"), ("1.10", "1.1"), ("a", "b")])
def test_tables_join_by_names_as_they_are_written(tmp_path: Path, keys: tuple[str, str]) -> None:
    a, b = keys
    loss = f"id,loss\n{b},2.5\n{a},2.4\nz,9\n"
    written(tmp_path, mix_csv=f"id,w_web,w_code\n{a},0.7,0.3\n{b},0.6,0.4\n", loss_csv=loss, map_toml=JOIN + MIX)
    found = imported(tmp_path, tmp_path / "mix.csv", mapping=tmp_path / "map.toml")
    assert [(r.run, r.values["loss"].value) for r in found.records] == [(a, 2.4), (b, 2.5)]


@pytest.mark.parametrize("theirs", ["9.9", "3.2", "n/a"])
def test_a_join_refuses_two_columns_of_one_name_that_differ(tmp_path: Path, theirs: str) -> None:
    written(tmp_path, mix_csv="id,w_web,w_code,loss\na,0.7,0.3,3.1\nb,0.6,0.4,\n", map_toml=JOIN + MIX)
    written(tmp_path, loss_csv=f"id,loss\na,{theirs}\nb,2.5\n")
    with pytest.raises(InputError, match=f"row 1, column 'loss': '3.1' in mix but '{theirs}' in loss; correct one, or"):
        imported(tmp_path, tmp_path / "mix.csv", mapping=tmp_path / "map.toml")
    written(tmp_path, loss_csv="id,loss\na,3.10\nb,2.5\n")  # the same number, and a cell that only one of them has
    found = imported(tmp_path, tmp_path / "mix.csv", mapping=tmp_path / "map.toml")
    assert [r.values["loss"].value for r in found.records] == [3.1, 2.5]


# Names of files and columns


@pytest.mark.parametrize("name", ["runs[12].csv", "runs*.csv", "run?.csv", "sweep [lr=1e-3]/runs.csv"])
def test_a_path_is_one_file_whatever_characters_it_has(tmp_path: Path, name: str) -> None:
    written(tmp_path, runs1_csv=RUNS.replace("a,", "x,"), runs2_csv=RUNS.replace("a,", "y,"))
    for path in (tmp_path / name, (tmp_path / name).with_suffix(".parquet")):
        path.parent.mkdir(exist_ok=True)
        frame = pl.DataFrame(LINES)
        (frame.write_csv if path.suffix == ".csv" else frame.write_parquet)(path.open("wb"))
        assert names(imported(tmp_path / f"{path.name}.study", path)) == ["a", "b"]


def test_endings_are_read_in_capitals_packed_and_with_tabs(tmp_path: Path) -> None:
    packed = gzip.compress(RUNS.encode())
    written(tmp_path, A_CSV=RUNS, c_tsv=RUNS.replace(",", "\t"), d_csv=RUNS.replace(",", " , "))
    (tmp_path / "b.csv.gz").write_bytes(packed)
    for name in ("A.CSV", "b.csv.gz", "c.tsv", "d.csv"):
        found = imported(tmp_path / f"{name}.study", tmp_path / name)
        assert (names(found), found.tasks) == (["a", "b"], {"hs": "bits/byte"})
    (tmp_path / "b.csv.gz").write_bytes(packed[:40])
    with pytest.raises(InputError, match=r"b.csv.gz cannot be read"):
        imported(tmp_path, tmp_path / "b.csv.gz")


@pytest.mark.parametrize("domain", ['code "x"', '"', "a, b", "Größe (new)"])
def test_a_column_is_called_what_its_header_says(tmp_path: Path, domain: str) -> None:
    quoted = '"tokens:init:' + domain.replace('"', '""') + '"'
    kinds = f"[domains]\n'{domain}' = {{ kind = \"code\", unique_tokens = 5 }}\n"
    domains = written(tmp_path, kinds_toml=kinds) / "kinds.toml"
    found = imported(tmp_path, RUNS.replace("tokens:init:code", quoted), domains=domains)
    assert found.domains == ("web", domain)
    assert "for web:" in found.notes[-1]


def test_a_run_of_a_chart_may_have_quotes(tmp_path: Path) -> None:
    head = ",".join(f'"mix ""a"" - eval/loss{end}"' for end in ("", "__MIN", "__MAX"))
    written(tmp_path, chart_csv=f"Step,{head}\n1000,2.6,2.6,2.6\n2000,2.2,2.2,2.2\n")
    written(tmp_path, runs_csv='Name,State,size,w_web,w_code\n"mix ""a""",finished,60000000,0.7,0.3\n')
    mapping = 'join = [{ file = "runs.csv", on = "run" }]\nparams = "size"\ntokens = { column = "Step", scale = 1e6 }\n'
    mapping += 'progress = { column = "Step", over = 2000 }\ntasks = { "eval/loss" = "nats/token" }\n'
    written(tmp_path, map_toml=mapping + '[[phase]]\nname = "init"\nshares = { "w_*" = "*" }\n')
    found = imported(tmp_path, tmp_path / "chart.csv", mapping=tmp_path / "map.toml")
    assert [(r.run, r.values["eval/loss"].value) for r in found.records] == [('mix "a"', 2.6), ('mix "a"', 2.2)]


# Cells


@pytest.mark.parametrize("word", ["NaN", "NA", "n/a", "null", "None", "-", "nan", "#N/A", "<NA>", " "])
def test_words_for_nothing_are_empty_and_counted(tmp_path: Path, word: str) -> None:
    found = imported(tmp_path, RUNS.replace("100000000,0.912", f"{word},{word}"))
    assert drawn(found.records[0]) == {"init:web": 9e8}
    assert (found.records[0].values, found.empty) == ({}, 1)
    said = [note for note in found.notes if "NaN, NA or the like" in note]
    assert [note[:2] for note in said] == ([] if word == " " else ["2 "])


def test_an_infinite_loss_diverged_and_no_other_number_may_be_infinite(tmp_path: Path) -> None:
    for number, word in enumerate(("Infinity", "inf", "+Inf")):
        found = imported(tmp_path / str(number), written(tmp_path, r_csv=RUNS.replace("0.912", word)) / "r.csv")
        assert found.records[0].values == {}
        assert "1 losses are infinite, so the runs diverged; left empty: row 1 metric:hs" in found.warnings
    frame = pl.DataFrame(LINES).with_columns(pl.Series("metric:hs", [math.inf, math.nan]))
    assert [r.values for r in imported(tmp_path / "frame", frame).records] == [{}, {}]
    for old, column in (("900000000", "tokens:init:web"), ("60000000", "params")):
        with pytest.raises(InputError, match=f"row 1, (row 2, )?column '{column}': Infinity must be between"):
            imported(tmp_path, RUNS.replace(old, "Infinity"))
    with pytest.raises(InputError, match="row 1, column 'metric:hs': inf must be finite"):
        imported(tmp_path, RUNS.replace("0.912", "inf"), unit="accuracy")


@pytest.mark.parametrize("end", ["\n", "\n\n", ",,,,\n", " , ,\n,,,,\n", ""])
def test_empty_rows_are_left_out(tmp_path: Path, end: str) -> None:
    found = imported(tmp_path, RUNS + end)
    assert names(found) == ["a", "b"]
    assert any("empty row" in note for note in found.notes) == bool(end)


def test_a_sheet_may_have_semicolons_decimal_commas_and_percentages(tmp_path: Path) -> None:
    plain = imported(tmp_path / "plain", written(tmp_path, p_csv=RUNS) / "p.csv")
    for name, text in (("s", SHEET), ("t", SHEET.replace("0,912", "91,2%")), ("u", RUNS.replace("0.912", "91.2 %"))):
        found = imported(tmp_path / name, written(tmp_path, **{f"{name}_csv": text}) / f"{name}.csv")
        assert (found.tokens, found.params) == (plain.tokens, plain.params)
        values = [open_study(tmp_path / which / "study").table()["metric:hs"].to_list() for which in ("plain", name)]
        assert values[0] == pytest.approx(values[1])


def test_all_bad_cells_are_in_one_message(tmp_path: Path) -> None:
    bad = HEAD + "".join(f"r{i},60M,9e8,many,{-i}\n" for i in range(1, 9)) + ",0,1e8,50%,0.9\n"
    with pytest.raises(InputError) as error:
        imported(tmp_path, bad)
    text = str(error.value)
    assert text.startswith("19 cells are wrong: row 9, column 'params': 0 must be between 1 and")
    assert "; row 1, row 2, row 3 and 5 more, column 'tokens:init:code': 'many' is not a number; row " in text
    assert text.count("; row ") == 9
    assert "; and 2 more; correct the cells or leave them empty" in text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("60000000", "1.5", "column 'params': 1.5 must be a whole number"),
        ("60000000", "1e30", "column 'params': 1e30 must be between 1 and"),
        ("60000000", "60,000,000", "14 cells|line 2: 7 cells, but the header has 5"),
        ("60000000", '"60,000,000"', r"'60,000,000' is not a number \(write 60000000\)"),
        ("0.912", '"0,912"', r"'0,912' is not a number \(write a point, not a comma\)"),
        ("0.912", "true", "'true' is not a number"),
        ("60000000", "91.2%", r"'91.2%' is not a number \(give a count, not a percentage\)"),
        ("0.912", "1B", "'1B' is a size, not a number"),
        ("0.912", "-0.5", "-0.5 in bits/byte must be above 0"),
        ("900000000", "0.9", "5000000 params|tokens in all for 60,000,000 params|give absolute token counts"),
    ],
)
def test_numbers_are_neither_rounded_nor_clipped_into_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = RUNS.replace(old, new)
    if old == "900000000":
        text = text.replace("100000000", "0.1")
    with pytest.raises(InputError, match=said):
        imported(tmp_path, text)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("value", ["-1", "-0.2", "1.01", "52.5"])
@pytest.mark.parametrize("unit", ["accuracy", "pass@1", "win-rate", "choice-prob"])
def test_a_score_outside_0_to_1_is_refused_on_import(tmp_path: Path, value: str, unit: str) -> None:
    with pytest.raises(InputError, match=rf"row 1, column 'metric:hs': {value} in {unit} must be between 0 and 1; fix"):
        imported(tmp_path, RUNS.replace("0.912", value), unit=unit)


def test_seeds_and_booleans_are_whole_numbers_or_refused(tmp_path: Path) -> None:
    text = RUNS.replace("\n", ",seed\n", 1).replace("0.912\n", "0.912,SEED\n").replace("0.915\n", "0.915,\n")
    assert imported(tmp_path / "x", pl.DataFrame(LINES).with_columns(seed=7)).records[0].recipe.seed == 7
    for seed in ("0.7", "true", "1e17", "-1"):
        with pytest.raises(InputError, match=r"row 1, column 'seed'"):
            imported(tmp_path, text.replace("SEED", seed))
    with pytest.raises(InputError, match=r"row 1, column 'metric:hs': 'true' is not a number"):
        imported(tmp_path, pl.DataFrame(LINES).with_columns(pl.Series("metric:hs", [True, False])))


# Lists, mappings and bytes in cells; lines that are no objects


@pytest.mark.parametrize("column", ["versions", "tokenizer", "note", "run"])
@pytest.mark.parametrize("cells", [[["a", "b"], ["a"]], [{"x": 1}, {"x": 2}], [["é"], []]])
def test_lists_and_mappings_in_cells_are_text(tmp_path: Path, column: str, cells: list[Any]) -> None:
    rows = [line | {column: cell} for line, cell in zip(LINES, cells, strict=True)]
    lines = written(tmp_path, r_jsonl="\n".join(map(json.dumps, rows))) / "r.jsonl"
    for number, table in enumerate((lines, pl.DataFrame(rows), pd.DataFrame(rows))):
        found = imported(tmp_path / str(number), table)
        assert [r.values["hs"].value for r in found.records] == [0.912, 0.915]
        assert any(f"{column} differs" in w for w in found.warnings) == (column in ("versions", "tokenizer"))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    frame = pl.DataFrame(LINES).with_columns(tokenizer=pl.Series([b"\xff", b"a"]))
    assert any("tokenizer differs" in warning for warning in imported(tmp_path, frame).warnings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"run": "a"\n', "line 1 is not JSON"),
        ('\n{"run": "a"}\n[1]\n', "line 3 holds no object"),
        ('{"run": "a", "run": "b"}\n', "line 1 is not JSON: key 'run' occurs twice"),
        ("[" * 100_000, "line 1 is nested too deeply|line 1 is not JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        imported(tmp_path, written(tmp_path, r_jsonl=text) / "r.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            SHEET.replace("0,91", "1,91"),
            r"separated by semicolons, so '1,912' may be a fraction; write it with a point",
        ),
        (RUNS.replace(",", "\t"), "separated by tabs; name it .tsv"),
        (RUNS + "c,1,2,3,4,5\n", "line 4: 6 cells, but the header has 5"),
        (RUNS + "c,60000000,9000", "line 4: the file ends in the middle of a row"),
        (RUNS + 'c,"60000000,9\n', "line 4: unexpected end of data|line 5: unexpected"),
        (RUNS.replace("params", "run"), "column 'run' occurs twice"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_no_csv_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        imported(tmp_path, written(tmp_path, r_csv=text) / "r.csv")


@pytest.mark.parametrize("text", [RUNS.replace("\n", "\r\n"), RUNS.replace("\n", "\r"), "sep=,\n" + RUNS])
def test_line_ends_of_other_systems_are_read(tmp_path: Path, text: str) -> None:
    assert names(imported(tmp_path, written(tmp_path, r_csv=text) / "r.csv")) == ["a", "b"]


# The file of domains


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('web = "text"\n', "web = 'text' is no table"),
        ('domains = ["web"]\n', "domains is no table"),
        ('web = { kind = "txt" }\n', "web.kind = 'txt': Input should be"),
        ('web = { unique_tokens = "many" }\n', "web.unique_tokens = 'many': tokens are a number"),
        ('web = { knd = "text" }\n', "web.knd = 'text': Extra inputs are not permitted"),
        ("web = \n", "cannot be read: Invalid value"),
    ],
)
def test_a_file_of_domains_says_what_is_wrong_with_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        imported(tmp_path, RUNS, domains=written(tmp_path, d_toml=text) / "d.toml")
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        imported(tmp_path, RUNS, domains=tmp_path / "nowhere.toml")
    assert not (tmp_path / "study").exists()


# The order of phases

PHASED = {
    "run": ["a", "b", "c"],
    "params": [60_000_000] * 3,
    "tokens:init:web": [8e8, 0.0, 4e8],
    "tokens:cooldown:web": [2e8, 2e8, 0.0],
    "tokens:init:code": [0.0, 8e8, 4e8],
    "tokens:cooldown:code": [0.0, 0.0, 2e8],
    "metric:hs": [0.91, 0.92, 0.93],
}


@pytest.mark.parametrize(
    "order", [sorted, lambda names: sorted(names, key=lambda n: n[::-1]), lambda names: names[::-1]]
)
@pytest.mark.parametrize("first", ["init", "pretraining", "stage1", "phase-1"])
def test_phases_are_in_the_order_of_training_however_columns_are_sorted(tmp_path: Path, order: Any, first: str) -> None:
    last = {"stage1": "stage2", "phase-1": "phase-2"}.get(first, "cooldown")
    frame = pl.DataFrame(PHASED).rename(
        {name: name.replace("init", first).replace("cooldown", last) for name in PHASED if ":" in name}
    )
    found = imported(tmp_path, frame.select(order(frame.columns)))
    assert found.phases == (first, last)
    assert {tuple(p.name for p in record.recipe.phases) for record in found.records} == {(first, last)}
    study = open_study(tmp_path / "study")
    assert [phase.name for phase in study.settings.phases] == [first, last]
    assert study.design().phases == (first, last)  # type: ignore[union-attr]


def test_checkpoints_tell_the_order_of_phases_whose_names_do_not(tmp_path: Path) -> None:
    rows = [{"run": "a", "progress": 0.5, "tokens:y:web": 5e8}, {"run": "a", "tokens:y:web": 8e8, "tokens:x:web": 2e8}]
    table = pl.DataFrame(
        [{"params": 6e7, "tokens:x:web": 0.0, "progress": 1.0, "metric:hs": 1.0} | row for row in rows]
    )
    found = imported(tmp_path, table)
    assert found.phases == ("y", "x")
    assert any(note.startswith("phases are in the order y, x, by names and checkpoints") for note in found.notes)


def test_a_study_and_a_mapping_say_the_order_of_phases(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    phases = '[[phases]]\nname = "cooldown"\nshare = 0.5\n[[phases]]\nname = "init"\nshare = 0.5\n'
    (tmp_path / "study" / "study.toml").write_text("version = 1\n" + phases)
    assert imported(tmp_path, pl.DataFrame(PHASED)).phases == ("cooldown", "init")
    assert open_study(tmp_path / "study").design().phases == ("cooldown", "init")  # type: ignore[union-attr]
    mapping = "".join(
        f'[[phase]]\nname = "{name}"\ndomain_tokens = {{ "tokens:{name}:*" = "*" }}\n' for name in ("cooldown", "init")
    )
    written(tmp_path, m_toml=mapping + '[tasks]\n"metric:*" = "bits/byte"\n')
    assert imported(tmp_path / "x", pl.DataFrame(PHASED), mapping=tmp_path / "m.toml").phases == ("cooldown", "init")


def test_recipes_in_python_decay_in_the_last_phase_of_training_however_their_columns_are_sorted() -> None:
    design = Design.from_table(pl.DataFrame(PHASED).select(sorted(PHASED)), {})
    assert design.phases == ("init", "cooldown")
    assert design.lr_end[0].tolist() == [1.0, 0.0]


def test_a_message_that_lists_columns_has_one_line_whatever_they_are_called(tmp_path: Path) -> None:
    """Found by fuzzing: a quote that is never closed makes a column of two lines."""
    table = tmp_path / "h.csv"
    table.write_bytes(b'"run,params,web\nm1",60M,1\nm2,150M,1\n')
    with pytest.raises(InputError) as refused:
        import_runs(tmp_path / "S", table, unit="bits/byte")
    assert "\n" not in str(refused.value)
    assert "run,params,web m1" in str(refused.value)
