"""Preparing data in processes: the same bytes for any number of them, and finished work survives a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import Manifest, read_manifest
from mixlaw.runner.batches.shards import verify
from mixlaw.runner.corpora import build, reading
from mixlaw.runner.corpora.prepare import BUILDING, prepare
from mixlaw.runner.corpora.process_pool import ProcessPool
from processes import family, gone, wait_until

DOMAINS = {"a": "a", "b": "b.jsonl"}
SETTINGS: Any = {"vocabulary": 300, "held_out": 0.1, "longest": 8000}
SMALL = 100_000  # bytes held at once: a corpus of a megabyte then takes as many steps as one of gigabytes

#: Hash of each domain's shards, originals and duplicates, made by the first version, which held everything in memory.
BEFORE = {
    "a": ("4e1c50ceeb06afa384fb32219993b9f7a47f52a2ecfeab4d04f0b5b27651c8b7", 144, 37),
    "b": ("fb3ab61beb72d2457f2238ceffd7ccb688b69b743c6aad3a3de4b67653b6cd94", 75, 33),
}

PREPARE = """
import sys
from pathlib import Path
from mixlaw.runner.corpora import build, reading
from mixlaw.runner.corpora.prepare import prepare
build.MOST = build.LEAST = reading.TOGETHER = int(sys.argv[3])
prepare(Path(sys.argv[2]), {"a": "a", "b": "b.jsonl"}, root=Path(sys.argv[1]), vocabulary=300, held_out=0.1,
        longest=8000, processes=2, progress=lambda share, what: print(f"{share:.3f} {what}", flush=True))
