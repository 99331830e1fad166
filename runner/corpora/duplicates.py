"""De-duplication beyond memory: of entries with the same digest the first in the order of the sources stays.

Entries are compared range by range of their digest. A document that is dropped takes its pieces along, and these then
drop nobody: that is known only after all ranges were compared, so they are compared again until nothing changes. Each
round settles at least the next document of every chain, and in practice the second changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlaw.files import replacing
from mixlaw.runner.corpora.process_pool import ProcessPool, Progress
from mixlaw.runner.corpora.spill_files import FINE, Ints, Section, Words, ranges, rows, total_sizes
from mixlaw.runner.corpora.spool import BLANK, FLAGS, HELD_OUT, LONG, PIECE_OF, WHOLE, Spooled

Bools = NDArray[np.bool_]
Bits = NDArray[np.uint8]

_KIND = 3  # mask of what an entry is


@dataclass(frozen=True)
class Found:
    """What is left of a domain: pieces to train on, held-out pieces, originals of them; and how many were dropped."""

    train: int
    held_out: int
    duplicates: int
    files: int


def dropped(bits: Bits, positions: Ints) -> Bools:
    """Whether entries were dropped; `bits` has one bit an entry."""
    return np.asarray(bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1, dtype=bool)


def read_bits(path: Path) -> Bits:
    """The bits of all entries, mapped: processes share them."""
    return np.memmap(path, np.uint8, "r")


@dataclass(frozen=True)
class Compare:
    """A job: compare the entries whose digests are in a range.

    Returns how many pieces to train on, held-out pieces and duplicates each domain has there, shape (domains, 3), and a
    checksum of the long documents that are dropped; the numbers of all that is dropped are written to `out`.
    """

    domains: tuple[Spooled, ...]
    first: int
    last: int
    before: Path  # bits of the last round
    out: Path

    def __call__(self, tell: Progress) -> tuple[Ints, str]:
        """Counts and checksum."""
        table, position = self._read()
        info = table[:, 3].astype(np.int64)
        kind, before = info & _KIND, read_bits(self.before)
        orphan = dropped(before, position - (info >> FLAGS)) & (kind >= PIECE_OF)
        kept = _first_of_each(table, position, (kind != BLANK) & ~orphan)
        np.save(self.out, position[~kept], allow_pickle=False)
        starts = [domain.base[0] for domain in self.domains]
        domain = np.searchsorted(starts, position, "right") - 1
        stored = kept & ((kind == WHOLE) | (kind == PIECE_OF))
        held = (info & HELD_OUT).astype(bool)
        counts = [
            np.bincount(domain[chosen], minlength=len(starts))
            for chosen in (stored & ~held, stored & held, ~kept & ~orphan)
        ]
        long = np.sort(position[~kept & (kind == LONG)])
        return np.stack(counts, axis=1), hashlib.sha256(long.tobytes()).hexdigest()

    def _read(self) -> tuple[Words, Ints]:
        tables, positions = [], []
        for domain in self.domains:
            for path in domain.paths:
                tables.append(rows(path, Section.DIGESTS, self.first, self.last))
                positions.append(domain.positions(tables[-1][:, 2]))
        return np.concatenate(tables), np.concatenate(positions)


def _first_of_each(table: Words, position: Ints, active: Bools) -> Bools:
    """Whether an entry is the first active one of its digest."""
    chosen = np.flatnonzero(active)
    order = chosen[np.lexsort((position[chosen], table[chosen, 1], table[chosen, 0]))]
    first = np.ones(len(order), bool)
    first[1:] = (table[order[1:], :2] != table[order[:-1], :2]).any(axis=1)
    kept = np.zeros(len(position), bool)
    kept[order[first]] = True
    return kept


@dataclass(frozen=True)
class CountOrigins:
    """A job: count the originals with hashes in a range that something was kept of."""

    domain: Spooled
    first: int
    last: int
    bits: Path

    def __call__(self, tell: Progress) -> int:
        """The count."""
        bits, found = read_bits(self.bits), []
        for path in self.domain.paths:
            table = rows(path, Section.ORIGINS, self.first, self.last)
            found.append(np.unique(table[~dropped(bits, self.domain.positions(table[:, 1])), 0]))
        return int(np.unique(np.concatenate(found)).size)


def find_duplicates(domains: Mapping[str, Spooled], bits: Path, crew: ProcessPool, most: int) -> dict[str, Found]:
    """Find what is a duplicate, write one bit an entry to `bits`, and count by domain.

    Args:
        domains: in order: where two hold the same text, the first keeps it.
        bits: file to write; it is there only when it is complete.
        crew: who works.
        most: bytes of rows that a process compares at once.
    """
    spooled = tuple(domains.values())
    total = sum((total_sizes(domain.paths)[Section.DIGESTS] for domain in spooled), np.zeros(FINE, np.int64))
    chosen, entries = ranges(total, most), int(total.sum()) // 32
    rounds = bits.with_suffix(".round")
    _write_bits(rounds, entries, ())
    known, changed = [hashlib.sha256().hexdigest()] * len(chosen), True
    counts = np.zeros((len(spooled), 3), np.int64)
    while changed:
        outs = [bits.with_suffix(f".{number}.npy") for number in range(len(chosen))]
        jobs = [Compare(spooled, *span, rounds, out) for span, out in zip(chosen, outs, strict=True)]
        results = dict(crew.run(jobs, lambda *_: None))
        counts = sum((counted for counted, _ in results.values()), np.zeros((len(spooled), 3), np.int64))
        _write_bits(rounds, entries, outs)
        checksums = [results[number][1] for number in range(len(chosen))]
        known, changed = checksums, checksums != known
    found = {}
    for (name, domain), (train, held_out, again) in zip(domains.items(), counts.tolist(), strict=True):
        files = _count_origins(domain, rounds, crew, most)
        found[name] = Found(train, held_out, again + domain.blank, files)
    rounds.replace(bits)
    return found


def _write_bits(path: Path, entries: int, parts: Sequence[Path]) -> None:
    bits = np.zeros(entries // 8 + 1, np.uint8)
    for part in _loaded(parts):
        np.bitwise_or.at(bits, part >> 3, np.left_shift(1, part & 7).astype(np.uint8))
    with replacing(path) as temporary:
        bits.tofile(temporary)


def _loaded(parts: Sequence[Path]) -> Iterator[Ints]:
    for part in parts:
        yield np.load(part, allow_pickle=False)
        part.unlink()


def _count_origins(domain: Spooled, bits: Path, crew: ProcessPool, most: int) -> int:
    chosen = ranges(total_sizes(domain.paths)[Section.ORIGINS], most)
    return sum(found for _, found in crew.run([CountOrigins(domain, *span, bits) for span in chosen], lambda *_: None))
