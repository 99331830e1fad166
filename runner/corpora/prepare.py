"""From sources to a data folder: read, de-duplicate, split, train the tokenizer, tokenise, write shards and items."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import locked, names_to_disk
from mixlaw.progress import Progress
from mixlaw.runner.batches.manifest import (
    FORMAT,
    DomainManifest,
    Manifest,
    ShardFile,
    TokenSource,
    read_manifest,
    write_manifest,
)
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.batches.tokenizer import identity as tokenizer_identity
from mixlaw.runner.corpora.build import Build, BuildSettings, Side
from mixlaw.runner.corpora.cleaning import NOTHING, Cleaning, cleaning_identity
from mixlaw.runner.corpora.duplicates import DomainCounts
from mixlaw.runner.corpora.sources.registry import identity, notes, packages, tokens_of
from mixlaw.runner.corpora.spill_files import SIDES
from mixlaw.runner.corpora.tokenizer import SavedTokenizer
from mixlaw.runner.evaluate.items import TASKS, build_items

BUILDING = ".building"
NAME = re.compile(r"[^\W_][\w.-]*")  # a domain is a folder and part of a column name
RESERVED = ("items", "tokenizer", "manifest.json", *TASKS)
BY_NAME = "by name"  # which no domain can be called
LONGEST_NAME = 100  # bytes: file systems take 255, and names of working files add to it
SPILL_FORMAT = 4  # raised when spill files change, so that unfinished builds are read again
IN_PLACE = ("in place",)  # part of the identity of a domain whose tokens stay where they are


def prepare(
    data: Path,
    domains: Mapping[str, str],
    *,
    root: Path,
    vocabulary: int = 1024,
    tokenizer: Path | None = None,
    sample_bytes: int | None = None,
    held_out: float = 0.06,
    seed: int = 0,
    longest: int | None = None,
    cleaning: Cleaning = NOTHING,
    prose: str | None = BY_NAME,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Build the data folder of a study, unless sources and settings have not changed since it was built.

    Safe to interrupt, to kill and to call from several processes: the folder is built aside, a repeated call resumes
    there, and the manifest is written last. The result does not depend on the number of processes. Where sources
    change, other domains keep their shards, and with any of them a tokenizer that was trained here stays.

    Args:
        data: folder to hold `manifest.json`, `tokenizer/`, `items/` and one folder of shards per domain.
        domains: source of each domain by name; where domains hold the same text, the first keeps it.
        root: folder that paths in sources are relative to.
        vocabulary: tokens of the tokenizer that is trained.
        tokenizer: a `tokenizer.json` to use instead, or a folder that holds one.
        sample_bytes: bytes of each domain to train the tokenizer on; None: by `sample_rule`.
        held_out: share of documents, by content hash, that is never trained on.
        seed: of the split and of the order of documents.
        longest: characters of a document; longer ones are cut into documents of their own. None: they stay whole.
        prose: domain of English prose, from whose held-out text items are built; by default one called prose or text.
        cleaning: what is dropped besides exact duplicates; then no domain keeps its shards.
        processes: number of processes that share the work; None means one per core, or this one alone for little text.
        progress: called with the share done, 0 to 1, and a message.

    Raises:
        InputError: a source is wrong, a domain is empty or has no held-out document, or a setting is out of range.
    """
    _check(domains, held_out)
    split = held_out, seed, longest
    placed = _in_place(domains, root, tokenizer)
    sources = {n: _hash(SPILL_FORMAT, identity(s, root), split, *IN_PLACE * (n in placed)) for n, s in domains.items()}
    sample_bytes = sample_bytes or sample_rule(vocabulary)
    tokens = [vocabulary, sample_bytes] if tokenizer is None else tokenizer_identity(tokenizer)
    usual = next((name for name in domains if name in ("prose", "text")), None)
    prose = usual if prose == BY_NAME else prose
    more = [*cleaning_identity(cleaning, root), *[["prose", prose]] * (prose != usual)]
    fingerprint = _hash(FORMAT, tokens, list(sources.items()), *more)
    with locked(data):
        _check_folders(data, domains)
        if (done := _finished(data, fingerprint)) is not None:
            return done
        wanted = vocabulary, tokenizer, sample_bytes
        settings = BuildSettings(
            dict(domains), sources, placed, root, *wanted, *split, fingerprint, processes, cleaning, prose
        )
        return _build(data, settings, progress or (lambda *_: None))


def _build(data: Path, settings: BuildSettings, progress: Progress) -> Manifest:
    """Build the folder aside and put it in place."""
    build = Build(data / BUILDING, settings, progress)
    try:
        counts, trained, shards = build.run()
    except InputError:
        if not build.large:  # else keep it, so that the next call need not read everything again
            build.discard()
        raise
    manifest = _described(build, counts, trained, shards)
    _publish(manifest, build.out, data)
    build.keep(trained, shards)
    return manifest


