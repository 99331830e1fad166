"""CompleteP: the best rate of one size is that of all others, in width and depth (Dey et al. 2025, arXiv:2505.01618).

With m times the base's width and l times its depth, in the form that leaves the model a plain Llama:

| | standard deviation at first | rate of AdamW |
| --- | --- | --- |
| embeddings, head | the base's | the base's |
| matrices of layers | 1 / sqrt(m) | 1 / m |
| those that end a branch | 1 / (l sqrt(m)) | 1 / (l m) |
| last norm, which scales the logits | 1 / m, not drawn | 1 / m |
| other norms | 1, not drawn | the base's |

Under Adam a factor in front of a matrix is the same as one in its first values and its rate: those of the branches
(1 / l) and of the logits (1 / m) are written so. Weight decay is per update as in the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mixlaw.runner.models.architecture import Architecture
from mixlaw.runner.models.ladder import Shape, shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BRANCHES = ("o_proj.weight", "down_proj.weight")
ENDS = ("embed_tokens.weight", "lm_head.weight")
LAST = "model.norm.weight"


@dataclass(frozen=True)
class Scale:
    """Factors of a size against the base."""

    base: Shape
    width: float
    depth: float

    def rate(self, name: str) -> float:
        """Factor of the rate of a parameter, by name."""
        if name.endswith(ENDS) or ("norm" in name and not name.endswith(LAST)):
            return 1.0
        return 1 / (self.width * self.depth) if name.endswith(BRANCHES) else 1 / self.width

    def initialise(self, model: PreTrainedModel) -> None:
        """Draw the weights anew, each by one operation."""
        plain = (2 / (5 * self.base.width)) ** 0.5
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(LAST):
                    weight.fill_(1 / self.width)
                elif weight.ndim >= 2:
                    inner = 1.0 if name.endswith(ENDS) else self.width**-0.5
                    weight.normal_(0.0, plain * inner / (self.depth if name.endswith(BRANCHES) else 1.0))


def scale_of(architecture: Architecture, width: int, depth: int) -> Scale | None:
    """The factors of a model, None where a study has no base."""
    if architecture.complete_p is None:
        return None
    base = shape(architecture.complete_p)
    return Scale(base, width / base.width, depth / base.depth)
