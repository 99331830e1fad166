"""One dial, the size of a model, and everything derived from it: shape, learning rate, batch, warm-up.

Rules, in one place:

- shape: Llama decoder, SwiGLU of 8/3 the width, width over depth rising slowly with size (GPT-3: 64 at 125M, 80 at
  2.7B), and close to that rule rather than to a round size: sizes that differ in shape as well cannot be extrapolated
  (dev/LOG.md). From 160M on heads divide by 2, from 1B on by 4, for tensor parallelism;
- learning rate and batch: DeepSeek LLM (Bi et al. 2024, arXiv:2401.02954, eq. 1): lr = 0.3118 C^-0.1250 and
  batch = 0.2920 C^0.3271 tokens, at the compute C = 6 N D of D = 20 N tokens, so that neither depends on how long
  a recipe is and trunks can be shared;
- for another batch, lr scales with its square root (Malladi et al. 2022, arXiv:2205.10287, for Adam);
- warm-up: as many tokens as parameters (Porian et al. 2024, arXiv:2406.19146).

`python -m mixlaw.runner.models.ladder [SIZES]` prints the results.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.recipe import LARGEST

#: Version of the rules below and of how a lineage is made; part of every lineage, so that runs under other rules are
#: never mixed up. 2: the shards of a recipe are those of its own domains.
RULES = 2
#: Sizes of the printed table; the ladder has more between them.
SIZES = ("0.02M", "0.1M", "0.5M", "1M", "5M", "10M", "30M", "70M", "160M", "470M", "1B", "2.8B", "7B", "13B", "70B")
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}
_SIZE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMB]?)", re.IGNORECASE)


def parse_size(size: str | int | float) -> int:
    """Parameters from `"470M"`, `"2.8B"`, `"0.1M"` or a number."""
    match = _SIZE.fullmatch(str(size).strip().replace("_", ""))
    exact = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    params = round(exact) if exact <= LARGEST else 0
    if params < 1:
        raise InputError(
            f"a size is a positive number below 2^63 with K, M or B behind it, got {size!r:.60}; "
            'write for instance "470M"'
        )
    return params


@dataclass(frozen=True)
class Shape:
    """Width and depth of a Llama-architecture decoder."""

    width: int
    depth: int

    @property
    def head(self) -> int:
        """Width of one attention head: wide enough for rotary embeddings, as narrow models allow."""
        return self.width // round(self.width / 32) if self.width < 256 else 64 if self.width < 2048 else 128

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // self.head

    @property
    def inner(self) -> int:
        """Width of the SwiGLU layer: 8/3 of the width, rounded up to a multiple of 8, 32 or 256."""
        step = 8 if self.width < 256 else 32 if self.width < 2048 else 256
        return math.ceil(8 * self.width / 3 / step) * step

    @property
    def params(self) -> int:
        """Non-embedding parameters: attention, SwiGLU and norms of every layer, and the last norm."""
        layer = 4 * self.width**2 + 3 * self.width * self.inner + 2 * self.width
        return self.depth * layer + self.width

    def flops_per_token(self, vocabulary: int, sequence: int) -> float:
        """Training FLOPs per token: 6 per weight that multiplies, the head's among them, and full attention scores."""
        weights = self.depth * (4 * self.width**2 + 3 * self.width * self.inner) + vocabulary * self.width
        return 6.0 * weights + 12.0 * self.depth * self.width * sequence


def aspect(params: float) -> float:
    """Width over depth that the rule prefers."""
    return float(36 * (params / 1e5) ** 0.078)


#: A shape is as wrong by this share of its parameters as by that share of its width over depth.
_SIZE_ERROR, _ASPECT_ERROR = 0.03, 0.2


@lru_cache(maxsize=1)
def _family() -> tuple[Shape, ...]:
    """All shapes on the ladder, from 0.02M up to about 100B: those that are the best for their own parameters."""
    small = (32, 40, 48, 56, *range(64, 160, 16), 160, 192, 224, 240, *range(256, 512, 64), *range(512, 1024, 128))
    widths = (*small, *range(1024, 2048, 256), *range(2048, 4096, 512), *range(4096, 10241, 1024))
    shapes = [Shape(width, depth) for width in widths for depth in range(2, 129)]
    near = [s for s in shapes if 0.4 < s.width / s.depth / aspect(s.params) < 2.5]
    sizes, ratios = _sizes_and_ratios(near)
    return tuple(s for i, s in enumerate(near) if _best(sizes, ratios, s.params) == i)


