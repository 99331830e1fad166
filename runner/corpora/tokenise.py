"""Pieces in the order of their hash, range by range: read from the spill files without duplicates, and tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.files import replacing, with_ending
from mixlaw.runner.batches.tokenizer import encode, load
from mixlaw.runner.corpora.duplicates import is_set, read_bits
from mixlaw.runner.corpora.process_pool import Report
from mixlaw.runner.corpora.reading import OVERHEAD, Piece, ReadDomain
from mixlaw.runner.corpora.spill_files import SIDES, Ints, Span, spans

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Bucket:
    """The pieces of one side of a domain whose sort key is in a range.

    Attributes:
        domain: its spill files.
        span: the range.
        size: bytes of text to expect before duplicates are dropped.
        bits: file of the entries dropped.
    """

    domain: ReadDomain
    span: Span
    size: int
    bits: Path

    def __iter__(self) -> Iterator[Piece]:
        """Pieces in the order of their hash, without duplicates; memory holds the texts of the bucket."""
        return (piece for _, piece in self.entries())

    def entries(self) -> Iterator[tuple[int, Piece]]:
        """The same, each with the number of its entry among those of all domains."""
        tables, texts = zip(*(file.piece_rows(self.span) for file in self.domain.files), strict=True)
        file = np.repeat(np.arange(len(tables)), [table.shape[1] for table in tables])
        key, entry, group, size, begin = np.concatenate(tables, axis=1)
        entry = entry.astype(np.int64) + np.array(self.domain.bases)[file]
        unique = ~is_set(read_bits(self.bits), entry)
        order = np.argsort(key, kind="stable")
        for row in order[unique[order]]:
            start = int(begin[row])
            text = texts[file[row]][start : start + int(size[row])].decode()
            yield int(entry[row]), Piece(text, int(group[row]))


def buckets(domain: ReadDomain, side: str, bits: Path, most: int) -> list[Bucket]:
    """All pieces of a side of a domain, in buckets that take about `most` bytes of memory, texts and rows."""
    pieces, texts = domain.sizes[side]
    ranges = spans(texts + OVERHEAD * pieces, most, SIDES[side])
    return [Bucket(domain, span, texts // len(ranges), bits) for span in ranges]


@dataclass(frozen=True)
class TokenFile:
    """Tokens of a bucket, each piece followed by the end of text, beside a table of pieces, shape (pieces, 3).

    The table's columns: tokens with the end of text, bytes of text, group. It is written last.
    """

    path: Path

    @property
    def tokens(self) -> Path:
        """The flat file of token ids."""
        return with_ending(self.path, ".tokens")

    @property
    def index(self) -> Path:
        """The file of the table; both are complete when it exists."""
        return with_ending(self.path, ".npy")

    def table(self) -> Ints:
        """The table, shape (pieces, 3)."""
        table: Ints = np.load(self.index, allow_pickle=False)
        return table


@dataclass(frozen=True)
class Tokenise:
    """A job: tokenise a bucket into a file of tokens of type `dtype`, `end` after each piece."""

    bucket: Bucket
    tokenizer: Path
    end: int
    dtype: str
    out: TokenFile

    def __call__(self, report: Report) -> None:
        """Write the file."""
        table: list[tuple[int, int, int]] = []
        pieces: list[tuple[int, int]] = []  # bytes and group of those given to the tokenizer
        done = 0
        with replacing(self.out.tokens) as temporary, temporary.open("wb") as file:
            for number, tokens in enumerate(encode(_loaded(self.tokenizer), self._texts(pieces))):
                file.write(np.append(tokens, self.end).astype(self.dtype).tobytes())
                table.append((tokens.size + 1, *pieces[number]))
                done += pieces[number][0]
                report(min(1.0, done / max(1, self.bucket.size)))
        with replacing(self.out.index) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(table, "<i8").reshape(-1, 3), allow_pickle=False)

    def _texts(self, pieces: list[tuple[int, int]]) -> Iterator[str]:
        for piece in self.bucket:
            pieces.append((len(piece.text.encode()), piece.group))
            yield piece.text


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Tokenizer:
    return load(folder)
