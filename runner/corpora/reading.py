"""Reading a domain: documents are split into training and held-out text, and put into spill files.

A document is stored whole, or cut into pieces where a study asks for it; each piece then is a document of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice, takewhile
from pathlib import Path

import numpy as np

from mixlaw.files import hash64
from mixlaw.runner.corpora.process_pool import Report
from mixlaw.runner.corpora.sources.document import Document, digest, parts
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.corpora.spill_files import SIDES, SpillFile, Table

TOGETHER = 32 * 2**20  # bytes of small parts that one job reads
UNKNOWN = 4 * 2**20  # bytes assumed for a part of unknown size
OVERHEAD = 256  # bytes that an entry costs in memory besides its text

#: Kinds of entries, in the lowest bits of `info`: a document of one piece, one of several, a piece of the latter, a
#: blank document or piece, and the origin of a document. Above them: held out or not, and how many entries back the
#: entry's document is (0 for the document itself).
WHOLE, LONG, PIECE_OF, BLANK, ORIGIN = range(5)
KIND, HELD_OUT, OFFSET = 7, 8, 4  # mask of the kind, bit, shift


@dataclass(frozen=True)
class Piece:
    """A document, or a piece of one; `group` is the same for all pieces of one original."""

    text: str
    group: int


def is_held_out(group: bytes, share: float, seed: int) -> bool:
    """Whether a group of documents, given by content, is held out."""
    return hash64(group, f"held out {seed}") < share * 2**64


@dataclass(frozen=True)
class Reading:
    """A job: read some parts of a domain into spill files `<number>-<count>`.

    An interrupted job resumes after the documents that its complete spill files hold.

    Attributes:
        parts: consecutive parts.
        number: of the job within its domain, in the order of the source.
        folder: for the spill files.
        share, seed: of the split; the seed is also that of the order.
        longest: characters of a document that is not cut; None: none is.
        limit: bytes collected in memory for one spill file.
        in_place: whether documents that the source has as tokens are stored as their places; these are never cut.
    """

    parts: tuple[Part, ...]
    number: int
    folder: Path
    share: float
    seed: int
    longest: int | None
    limit: int
    in_place: bool = False

    @property
    def size(self) -> int:
        """Bytes to be read, estimated where a part does not say."""
        return sum(part.size or UNKNOWN for part in self.parts)

    @property
    def files(self) -> list[SpillFile]:
        """Complete spill files, in order."""
        files = (SpillFile(self.folder / f"{self.number:05d}-{number:05d}") for number in count())
        return list(takewhile(lambda file: file.pieces.exists(), files))

    @property
    def done(self) -> Path:
        """A file that exists when all parts have been read."""
        return self.folder / f"{self.number:05d}.done"

    def __call__(self, report: Report) -> None:
        """Write the spill files that are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number, read = len(self.files), sum(file.texts.stat().st_size for file in self.files)
        documents = (document for part in self.parts for document in part.read())
        batch = self._batch()
        for document in islice(documents, sum(map(_documents, self.files)), None):
            batch.add(document)
            if batch.memory >= self.limit:
                batch.write(self.folder / f"{self.number:05d}-{number:05d}")
                number, read, batch = number + 1, read + batch.bytes, self._batch()
                report(min(0.99, read / self.size))
        batch.write(self.folder / f"{self.number:05d}-{number:05d}")
        self.done.touch()

    def _batch(self) -> _Batch:
        return _Batch(self.share, self.seed, self.longest, self.in_place)


def _documents(file: SpillFile) -> int:
    """Documents in a spill file, blank ones included."""
    return int(np.count_nonzero(np.load(file.keys, mmap_mode="r")[3] >> OFFSET == 0))


