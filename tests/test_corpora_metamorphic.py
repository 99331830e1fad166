"""The same documents in other files: whatever names, endings, splits, compression and order, texts are the same."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InputError
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.runner.corpora.sources.registry import partitions, read
from test_corpora_names import TOPICS, both_sides, documents, prepared, write_lines
from test_corpora_pulls import PERSON, pull
from test_corpora_stack_exchange import POSTS, dump

TEXTS = sorted([*documents(TOPICS["web"], 12), "eins\nzwei", "日本 🎉", 'quotes " and \\ and \u2028 line', " indented"])
PACKED = ["", ".gz", *([".zst"] if importlib.util.find_spec("zstandard") else [])]
FORMS = ["jsonl", "JSONL", "ndjson", "json", "Json", "array.json", "pretty.json", "parquet", "PARQUET", "txt", "Md"]

#: Characters that may be part of a file's name, with those that globs, addresses and shells take for something else.
LETTERS = st.sampled_from([*"abCD01 .-_[]{}*?!#%&+=,;@()'\"$^~`|<>\\é日Å", "\u00a0", "🎉"])
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name[0] not in ".~" and name.strip(" "))


def packed(content: bytes, ending: str) -> bytes:
    if ending == ".zst":
        compressed: bytes = importlib.import_module("zstandard").compress(content)
        return compressed
    return gzip.compress(content) if ending == ".gz" else content


def write(folder: Path, name: str, texts: list[str], form: str, ending: str, bom: bool) -> None:
    """Write texts into one file of this form, or a file each where it holds one document."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    kind = form.lower()
    if kind == "parquet":
        pl.DataFrame(rows, schema={"id": pl.Int64, "text": pl.String}).write_parquet(folder / f"{name}.{form}")
        return
    if kind in ("txt", "md"):
        contents = {f"{number}{name}.{form}": text for number, text in enumerate(texts)}
    elif kind == "array.json":
        contents = {f"{name}.{form}": json.dumps(rows, ensure_ascii=False)}
    elif kind == "pretty.json":
        contents = {f"{name}.{form}": "".join(json.dumps(row, indent=2) for row in rows)}
    else:
        contents = {f"{name}.{form}": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)}
    for file, content in contents.items():
        raw = content.encode("utf-8-sig" if bom else "utf-8")
        (folder / f"{file}{ending}").write_bytes(packed(raw, ending))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_names_splits_compression_and_order_of_files_change_no_text(data: st.DataObject) -> None:
    texts = data.draw(st.permutations(TEXTS))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=3)))
    folder = data.draw(NAMES.filter(lambda name: ":" not in name))
    with tempfile.TemporaryDirectory() as root:
        for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(texts)], strict=True)):
            form, ending = data.draw(st.sampled_from(FORMS)), data.draw(st.sampled_from(PACKED))
            deep = Path(root, folder, data.draw(NAMES)) if data.draw(st.booleans()) else Path(root, folder)
            name = f"{number}{data.draw(NAMES)}"
            write(deep, name, texts[begin:end], form, ending, bom=data.draw(st.booleans()))
        found = [document.text for document in read(folder, Path(root))]
        assert sorted(found) == TEXTS
        assert sorted(d.text for p in partitions(str(Path(root, folder)), Path("/")) for d in p.read()) == TEXTS


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_tokens_are_the_same_whatever_the_files_and_the_sides_never_meet(data: st.DataObject) -> None:
    texts = documents(TOPICS["math"], 90)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_lines(root / "plain.jsonl", texts)
        wanted = prepare(root / "wanted", {"math": "plain.jsonl"}, root=root, vocabulary=300, held_out=0.2, processes=0)
        moved = data.draw(st.permutations(texts))
        for number in range(3):
            form, ending = data.draw(st.sampled_from(FORMS)), data.draw(st.sampled_from(PACKED))
            write(root / "corpus", f"{number}{data.draw(NAMES)}", moved[number::3], form, ending, bom=False)
        domain = data.draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True).filter(str.isascii))
        if domain in ("items", "tokenizer"):
            return
        manifest, shards = prepared(root, {domain: "corpus"})
        assert manifest.domains[domain].hash == wanted.domains["math"].hash
        trained, held_out = both_sides(shards, domain)
        assert not trained & held_out


def a_tree(folder: Path) -> None:
    folder.mkdir()
    for number, text in enumerate(documents("x = 1", 5)):
        (folder / f"f{number}.py").write_text(f"def f{number}():\n    return '{text[:40]}'\n")


def notebooks(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        cells = [{"cell_type": "markdown", "source": f"# Title {number}"}, {"cell_type": "code", "source": ["x = 1"]}]
        (folder / f"n{number}.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells, "metadata": {}}))


def pulls(folder: Path) -> None:
    folder.mkdir()
    (folder / "pulls.json").write_text(json.dumps([pull(number, f"Title {number}", user=PERSON) for number in (1, 2)]))


def stack_exchange(folder: Path) -> None:
    dump(folder / "Posts.xml", POSTS)


def repository(folder: Path) -> None:
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(2):
        (folder / f"f{number}.py").write_text(f"x = {number}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", f"Say {number}"], check=True)


def hub_files(folder: Path) -> None:
    write_lines(folder / "train.jsonl", TEXTS)


ODD = [
    "a.b",
    "part[01]",
    "sweep [lr=1e-3]",
    "what? *really*",
    "Ünïcode 日本",
    "C# & D%20E",
    "UPPER.JSON",
    "{a,b}",
    "a'b\"c",
]
READERS: list[tuple[str, Callable[[Path], None]]] = [
    *[("tree", a_tree), ("notebooks", notebooks), ("pulls", pulls), ("stackexchange", stack_exchange)],
    *[("git", repository), ("hf", hub_files)],
]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(("scheme", "make"), READERS, ids=[scheme for scheme, _ in READERS])
def test_every_reader_reads_the_same_from_a_folder_of_any_name(
    scheme: str, make: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    root = tmp_path / "study [a].b #1"
    if scheme == "git" and shutil.which("git") is None:
        pytest.skip("needs git")
    if scheme == "hf":
        pytest.importorskip("datasets", reason="datasets is not installed")
        root = tmp_path / "study {a}.b #1"
    root.mkdir()
    for folder in ("plain", name):
        make(root / folder)
    # Decoys that a glob of the name would find in its place.
    for decoy in ("part0", "part1", "what- really"):
        (root / decoy).mkdir()
    plain = [document.text for document in read(f"{scheme}:plain", root)]
    assert plain
    if scheme == "hf" and set("*?[") & set(name):
        with pytest.raises(InputError, match="takes for a pattern: rename the folder"):
            partitions(f"hf:{quote(name)}", root)
        return
    for place in (name, str(root / name)):
        assert [document.text for document in read(f"{scheme}:{quote(place)}", root)] == plain
