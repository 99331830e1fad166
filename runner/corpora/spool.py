"""Documents on their way to the shards: read, split into training and held-out text, cut into pieces, put into runs."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np

from mixlaw.files import hash64
from mixlaw.runner.corpora.process_pool import Progress
from mixlaw.runner.corpora.sources.document import Document, digest, parts
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.corpora.spill_files import Counts, Ints, Words, read_counts, write_run

#: Characters of a stored piece. Whole documents decide the split; pieces make a prefix of a shard, and a sample of the
#: held-out text, representative where documents are long (speeches of 50 to 200 kB).
PIECE = 8000
TASK = 40  # bits of the number of an entry within its task; the task's own number stands above
TOGETHER = 32 * 2**20  # bytes of small parts that one job reads
UNKNOWN = 4 * 2**20  # bytes that a part of unknown size is taken for
OVERHEAD = 256  # bytes that an entry costs in memory besides its text

#: What an entry to de-duplicate is, in the lowest bits of its last number; above them, how far back its document is.
WHOLE, LONG, PIECE_OF, BLANK = range(4)  # a document of one piece, of several, a piece of such a one, a blank piece
HELD_OUT = 4
FLAGS = 3  # bits


@dataclass(frozen=True)
class Piece:
    """A piece of a document; `group` is the same for all pieces of one original."""

    text: str
    group: int


def is_held_out(group: bytes, share: float, seed: int) -> bool:
    """Whether a group of documents, given by content, is held out."""
    return hash64(group, f"held out {seed}") < share * 2**64


@dataclass(frozen=True)
class Reading:
    """A job: read some parts of a domain into runs `<number>-<run>.run`.

    What is in a run is not worked on again: a reading that was cut off skips the documents that its runs hold.

    Attributes:
        parts: consecutive parts.
        number: of the job within its domain, in the order of the source.
        folder: where the runs go.
        share, seed: of the split; the seed is also that of the order.
        limit: bytes that a run is collected to in memory.
    """

    parts: tuple[Part, ...]
    number: int
    folder: Path
    share: float
    seed: int
    limit: int

    @property
    def size(self) -> int:
        """Bytes to be read, as far as that is known."""
        return sum(part.size or UNKNOWN for part in self.parts)

    def runs(self) -> list[Path]:
        """The runs that there are, in order."""
        paths = (self.folder / f"{self.number:05d}-{number:05d}.run" for number in count())
        return list(_while_there(paths))

    @property
    def done(self) -> Path:
        """A file that is there when all runs are."""
        return self.folder / f"{self.number:05d}.done"

    def __call__(self, tell: Progress) -> None:
        """Write the runs that are not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        before = [read_counts(path) for path in self.runs()]
        documents = (document for part in self.parts for document in part.read())
        left = islice(documents, sum(counts.documents for counts in before), None)
        read, number = sum(counts.bytes for counts in before), len(before)
        run = _Run(self, sum(counts.entries for counts in before))
        for document in left:
            run.add(document)
            if run.full:
                read, number = read + run.bytes, number + 1
                run = run.written(number - 1)
                tell(min(0.99, read / self.size))
        run.written(number)
        self.done.touch()


@dataclass(frozen=True)
class Spooled:
    """A domain that was read.

    Attributes:
        folder: where its runs are.
        runs: how many each reading made.
        base: number of the first entry of each reading, among all entries of all domains.
        blank: documents without text.
    """

    folder: Path
    runs: tuple[int, ...]
    base: tuple[int, ...]
    blank: int

    @property
    def paths(self) -> Iterator[Path]:
        """The runs, in the order of the source."""
        for reading, runs in enumerate(self.runs):
            yield from (self.folder / f"{reading:05d}-{run:05d}.run" for run in range(runs))

    def positions(self, entries: Words) -> Ints:
        """Numbers of entries among all entries of all domains, given their numbers in their domain; any shape."""
        reading = (entries >> np.uint64(TASK)).astype(np.int64)
        return np.asarray(np.array(self.base)[reading] + (entries & np.uint64(2**TASK - 1)).astype(np.int64))


def _while_there(paths: Iterator[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            return
        yield path


class _Run:
    """What is collected for one run."""

    def __init__(self, reading: Reading, first: int) -> None:
        self.reading, self.first, self.next = reading, first, first
        self.documents = self.blank = self.bytes = 0
        self.rows = array("Q"), array("Q")
        self.texts: tuple[list[bytes], list[bytes]] = [], []
        self.digests, self.origins = array("Q"), array("Q")

    @property
    def full(self) -> bool:
        """Whether it has come to its limit."""
        entries = self.next - self.first
        return self.bytes + OVERHEAD * entries >= self.reading.limit

    def add(self, document: Document) -> None:
        """Split a document, cut it, and note what decides whether it is a duplicate."""
        self.documents += 1
        self.bytes += len(document.text)  # of a blank document, too, for progress
        if not document.text.strip():
            self.blank += 1
            return
        content = (document.group or document.text).encode("utf-8", "replace")
        group = hash64(content, "group") >> 1  # fits a signed integer
        held = is_held_out(content, self.reading.share, self.reading.seed)
        pieces = list(parts(document.text, PIECE))
        whole = self._entry(document.text, LONG if len(pieces) > 1 else WHOLE, held, self.next)
        self.origins.extend((int.from_bytes(digest(document.origin)[:8], "big"), whole))
        for piece in pieces:
            entry = whole
            if len(pieces) > 1:
                entry = self._entry(piece, PIECE_OF if piece.strip() else BLANK, held, whole & (2**TASK - 1))
            self._store(piece, entry, group, held)

    def _entry(self, text: str, kind: int, held: bool, document: int) -> int:
        number, key = self.next, digest(text)
        seen = self.reading.number << TASK | number
        info = (number - document) << FLAGS | kind | HELD_OUT * held
        self.digests.extend((int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big"), seen, info))
        self.next += 1
        return seen

    def _store(self, text: str, entry: int, group: int, held: bool) -> None:
        raw = text.encode("utf-8", "replace")
        self.rows[held].extend((hash64(raw, f"order {self.reading.seed}"), entry, len(raw), group))
        self.texts[held].append(raw)

    def written(self, number: int) -> _Run:
        """Write it as the job's run of that number; the next one goes on with the numbers of entries."""
        counts = Counts(self.documents, self.blank, self.next - self.first, self.bytes)
        pieces = [(_table(rows, 4), texts) for rows, texts in zip(self.rows, self.texts, strict=True)]
        path = self.reading.folder / f"{self.reading.number:05d}-{number:05d}.run"
        write_run(path, pieces, _table(self.digests, 4), _table(self.origins, 2), counts)
        return _Run(self.reading, self.next)


def _table(numbers: array[int], columns: int) -> Words:
    found: Words = np.frombuffer(numbers, np.uint64) if numbers else np.empty(0, np.uint64)
    return found.reshape(-1, columns)


def readings(source: Sequence[Part], folder: Path, share: float, seed: int, limit: int) -> list[Reading]:
    """Jobs that read a domain, independent of `limit`: a part of unknown size alone, small ones together."""
    jobs: list[list[Part]] = [[]]
    size = 0
    for part in source:
        if not part.size or not size or size + part.size > TOGETHER:
            jobs.append([])
            size = 0
        jobs[-1].append(part)
        size += part.size
    chosen = jobs[1:] or jobs  # a source without parts is read, too, and found empty
    return [Reading(tuple(job), number, folder, share, seed, limit) for number, job in enumerate(chosen)]
