"""De-duplication beyond memory: of entries with the same digest the first in the order of the sources is kept.

Entries are compared range by range of their digest. A document that is dropped takes its pieces along, and those pieces
then cannot make others duplicates. This is known only after all ranges were compared, so they are compared again until
nothing changes. Each round settles at least the next document of every chain; in practice there are two or three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlaw.files import replacing
from mixlaw.runner.corpora.process_pool import ProcessPool, Report
from mixlaw.runner.corpora.reading import BLANK, HELD_OUT, KIND, OFFSET, ORIGIN, PIECE_OF, WHOLE, ReadDomain
from mixlaw.runner.corpora.spill_files import Ints, Span, Table, spans

Bools = NDArray[np.bool_]
Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class DomainCounts:
    """Contents of a domain after de-duplication.

    Attributes:
        train, held_out: pieces kept.
        duplicates: documents and pieces dropped, blank ones included.
        files: distinct origins of the documents kept.
        blank: documents among the duplicates without a word: empty, null, or white space alone.
        contaminated, near_duplicates: training pieces dropped after that, where a study asks for it.
    """

    train: int
    held_out: int
    duplicates: int
    files: int
    blank: int
    contaminated: int = 0
    near_duplicates: int = 0

    def without(self, contaminated: int, near_duplicates: int) -> DomainCounts:
        """The counts after training pieces were dropped."""
        lost = {"contaminated": contaminated, "near_duplicates": near_duplicates}
        return replace(self, train=self.train - sum(lost.values()), **lost)


def is_set(bits: Bits, positions: Ints) -> Bools:
    """Whether the bits at these positions are set."""
    return np.asarray(bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1, dtype=bool)


def read_bits(path: Path) -> Bits:
    """One bit an entry, set where it is dropped; memory-mapped, so that processes share it."""
    return np.memmap(path, np.uint8, "r")


@dataclass(frozen=True)
class Compare:
    """A job: compare the entries whose digests are in a range.

    Attributes:
        domains: all of them, in order.
        span: the range.
        before: bits of the last round.
    """

    domains: tuple[ReadDomain, ...]
    span: Span
    before: Path

    def __call__(self, report: Report) -> tuple[Ints, Ints]:
        """The fields of `DomainCounts` by domain, shape (domains, 5), and the positions of dropped entries.

        Origins are counted with the documents dropped in the last round, so they are right in the final one.
        """
        table, position = self._read()
        kind, offset = (table[3] & np.uint64(KIND)).astype(np.int64), (table[3] >> np.uint64(OFFSET)).astype(np.int64)
        held = (table[3] & np.uint64(HELD_OUT)).astype(bool)
        orphan = (offset > 0) & is_set(read_bits(self.before), position - offset)
        first = _first_of_each(table[:2], position, (kind != BLANK) & (kind != ORIGIN) & ~orphan)
        starts = [domain.bases[0] for domain in self.domains]
        domain = np.searchsorted(starts, position, "right") - 1
        stored = first & ((kind == WHOLE) | (kind == PIECE_OF))
        dropped = ~first & (kind != ORIGIN)
        origin = _first_of_each(np.vstack([table[:2], domain.astype(np.uint64)]), position, (kind == ORIGIN) & ~orphan)
        chosen = (stored & ~held, stored & held, dropped & ~orphan, origin, (kind == BLANK) & (offset == 0))
        counts = [np.bincount(domain[rows], minlength=len(starts)) for rows in chosen]
        return np.stack(counts, axis=1), position[dropped]

    def _read(self) -> tuple[Table, Ints]:
        files = [(file, base) for domain in self.domains for file, base in zip(domain.files, domain.bases, strict=True)]
        tables = [file.key_rows(self.span) for file, _ in files]
        positions = [table[2].astype(np.int64) + base for table, (_, base) in zip(tables, files, strict=True)]
        return np.concatenate(tables, axis=1), np.concatenate(positions)


def _first_of_each(keys: Table, position: Ints, active: Bools) -> Bools:
    """Whether an entry has the lowest position of the active ones that equal it in `keys`, shape (columns, entries)."""
    chosen = np.flatnonzero(active)
    order = chosen[np.lexsort((position[chosen], *keys[:, chosen]))]
    first = np.ones(len(order), bool)
    first[1:] = (keys[:, order[1:]] != keys[:, order[:-1]]).any(axis=0)
    result = np.zeros(len(position), bool)
    result[order[first]] = True
    return result


def find_duplicates(
    domains: Mapping[str, ReadDomain], bits: Path, pool: ProcessPool, most: int
) -> dict[str, DomainCounts]:
    """Find duplicates, write one bit an entry to `bits`, and count by domain.

    Args:
        domains: in order: where two hold the same text, the first keeps it.
        bits: file to write; it exists only when it is complete.
        pool: does the work.
        most: bytes of rows that a process compares at once.
    """
    read = tuple(domains.values())
    entries = sum(domain.entries for domain in read)
    rounds = bits.with_suffix(".round")
    jobs = [Compare(read, span, rounds) for span in spans(32 * entries, most)]
    before, dropped = np.ones(1, np.uint8), np.zeros(entries // 8 + 1, np.uint8)
    counts = np.zeros((len(read), 5), np.int64)
    while not np.array_equal(dropped, before):
        before, dropped = dropped, np.zeros_like(dropped)
        with replacing(rounds) as temporary:
            before.tofile(temporary)
        counts[:] = 0
        for _, (counted, positions) in pool.run(jobs, lambda *_: None):
            counts += counted
            np.bitwise_or.at(dropped, positions >> 3, np.left_shift(1, positions & 7).astype(np.uint8))
    rounds.replace(bits)
    return {name: DomainCounts(*row) for name, row in zip(domains, counts.tolist(), strict=True)}
