"""Runs: files in which what was read waits, sorted by hash, so that any range of hashes is one stretch of every run.

This is how sorting and grouping work beyond memory (Knuth, The Art of Computer Programming 3, 5.4): a run holds as much
as fits, and to work on the k-th of n ranges one reads its stretch of every run. As ranges are chosen after everything
was read, each of them fits, too, however much there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlaw.files import replacing

FINE = 4096  # ranges of the hash that a run can be cut into

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]


class Section(IntEnum):
    """What a run holds; the first column of each table, a hash, is what it is sorted by.

    Pieces have rows (order hash, number of the entry, bytes, group) and their texts in the same order; digests have
    rows (first half, second half, number of the entry, what it is); origins (hash of the origin, number of the entry).
    """

    TRAIN = 0
    TRAIN_TEXT = 1
    HELD_OUT = 2
    HELD_OUT_TEXT = 3
    DIGESTS = 4
    ORIGINS = 5

    @property
    def columns(self) -> int:
        """Numbers a row."""
        return {Section.DIGESTS: 4, Section.ORIGINS: 2}.get(self, 4)


SIDES = {"train": Section.TRAIN, "held_out": Section.HELD_OUT}


@dataclass(frozen=True)
class Counts:
    """What a run was made of: documents read, those that are blank, entries to de-duplicate, bytes of text."""

    documents: int
    blank: int
    entries: int
    bytes: int


_FOOTER = len(Section) * (FINE + 1) + 4  # numbers at the end of a run: bounds of all ranges in bytes, and the counts


def write_run(
    path: Path,
    pieces: Sequence[tuple[Words, Sequence[bytes]]],
    digests: Words,
    origins: Words,
    counts: Counts,
) -> None:
    """Write a run in one step: rows and texts of both sides, then the tables."""
    bounds: list[Ints] = []
    with replacing(path) as temporary, temporary.open("wb") as file:
        for rows, texts in pieces:
            order = np.argsort(rows[:, 0], kind="stable")
            bounds.append(_write_rows(file.write, rows[order], _start(bounds)))
            file.writelines(texts[number] for number in order.tolist())
            sizes = np.concatenate([[0], np.cumsum(rows[order, 2].astype(np.int64))])
            bounds.append(_start(bounds) + sizes[(bounds[-1] - bounds[-1][0]) // (8 * rows.shape[1])])
        for rows in (digests, origins):
            bounds.append(_write_rows(file.write, rows[np.argsort(rows[:, 0], kind="stable")], _start(bounds)))
        file.write(np.concatenate(bounds).astype("<i8").tobytes())
        numbers = [counts.documents, counts.blank, counts.entries, counts.bytes]
        file.write(np.array(numbers, "<i8").tobytes())


def _start(bounds: Sequence[Ints]) -> int:
    return int(bounds[-1][-1]) if bounds else 0


def _write_rows(write: object, rows: Words, start: int) -> Ints:
    """Write sorted rows and return where each range begins and the last one ends, in bytes from the file's begin."""
    assert callable(write)
    write(rows.astype("<u8").tobytes())
    fine = (rows[:, 0] >> np.uint64(64 - 12)).astype(np.int64)
    return np.asarray(start + np.searchsorted(fine, np.arange(FINE + 1)) * 8 * rows.shape[1], dtype=np.int64)


def read_counts(path: Path) -> Counts:
    """The counts of a run."""
    return Counts(*np.fromfile(path, "<i8", offset=path.stat().st_size - 32).tolist())


def sizes(path: Path) -> Ints:
    """Bytes of every section and range of a run, shape (sections, FINE)."""
    footer = np.fromfile(path, "<i8", offset=path.stat().st_size - 8 * _FOOTER)
    return np.diff(footer[:-4].reshape(len(Section), FINE + 1), axis=1)


def stretch(path: Path, section: Section, first: int, last: int) -> bytes:
    """Ranges first to last - 1 of a section of a run."""
    handle = os.open(path, os.O_RDONLY)
    try:
        footer = os.fstat(handle).st_size - 8 * _FOOTER + 8 * section * (FINE + 1)
        start, stop = (int.from_bytes(os.pread(handle, 8, footer + 8 * fine), "little") for fine in (first, last))
        return _pread(handle, stop - start, start)
    finally:
        os.close(handle)


def _pread(handle: int, size: int, start: int) -> bytes:
    blocks = []
    while size:
        block = os.pread(handle, min(size, 2**30), start)
        if not block:
            raise OSError("a run ends too early")
        blocks.append(block)
        size, start = size - len(block), start + len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def rows(path: Path, section: Section, first: int, last: int) -> Words:
    """Rows of ranges first to last - 1 of a table of a run, shape (rows, columns)."""
    found: Words = np.frombuffer(stretch(path, section, first, last), "<u8").reshape(-1, section.columns)
    return found


def ranges(cost: Ints, most: int) -> list[tuple[int, int]]:
    """Consecutive ranges that cost at most `most` together, or are one: (first, last + 1) of each, none that is empty.

    Args:
        cost: of each range, shape (FINE,).
        most: that is worked on at once.
    """
    found, first, total = [], 0, 0
    for fine, more in enumerate(cost.tolist()):
        if total and total + more > most:
            found.append((first, fine))
            first, total = fine, 0
        total += more
    return [*found, (first, len(cost))] if total else found


def total_sizes(paths: Iterable[Path]) -> Ints:
    """Bytes of every section and range of several runs together, shape (sections, FINE)."""
    total = np.zeros((len(Section), FINE), np.int64)
    for path in paths:
        total += sizes(path)
    return total
