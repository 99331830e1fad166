"""Pieces in the order of their hash, range by range: read from the runs without what was dropped, and tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixlaw.files import replacing
from mixlaw.runner.batches.tokenizer import encode, load
from mixlaw.runner.corpora.duplicates import dropped, read_bits
from mixlaw.runner.corpora.process_pool import Progress
from mixlaw.runner.corpora.spill_files import Ints, Section, ranges, rows, stretch, total_sizes
from mixlaw.runner.corpora.spool import OVERHEAD, Piece, Spooled

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Bucket:
    """The pieces of one side of a domain whose order hash is in a range.

    Attributes:
        domain: what was read.
        side: `Section.TRAIN` or `Section.HELD_OUT`.
        first, last: ranges of the hash, `last` excluded.
        size: bytes of text before anything is dropped.
        bits: file of what is dropped.
    """

    domain: Spooled
    side: Section
    first: int
    last: int
    size: int
    bits: Path

    def __iter__(self) -> Iterator[Piece]:
        """What is kept, in the order of its hash; the bucket's texts are in memory meanwhile."""
        tables, texts = [], []
        for path in self.domain.paths:
            tables.append(rows(path, self.side, self.first, self.last))
            texts.append(stretch(path, Section(self.side + 1), self.first, self.last))
        run = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        begins = np.concatenate([np.cumsum(table[:, 2]) - table[:, 2] for table in tables])
        table = np.concatenate(tables)
        kept = ~dropped(read_bits(self.bits), self.domain.positions(table[:, 1]))
        order = np.argsort(table[:, 0], kind="stable")
        for at in order[kept[order]]:
            begin = int(begins[at])
            yield Piece(texts[run[at]][begin : begin + int(table[at, 2])].decode(), int(table[at, 3]))


def buckets(domain: Spooled, side: Section, bits: Path, most: int) -> list[Bucket]:
    """All pieces of a side of a domain, in buckets that take at most `most` bytes of memory, texts and rows."""
    total = total_sizes(domain.paths)
    pieces = total[side] // 32
    spans = ranges(total[side + 1] + OVERHEAD * pieces, most)
    sizes = [int(total[side + 1, first:last].sum()) for first, last in spans]
    return [Bucket(domain, side, *span, size, bits) for span, size in zip(spans, sizes, strict=True)]


@dataclass(frozen=True)
class TokenFile:
    """Tokens of a bucket, each piece followed by the end of text, beside a table of pieces, shape (pieces, 3).

    The table's columns: tokens with the end of text, bytes of text, group. It is written last: where it is, all is.
    """

    path: Path

    @property
    def tokens(self) -> Path:
        """The file of tokens."""
        return self.path.with_suffix(".tokens")

    @property
    def index(self) -> Path:
        """The file of the table."""
        return self.path.with_suffix(".npy")

    def table(self) -> Ints:
        """The table."""
        found: Ints = np.load(self.index, allow_pickle=False)
        return found


@dataclass(frozen=True)
class Tokenise:
    """A job: tokenise a bucket into a file of tokens of type `dtype`, `end` after each piece."""

    bucket: Bucket
    tokenizer: Path
    end: int
    dtype: str
    out: TokenFile

    def __call__(self, tell: Progress) -> None:
        """Write the file."""
        tokenizer, done = _loaded(self.tokenizer), 0
        table: list[tuple[int, int, int]] = []
        facts: list[tuple[int, int]] = []
        with replacing(self.out.tokens) as temporary, temporary.open("wb") as file:
            for number, tokens in enumerate(encode(tokenizer, self._texts(facts))):
                size, group = facts[number]
                file.write(np.append(tokens, self.end).astype(self.dtype).tobytes())
                table.append((tokens.size + 1, size, group))
                done += size
                tell(done / max(1, self.bucket.size))
        with replacing(self.out.index) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(table, "<i8").reshape(-1, 3), allow_pickle=False)

    def _texts(self, facts: list[tuple[int, int]]) -> Iterator[str]:
        for piece in self.bucket:
            facts.append((len(piece.text.encode()), piece.group))
            yield piece.text


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> Tokenizer:
    return load(folder)
