"""A part of a source, which one process reads on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mixlaw.runner.corpora.sources.document import Document

BATCH = 32 * 2**20  # bytes of small files that make one part
POINTER, LARGEST_POINTER = (
    b"version https://git-lfs.github.com/spec/",
    1024,
)  # first bytes, and size, by its specification


@dataclass(frozen=True)
class Part:
    """A piece of a source that is read on its own: a large file, a batch of small ones, a repository, a slice.

    Attributes:
        name: stable, and unique within the source.
        read: gives its documents, the same ones every time; can be pickled.
        size: bytes that it reads, where that is known beforehand, else 0; for progress, not for identity.
    """

    name: str
    read: Callable[[], Iterator[Document]]
    size: int = 0


def is_pointer(file: Path) -> bool:
    """Whether a file is a pointer of Git LFS: what a clone holds in place of a large file that was not fetched."""
    if file.stat().st_size > LARGEST_POINTER:
        return False
    with file.open("rb") as start:
        return start.read(len(POINTER)) == POINTER


def batches(files: Iterable[Path], limit: int = BATCH) -> Iterator[tuple[list[Path], int]]:
    """Consecutive files, together at most `limit` bytes unless it is one file; with their bytes."""
    batch: list[Path] = []
    size = 0
    for file in files:
        more = file.stat().st_size
        if batch and size + more > limit:
            yield batch, size
            batch, size = [], 0
        batch.append(file)
        size += more
    if batch:
        yield batch, size


def name_of(file: Path, root: Path) -> str:
    """A file's path from `root` on where it is below, else the whole path."""
    return (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
