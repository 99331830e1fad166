"""A causal language model from a Hugging Face directory: a checkpoint of a run, or anybody else's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mixlaw.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(folder: Path) -> PreTrainedModel:
    """The model of a Hugging Face directory, in fp32 and without dropout, its weights in memory like fresh ones.

    Raises:
        InputError: weights are missing, not safetensors, or have another shape than its config.json says.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    hide_progress_bars()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True,
            output_loading_info=True, trust_remote_code=False,  # not given, transformers asks whether to run it
        )  # fmt: skip
    except RuntimeError as error:  # of another shape
        raise InputError(f"the weights in {folder} are not those of its config.json ({error}); restore them") from error
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{folder} has no safetensors that can be loaded: {reason}; pickled weights are not read"
        ) from error
    model: PreTrainedModel = loaded[0]
    report: dict[str, set[str]] = loaded[1]
    if report["missing_keys"]:  # transformers would draw them at random
        raise InputError(f"{folder} lacks the weights {min(report['missing_keys'])}; restore them")
    for weight in model.parameters():  # out of the memory-mapped file: kernels may round otherwise at odd addresses
        weight.data = weight.data.clone()
    return model


def skeleton(folder: Path) -> PreTrainedModel:
    """The model of a Hugging Face directory as `load_model` builds it, its weights not read.

    Raises:
        InputError: transformers cannot build a causal language model from its config.json.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        build: Any = AutoModelForCausalLM.from_config
        model: PreTrainedModel = build(config, dtype=torch.float32, attn_implementation="sdpa")
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"transformers cannot build a causal language model from {folder}: {reason}; choose another"
        ) from error
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def hide_progress_bars() -> None:
    """Disable transformers' bars: proxies load at once, and all processes share a lock that a killed one keeps."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