class _Batch:
    """Documents collected for one spill file."""

    def __init__(self, share: float, seed: int, longest: int | None, in_place: bool) -> None:
        self.share, self.seed, self.longest, self.in_place, self.bytes = share, seed, longest, in_place, 0
        self.pieces, self.keys = array("Q"), array("Q")
        self.texts: list[bytes] = []

    @property
    def _entries(self) -> int:
        return len(self.keys) // 4

    @property
    def memory(self) -> int:
        """Estimate of the bytes it holds."""
        return self.bytes + OVERHEAD * self._entries

    def add(self, document: Document) -> None:
        """Split a document, cut it if it is too long, and note the digests that decide whether it is a duplicate."""
        stored = document.stored if self.in_place else None
        self.bytes += len(document.text) if stored is None else OVERHEAD
        content = (document.group or document.text).encode("utf-8", "replace")
        held = is_held_out(content, self.share, self.seed)
        pieces = [document.text] if self.longest is None or stored else list(parts(document.text, self.longest))
        blank, number = not document.text.strip(), self._entries
        self._entry(document.text, BLANK if blank else LONG if len(pieces) > 1 else WHOLE, held, number)
        if blank:
            return
        for piece in pieces:
            entry = number if len(pieces) == 1 else self._entries
            if len(pieces) > 1:
                self._entry(piece, PIECE_OF if piece.strip() else BLANK, held, number)
            raw = piece.encode("utf-8", "replace")
            key = hash64(raw, f"order {self.seed}") >> 1 | held << 63
            self.pieces.extend((key, entry, hash64(content, "group") >> 1))  # the group fits a signed integer
            self.texts.append(raw if stored is None else stored.reference(len(raw)).encode())
        self._entry(document.origin, ORIGIN, held, number)

    def _entry(self, text: str, kind: int, held: bool, document: int) -> None:
        number, key = self._entries, digest(text)
        info = number - document << OFFSET | HELD_OUT * held | kind
        self.keys.extend((int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big"), number, info))

    def write(self, stem: Path) -> None:
        """Write the spill file."""
        SpillFile(stem).write(_table(self.pieces, 3), self.texts, _table(self.keys, 4))


def _table(numbers: array[int], columns: int) -> Table:
    return np.array(numbers, np.uint64).reshape(-1, columns).T


@dataclass(frozen=True)
class ReadDomain:
    """The spill files of a domain.

    Attributes:
        files: in the order of the source.
        bases: number of each file's first entry, counted over the files of all domains.
        sizes: pieces and bytes of text by side.
        entries: to compare, in all files.
    """

    files: tuple[SpillFile, ...]
    bases: tuple[int, ...]
    sizes: dict[str, tuple[int, int]]
    entries: int


def read_domain(readings: Sequence[Reading], base: int) -> ReadDomain:
    """Describe what finished jobs wrote; `base` is the number of entries of the domains before."""
    files = tuple(file for reading in readings for file in reading.files)
    entries = [np.load(file.keys, mmap_mode="r").shape[1] for file in files]
    sizes = {}
    for side, span in SIDES.items():
        pieces, texts = zip(*(file.sizes(span) for file in files), strict=True)
        sizes[side] = sum(pieces), sum(texts)
    return ReadDomain(files, tuple(accumulate(entries[:-1], initial=base)), sizes, sum(entries))


def readings(
    source: Sequence[Part],
    folder: Path,
    share: float,
    seed: int,
    limit: int,
    longest: int | None = None,
    in_place: bool = False,
) -> list[Reading]:
    """Jobs that read a domain, independent of `limit`: a part of unknown size alone, small ones together."""
    jobs: list[list[Part]] = [[]]
    size = 0
    for part in source:
        if not part.size or not size or size + part.size > TOGETHER:
            jobs.append([])
            size = 0
        jobs[-1].append(part)
        size += part.size
    chosen = jobs[1:] or jobs  # a source without parts is read, too, and reported as empty
    split = share, seed, longest, limit, in_place
    return [Reading(tuple(job), number, folder, *split) for number, job in enumerate(chosen)]
