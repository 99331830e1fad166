"""Rows that belong together but stand far apart in a file: gathered on disk by key, read back group by group."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from typing import IO, Any

from mixlaw.runner.corpora.sources.document import hash64

BUCKETS = 256  # files on disk; memory holds the positions of the rows of one

Key = int | str
Order = tuple[int, ...]


class Groups:
    """Rows by key; a group's rows come in the order given with them, groups in an order of their own.

    A context manager: its temporary files, about as large as the rows, are in the folder that TMPDIR names.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: dict[int, IO[bytes]] = {}

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, key: Key, order: Order, row: Any) -> None:
        """Keep a row, which is JSON."""
        bucket = hash64(str(key).encode(), "groups") % BUCKETS
        if bucket not in self._files:
            self._files[bucket] = self._stack.enter_context(
                tempfile.TemporaryFile(prefix="mixlaw-")  # noqa: SIM115 - the stack closes it
            )
        self._files[bucket].write(json.dumps([key, order, row], ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def __iter__(self) -> Iterator[tuple[Key, list[Any]]]:
        for _, file in sorted(self._files.items()):
            for key, places in groupby(_places(file), lambda place: place[0]):
                yield key, [self._row(file, at) for _, _, at in places]

    @staticmethod
    def _row(file: IO[bytes], at: int) -> Any:
        file.seek(at)
        return json.loads(file.readline())[2]


def _places(file: IO[bytes]) -> list[tuple[Key, Order, int]]:
    """Key, order and position of every row of a file, sorted."""
    file.seek(0)
    places = []
    at = 0
    for line in file:
        key, order, _ = json.loads(line)
        places.append((key, tuple(order), at))
        at += len(line)
    return sorted(places)
