"""Saving and loading checkpoints: a Hugging Face directory plus the optimizer's moments, the step and loop state."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from mixlaw.errors import InputError
from mixlaw.files import write_json
from mixlaw.runner.models.llama import MOMENTS
from mixlaw.runner.models.load import hide_progress_bars, load_model
from mixlaw.runner.train.parallel import ALONE, Ranks, gather_full, shard_like
from mixlaw.runner.train.store import OPTIMIZER, seal, verify

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXTRA = "training.json"  # state of the loop beside weights, moments and step


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: model (fp32, CPU), AdamW's moments by parameter name, steps done, and the loop's state.

    There are no moments where it was saved without.
    """

    model: PreTrainedModel
    moments: dict[str, torch.Tensor]
    step: int
    extra: dict[str, Any]


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    tokenizer: Path,
    extra: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
    keep_optimizer: bool = True,
) -> None:
    """Write a checkpoint to `folder`, replacing an older one; transformers loads it as it is.

    All ranks call it; the first one writes full weights and moments, so that any number of ranks can resume from it.

    Args:
        folder: appears under this name only when complete.
        step: optimizer steps since the start of the recipe.
        tokenizer: folder of the tokenizer files, copied into the checkpoint where they exist.
        extra: plain data that `load` returns.
        ranks: this process among those that train the model.
        keep_optimizer: False leaves the moments out, so that no training can resume from it.
    """
    weights = _weights(model, ranks) if ranks.shards else None
    moments = _moments(model, optimizer, ranks) if keep_optimizer else None
    if ranks.first:
        _write(folder, model, weights, moments, step, tokenizer, extra or {})
    ranks.broadcast()  # no rank continues before it is complete


def _write(
    folder: Path,
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor] | None,
    moments: dict[str, torch.Tensor] | None,
    step: int,
    tokenizer: Path,
    extra: Mapping[str, Any],
) -> None:
    hide_progress_bars()
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.save_pretrained(draft, state_dict=weights)
    if moments is not None:
        save_file(moments, draft / OPTIMIZER)
    write_json(draft / EXTRA, extra)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, draft / name)
    for path in draft.iterdir():
        path.chmod(0o644)  # safetensors gives 0600; a study may be shared by several users
    seal(draft, folder, step)


def load(folder: Path, ranks: Ranks = ALONE) -> Checkpoint:
    """Read a checkpoint after verifying every file of it; all ranks call it, and the first one verifies for all.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    step: int | InputError = 0
    if ranks.first:
        try:
            step = verify(folder)
        except InputError as error:  # which all ranks meet
            step = error
    step = ranks.broadcast(step)
    if isinstance(step, InputError):
        raise step
    extra = json.loads((folder / EXTRA).read_text(encoding="utf-8")) if (folder / EXTRA).exists() else {}
    moments = load_file(folder / OPTIMIZER) if (folder / OPTIMIZER).exists() else {}
    return Checkpoint(load_model(folder), moments, step, extra)


def restore_moments(optimizer: torch.optim.Optimizer, model: PreTrainedModel, moments: dict[str, torch.Tensor]) -> None:
    """Put AdamW's moments and step counts back, by parameter name; each rank takes its shard of them."""
    for name, weight in model.named_parameters():
        state = {key: moments[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in moments}
        if state:  # empty before the first step
            optimizer.state[weight] = {
                k: v.to(weight.device, copy=True) if k == "step" else shard_like(v, weight) for k, v in state.items()
            }


def _moments(model: PreTrainedModel, optimizer: torch.optim.Optimizer, ranks: Ranks) -> dict[str, torch.Tensor]:
    moments = {}
    for name, weight in model.named_parameters():
        for key, value in optimizer.state[weight].items():
            if (moment := gather_full(value, ranks)) is not None:
                moments[f"{key}.{name}"] = moment
    return moments


def _weights(model: PreTrainedModel, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Weights and buffers by name, tied ones once."""
    weights, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and (full := gather_full(tensor, ranks)) is not None:
            weights[name] = full
        seen.add(id(tensor))
    return weights
