"""Domains: named sources of tokens, and what kinds of tokens there are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a domain's tokens are."""

    TEXT = "text"
    CODE = "code"
    MARKUP = "markup"
    CODE_ADJACENT = "code-adjacent"
    SYNTHETIC_CODE = "synthetic-code"
    MATH = "math"
    INSTRUCT = "instruct"

    @property
    def is_code(self) -> bool:
        """Whether the kind counts towards the code share: web code, markup, code-adjacent and synthetic code."""
        return self in (Kind.CODE, Kind.MARKUP, Kind.CODE_ADJACENT, Kind.SYNTHETIC_CODE)


@dataclass(frozen=True)
class Domain:
    """A named source of tokens: what kind they are, and how many of them are different."""

    name: str
    kind: Kind
    unique_tokens: int
