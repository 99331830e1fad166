"""Names of domains, files and folders: whatever they are, tokens are the same, and no held-out text is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import Manifest
from mixlaw.runner.batches.shards import Shards, open_shards
from mixlaw.runner.corpora import build
from mixlaw.runner.corpora.prepare import prepare

TOPICS = {"web": "a river runs by the town", "code": "def f(x): return x", "math": "let n be an even number"}
DOTTED = [
    ("c4.en", "c4.de", "web"),  # configurations of one data set
    ("dm.math", "dm", "dm.code"),
    ("v1.0", "v1.1", "v1"),
    ("a.train-1-00000", "a", "a.b.c"),
    ("x.npy", "x.tokens", "x.json"),
    ("Code", "code", "CODE"),
    ("Ünïcode.é", "n1-held_out", "日本".join(("a", "b"))),
]


def documents(topic: str, count: int = 120) -> list[str]:
    """Texts of a topic, all different."""
    return [f"{topic}, and number {number} says {number * number} to its neighbour. " * 3 for number in range(count)]


def write_lines(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def prepared(root: Path, domains: dict[str, str]) -> tuple[Manifest, Shards]:
    manifest = prepare(root / "data", domains, root=root, vocabulary=300, held_out=0.2, processes=0)
    return manifest, open_shards(root / "data")


def both_sides(shards: Shards, domain: str) -> tuple[set[bytes], set[bytes]]:
    """Documents of a domain as bytes of their tokens: those trained on, and those held out."""
    tokens = np.array(shards[domain].tokens[:])
    trained = np.split(tokens, np.flatnonzero(tokens == shards.manifest.end) + 1)[:-1]
    return {part[:-1].tobytes() for part in trained}, {bytes(d.tokens.tobytes()) for d in shards[domain].held_out}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The three topics under plain names."""
    root = tmp_path_factory.mktemp("plain")
    for name, topic in TOPICS.items():
        write_lines(root / f"{name}.jsonl", documents(topic))
    return prepared(root, {name: f"{name}.jsonl" for name in TOPICS})[0]


@pytest.mark.parametrize("names", DOTTED)
def test_a_domain_has_the_same_tokens_under_any_name_and_its_sides_never_meet(
    names: tuple[str, str, str], plain: Manifest, tmp_path: Path
) -> None:
    for name, topic in TOPICS.items():
        write_lines(tmp_path / f"{name}.jsonl", documents(topic))
    renamed = dict(zip(names, TOPICS, strict=True))
    manifest, shards = prepared(tmp_path, {name: f"{topic}.jsonl" for name, topic in renamed.items()})
    for name, topic in renamed.items():
        assert manifest.domains[name].hash == plain.domains[topic].hash
        trained, held_out = both_sides(shards, name)
        assert trained
        assert held_out
        assert not trained & held_out
        assert len(trained) + len(held_out) == len(documents(topic))


def test_one_dotted_domain_alone_in_several_processes_and_many_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "a.jsonl", [f"{text} {'word ' * 200}" for text in documents(TOPICS["math"], 3000)])
    monkeypatch.setattr(build, "LEAST", 2**20)
    monkeypatch.setattr(build, "MEMORY", 2**21)
    hashes = set()
    for name in ("math", "dm.math", "a.b.math-train-3"):
        manifest = prepare(tmp_path / name, {name: "a.jsonl"}, root=tmp_path, vocabulary=300, held_out=0.2, processes=2)
        trained, held_out = both_sides(open_shards(tmp_path / name), name)
        assert not trained & held_out
        assert len(trained) + len(held_out) == 3000
        hashes.add(manifest.domains[name].hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ["manifest.json", "items", "../x", ".x", "a/b", "a" * 101, "é" * 60, "a\nb", ""])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", documents("text"))
    with pytest.raises(InputError, match="cannot be used: take letters"):
        prepared(tmp_path, {name: "a.jsonl"})


@settings(max_examples=20, deadline=None)
@given(st.lists(st.from_regex(r"[A-Za-z0-9][\w.-]{0,30}", fullmatch=True), min_size=2, max_size=2, unique=True))
def test_working_files_of_any_two_names_differ(names: list[str]) -> None:
    from mixlaw.runner.corpora.spill_files import SpillFile
    from mixlaw.runner.corpora.tokenise import TokenFile

    paths = [
        path
        for name in names
        for side in ("train", "held_out")
        for stem in (Path("work", f"{name}-{side}-1-{number:05d}") for number in range(2))
        for path in (TokenFile(stem).tokens, TokenFile(stem).index, SpillFile(stem).texts, SpillFile(stem).keys)
    ]
    assert len(set(paths)) == len(paths)
