"""Placeholder until the generator lands."""

from __future__ import annotations

from collections.abc import Iterator

from mixlaw.runner.corpora.document import Document


def read_synthetic(documents: int, seed: int) -> Iterator[Document]:
    """Verified synthetic problems."""
    for number in range(documents):
        value = (number * 7919 + seed) % 10007
        yield Document(
            f"def add_{value}(x):\n    return x + {value}\n\nassert add_{value}(1) == {value + 1}\n",
            f"synthetic {number}",
        )
