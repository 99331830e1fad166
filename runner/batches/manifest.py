"""The manifest of a data folder: sources, counts and checksums, as one JSON file written last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from mixlaw.errors import InputError
from mixlaw.files import is_whole, sealed, write_json
from mixlaw.printable import Page, Printable
from mixlaw.tables import Column, Table, number

PLACES = ".places.npy"  # ending of a file of rows of (number of the source's file, first byte), one a document
FORMAT = 2  # raised when a change of shards or readers requires older folders to be built again


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardFile(_Frozen):
    """One file of tokens and its index: rows of (first token, bytes of text, group) per document."""

    name: str
    documents: int
    tokens: int
    bytes: int
    sha256: str
    index_sha256: str

    @property
    def in_place(self) -> bool:
        """Whether the file holds the places of documents in the source's files, and not tokens."""
        return self.name.endswith(PLACES)


class TokenSource(_Frozen):
    """A file of another program that tokens are read from where they are: path, type of tokens, bytes of the file."""

    path: str
    dtype: str
    bytes: int


def index_path(path: Path) -> Path:
    """The index of a shard file."""
    return path.with_suffix(".index.npy")


class DomainManifest(_Frozen):
    """One domain: its source, and counts and checksums of what is stored.

    Attributes:
        packages: version by name of every distribution that was read.
        files: originals read.
        documents: stored for training; pieces of them where long ones are cut.
        unique_tokens: tokens to train on, separators included.
        duplicates: documents dropped because their text was there before, in this domain or an earlier one, or blank.
        blank: documents among them without a word: empty, null, or white space alone.
        contaminated: training documents dropped because they hold evaluation items, where a study asks for it.
        near_duplicates: documents dropped because they are nearly another one, where a study asks for it.
        notes: what the source leaves out, in words.
        hash: identity of the stored tokens, training and held-out; part of the lineage of recipes that use them.
        in_place: files of the source, where its training tokens are read from them.
    """

    source: str
    packages: dict[str, str]
    files: int
    documents: int
    bytes: int
    unique_tokens: int
    held_out_documents: int
    held_out_bytes: int
    held_out_tokens: int
    duplicates: int
    blank: int = 0
    contaminated: int = 0
    near_duplicates: int = 0
    notes: tuple[str, ...] = ()
    hash: str
    train: tuple[ShardFile, ...]
    held_out: tuple[ShardFile, ...]
    in_place: tuple[TokenSource, ...] = ()


class ItemsManifest(_Frozen):
    """One set of items: how many, their unit and checksum; or the reason why there are none."""

    unit: str
    count: int
    sha256: str = ""
    missing: str = ""


class ManifestKeys(_Frozen):
    """The keys of a data folder's manifest, which `mixlaw prepare --json` prints."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    format: int
    fingerprint: str
    """Of sources and settings, known before anything is read; decides whether to build again."""
    hash: str
    """Of everything that was built: tokenizer, shards, items."""
    vocabulary: int
    end: int = 0
    """Token after every document."""
    begin: str = ""
    """What the tokenizer's own model has before a text, and documents here have not."""
    unused: int = 0
    """Tokens of the vocabulary that the sample did not fill."""
    dtype: str
    tokenizer: str
    held_out: float
    seed: int
    domains: dict[str, DomainManifest]
    """Of each: source, counts, files with checksums."""
    items: dict[str, ItemsManifest]
    """Of each task with items: count, checksum."""


class Manifest(Printable, ManifestKeys):
    """The data folder as a whole; `end`, `begin` and `unused` are left out of the file where they are 0 or empty."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return self.model_dump(mode="json")

    def page(self) -> Page:
        """A row per domain; vocabulary and items; what else to know."""
        heads = ("documents", "bytes", "unique tokens", "held-out tokens")
        rows = [
            [name, *(number(n, ",") for n in (d.documents, d.bytes, d.unique_tokens, d.held_out_tokens))]
            for name, d in self.domains.items()
        ]
        items = ", ".join(
            f"{name} {items.count}" + (f" ({items.missing})" if items.missing else "")
            for name, items in self.items.items()
        )
        answer = f"data {self.hash[:12]} is ready: vocabulary {self.vocabulary:,}; items: {items or 'none'}"
        table = Table("domains", ["domain", *(Column(head, head.replace(" ", "_")) for head in heads)], rows)
        return Page(answer, tables=[table], notes=self.notes)

    @property
    def measured_on(self) -> dict[str, str]:
        """By task that this data folder measures: identity of the held-out text or items, which a record keeps."""
        held_out = {name: _held_out(domain) for name, domain in self.domains.items()}
        return held_out | {name: items.sha256[:16] for name, items in self.items.items() if items.count}

    @property
    def notes(self) -> list[str]:
        """What else to know of it, in words."""
        said = [f"{name}: {note}" for name, domain in self.domains.items() for note in domain.notes]
        for name, domain in self.domains.items():
            if domain.in_place:
                files = "1 file" if len(domain.in_place) == 1 else f"{len(domain.in_place):,} files"
                where = "where it is" if len(domain.in_place) == 1 else "where they are"
                said.append(f"{name}: training tokens are read from {files} of the source, {where}")
            if domain.contaminated:
                said.append(f"{name}: dropped as they hold evaluation items: {domain.contaminated:,}")
            if domain.near_duplicates:
                said.append(f"{name}: dropped as near-duplicates: {domain.near_duplicates:,}")
        if self.begin:
            said.append(
                f"the tokenizer's own model has {self.begin} before a text; documents here end with a token and begin "
                "without one, in training and in evaluation"
            )
        if self.unused:
            said.append(
                f"the sample gave {self.vocabulary - self.unused:,} of {self.vocabulary:,} tokens: set "
                "tokenizer.sample_bytes higher, or tokenizer.vocabulary lower"
            )
        return said + [f"{n}: empty or null texts skipped: {d.blank:,}" for n, d in self.domains.items() if d.blank]

    @model_serializer(mode="wrap")
    def _without_the_usual(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return {name: value for name, value in written.items() if value or name not in ("end", "begin", "unused")}


def _held_out(domain: DomainManifest) -> str:
    hashes = "".join(file.sha256 + file.index_sha256 for file in domain.held_out)
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]


def read_manifest(data: Path) -> Manifest:
    """The manifest of a data folder.

    Raises:
        InputError: there is none, it is of another format, or it is damaged.
    """
    path = data / "manifest.json"
    if not path.exists():
        raise InputError(f"there is no data at {data}: run `mixlaw prepare` on the study first")
    try:
        written = json.loads(path.read_bytes())
        if not is_whole(written):
            raise ValueError("its content differs from its checksum")
        written.pop("own", None)
        return Manifest.model_validate_json(json.dumps(written))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path} is damaged ({first['msg']}): delete it and run `mixlaw prepare` again") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run `mixlaw prepare` again") from error


def write_manifest(manifest: Manifest, data: Path) -> None:
    """Write the manifest in one step; a folder has either a whole manifest or none."""
    write_json(data / "manifest.json", sealed(manifest.as_json()))
