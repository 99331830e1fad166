"""Documents on their way to the shards: de-duplicated, split, cut into pieces, and read back in hash order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mixlaw.runner.corpora.document import Document, digest, hash64, parts

#: Characters of a stored piece. Whole documents decide the split; pieces make a prefix of a shard, and a sample of the
#: held-out text, representative where documents are long (speeches of 50 to 200 kB).
PIECE = 8000


@dataclass(frozen=True)
class Piece:
    """A piece of a document; `group` is the same for all pieces of one original."""

    text: str
    group: int


class Spool:
    """Pieces of text in one temporary file, read back in the order of their hash; memory holds 32 bytes a piece."""

    def __init__(self, path: Path, salt: str) -> None:
        self._path = path
        self._salt = salt
        self._file: BinaryIO = path.open("wb")
        self._rows: list[tuple[int, int, int, int]] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, text: str, group: int) -> None:
        """Append a piece."""
        raw = text.encode("utf-8", "replace")
        self._rows.append((hash64(raw, self._salt), self.bytes, len(raw), group))
        self._file.write(raw)
        self.bytes += len(raw)

    def close(self) -> None:
        """End writing; the spool can be read from now on."""
        self._file.close()

    def __iter__(self) -> Iterator[Piece]:
        table = np.array(self._rows, dtype=np.uint64).reshape(-1, 4)
        with self._path.open("rb") as file:
            for _, start, size, group in table[np.argsort(table[:, 0], kind="stable")].tolist():
                file.seek(start)
                yield Piece(file.read(size).decode(), group)


@dataclass
class Gathered:
    """The documents of one domain, split: pieces to train on, held-out pieces, and what was counted on the way."""

    train: Spool
    held_out: Spool
    duplicates: int = 0
    origins: set[bytes] = field(default_factory=set)

    @property
    def files(self) -> int:
        """Originals that something was kept of."""
        return len(self.origins)


def gather(documents: Iterable[Document], folder: Path, share: float, seed: int, seen: set[bytes]) -> Gathered:
    """Read a domain: drop texts in `seen` (and add to it), split whole groups by content hash, cut into pieces.

    Growing a corpus never moves a document between training and held-out text, as its group's hash alone decides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = f"order {seed}"
    found = Gathered(Spool(folder / "train.txt", order), Spool(folder / "held_out.txt", order))
    for document in documents:
        if _is_new(document.text, seen):
            _store(document, found, share, seed, seen)
        else:
            found.duplicates += 1
    found.train.close()
    found.held_out.close()
    return found


def is_held_out(group: bytes, share: float, seed: int) -> bool:
    """Whether a group of documents, given by content, is held out."""
    return hash64(group, f"held out {seed}") < share * 2**64


def _is_new(text: str, seen: set[bytes]) -> bool:
    key = digest(text)
    if key in seen or not text.strip():
        return False
    seen.add(key)
    return True


def _store(document: Document, found: Gathered, share: float, seed: int, seen: set[bytes]) -> None:
    content = (document.group or document.text).encode("utf-8", "replace")
    group = hash64(content, "group") >> 1  # fits a signed integer
    spool = found.held_out if is_held_out(content, share, seed) else found.train
    pieces = list(parts(document.text, PIECE))
    fresh = pieces if len(pieces) == 1 else [piece for piece in pieces if _is_new(piece, seen)]
    for piece in fresh:
        spool.add(piece, group)
    found.duplicates += len(pieces) - len(fresh)
    found.origins.add(digest(document.origin))
