"""Spill files of an external sort: pieces and hashes of documents, sorted, so that a range of hashes is one slice.

Sorting and grouping beyond memory (Knuth, The Art of Computer Programming 3, 5.4): a spill file holds as much as fits
in memory, and the k-th of n ranges is worked on by reading its slice of every file. Hashes are uniform, so n equal
ranges are close to equal in size, however large the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlaw.files import replacing, with_ending

Ints = NDArray[np.int64]
Table = NDArray[np.uint64]  # shape (columns, rows), sorted by its first column: each column is contiguous on disk
Span = tuple[int, int]  # first and last value of a hash, both included

#: Ranges of the sort key of pieces: the order hash without its last bit, and whether the piece is held out above it.
SIDES: dict[str, Span] = {"train": (0, 2**63 - 1), "held_out": (2**63, 2**64 - 1)}


@dataclass(frozen=True)
class SpillFile:
    """Three files with one stem: `.texts`, `.keys` and, written last, `.pieces`.

    `.pieces` has the columns (sort key, entry, group, bytes, first byte in `.texts`); `.keys` has (first half of the
    digest, second half, entry, info). Entries are numbered from 0 in every spill file.
    """

    stem: Path

    @property
    def pieces(self) -> Path:
        """The table of pieces; the spill file is complete when it exists."""
        return with_ending(self.stem, ".pieces")

    @property
    def keys(self) -> Path:
        """The table of digests to compare."""
        return with_ending(self.stem, ".keys")

    @property
    def texts(self) -> Path:
        """Texts of the pieces, UTF-8, in the order of the table."""
        return with_ending(self.stem, ".texts")

    def write(self, pieces: Table, texts: Sequence[bytes], keys: Table) -> None:
        """Sort and write all three; `pieces` has the first three columns, shape (3, pieces)."""
        order = np.argsort(pieces[0], kind="stable")
        with replacing(self.texts) as temporary, temporary.open("wb") as file:
            file.writelines(texts[number] for number in order.tolist())
        _save(self.keys, keys[:, np.argsort(keys[0], kind="stable")])
        sizes = np.fromiter(map(len, texts), np.uint64, len(texts))[order]
        _save(self.pieces, np.vstack([pieces[:, order], sizes, np.cumsum(sizes) - sizes]))

    def key_rows(self, span: Span) -> Table:
        """Rows of `.keys` whose digest begins in a range, shape (4, rows)."""
        return _between(self.keys, span)

    def piece_rows(self, span: Span) -> tuple[Table, bytes]:
        """Rows of `.pieces` in a range of the sort key, shape (5, rows), first bytes counted in the text returned."""
        rows = _between(self.pieces, span)
        if not rows.size:
            return rows, b""
        start = int(rows[4, 0])
        rows[4] -= np.uint64(start)
        with self.texts.open("rb") as file:
            file.seek(start)
            return rows, file.read(int(rows[3].sum()))

    def sizes(self, span: Span) -> tuple[int, int]:
        """Pieces and bytes of text in a range of the sort key, without reading the texts."""
        table = np.load(self.pieces, mmap_mode="r")
        begins = np.append(table[4], np.uint64(self.texts.stat().st_size))
        first, last = _slice(table[0], span)
        return last - first, int(begins[last] - begins[first])


def spans(total: int, most: int, within: Span = (0, 2**64 - 1)) -> list[Span]:
    """The fewest equal ranges of `within` that each hold about `most` of a total that is uniform over it."""
    count = max(1, -(-total // most))
    low, high = within
    bounds = [low + (high + 1 - low) * number // count for number in range(count + 1)]
    return [(first, end - 1) for first, end in pairwise(bounds)]


def _save(path: Path, table: Table) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(table), allow_pickle=False)


def _between(path: Path, span: Span) -> Table:
    table = np.load(path, mmap_mode="r")
    return np.array(table[:, slice(*_slice(table[0], span))])


def _slice(hashes: Table, span: Span) -> tuple[int, int]:
    first, last = (np.uint64(bound) for bound in span)
    return int(np.searchsorted(hashes, first)), int(np.searchsorted(hashes, last, "right"))
