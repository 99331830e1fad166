"""Checkpoints: a Hugging Face directory plus optimizer and step, whole or absent, every byte checked on loading."""

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
from mixlaw.runner.train.checkpoint_files import seal, verify
from mixlaw.runner.train.parallel import ALONE, Ranks, part, whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW
KEPT = "training.json"  # what the loop has to know beside weights, moments and step


@dataclass(frozen=True)
class Restored:
    """A loaded checkpoint: the model, AdamW's moments by parameter name, the steps done, and what the loop kept."""

    model: PreTrainedModel
    moments: dict[str, torch.Tensor]
    step: int
    kept: dict[str, Any]


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    tokenizer: Path,
    kept: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Write a checkpoint to `folder`, which does not exist or may be lost; transformers loads it as it is.

    All ranks call it; the first one writes weights and moments whole, so any number of ranks can go on from it.

    Args:
        folder: where; appears under this name only when complete.
        step: optimizer steps since the start of the recipe.
        tokenizer: folder of the tokenizer files, copied into the checkpoint where they exist.
        kept: plain data that `load` gives back.
        ranks: those that share the weights.
    """
    weights = _weights(model, ranks) if ranks.shards else None
    moments = _moments(model, optimizer, ranks)
    if ranks.first:
        _write(folder, model, weights, moments, step, tokenizer, kept or {})
    ranks.told()  # nobody goes on before it is whole


def _write(
    folder: Path,
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor] | None,
    moments: dict[str, torch.Tensor],
    step: int,
    tokenizer: Path,
    kept: Mapping[str, Any],
) -> None:
    _without_bars()
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.save_pretrained(draft, state_dict=weights)
    save_file(moments, draft / "optimizer.safetensors")
    write_json(draft / KEPT, kept)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, draft / name)
    for path in draft.iterdir():
        path.chmod(0o644)  # safetensors gives 0600; a study may be shared by several users
    seal(draft, folder, step)


def _without_bars() -> None:
    """Proxies load in no time, and the lock of a progress bar is one for all processes: a killed one keeps it."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def load(folder: Path) -> Restored:
    """Read a checkpoint after checking every file of it.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    step = verify(folder)
    kept = json.loads((folder / KEPT).read_text(encoding="utf-8")) if (folder / KEPT).exists() else {}
    return Restored(load_model(folder), load_file(folder / "optimizer.safetensors"), step, kept)


def load_model(folder: Path) -> PreTrainedModel:
    """The model of a Hugging Face directory, in fp32 and without dropout, its weights in memory like fresh ones.

    Raises:
        InputError: weights are missing or have another shape than its config.json says.
    """
    from transformers import AutoModelForCausalLM

    _without_bars()
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True,
            output_loading_info=True,
        )  # fmt: skip
    except RuntimeError as error:  # of another shape
        raise InputError(f"the weights in {folder} are not those of its config.json ({error}); mend it") from error
    model: PreTrainedModel = found[0]
    told: dict[str, set[str]] = found[1]
    if told["missing_keys"]:  # transformers would draw them at random
        raise InputError(f"{folder} lacks the weights {min(told['missing_keys'])}; restore them")
    for weight in model.parameters():  # out of the memory-mapped file: kernels may round otherwise at odd addresses
        weight.data = weight.data.clone()
    return model


def restore_moments(optimizer: torch.optim.Optimizer, model: PreTrainedModel, moments: dict[str, torch.Tensor]) -> None:
    """Put AdamW's moments and step counts back, by parameter name; each rank takes its share of them."""
    for name, weight in model.named_parameters():
        kept = {key: moments[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in moments}
        if kept:  # nothing, if no step was made yet
            optimizer.state[weight] = {
                k: v.to(weight.device, copy=True) if k == "step" else part(v, weight) for k, v in kept.items()
            }


def _moments(model: PreTrainedModel, optimizer: torch.optim.Optimizer, ranks: Ranks) -> dict[str, torch.Tensor]:
    moments = {}
    for name, weight in model.named_parameters():
        for key, value in optimizer.state[weight].items():
            if (moment := whole(value, ranks)) is not None:
                moments[f"{key}.{name}"] = moment
    return moments


def _weights(model: PreTrainedModel, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Weights and buffers by name, tied ones once."""
    weights, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and (full := whole(tensor, ranks)) is not None:
            weights[name] = full
        seen.add(id(tensor))
    return weights