def _sizes_and_ratios(shapes: Sequence[Shape]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and width over depth of shapes."""
    return np.array([s.params for s in shapes], float), np.array([s.width / s.depth for s in shapes])


def _best(sizes: NDArray[np.float64], ratios: NDArray[np.float64], params: int) -> int:
    """Number of the shape that errs least in size and in width over depth together."""
    errors = np.log(sizes / params) / _SIZE_ERROR, np.log(ratios / aspect(params)) / _ASPECT_ERROR
    return int(np.hypot(*errors).argmin())


@lru_cache(maxsize=256)
def shape(size: str | int) -> Shape:
    """The shape on the ladder that comes nearest to `size` and to the rule for width over depth.

    Raises:
        InputError: its parameters are more than a third away from `size`, so below 0.02M or beyond the ladder's end.

    Example:
        >>> shape("0.1M"), shape("470M").params, shape("2.8B").params
        (Shape(width=64, depth=2), 472904960, 2775631360)
    """
    params = parse_size(size)
    nearest = _family()[_best(*_sizes_and_ratios(_family()), params)]
    if abs(nearest.params - params) > params / 3:
        low, high = _family()[0].params, max(s.params for s in _family())
        raise InputError(f"no model on the ladder has about {size} parameters; choose between {low:,} and {high:,}")
    return nearest


@dataclass(frozen=True)
class Hyperparameters:
    """How a size is trained; see the rules at the top of the module.

    Attributes:
        learning_rate: peak.
        warmup_tokens: tokens of linear warm-up.
        beta2: second-moment decay of AdamW; `half_life` is the rule for other batches than the rule's.
        weight_decay: of matrices; norms have none (GPT-3, Brown et al. 2020, appendix B).
        clip: largest norm of the gradient (the same).
        beta1, eps: first-moment decay of AdamW, and the least denominator of its steps.
        z_loss: weight of the squared log of the softmax's sum beside the loss (PaLM, Chowdhery et al. 2022,
            arXiv:2204.02311, section 5: 1e-4); the logged loss is without it.
    """

    learning_rate: float
    warmup_tokens: int
    beta2: float
    weight_decay: float = 0.1
    clip: float = 1.0
    beta1: float = 0.9
    eps: float = 1e-8
    z_loss: float = 0.0


def hyperparameters(params: int, batch_tokens: int) -> Hyperparameters:
    """Derive learning rate and warm-up from size and batch; the rest is constant."""
    scale = (batch_tokens / batch_rule(params)) ** 0.5
    return Hyperparameters(
        learning_rate=0.3118 * (120.0 * params**2) ** -0.1250 * scale,
        warmup_tokens=params,
        beta2=0.95,
    )


def half_life(params: int, batch_tokens: int) -> float:
    """beta2 that remembers as many tokens as .95 does at the rule's batch (Marek et al. 2025, arXiv:2507.07101)."""
    return float(0.95 ** (batch_tokens / batch_rule(params)))


def batch_rule(params: int) -> float:
    """DeepSeek LLM's near-optimal batch at 20 tokens per parameter, in tokens."""
    return float(0.2920 * (120.0 * params**2) ** 0.3271)


def main(*sizes: str) -> None:
    """Print shape and rules of sizes: learning rate, tokens of a batch, tokens of warm-up."""
    line = "{:>6} {:>15} {:>6} {:>5} {:>5} {:>8} {:>10} {:>14}"
    print(line.format("size", "parameters", "width", "depth", "heads", "rate", "batch", "warm-up"))
    for size in sizes or SIZES:
        model = shape(size)
        batch = round(batch_rule(model.params))
        rules = hyperparameters(model.params, batch)
        cells = (f"{model.params:,}", f"{model.width:,}", model.depth, model.heads, f"{rules.learning_rate:.2e}")
        print(line.format(size, *cells, f"{batch:,}", f"{rules.warmup_tokens:,}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
