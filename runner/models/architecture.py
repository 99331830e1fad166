"""What a study may change of the ladder's architecture; without torch, as drivers and plans use it too."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

#: Base of the rotary embeddings' wavelengths (RoFormer, Su et al. 2021, arXiv:2104.09864).
ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class Architecture:
    """Departures from a plain Llama of the ladder; the defaults are one.

    Attributes:
        qk_norm: normalise queries and keys of every head before attention (Dehghani et al. 2023, arXiv:2302.05442), as
            Qwen3 does, whose class then holds the model.
        untied: a matrix of its own for the output in place of the input embeddings.
        rope_theta: base of the rotary embeddings.
        pad_vocabulary: the vocabulary of the model is a multiple of this; ids beyond the tokenizer's never occur.
    """

    qk_norm: bool = False
    untied: bool = False
    rope_theta: float = ROPE_THETA
    pad_vocabulary: int = 1

    def vocabulary(self, tokens: int) -> int:
        """Rows of the embeddings for a tokenizer of this many tokens."""
        return math.ceil(tokens / self.pad_vocabulary) * self.pad_vocabulary

    def changed(self) -> dict[str, Any]:
        """What differs from a plain Llama."""
        plain = asdict(Architecture())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


PLAIN = Architecture()
