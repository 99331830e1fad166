"""Dropping training documents that hold evaluation items, and near-duplicates, where a study asks for it.

It comes after exact duplicates were dropped: every remaining piece is looked at once, and what is found is added to the
bits of the entries dropped. Held-out text stays as it is, so that what is measured does not depend on this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlaw.errors import InputError
from mixlaw.files import replacing, with_ending
from mixlaw.runner.batches.manifest import TokenSource
from mixlaw.runner.corpora.contamination import Finder
from mixlaw.runner.corpora.duplicates import read_bits
from mixlaw.runner.corpora.in_place import decoded
from mixlaw.runner.corpora.near_duplicates import HASHES, near_duplicates, signature
from mixlaw.runner.corpora.process_pool import Report
from mixlaw.runner.corpora.sources.registry import identity, read
from mixlaw.runner.corpora.spill_files import Ints
from mixlaw.runner.corpora.tokenise import Bucket

ITEMS = "items"  # in place of a source: the items of the data folder


@dataclass(frozen=True)
class Cleaning:
    """What is dropped besides exact duplicates; nothing by default.

    Attributes:
        contaminated: sources of texts whose n-grams no training document may hold, `items` for the data folder's own.
        near_duplicates: whether to drop training documents that are nearly a held-out one or an earlier one.
    """

    contaminated: tuple[str, ...] = ()
    near_duplicates: bool = False

    def __bool__(self) -> bool:
        return bool(self.contaminated or self.near_duplicates)


NOTHING = Cleaning()


def cleaning_identity(cleaning: Cleaning, root: Path) -> list[object]:
    """Plain data that change when what is dropped does; empty where nothing is.

    Raises:
        InputError: a source is unknown, or names no file.
    """
    sources = [source if source == ITEMS else identity(source, root) for source in cleaning.contaminated]
    return [["cleaning", cleaning.near_duplicates, sources]] if cleaning else []


def benchmark_texts(cleaning: Cleaning, root: Path) -> dict[str, list[str]]:
    """Texts by source of all but the data folder's own items.

    Raises:
        InputError: a source cannot be read, or is empty.
    """
    texts = {source: [d.text for d in read(source, root)] for source in cleaning.contaminated if source != ITEMS}
    empty = [source for source, found in texts.items() if not found]
    if empty:
        raise InputError(
            f"drop_contaminated names {empty[0]!r}, which has no text: name benchmark items, or leave it out"
        )
    return texts


@dataclass(frozen=True)
class Look:
    """A job: look at the pieces of a bucket; writes rows of (entry, contaminated) and, beside them, signatures.

    Attributes:
        bucket: without exact duplicates.
        sources, tokenizer: to decode pieces that are places; None for text.
        finder: n-grams of items; None where they are not looked for.
        near: whether to write signatures.
        out: the table, shape (pieces, 2), written last.
    """

    bucket: Bucket
    sources: Sequence[TokenSource] | None
    tokenizer: Path
    finder: Finder | None
    near: bool
    out: Path

    @property
    def signatures(self) -> Path:
        """File of the signatures, shape (pieces, HASHES)."""
        return with_ending(self.out, ".signatures")

    def __call__(self, report: Report) -> None:
        """Write the files."""
        entries: list[int] = []
        table: list[tuple[int, bool]] = []
        done = 0
        with replacing(self.signatures) as temporary, temporary.open("wb") as file:
            for text in self._texts(entries):
                hit = self.finder is not None and next(self.finder.find(text), None) is not None
                table.append((entries[len(table)], hit))
                if self.near:
                    file.write(signature(text).tobytes())
                done += len(text)
                report(min(1.0, done / max(1, self.bucket.size)))
        with replacing(self.out) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(table, "<i8").reshape(-1, 2), allow_pickle=False)

    def _texts(self, entries: list[int]) -> Iterable[str]:
        def texts() -> Iterable[str]:
            for entry, piece in self.bucket.entries():
                entries.append(entry)
                yield piece.text

        return texts() if self.sources is None else decoded(texts(), self.sources, self.tokenizer)


@dataclass(frozen=True)
class Dropped:
    """Training pieces that a domain loses, in this order of checks."""

    contaminated: int
    near_duplicates: int


def drop(
    looks: Mapping[tuple[str, str], Sequence[Look]], cleaning: Cleaning, exact: Path, bits: Path, folder: Path
) -> dict[str, Dropped]:
    """Write the bits of everything that is dropped, exact duplicates included; returns counts by domain.

    Args:
        looks: finished jobs by domain and side, domains in order.
        cleaning: what is dropped.
        exact: bits of exact duplicates.
        bits: file to write; it exists only when it is complete.
        folder: for working files.
    """
    tables = {side: np.concatenate([np.load(job.out) for job in jobs]) for side, jobs in looks.items()}
    entries, hits = (np.concatenate([table[:, column] for table in tables.values()]) for column in (0, 1))
    held = np.concatenate([np.full(len(table), side == "held_out") for (_, side), table in tables.items()])
    contaminated, near = hits == 1, np.zeros(len(entries), bool)
    if cleaning.near_duplicates and (~contaminated).any():
        clean = np.flatnonzero(~contaminated)
        signatures = _joined(looks, folder / "signatures", clean, len(entries))
        near[clean] = near_duplicates(signatures, _rank(entries[clean], held[clean])) & ~held[clean]
    all_bits = np.array(read_bits(exact))
    lost = entries[contaminated | near]
    np.bitwise_or.at(all_bits, lost >> 3, np.left_shift(1, lost & 7).astype(np.uint8))
    with replacing(bits) as temporary:
        all_bits.tofile(temporary)
    counts: dict[str, list[int]] = {}
    start = 0
    for (name, _), table in tables.items():
        here, start = slice(start, start + len(table)), start + len(table)
        count = counts.setdefault(name, [0, 0])
        count[0] += int(contaminated[here].sum())
        count[1] += int(near[here].sum())
    return {name: Dropped(*count) for name, count in counts.items()}


def _rank(entries: Ints, held: Ints) -> Ints:
    """Held-out text first, then the order of the sources."""
    rank = np.empty(len(entries), np.int64)
    rank[np.lexsort((entries, ~held))] = np.arange(len(entries))
    return rank


def _joined(looks: Mapping[tuple[str, str], Sequence[Look]], path: Path, chosen: Ints, texts: int) -> np.ndarray:
    """The signatures of the chosen texts, in one file that is memory-mapped, shape (chosen, HASHES)."""
    keep = np.zeros(texts, bool)
    keep[chosen] = True
    start = 0
    with path.open("wb") as file:
        for jobs in looks.values():
            for job in jobs:
                rows = np.fromfile(job.signatures, np.uint32).reshape(-1, HASHES)
                file.write(rows[keep[start : start + len(rows)]].tobytes())
                start += len(rows)
    return np.memmap(path, np.uint32, "r", shape=(len(chosen), HASHES))
