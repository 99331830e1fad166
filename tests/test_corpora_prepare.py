"""Preparing a data folder: counts, no leak, repeatable, safe to kill, and damage is detected."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlaw.demo.prose import documents as read_prose
from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import Manifest, read_manifest
from mixlaw.runner.batches.shards import Shards, open_shards, verify
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.corpora.prepare import BUILDING, prepare
from mixlaw.runner.packages import standard_library

SETTINGS: Any = {"vocabulary": 400, "held_out": 0.1}
DOMAINS = {"prose": "speeches.jsonl", "code": "code/*.py", "puzzles": "python:mixlaw.demo.synthetic?documents=60"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with 40 speeches, one of them twice, and 24 modules."""
    root = tmp_path_factory.mktemp("study")
    speeches = [document.text[:6_000] for document in read_prose()][:40]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in [*speeches, speeches[0].upper()])
    (root / "speeches.jsonl").write_text(rows, encoding="utf-8")
    (root / "code").mkdir()
    for path in sorted(standard_library().glob("[a-h]*.py"))[:24]:
        shutil.copy(path, root / "code" / path.name)
    prepare(root / "data", DOMAINS, root=root, **SETTINGS)
    return root


@pytest.fixture(scope="module")
def shards(study: Path) -> Shards:
    return open_shards(study / "data")


def texts(tokens: np.ndarray, tokenizer_folder: Path) -> list[str]:
    ends = np.flatnonzero(tokens == 0)
    documents = np.split(tokens, ends + 1)[:-1]
    return load(tokenizer_folder).decode_batch([document[:-1].tolist() for document in documents])


def test_counts_of_the_manifest_are_those_of_the_shards(shards: Shards) -> None:
    for name, domain in shards.domains.items():
        stored = np.array(domain.tokens[:])
        decoded = texts(stored, shards.tokenizer)
        assert domain.unique_tokens == stored.size == len(domain.tokens), name
        assert domain.manifest.documents == len(decoded)
        assert domain.manifest.bytes == sum(len(text.encode()) for text in decoded)
        assert domain.manifest.held_out_documents == len(domain.held_out)
        assert domain.manifest.held_out_bytes == sum(document.bytes for document in domain.held_out)
    assert shards["prose"].manifest.files == 40
    assert shards["prose"].manifest.duplicates >= 1
    assert shards["puzzles"].manifest.packages == {}


def test_tokens_decode_to_the_texts_of_the_sources_and_none_is_in_both_parts(shards: Shards, study: Path) -> None:
    source = {path.read_text(encoding="utf-8") for path in (study / "code").glob("*.py")}
    domain = shards["code"]
    trained = texts(np.array(domain.tokens[:]), shards.tokenizer)
    held = load(shards.tokenizer).decode_batch([document.tokens.tolist() for document in domain.held_out])
    assert not set(trained) & set(held)
    assert all(any(piece in text for text in source) for piece in [*trained, *held])
    assert sum(map(len, [*trained, *held])) == pytest.approx(sum(map(len, source)), rel=0.01)


def test_held_out_bytes_are_those_of_the_decoded_document(shards: Shards) -> None:
    tokenizer = load(shards.tokenizer)
    for document in shards["prose"].held_out:
        assert len(tokenizer.decode(document.tokens.tolist()).encode()) == document.bytes


def test_a_second_call_returns_at_once_and_writes_nothing(study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (study / "data").rglob("*") if path.name != ".lock"}
    reports: list[tuple[float, str]] = []
    again = prepare(study / "data", DOMAINS, root=study, progress=lambda *step: reports.append(step), **SETTINGS)
    assert reports == [], "no stage begins"
    assert again == read_manifest(study / "data")
    after = {path: path.stat().st_mtime_ns for path in (study / "data").rglob("*") if path.name != ".lock"}
    assert after == before


def test_another_folder_gets_the_same_hash_and_another_seed_another(study: Path, tmp_path: Path) -> None:
    manifest = read_manifest(study / "data")
    messages: list[tuple[float, str]] = []
    same = prepare(tmp_path / "a", DOMAINS, root=study, progress=lambda *step: messages.append(step), **SETTINGS)
    other = prepare(tmp_path / "b", DOMAINS, root=study, seed=1, **SETTINGS)
    assert same.hash == manifest.hash != other.hash
    assert [share for share, _ in messages] == sorted(share for share, _ in messages)
    assert messages[-1] == (1.0, "done")


