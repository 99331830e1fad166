"""From sources to a data folder: read, de-duplicate, split, train the tokenizer, tokenise, write shards and items."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.errors import InputError
from mixlaw.runner.corpora.manifest import FORMAT, DomainManifest, Manifest, ShardFile, read_manifest, write_manifest
from mixlaw.runner.corpora.shards import Entry, dtype_of, open_shards, write_shards
from mixlaw.runner.corpora.source import identity, packages, read
from mixlaw.runner.corpora.spool import Gathered, Spool, gather
from mixlaw.runner.corpora.tokenizer import encode, save, train
from mixlaw.runner.items import TASKS, build_items

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE_BYTES = (
    1_000_000  # of each domain, to train the tokenizer on: equal bytes, so that no domain owns the vocabulary
)
BUILDING = ".building"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # a domain is a folder and part of a column name
RESERVED = ("items", "tokenizer", *TASKS)

Progress = Callable[[float, str], None]


def prepare(
    data: Path,
    domains: Mapping[str, str],
    *,
    root: Path,
    vocabulary: int = 1024,
    held_out: float = 0.06,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Build the data folder of a study, or leave it as it is where sources and settings have not changed.

    Safe to kill and repeat, and to call from several processes: the folder is built aside and the manifest comes last.

    Args:
        data: folder to hold `manifest.json`, `tokenizer/`, `items/` and one folder of shards per domain.
        domains: source of each domain by name; where domains hold the same text, the first keeps it.
        root: folder that paths in sources are relative to.
        vocabulary: tokens of the tokenizer.
        held_out: share of documents, by content hash, that is never trained on.
        seed: of the split and of the order of documents.
        progress: called with the share done, 0 to 1, and what is being done.

    Raises:
        InputError: a source is wrong, a domain is empty or has no held-out document, or a setting is out of range.
    """
    _check(domains, held_out)
    fingerprint = _fingerprint(domains, root, (vocabulary, held_out, seed))
    data.mkdir(parents=True, exist_ok=True)
    with _lock(data):
        if (done := _finished(data, fingerprint)) is not None:
            return done
        build = _Build(data / BUILDING, dict(domains), root, vocabulary, held_out, seed, progress or (lambda *_: None))
        shutil.rmtree(build.folder, ignore_errors=True)
        try:
            manifest = build.run(fingerprint)
            _publish(manifest, build.folder, data)
        finally:  # a source that was refused leaves the folder as it was
            shutil.rmtree(build.folder, ignore_errors=True)
    return manifest


def _check(domains: Mapping[str, str], held_out: float) -> None:
    if not domains:
        raise InputError("there are no domains: name at least one with its source")
    wrong = [name for name in domains if not NAME.fullmatch(name) or name in RESERVED]
    if wrong:
        raise InputError(
            f"the domain name {wrong[0]!r} cannot be used: take letters, digits, _, - and ., and none of "
            f"{', '.join(RESERVED)}"
        )
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}: it is a share of the documents, between 0 and 1, such as 0.06")


