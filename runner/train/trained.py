"""A finished segment, and its model read back where it was sharded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from mixlaw.runner.models.load import load_model
from mixlaw.runner.train.parallel import release_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Trained:
    """A finished segment.

    Attributes:
        checkpoint: the final one.
        device: it was trained on.
        loss: mean of the last tenth of the steps, nats per token.
        seconds, tokens_per_second: of this call.
        skipped: steps skipped for bad batches since the beginning of the recipe.
        bf16: whether it was computed in bf16.
        fresh: the model, where it was not sharded.
    """

    checkpoint: Path
    device: torch.device
    loss: float
    seconds: float
    tokens_per_second: float
    skipped: tuple[int, ...] = ()
    bf16: bool = False
    fresh: PreTrainedModel | None = None

    @cached_property
    def model(self) -> PreTrainedModel:
        """The whole model in fp32 on the device: as trained, or where it was sharded read back, on any rank."""
        if self.fresh is not None:
            return self.fresh
        release_memory()
        model: Any = load_model(self.checkpoint)
        model.to(self.device)
        return cast("PreTrainedModel", model)
