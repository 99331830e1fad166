"""Rows that belong together but lie far apart in a file: sorted on disk by key, by SQLite, and read group by group."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

Key = int | str
Order = tuple[int, int, int]


class Groups:
    """Rows by key; a group's rows come in the order given with them.

    A context manager: the rows are in a temporary file, in the folder that TMPDIR names.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a database without a name is a temporary file
        self._database.execute("CREATE TABLE lines (key, first, second, third, line)")

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, key: Key, order: Order, row: Any) -> None:
        """Keep a row, which is JSON."""
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()
        self._database.execute("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", (key, *order, line))

    def __iter__(self) -> Iterator[tuple[Key, list[Any]]]:
        lines = self._database.execute("SELECT key, line FROM lines ORDER BY key, first, second, third, rowid")
        for key, group in groupby(lines, itemgetter(0)):
            yield key, [json.loads(line) for _, line in group]