def _fingerprint(domains: Mapping[str, str], root: Path, settings: tuple[object, ...]) -> str:
    sources = [[name, identity(source, root)] for name, source in domains.items()]
    return _hash(FORMAT, SAMPLE_BYTES, settings, sources)


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextmanager
def _lock(data: Path) -> Iterator[None]:
    with (data / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given up by the system when the process dies
        yield


def _finished(data: Path, fingerprint: str) -> Manifest | None:
    try:
        manifest = read_manifest(data)
        open_shards(data)
    except InputError:
        return None
    return manifest if manifest.fingerprint == fingerprint else None


def _publish(manifest: Manifest, built: Path, data: Path) -> None:
    """Move what was built into place; while there is no manifest there is no data."""
    (data / "manifest.json").unlink(missing_ok=True)
    for path in sorted(built.iterdir()):
        shutil.rmtree(data / path.name, ignore_errors=True)
        os.replace(path, data / path.name)
    built.rmdir()
    write_manifest(manifest, data)


@dataclass(frozen=True)
class _Build:
    folder: Path
    domains: Mapping[str, str]
    root: Path
    vocabulary: int
    held_out: float
    seed: int
    progress: Progress

    def run(self, fingerprint: str) -> Manifest:
        """Build everything in the folder aside."""
        gathered = self._gather()
        self.progress(0.5, "training the tokenizer")
        tokenizer = train((text for found in gathered.values() for text in _sample(found.train)), self.vocabulary)
        tokenizer_hash = save(tokenizer, self.folder / "tokenizer")
        domains = {}
        for position, (name, found) in enumerate(gathered.items()):
            self.progress(0.6 + 0.35 * position / len(gathered), f"tokenising {name}")
            domains[name] = self._write(name, found, tokenizer)
        self.progress(0.95, "building items")
        items = build_items(self.folder / "items", self._held_out_prose(gathered), self.seed)
        shutil.rmtree(self.folder / "spool")
        hashes = {name: domain.hash for name, domain in domains.items()}
        self.progress(1.0, "done")
        return Manifest(
            format=FORMAT,
            fingerprint=fingerprint,
            hash=_hash(tokenizer_hash, hashes, {task: found.sha256 for task, found in items.items()}),
            vocabulary=self.vocabulary,
            dtype=dtype_of(self.vocabulary).str,
            tokenizer=tokenizer_hash,
            held_out=self.held_out,
            seed=self.seed,
            domains=domains,
            items=items,
        )

    def _gather(self) -> dict[str, Gathered]:
        seen: set[bytes] = set()
        gathered = {}
        for position, (name, source) in enumerate(self.domains.items()):
            self.progress(0.5 * position / len(self.domains), f"reading {name}")
            documents = read(source, self.root)
            found = gather(documents, self.folder / "spool" / name, self.held_out, self.seed, seen)
            _check_split(name, source, found)
            gathered[name] = found
        return gathered

    def _held_out_prose(self, gathered: Mapping[str, Gathered]) -> Spool | None:
        embedded = [name for name, source in self.domains.items() if source.startswith("embedded:prose")]
        named = [name for name in self.domains if name in ("prose", "text")]
        return next((gathered[name].held_out for name in embedded + named), None)

    def _write(self, name: str, found: Gathered, tokenizer: Tokenizer) -> DomainManifest:
        folder, dtype = self.folder / name, dtype_of(self.vocabulary)
        train_files = write_shards(_entries(found.train, tokenizer), folder, "train", dtype)
        held_files = write_shards(_entries(found.held_out, tokenizer), folder, "held_out", dtype)
        return DomainManifest(
            source=self.domains[name],
            packages=packages(self.domains[name]),
            files=found.files,
            documents=len(found.train),
            bytes=found.train.bytes,
            unique_tokens=_total(train_files),
            held_out_documents=len(found.held_out),
            held_out_bytes=found.held_out.bytes,
            held_out_tokens=_total(held_files),
            duplicates=found.duplicates,
            hash=_hash([[file.sha256, file.index_sha256] for file in (*train_files, *held_files)]),
            train=train_files,
            held_out=held_files,
        )


def _check_split(name: str, source: str, found: Gathered) -> None:
    if not len(found.train) and not len(found.held_out):
        again = f" ({found.duplicates} were dropped: an earlier domain has them)" if found.duplicates else ""
        raise InputError(f"the domain {name!r} is empty{again}: its source {source!r} must give documents of its own")
    if not len(found.train) or not len(found.held_out):
        lacking = "held-out" if len(found.train) else "training"
        raise InputError(
            f"the domain {name!r} has no {lacking} document, as its source {source!r} gives {found.files}: give more "
            "documents (one a row of a .jsonl file, for instance) or change held_out"
        )


def _total(files: tuple[ShardFile, ...]) -> int:
    return sum(file.tokens for file in files)


def _sample(spool: Spool) -> Iterator[str]:
    size = 0
    for piece in spool:
        if size >= SAMPLE_BYTES:
            return
        size += len(piece.text.encode())
        yield piece.text


def _entries(spool: Spool, tokenizer: Tokenizer) -> Iterator[Entry]:
    """Tokens, bytes and group of every piece, tokenised in batches."""
    facts: list[tuple[int, int]] = []

    def texts() -> Iterator[str]:
        for piece in spool:
            facts.append((len(piece.text.encode()), piece.group))
            yield piece.text

    for number, tokens in enumerate(encode(tokenizer, texts())):
        yield np.asarray(tokens), *facts[number]