"""


def write_corpus(root: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(1, 8))) for _ in range(2000)]
    texts = [" ".join(rng.choices(words, k=rng.choice((20, 80, 400, 3000)))) for _ in range(120)]
    texts += [text.upper() for text in texts[::9]] + ["\n\n".join(texts[n : n + 3]) for n in range(0, 120, 5)]
    rng.shuffle(texts)
    (root / "a").mkdir()
    for number in range(6):
        rows = [json.dumps({"text": text}) for text in texts[number::6]]
        (root / "a" / f"{number}.jsonl").write_text("\n".join([*rows, ""]))
    (root / "b.jsonl").write_text("".join(json.dumps({"text": text[5:] * 2}) + "\n" for text in texts[::2]))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of 1.5 MB in seven files, with duplicates of every kind."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root)
    return root


@pytest.fixture(scope="module")
def wanted(corpus: Path) -> Manifest:
    """The manifest of an undisturbed preparation in one process and one piece."""
    return prepare(corpus / "data", DOMAINS, root=corpus, processes=0, **SETTINGS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((build, "MOST"), (build, "LEAST"), (reading, "TOGETHER")):
        monkeypatch.setattr(module, name, SMALL)


def test_shards_equal_those_of_the_first_version(wanted: Manifest) -> None:
    shards = {name: (domain.hash, domain.files, domain.duplicates) for name, domain in wanted.domains.items()}
    assert shards == BEFORE


@pytest.mark.parametrize("processes", [0, 3])
def test_neither_processes_nor_the_size_of_the_steps_change_the_data(
    corpus: Path, wanted: Manifest, tmp_path: Path, processes: int, small: None
) -> None:
    shares: list[float] = []
    made = prepare(
        tmp_path,
        DOMAINS,
        root=corpus,
        processes=processes,
        progress=lambda share, what: shares.append(share),
        **SETTINGS,
    )
    assert made == wanted
    assert (tmp_path / "manifest.json").read_bytes() == (corpus / "data" / "manifest.json").read_bytes()
    assert shares == sorted(shares)
    assert len({share for share in shares if share < build_share("comparing")}) > 1  # reports while files are read
    verify(tmp_path)


def build_share(stage: str) -> float:
    """Share of the work before a stage."""
    from mixlaw.runner.corpora.stages import STAGES

    names = list(STAGES)
    return sum(STAGES[name] for name in names[: names.index(stage)])


def finished(folder: Path) -> dict[Path, int]:
    """Every finished file of a preparation, with the time it was written."""
    names = [path for pattern in ("*.pieces", "*.done", "*.npy", "*.json") for path in folder.rglob(pattern)]
    return {path: path.stat().st_mtime_ns for path in names if "out" not in path.parts and ".round" not in path.name}


def interrupted(corpus: Path, data: Path, stage: str, lines: int, number: int) -> int:
    """Prepare in a process with two more, and send it a signal at the n-th line of a stage; its exit code.

    The pool's processes end, too, as their parent is gone.
    """
    command = [sys.executable, "-c", PREPARE, str(corpus), str(data), str(SMALL)]
    family_ids: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            lines -= stage in line
            if not lines:
                family_ids = family(process.pid)
                process.send_signal(number)
                break
    wait_until(lambda: gone(family_ids))
    return process.returncode


def spoil(root: Path, domain: str) -> None:
    """Make the files of a domain unreadable, with their sizes and times as they were."""
    for source in (root / "a").iterdir() if domain == "a" else [root / "b.jsonl"]:
        stat = source.stat()
        source.write_bytes(b"x" * stat.st_size)
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("stage", "lines", "number"),
    [
        ("reading a", 2, signal.SIGKILL),
        ("tokenising", 4, signal.SIGKILL),
        ("tokenising", 6, signal.SIGINT),
        ("writing", 2, signal.SIGKILL),
    ],
)
def test_finished_work_survives_and_is_not_repeated(
    corpus: Path, wanted: Manifest, tmp_path: Path, small: None, stage: str, lines: int, number: int
) -> None:
    root = tmp_path / "study"
    root.mkdir()
    write_corpus(root)
    for path in (*(corpus / "a").iterdir(), corpus / "b.jsonl"):  # the same times, so that manifests are the same
        os.utime(root / path.relative_to(corpus), ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert interrupted(root, root / "data", stage, lines, number) != 0
    before = finished(root / "data" / BUILDING)
    assert before
    for path in before:
        if path.suffix == ".done":
            spoil(root, path.parent.name.split("-")[1])
    after: dict[Path, int] = {}

    def look(share: float, what: str) -> None:
        after.update(finished(root / "data" / BUILDING))

    again = prepare(root / "data", DOMAINS, root=root, processes=0, progress=look, **SETTINGS)
    assert again.domains == wanted.domains
    assert again.hash == wanted.hash
    assert {path: after.get(path) for path in before} == before
    assert not list((root / "data" / BUILDING).rglob("*.texts"))
    verify(root / "data")


def test_a_source_that_is_refused_leaves_the_data_as_they_are(corpus: Path, wanted: Manifest, tmp_path: Path) -> None:
    prepare(tmp_path / "data", DOMAINS, root=corpus, processes=0, **SETTINGS)
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": 5}\n')
    broken = {**DOMAINS, "c": str(tmp_path / "broken.jsonl")}
    for processes in (0, 2):
        with pytest.raises(InputError, match="holds 5 instead of text"):
            prepare(tmp_path / "data", broken, root=corpus, processes=processes, **SETTINGS)
        assert read_manifest(tmp_path / "data").hash == wanted.hash
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
            BUILDING, ".lock", "a", "b", "items", "manifest.json", "tokenizer"
        ]  # fmt: skip
        verify(tmp_path / "data")


def test_a_process_that_dies_or_a_job_that_fails_ends_the_work_with_a_reason() -> None:
    with ProcessPool(2) as pool, pytest.raises(RuntimeError, match="was killed: finished work is kept") as raised:
        list(pool.run([lambda report: os._exit(7)] * 3, lambda *_: None))
    assert "EXIT(7)" in str(raised.value.__cause__)
    with ProcessPool(1) as pool, pytest.raises(InputError, match="no number"):
        list(pool.run([_fail], lambda *_: None))
    with ProcessPool(1) as pool, pytest.raises(RuntimeError, match="un-serialize"):
        list(pool.run([partial(_Secret(), 1)], lambda *_: None))


_fail = partial(lambda text, report: (_ for _ in ()).throw(InputError(text)), "no number")


class _Secret:
    """Cannot be unpickled elsewhere."""

    def __reduce__(self) -> tuple[object, ...]:
        return (__import__, ("no_such_module_anywhere",))

    def __call__(self, *_: object) -> None:
        raise AssertionError


def test_a_new_domain_is_read_and_tokenised_alone(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    before = prepare(tmp_path / "data", DOMAINS, root=tmp_path, processes=0, **SETTINGS)
    shards = {path: path.stat().st_mtime_ns for name in DOMAINS for path in (tmp_path / "data" / name).iterdir()}
    rows = [json.dumps({"text": f"{n} and new words, all of them new {n * n}"}) + "\n" for n in range(99)]
    (tmp_path / "c.jsonl").write_text("".join(rows))
    for name in DOMAINS:
        spoil(tmp_path, name)  # a reader of these would fail
    after = prepare(tmp_path / "data", {**DOMAINS, "c": "c.jsonl"}, root=tmp_path, processes=0, **SETTINGS)
    assert {name: after.domains[name] for name in DOMAINS} == before.domains
    assert after.domains["c"].documents + after.domains["c"].held_out_documents == 99
    assert after.tokenizer == before.tokenizer, "the tokenizer stays"
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    verify(tmp_path / "data")


def test_domains_that_lose_documents_to_a_new_one_are_read_again(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path)
    alone = {"b": "b.jsonl"}
    before = prepare(tmp_path / "data", alone, root=tmp_path, processes=0, **SETTINGS)
    rows = (tmp_path / "b.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "c.jsonl").write_text("".join(rows[: len(rows) // 2]))
    more = {"c": "c.jsonl", **alone}
    after = prepare(tmp_path / "data", more, root=tmp_path, processes=0, **SETTINGS)
    tokenizer = tmp_path / "data" / "tokenizer"
    (corpus / "c.jsonl").write_bytes((tmp_path / "c.jsonl").read_bytes())
    anew = prepare(tmp_path / "anew", more, root=corpus, processes=0, tokenizer=tokenizer, held_out=0.1, longest=8000)
    assert {name: domain.hash for name, domain in after.domains.items()} == {
        name: domain.hash for name, domain in anew.domains.items()
    }
    assert after.domains["b"].documents < before.domains["b"].documents
    verify(tmp_path / "data")


def test_a_larger_sample_fills_a_vocabulary_and_a_small_one_says_that_it_does_not(corpus: Path, tmp_path: Path) -> None:
    sizes = {"sample_bytes": 10_000, "vocabulary": 3_000}, {"vocabulary": 3_000}
    small, rule = (
        prepare(tmp_path / str(n), {"b": "b.jsonl"}, root=corpus, processes=0, held_out=0.1, **size)  # type: ignore[arg-type]
        for n, size in enumerate(sizes)
    )
    assert any("tokens: set tokenizer.sample_bytes higher" in note for note in small.notes)
    assert small.unused > rule.unused
    assert small.domains["b"].unique_tokens > rule.domains["b"].unique_tokens, "longer tokens, fewer of them"
