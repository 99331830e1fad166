"""What a study may change of the ladder's architecture; without torch, as drivers and plans use it too."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mixlaw.runner.models.ladder import Shape

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
        gqa: queries per key and value head (Ainslie et al. 2023, arXiv:2305.13245), fewer where heads do not divide;
            the SwiGLU is wider by what that saves, so that a size keeps its parameters.
        complete_p: a size whose rate and initial weights hold for all others, by CompleteP (`models.complete_p`).
        pad_vocabulary: the vocabulary of the model is a multiple of this; ids beyond the tokenizer's never occur.
    """

    qk_norm: bool = False
    untied: bool = False
    rope_theta: float = ROPE_THETA
    gqa: int = 1
    complete_p: str | None = None
    pad_vocabulary: int = 1

    def vocabulary(self, tokens: int) -> int:
        """Rows of the embeddings for a tokenizer of this many tokens."""
        return math.ceil(tokens / self.pad_vocabulary) * self.pad_vocabulary

    def key_heads(self, shape: Shape) -> int:
        """Heads of keys and values: as few as `gqa` allows, so that those of queries are a multiple."""
        return next(n for n in range(1, shape.heads + 1) if shape.heads % n == 0 and n * self.gqa >= shape.heads)

    def inner(self, shape: Shape) -> int:
        """Width of the SwiGLU layer, three matrices of which have the weights that keys and values save."""
        saved, step = 2 * shape.width * (1 - self.key_heads(shape) / shape.heads) / 3, 8 if shape.width < 256 else 32
        return shape.inner + round(saved / step) * step

    def changed(self) -> dict[str, Any]:
        """What differs from a plain Llama."""
        plain = asdict(Architecture())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


PLAIN = Architecture()
