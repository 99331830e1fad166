"""One rule for the text of every file: UTF-8 with or without a byte-order mark, anything else refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlaw import InputError, import_runs, open_study
from mixlaw.export.write import export
from mixlaw.runner.corpora.sources.registry import read
from mixlaw.settings import Settings
from mixlaw.settings.recipes import read_recipe
from test_cases_tables import LINES, RUNS, imported, written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_mappings_and_domains_are_utf_8_with_or_without_a_mark(tmp_path: Path, encoding: str) -> None:
    runs = RUNS.replace("code", "Bücher")
    domains = '[domains]\n"Bücher" = { kind = "math" }\n'
    lines = "\n".join(json.dumps(line, ensure_ascii=False).replace("code", "Bücher") for line in LINES)
    mapping = 'params = "params"\n[[phase]]\nname = "init"\ndomain_tokens = { "tokens:init:*" = "*" }\n'
    mapping += '[tasks]\n"metric:*" = { name = "*", unit = "bits/byte" }\n'
    for name, text in {
        "r.csv": runs,
        "d.toml": domains,
        "m.toml": mapping,
        "r.jsonl": lines,
        "r.ndjson": lines,
    }.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
    for name in ("r.csv", "r.jsonl", "r.ndjson"):
        found = imported(tmp_path / name[2:], tmp_path / name, domains=tmp_path / "d.toml", mapping=tmp_path / "m.toml")
        assert found.domains == ("web", "Bücher")
        assert "kind given for web:" in found.notes[-1]  # the other one's is given


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "d.toml", "m.toml"])
def test_latin_1_is_refused_with_the_byte_and_its_line(tmp_path: Path, name: str) -> None:
    text = RUNS.replace("code", "Bücher") if name == "r.csv" else '# ok\nBücher = "x"\n'
    written(tmp_path, r_csv=RUNS, d_toml="", m_toml="")
    asked: dict[str, Any] = {"d.toml": {"domains": tmp_path / name}, "m.toml": {"mapping": tmp_path / name}}
    table = tmp_path / (name if name.startswith("r.") else "r.csv")
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    line = 1 if name == "r.csv" else 2
    with pytest.raises(InputError, match=rf"{name} is not UTF-8: byte 0xfc in line {line}; save it as UTF-8"):
        imported(tmp_path, table, **asked.get(name, {}))
    assert not (tmp_path / "study").exists()


def _given(what: str) -> Callable[[Path, Path], Any]:
    """A reader of a file in a folder that has runs.csv."""

    def runs(folder: Path, **options: Any) -> Any:
        return import_runs(folder / "study", options.pop("table", folder / "runs.csv"), unit="bits/byte", **options)

    def exported(folder: Path, file: Path) -> Any:
        return export(runs(folder), "a", ["mosaic"], folder / "out", file)

    readers: dict[str, Callable[[Path, Path], Any]] = {
        "r.csv": lambda folder, file: runs(folder, table=file),
        "r.jsonl": lambda folder, file: runs(folder, table=file),
        "domains.toml": lambda folder, file: runs(folder, domains=file),
        "mapping.toml": lambda folder, file: runs(folder, mapping=file),
        "result.json": lambda folder, file: runs(folder, results=[file]),
        "study.toml": lambda folder, file: open_study(folder),
        "recipe.toml": lambda folder, file: read_recipe(file, Settings()),
        "recipe.json": lambda folder, file: read_recipe(file, Settings()),
        "paths.toml": exported,
        "corpus.jsonl": lambda folder, file: list(read("corpus.jsonl", folder)),
        "corpus.json": lambda folder, file: list(read("corpus.json", folder)),
        "corpus.txt": lambda folder, file: list(read("corpus.txt", folder)),
    }
    return readers[what]


TABLES = ["r.csv", "r.jsonl", "domains.toml", "mapping.toml", "result.json", "paths.toml"]
SETTINGS = ["study.toml", "recipe.toml", "recipe.json"]
CORPORA = ["corpus.jsonl", "corpus.json", "corpus.txt"]


@pytest.mark.parametrize("name", [*TABLES, *SETTINGS, *CORPORA])
@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-32", "UTF-32")])
def test_every_reader_refuses_utf_16_by_name(tmp_path: Path, name: str, encoding: str, said: str) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    text = '{"text": "a"}\n' if name.endswith(("json", "jsonl")) else "a = 1\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(InputError) as error:
        _given(name)(tmp_path, tmp_path / name)
    assert f"is {said}, not UTF-8 text: convert it (iconv -f {said} -t UTF-8)" in str(error.value)
    assert name in str(error.value)
