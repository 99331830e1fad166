"""Shard files: tokens of the buckets one after another, cut at the ends of documents, with an index and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlaw.files import replacing, sha256_of
from mixlaw.runner.batches.manifest import ShardFile, index_path
from mixlaw.runner.corpora.buckets import TokenFile
from mixlaw.runner.corpora.process_pool import Progress
from mixlaw.runner.corpora.spill_files import Ints

SHARD_TOKENS = 2**27  # a file is closed at the first document end beyond: 256 MB of 16-bit tokens
BLOCK = 2**20  # bytes copied at once


@dataclass(frozen=True)
class Stretch:
    """Documents of a token file that go into one shard file: first and last + 1, and the same of their tokens."""

    file: TokenFile
    first: int
    last: int
    begin: int
    end: int


def cut(files: Sequence[TokenFile], limit: int = SHARD_TOKENS) -> list[tuple[Stretch, ...]]:
    """What goes into each shard file: documents in order, a file closed by the one that brings it to `limit` tokens."""
    shards: list[tuple[Stretch, ...]] = []
    current: list[Stretch] = []
    room = limit
    for file in files:
        ends, first, begin = np.cumsum(file.table()[:, 0]), 0, 0
        while first < len(ends):
            last = min(len(ends), int(np.searchsorted(ends, begin + room)) + 1)
            current.append(Stretch(file, first, last, begin, int(ends[last - 1])))
            room, first, begin = room - (int(ends[last - 1]) - begin), last, int(ends[last - 1])
            if room <= 0:
                shards.append(tuple(current))
                current, room = [], limit
    return [*shards, tuple(current)] if current else shards


@dataclass(frozen=True)
class Assemble:
    """A job: write one shard file of type `dtype`, its index, and a description of both, which comes last."""

    stretches: tuple[Stretch, ...]
    path: Path
    dtype: str
    done: Path

    @property
    def tokens(self) -> int:
        """Tokens of the file."""
        return sum(stretch.end - stretch.begin for stretch in self.stretches)

    def __call__(self, tell: Progress) -> None:
        """Write the three files."""
        digest = hashlib.sha256()
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            for block in self._blocks():
                file.write(block)
                digest.update(block)
        table = np.concatenate([_documents(stretch) for stretch in self.stretches])
        table[:, 0] = np.cumsum(table[:, 0]) - table[:, 0]  # from tokens of each to the first token of each
        with replacing(index_path(self.path)) as temporary, temporary.open("wb") as file:
            np.save(file, table, allow_pickle=False)
        found = ShardFile(
            name=self.path.name,
            documents=len(table),
            tokens=self.tokens,
            bytes=int(table[:, 1].sum()),
            sha256=digest.hexdigest(),
            index_sha256=sha256_of(index_path(self.path)),
        )
        with replacing(self.done) as temporary:
            temporary.write_text(found.model_dump_json(), encoding="utf-8")

    def _blocks(self) -> Iterator[bytes]:
        width = np.dtype(self.dtype).itemsize
        for stretch in self.stretches:
            with stretch.file.tokens.open("rb") as file:
                file.seek(width * stretch.begin)
                left = width * (stretch.end - stretch.begin)
                while left:
                    block = file.read(min(left, BLOCK))
                    left -= len(block)
                    yield block

    def described(self) -> ShardFile:
        """The description."""
        return ShardFile.model_validate_json(self.done.read_bytes())


def _documents(stretch: Stretch) -> Ints:
    return stretch.file.table()[stretch.first : stretch.last]
