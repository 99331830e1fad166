"""Checkpoints: a Hugging Face directory plus optimizer and step, whole or absent, every byte checked on loading."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from mixlaw.errors import InputError
from mixlaw.files import write_text

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

STATE = "state.json"


@dataclass(frozen=True)
class Restored:
    """A loaded checkpoint: the model, AdamW's moments by parameter name, and the steps done."""

    model: LlamaForCausalLM
    moments: dict[str, torch.Tensor]
    step: int


def save(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, step: int, tokenizer: Path) -> None:
    """Write a checkpoint to `folder`, which does not exist or may be lost; transformers loads it as it is.

    Args:
        folder: where; appears under this name only when complete.
        step: optimizer steps since the start of the recipe.
        tokenizer: folder of the tokenizer files, copied into the checkpoint where they exist.
    """
    _without_bars()
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.save_pretrained(draft)
    save_file(_moments(model, optimizer), draft / "optimizer.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, draft / name)
    for path in draft.iterdir():
        path.chmod(0o644)  # safetensors gives 0600; a study may be shared by several users
    checksums = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
    write_text(draft / STATE, _state(step, checksums))
    remove(folder)
    os.replace(draft, folder)


def _without_bars() -> None:
    """Proxies load in no time, and the lock of a progress bar is one for all processes: a killed one keeps it."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def remove(folder: Path) -> None:
    """Delete a checkpoint if there is one; under its name it is whole until it is gone."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")
    shutil.rmtree(hidden, ignore_errors=True)  # of a killed process that had the same number
    with suppress(FileNotFoundError):
        os.replace(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def load(folder: Path) -> Restored:
    """Read a checkpoint after checking every file of it.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    from transformers import LlamaForCausalLM

    step = verify(folder)
    _without_bars()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    for weight in model.parameters():  # out of the memory-mapped file: kernels may round otherwise at odd addresses
        weight.data = weight.data.clone()
    return Restored(model, load_file(folder / "optimizer.safetensors"), step)


def verify(folder: Path) -> int:
    """Check every file of a checkpoint against its checksum; return the steps it has done.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    try:
        text = (folder / STATE).read_text(encoding="utf-8")
        state = json.loads(text)
        step, checksums = state["step"], state["sha256"]
        wrong = [name for name, digest in checksums.items() if _sha256(folder / name) != digest]
        wrong += [STATE] if text != _state(step, checksums) else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"checkpoint {folder} is damaged ({error}); delete that folder and run again to retrain it"
        ) from error
    if wrong:
        raise InputError(
            f"checkpoint {folder} is damaged: {wrong[0]} differs from its checksum; "
            "delete that folder and run again to retrain it"
        )
    return int(step)


def _state(step: int, checksums: Mapping[str, str]) -> str:
    """The text of state.json: steps done, the checksum of every other file, and its own."""
    own = hashlib.sha256(json.dumps([step, checksums]).encode()).hexdigest()
    return json.dumps({"step": step, "sha256": checksums, "own": own}, indent=1) + "\n"


def restore_moments(optimizer: torch.optim.Optimizer, restored: Restored) -> None:
    """Put AdamW's moments and step counts back, by parameter name."""
    for name, weight in restored.model.named_parameters():
        optimizer.state[weight] = {
            key: restored.moments[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
        }


def _moments(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    moments = {}
    for name, weight in model.named_parameters():
        for key, value in optimizer.state[weight].items():
            moments[f"{key}.{name}"] = value.detach().cpu().contiguous()
    return moments


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
