"""Writing shard files: tokens of the buckets one after another, cut at ends of documents, with index and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlaw.files import replacing, sha256_of
from mixlaw.runner.batches.manifest import ShardFile, index_path
from mixlaw.runner.corpora.process_pool import Report
from mixlaw.runner.corpora.spill_files import Ints
from mixlaw.runner.corpora.tokenise import TokenFile

SHARD_TOKENS = 2**27  # a file is closed at the first document end beyond: 256 MB of 16-bit tokens
BLOCK = 2**20  # bytes copied at once


@dataclass(frozen=True)
class Slice:
    """Documents `first` to `last` - 1 of a token file, whose tokens are `begin` to `end` - 1, for one shard file."""

    file: TokenFile
    first: int
    last: int
    begin: int
    end: int


def cut(files: Sequence[TokenFile], limit: int = SHARD_TOKENS) -> list[tuple[Slice, ...]]:
    """Slices of each shard file: documents in order, a file closed by the document that brings it to `limit` tokens."""
    shards: list[tuple[Slice, ...]] = []
    current: list[Slice] = []
    room = limit
    for file in files:
        ends, first, begin = np.cumsum(file.table()[:, 0]), 0, 0
        while first < len(ends):
            last = min(len(ends), int(np.searchsorted(ends, begin + room)) + 1)
            current.append(Slice(file, first, last, begin, int(ends[last - 1])))
            room, first, begin = room - (int(ends[last - 1]) - begin), last, int(ends[last - 1])
            if room <= 0:
                shards.append(tuple(current))
                current, room = [], limit
    return [*shards, tuple(current)] if current else shards


@dataclass(frozen=True)
class Assemble:
    """A job: write one shard file of type `dtype`, its index, and a description of both, which comes last."""

    slices: tuple[Slice, ...]
    path: Path
    dtype: str
    done: Path

    @property
    def tokens(self) -> int:
        """Tokens of the file."""
        return sum(part.end - part.begin for part in self.slices)

    def __call__(self, report: Report) -> None:
        """Write the three files."""
        digest = hashlib.sha256()
        table = np.concatenate([part.file.table()[part.first : part.last] for part in self.slices])
        self._write(table, digest.update)
        table[:, 0] = np.cumsum(table[:, 0]) - table[:, 0]  # from tokens of each to the first token of each
        with replacing(index_path(self.path)) as temporary, temporary.open("wb") as file:
            np.save(file, table, allow_pickle=False)
        description = ShardFile(
            name=self.path.name,
            documents=len(table),
            tokens=self.tokens,
            bytes=int(table[:, 1].sum()),
            sha256=digest.hexdigest(),
            index_sha256=sha256_of(index_path(self.path)),
        )
        with replacing(self.done) as temporary:
            temporary.write_text(description.model_dump_json(), encoding="utf-8")

    def _write(self, table: Ints, digest: Callable[[bytes], None]) -> None:
        """Write the file itself; `digest` takes the bytes of its tokens. `table` is that of its pieces."""
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            for block in self._blocks():
                file.write(block)
                digest(block)

    def _blocks(self) -> Iterator[bytes]:
        width = np.dtype(self.dtype).itemsize
        for part in self.slices:
            with part.file.tokens.open("rb") as file:
                file.seek(width * part.begin)
                remaining = width * (part.end - part.begin)
                while remaining:
                    block = file.read(min(remaining, BLOCK))
                    remaining -= len(block)
                    yield block

    def described(self) -> ShardFile:
        """The description, read back."""
        return ShardFile.model_validate_json(self.done.read_bytes())
