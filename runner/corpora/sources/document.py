"""A document: the unit that is de-duplicated and that lands in training or held-out text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class StoredTokens:
    """Where the tokens of a document are: number of the source's file, first byte, how many."""

    file: int
    offset: int
    tokens: int

    def reference(self, size: int) -> str:
        """As text, with the bytes that the decoded document has: what stands for it until it is located."""
        return f"{self.file} {self.offset} {self.tokens} {size}"

    @classmethod
    def parsed(cls, reference: str) -> tuple[StoredTokens, int]:
        """The inverse of `reference`: place and bytes."""
        *place, size = map(int, reference.split())
        return cls(*place), size


@dataclass(frozen=True)
class Document:
    """A text and where it came from.

    Attributes:
        text: the text itself.
        origin: package, version and file, or the path; for people, not for identity.
        group: what decides between training and held-out text, where that is not the document's own text. Documents
            cut from the same original (the code and the docstrings of a module) carry the same group, so that they
            stay together.
        stored: where the source has the document as tokens.
    """

    text: str
    origin: str
    group: str = ""
    stored: StoredTokens | None = None


def digest(text: str) -> bytes:
    """16 bytes that identify a text up to case and white space."""
    normal = _SPACE.sub(" ", text).strip().casefold()
    return hashlib.blake2b(normal.encode("utf-8", "replace"), digest_size=16).digest()


def parts(text: str, limit: int) -> Iterator[str]:
    """Cut a text into consecutive pieces of at most `limit` characters that join to the text again.

    The cut falls after the last blank line of the second half of a piece, else after a line, a sentence, a word.
    """
    start = 0
    while len(text) - start > limit:
        end = _cut(text, start, limit)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int, limit: int) -> int:
    for mark in ("\n\n", "\n", ". ", " "):
        at = text.rfind(mark, start + limit // 2, start + limit)
        if at >= 0:
            return at + len(mark)
    return start + limit
