"""Dropping contaminated training documents and near-duplicates: what goes, what stays, and that it is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import Manifest
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.corpora.cleaning import Cleaning
from mixlaw.runner.corpora.contamination import check
from mixlaw.runner.corpora.near_duplicates import near_duplicates, signature
from mixlaw.runner.corpora.prepare import prepare
from mixlaw.study import open_study

WORDS = [f"w{number}" for number in range(400)]


def words(seed: int, count: int = 120) -> list[str]:
    return [str(word) for word in np.random.default_rng(seed).choice(WORDS, count)]


def changed(text: Sequence[str], every: int) -> str:
    """The text with another word at every so many."""
    return " ".join("other" if number % every == every - 1 else word for number, word in enumerate(text))


#: Of the first 12 texts a copy with one word of 60 changed: 9 of 116 5-grams, so that .86 are in common; of the next 12
#: one with every tenth changed, which leaves one in three.
TEXTS = [words(seed) for seed in range(60)]
NEAR = [changed(text, 60) for text in TEXTS[:12]]
FAR = [changed(text, 10) for text in TEXTS[12:24]]
BENCHMARK = [" ".join(words(1000 + seed, 40)) for seed in range(5)]
HOLDERS = [f"{' '.join(words(2000 + n, 50))} {BENCHMARK[n][20:]} and more" for n in range(5)]


def write(path: Path, texts: Sequence[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write(folder / "web.jsonl", [" ".join(text) for text in TEXTS])
    write(folder / "more.jsonl", [*NEAR, *FAR, *HOLDERS])
    write(folder / "benchmark.jsonl", BENCHMARK)
    return folder


def built(root: Path, data: Path, processes: int = 0, **cleaning: object) -> Manifest:
    domains, asked = {"web": "web.jsonl", "more": "more.jsonl"}, Cleaning(**cleaning)  # type: ignore[arg-type]
    return prepare(data, domains, root=root, vocabulary=400, held_out=0.15, cleaning=asked, processes=processes)


def texts(data: Path, domain: str) -> list[str]:
    """Training documents."""
    stored = open_shards(data)[domain].tokens[:]
    ends = np.flatnonzero(stored == 0)
    return load(data / "tokenizer").decode_batch([d[:-1].tolist() for d in np.split(stored, ends + 1)[:-1]])


def test_the_share_of_hashes_that_agree_is_that_of_common_ngrams() -> None:
    for every, own in ((60, 2 * 5 - 1), (10, 12 * 5 - 4)):  # 5-grams with a changed word; the last words have fewer
        one, other = signature(" ".join(TEXTS[0])), signature(changed(TEXTS[0], every))
        common = 116 - own
        assert (one == other).mean() == pytest.approx(common / (116 + own), abs=0.12)
    assert (signature("A Few words") == signature("a few, words!")).all()
    assert (signature(" ".join(TEXTS[0])) == signature(" ".join(TEXTS[1]))).mean() < 0.05


def test_of_linked_texts_the_one_of_lowest_rank_stays() -> None:
    chain = [changed(TEXTS[0], every) for every in (200, 119, 60)] + [" ".join(TEXTS[1])]
    signatures = np.stack([signature(text) for text in chain])
    assert near_duplicates(signatures, np.array([2, 0, 1, 3])).tolist() == [True, False, True, False]
    assert near_duplicates(signatures[:0], np.array([], int)).size == 0


def test_near_duplicates_of_held_out_and_of_earlier_text_leave_the_training_text(root: Path, tmp_path: Path) -> None:
    plain, clean = built(root, tmp_path / "a"), built(root, tmp_path / "b", near_duplicates=True)
    before, after = (set(texts(tmp_path / name, "more")) for name in "ab")
    held = {" ".join(text) for text in TEXTS} - set(texts(tmp_path / "a", "web"))
    assert before - after == before & set(NEAR), "near copies go, the others stay"
    assert held & {" ".join(text) for text in TEXTS[:12]}, "some originals are held out"
    assert clean.domains["more"].near_duplicates == len(before - after)
    # Copies that are held out take their originals along: those would be trained on.
    twins = {" ".join(text) for text, near in zip(TEXTS, NEAR, strict=False) if near not in before}
    lost = set(texts(tmp_path / "a", "web")) - set(texts(tmp_path / "b", "web"))
    assert lost == twins - held
    assert clean.domains["web"].near_duplicates == len(lost)
    for name in ("web", "more"):
        stays = [(d.held_out_documents, d.held_out_bytes) for d in (clean.domains[name], plain.domains[name])]
        assert stays[0] == stays[1], "what is measured stays"
    assert plain.domains["more"].near_duplicates == 0
    assert clean.domains["more"].documents == len(after)


def test_held_out_documents_that_resemble_each_other_all_stay(tmp_path: Path) -> None:
    copies, others = ([" ".join([*TEXTS[0], f"end{n}"]) for n in range(40)], [" ".join(text) for text in TEXTS[1:]])
    write(tmp_path / "web.jsonl", copies + others)
    write(tmp_path / "more.jsonl", FAR)
    plain, _ = built(tmp_path, tmp_path / "a"), built(tmp_path, tmp_path / "b", near_duplicates=True)
    decode, shards = load(tmp_path / "b" / "tokenizer").decode, open_shards(tmp_path / "b")
    held = [decode(document.tokens.tolist()) for document in shards["web"].held_out]
    assert len(set(held) & set(copies)) > 1
    assert len(held) == plain.domains["web"].held_out_documents
    assert set(texts(tmp_path / "b", "web")) == set(others) - set(held)


def test_documents_with_benchmark_items_are_dropped_by_any_number_of_processes(root: Path, tmp_path: Path) -> None:
    first = built(root, tmp_path / "a", contaminated=("benchmark.jsonl",), near_duplicates=True)
    trained = texts(tmp_path / "a", "more")
    assert not set(trained) & set(HOLDERS)
    assert first.domains["more"].contaminated == 5 - sum(
        load(tmp_path / "a" / "tokenizer").decode(d.tokens.tolist()) in HOLDERS
        for d in open_shards(tmp_path / "a")["more"].held_out
    )
    assert check(tmp_path / "a", {"benchmark": BENCHMARK}).tasks[0].found == ()
    second = built(root, tmp_path / "b", 2, contaminated=("benchmark.jsonl",), near_duplicates=True)
    assert second.hash == first.hash
    write(root / "benchmark.jsonl", BENCHMARK[:1])
    assert built(root, tmp_path / "a", contaminated=("benchmark.jsonl",)).domains["more"].contaminated <= 1
    write(root / "benchmark.jsonl", BENCHMARK)


def test_study_toml_asks_and_the_command_counts(root: Path, tmp_path: Path) -> None:
    for name in ("web", "more", "benchmark"):
        (tmp_path / f"{name}.jsonl").write_bytes((root / f"{name}.jsonl").read_bytes())
    settings = """\
[domains]
web = { source = "web.jsonl" }
more = { source = "more.jsonl" }
[tokenizer]
vocabulary = 400
[training]
held_out = 0.15
drop_contaminated = ["items", "benchmark.jsonl"]
drop_near_duplicates = true
"""
    (tmp_path / "study.toml").write_text(settings)
    done = CliRunner().invoke(app, ["prepare", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert "more: dropped as they hold evaluation items: " in said
    assert "more: dropped as near-duplicates: " in said
    (tmp_path / "study.toml").write_text(settings.replace("benchmark", "nothing"))
    with pytest.raises(InputError, match=r"no file matches the source 'nothing\.jsonl'"):
        open_study(tmp_path).prepare()
