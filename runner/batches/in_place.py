"""Tokens that stay in the files of another program: documents in the order of a table, gathered when they are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixlaw.runner.batches.manifest import TokenSource

Tokens = NDArray[np.unsignedinteger]
Ints = NDArray[np.int64]


class PlacedTokens:
    """Documents of some files one after another, each followed by the end of text; sliced like an array.

    Memory holds 8 bytes a document; the table of places and the files are memory-mapped.

    Args:
        sources: the files.
        places: number of the file and first byte of each document in it, shape (documents, 2).
        firsts: position of each document's first token, shape (documents,).
        size: tokens in all, ends of text included.
        dtype: of the tokens that are returned.
        end: token after every document.
    """

    def __init__(
        self,
        sources: Sequence[TokenSource],
        places: Ints,
        firsts: Ints,
        size: int,
        dtype: np.dtype[np.unsignedinteger],
        end: int,
    ) -> None:
        # Bytes, as a document of MDS may begin at an odd one; views, as they are quicker to slice than maps.
        self._files = [np.memmap(source.path, np.uint8, "r").view(np.ndarray) for source in sources]
        self._dtypes = [np.dtype(source.dtype) for source in sources]
        self._places, self._firsts = places, np.ascontiguousarray(firsts)
        self.size, self.dtype, self.end = size, dtype, end

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, span: slice) -> Tokens:
        start, stop, step = span.indices(self.size)
        if step != 1:
            raise ValueError(f"tokens are sliced in steps of 1, got {step}")
        out = np.full(max(0, stop - start), self.end, self.dtype)
        document = int(np.searchsorted(self._firsts, start, "right")) - 1
        at = start
        while at < stop:
            first = int(self._firsts[document])
            after = int(self._firsts[document + 1]) if document + 1 < self._firsts.size else self.size
            until = min(stop, after - 1)  # where the end of text stands
            if at < until:
                out[at - start : until - start] = self._read(document, at - first, until - first)
            at, document = after, document + 1
        return out

    def _read(self, document: int, first: int, last: int) -> NDArray[np.integer]:
        """Tokens `first` to `last` - 1 of a document."""
        number, begin = (int(value) for value in self._places[document])
        dtype = self._dtypes[number]
        data = self._files[number][begin + first * dtype.itemsize : begin + last * dtype.itemsize]
        tokens: NDArray[np.integer] = data.view(dtype)
        return tokens