def _in_place(domains: Mapping[str, str], root: Path, tokenizer: Path | None) -> dict[str, tuple[TokenSource, ...]]:
    """By domain whose source holds tokens of the study's own tokenizer, the files that they are read from."""
    if tokenizer is None:
        return {}
    known = {name: tokens_of(source, root) for name, source in domains.items()}
    own = tokenizer_identity(tokenizer)
    return {name: tuple(of[1]) for name, of in known.items() if of is not None and tokenizer_identity(of[0]) == own}


def sample_rule(vocabulary: int) -> int:
    """Bytes of each domain to train a tokenizer on: 512 a token, so that pairs are common enough, and a megabyte.

    Equal bytes of all domains, so that none owns the vocabulary.
    """
    return max(1_000_000, 512 * vocabulary)


def _check(domains: Mapping[str, str], held_out: float) -> None:
    if not domains:
        raise InputError("there are no domains: name at least one with its source")
    wrong = [name for name in domains if not _is_name(name)]
    if wrong:
        raise InputError(
            f"the domain name {wrong[0]!r} cannot be used: take letters, digits, _, - and ., at most {LONGEST_NAME} "
            f"bytes, a letter or digit first, and none of {', '.join(RESERVED)}"
        )
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}: it is a share of the documents, between 0 and 1, such as 0.06")


def _is_name(name: str) -> bool:
    return bool(NAME.fullmatch(name)) and name not in RESERVED and len(name.encode("utf-8", "replace")) <= LONGEST_NAME


def _check_folders(data: Path, domains: Mapping[str, str]) -> None:
    """Refuse two domains whose folders are one, where the file system takes names that differ in case for the same."""
    folded: dict[str, str] = {}
    for name in domains:
        other = folded.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name and (data / ".LOCK").exists():
            raise InputError(f"the domains {other!r} and {name!r} are one folder on this file system: rename one")


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _finished(data: Path, fingerprint: str) -> Manifest | None:
    try:
        manifest = read_manifest(data)
        open_shards(data)
    except InputError:
        return None
    return manifest if manifest.fingerprint == fingerprint else None


def _described(
    build: Build,
    counts: Mapping[str, DomainCounts],
    tokenizer: SavedTokenizer,
    shards: Mapping[Side, tuple[ShardFile, ...]],
) -> Manifest:
    """Build the items, and describe all."""
    settings = build.settings
    build.stages.begin("items", "building items")
    items = build_items(build.out / "items", build.held_out_prose(), settings.seed)
    domains = {
        name: _domain(settings, name, counts[name], *(shards[name, side] for side in SIDES))
        for name in settings.domains
    }
    hashes = {name: domain.hash for name, domain in domains.items()}
    return Manifest(
        format=FORMAT,
        fingerprint=settings.fingerprint,
        hash=_hash(tokenizer.hash, hashes, {task: built.sha256 for task, built in items.items()}),
        vocabulary=tokenizer.vocabulary,
        end=tokenizer.end,
        begin=tokenizer.begin,
        unused=tokenizer.unused,
        dtype=tokenizer.dtype.str,
        tokenizer=tokenizer.hash,
        held_out=settings.held_out,
        seed=settings.seed,
        domains=domains,
        items=items,
    )


def _domain(
    settings: BuildSettings,
    name: str,
    counts: DomainCounts,
    train: tuple[ShardFile, ...],
    held_out: tuple[ShardFile, ...],
) -> DomainManifest:
    return DomainManifest(
        source=settings.domains[name],
        packages=packages(settings.domains[name], settings.root),
        files=counts.files,
        documents=counts.train,
        bytes=sum(file.bytes for file in train),
        unique_tokens=sum(file.tokens for file in train),
        held_out_documents=counts.held_out,
        held_out_bytes=sum(file.bytes for file in held_out),
        held_out_tokens=sum(file.tokens for file in held_out),
        duplicates=counts.duplicates,
        blank=counts.blank,
        contaminated=counts.contaminated,
        near_duplicates=counts.near_duplicates,
        notes=tuple(notes(settings.domains[name], settings.root)),
        hash=_hash([[file.sha256, file.index_sha256] for file in (*train, *held_out)]),
        train=train,
        held_out=held_out,
        in_place=settings.in_place.get(name, ()),
    )


def _publish(manifest: Manifest, built: Path, data: Path) -> None:
    """Move the result into place; without a manifest a folder holds no data."""
    (data / "manifest.json").unlink(missing_ok=True)
    for path in sorted(built.iterdir()):
        shutil.rmtree(data / path.name, ignore_errors=True)
        os.replace(path, data / path.name)
    names_to_disk(data)
    write_manifest(manifest, data)