def test_changed_sources_build_again(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(study, root)
    before = prepare(root / "data", DOMAINS, root=root, **SETTINGS)
    with (root / "speeches.jsonl").open("a") as file:
        file.write(json.dumps({"text": "A speech that was not there before. " * 30}) + "\n")
    after = prepare(root / "data", DOMAINS, root=root, **SETTINGS)
    assert after.hash != before.hash
    assert after.domains["prose"].bytes + after.domains["prose"].held_out_bytes > (
        before.domains["prose"].bytes + before.domains["prose"].held_out_bytes
    )


KILLED = """
import sys
from pathlib import Path
from typing import Any
from mixlaw.runner.corpora.prepare import prepare
root, domains = Path(sys.argv[1]), eval(sys.argv[2])
prepare(Path(sys.argv[3]), domains, root=root, vocabulary=400, held_out=0.1,
        progress=lambda *step: print(step, flush=True))
"""


def test_a_build_killed_at_any_moment_and_repeated_gives_the_same_data(study: Path, tmp_path: Path) -> None:
    wanted = read_manifest(study / "data")
    rng = random.Random(0)
    command = [sys.executable, "-c", KILLED, str(study), repr(DOMAINS), str(tmp_path)]
    for stop in rng.sample(range(1, 10), 3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(stop):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
    assert prepare(tmp_path, DOMAINS, root=study, **SETTINGS) == wanted
    assert not list((tmp_path / BUILDING).rglob("*.texts"))
    verify(tmp_path)


@pytest.fixture
def damaged(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study / "data", tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "file", ["prose/train-00000.bin", "code/held_out-00000.index.npy", "tokenizer/tokenizer.json", "items/cloze.json"]
)
def test_verify_detects_a_flipped_byte(damaged: Path, file: str) -> None:
    verify(damaged)
    content = bytearray((damaged / file).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / file).write_bytes(content)
    with pytest.raises(InputError, match=f"{file} is damaged"):
        verify(damaged)


def test_opening_detects_a_truncated_or_missing_shard_and_preparing_again_fixes_it(damaged: Path, study: Path) -> None:
    wanted = read_manifest(damaged)
    path = damaged / "prose" / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"train-00000.bin has \d+ bytes instead of \d+"):
        open_shards(damaged)
    assert prepare(damaged, DOMAINS, root=study, **SETTINGS) == wanted
    path.unlink()
    with pytest.raises(InputError, match="is missing: run `mixlaw prepare`"):
        open_shards(damaged)


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"format": 1}'])
def test_a_damaged_manifest_is_an_input_error(content: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no data"):
        open_shards(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="is damaged"):
        open_shards(tmp_path)


@pytest.mark.parametrize(
    ("domains", "settings", "message"),
    [
        ({}, {}, "there are no domains"),
        ({"a b": "code/*.py"}, {}, "domain name 'a b' cannot be used"),
        ({"capitals": "code/*.py"}, {}, "domain name 'capitals' cannot be used"),
        ({"code": "code/*.py"}, {"held_out": 1.2}, "held_out is 1.2"),
        ({"code": "code/*.py"}, {"vocabulary": 100}, "vocabulary is 100"),
        ({"code": "code/*.py", "again": "code/*.py"}, {}, r"domain 'again' is empty \(\d+ were dropped"),
        ({"empty": "empty.txt"}, {}, "domain 'empty' is empty"),
        ({"one": "speeches.txt"}, {}, r"domain 'one' has no (held-out|training) document"),
    ],
)
def test_bad_input_says_what_is_wrong_and_leaves_no_data(
    domains: dict[str, str], settings: dict[str, Any], message: str, study: Path, tmp_path: Path
) -> None:
    (study / "empty.txt").write_text(" \n")
    (study / "speeches.txt").write_text("One long text. " * 100)
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "data", domains, root=study, **{**SETTINGS, **settings})
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_an_unknown_domain_is_named(shards: Shards) -> None:
    with pytest.raises(InputError, match=r"no domain 'poems' in .*: it holds prose, code, puzzles"):
        shards["poems"]


def test_wide_vocabularies_are_stored_in_four_bytes(study: Path, tmp_path: Path) -> None:
    manifest: Manifest = prepare(tmp_path, {"code": "code/*.py"}, root=study, vocabulary=70_000, held_out=0.1)
    assert manifest.dtype == "<u4"
    verify(tmp_path)
    shards = open_shards(tmp_path)
    assert shards["code"].tokens[:10].dtype == np.uint32


@pytest.mark.parametrize("longest", [None, 8000])
def test_documents_are_whole_and_end_once_unless_they_are_to_be_cut(tmp_path: Path, longest: int | None) -> None:
    given = ["".join(f"{n} {line} says something of {n * line}.\n\n" for line in range(900)) for n in range(12)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in given))
    prepare(tmp_path / "data", {"long": "long.jsonl"}, root=tmp_path, longest=longest, **{**SETTINGS, "held_out": 0.3})
    shards = open_shards(tmp_path / "data")
    trained = texts(np.array(shards["long"].tokens[:]), shards.tokenizer)
    held = load(shards.tokenizer).decode_batch([document.tokens.tolist() for document in shards["long"].held_out])
    if longest is None:
        assert sorted([*trained, *held]) == sorted(given)
    else:
        assert max(map(len, [*trained, *held])) <= longest
        assert sum(map(len, [*trained, *held])) == sum(map(len, given))
