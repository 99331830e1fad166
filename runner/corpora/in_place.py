"""Domains whose training tokens stay in the files of their source: tables of places in the order of hashes.

Everything else is as for text: duplicates, split and order go by the decoded text, so that shards are those which the
same documents give as text. Held-out tokens, which are few, are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlaw.files import replacing, with_ending
from mixlaw.runner.batches.in_place import PlacedTokens
from mixlaw.runner.batches.manifest import TokenSource
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.corpora.process_pool import Report
from mixlaw.runner.corpora.shard_files import BLOCK, Assemble
from mixlaw.runner.corpora.sources.document import StoredTokens
from mixlaw.runner.corpora.spill_files import Ints
from mixlaw.runner.corpora.tokenise import Bucket, TokenFile


@dataclass(frozen=True)
class Locate:
    """A job: the table of a bucket whose pieces are places, beside the places, or the tokens where it `copies` them."""

    bucket: Bucket
    sources: tuple[TokenSource, ...]
    end: int
    dtype: str
    out: TokenFile
    copies: bool

    def __call__(self, report: Report) -> None:
        """Write the files."""
        rows = [(*StoredTokens.parsed(piece.text), piece.group) for piece in self.bucket]
        stored = [place for place, _, _ in rows]
        places = np.array([(place.file, place.offset) for place in stored], "<i8").reshape(-1, 2)
        table = np.array([(place.tokens + 1, size, group) for place, size, group in rows], "<i8").reshape(-1, 3)
        if self.copies:
            tokens = _placed(self.sources, places, table, self.dtype, self.end)
            with replacing(self.out.tokens) as temporary, temporary.open("wb") as file:
                for block in _blocks(tokens):
                    file.write(block)
        else:
            _save(with_ending(self.out.path, ".places"), places)
        _save(self.out.index, table)


@dataclass(frozen=True)
class AssemblePlaces(Assemble):
    """A job: write the places of one shard file; its checksum is that of the tokens, as if they were there."""

    sources: tuple[TokenSource, ...]
    end: int

    def _write(self, table: Ints, digest: Callable[[bytes], None]) -> None:
        parts = [
            np.load(with_ending(part.file.path, ".places"), allow_pickle=False)[part.first : part.last]
            for part in self.slices
        ]
        places = np.concatenate(parts)
        for block in _blocks(_placed(self.sources, places, table, self.dtype, self.end)):
            digest(block)
        _save(self.path, places)


def _placed(sources: Sequence[TokenSource], places: Ints, table: Ints, dtype: str, end: int) -> PlacedTokens:
    sizes = table[:, 0]
    return PlacedTokens(sources, places, np.cumsum(sizes) - sizes, int(sizes.sum()), np.dtype(dtype), end)


def _blocks(tokens: PlacedTokens) -> Iterator[bytes]:
    return (tokens[start : start + BLOCK].tobytes() for start in range(0, tokens.size, BLOCK))


def _save(path: Path, table: Ints) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, table, allow_pickle=False)


def decoded(references: Iterable[str], sources: Sequence[TokenSource], tokenizer: Path) -> Iterator[str]:
    """The texts of documents that are places."""
    coder, files = load(tokenizer), [np.memmap(source.path, np.uint8, "r") for source in sources]
    for reference in references:
        place, _ = StoredTokens.parsed(reference)
        dtype = np.dtype(sources[place.file].dtype)
        data = files[place.file][place.offset : place.offset + place.tokens * dtype.itemsize]
        yield coder.decode(data.view(dtype).tolist(), skip_special_tokens=False)
