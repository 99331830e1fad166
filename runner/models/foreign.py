"""Someone else's checkpoint that recipes go on from: continued pretraining, or a cooldown of a foreign model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.files import sha256_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

OPTIMIZER = "optimizer.safetensors"
#: Two tokenizers that cut this alike, with one vocabulary, are taken to be the same.
PROBE = "The year 1984:\n\tdef f(x_1):  return 'naïve' + \"x\" * 17  # Größe, 中文, ∑ ½ 😀\r\n"


@dataclass(frozen=True)
class InitialCheckpoint:
    """A Hugging Face directory with safetensors weights, known by its content.

    Attributes:
        path: the directory.
        hash: of configuration and weights, and of the optimizer's state where that is loaded.
        params: non-embedding parameters.
        weights: all parameters.
        flops_per_token: of training, at the study's sequence length.
        optimizer: whether AdamW's moments are loaded too, from its optimizer.safetensors.
    """

    path: str
    hash: str
    params: int
    weights: int
    flops_per_token: float
    optimizer: bool = False


def read_start(
    given: str, root: Path, *, optimizer: bool, tokenizer: Path, vocabulary: int, sequence: int
) -> InitialCheckpoint:
    """Look at a checkpoint without loading its weights.

    Args:
        given: directory, relative to `root` or absolute, or the id of a model on the Hugging Face hub.
        optimizer: whether its optimizer's state is to be loaded.
        tokenizer: folder of the tokenizer that the study's shards were made with.
        vocabulary, sequence: of the shards and of training.

    Raises:
        InputError: there is no such model, its weights are no safetensors or not all there, it is no causal language
            model, its tokenizer is another, its context is too short, or it brings no optimizer state that can be read
            without unpickling.
    """
    folder = _folder(given, root)
    hashed = _hashed(folder, optimizer)
    if len(hashed) < 2 + optimizer or not hashed[0].exists():
        raise InputError(
            f"{folder} is no Hugging Face directory with config.json and *.safetensors; pickled weights are not read: "
            "load them once in transformers and save_pretrained() them"
        )
    _is_whole(folder)
    if optimizer and not (folder / OPTIMIZER).exists():
        raise InputError(
            f'{folder} has no {OPTIMIZER}; take training.optimizer = "fresh", or write one with the tensors '
            "step.NAME, exp_avg.NAME and exp_avg_sq.NAME of every parameter (an optimizer.pt is a pickle and not read)"
        )
    _same_tokenizer(folder, tokenizer)
    model = _empty(folder)
    if model.config.vocab_size < vocabulary:
        raise InputError(
            f"{folder} knows {model.config.vocab_size:,} token ids and the shards have {vocabulary:,}; "
            "make the shards with its tokenizer"
        )
    if sequence > (most := getattr(model.config, "max_position_embeddings", None) or sequence):
        raise InputError(f"{folder} has a context of {most} tokens; lower training.sequence = {sequence}")
    if optimizer:
        _has_moments(folder, model)
    params, flops = _count(model, sequence)
    return InitialCheckpoint(str(folder), _hash(hashed), params, model.num_parameters(), flops, optimizer)


def load_start(start: InitialCheckpoint) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """The model, and its optimizer's moments where they are wanted.

    Raises:
        InputError: it is not what it was when the study looked at it.
    """
    from safetensors.torch import load_file

    from mixlaw.runner.models.load import load_model

    folder = Path(start.path)
    if _hash(_hashed(folder, start.optimizer)) != start.hash:
        raise InputError(f"{folder} has changed since the run began; restore it, or run again from what it is now")
    return load_model(folder), load_file(folder / OPTIMIZER) if start.optimizer else {}


def _hashed(folder: Path, optimizer: bool) -> list[Path]:
    """The files that decide what training goes on from."""
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.name != OPTIMIZER]
    return [folder / "config.json", *files, *([folder / OPTIMIZER] if optimizer else [])]


def _folder(given: str, root: Path) -> Path:
    """The directory meant, from the hub's cache or the hub where it is none here."""
    here = (root / given).expanduser()
    if here.is_dir():
        return here.resolve()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(given, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # what the hub's client raises has no common type
        raise InputError(
            f"training.start = {given!r} is neither a folder at {here} nor a model that the Hugging Face hub gives "
            f"({type(error).__name__}); mend the path, or the id and the network"
        ) from error


def _is_whole(folder: Path) -> None:
    """Refuse a checkpoint of which files are missing, such as one that was copied in part."""
    index = folder / "model.safetensors.index.json"
    if index.exists() and not (folder / "model.safetensors").exists():  # which is read before the index is
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(name for name in files if not (folder / name).exists())
        if missing:
            raise InputError(
                f"{folder} lacks {len(missing)} of {len(files)} files of weights, such as {missing[0]}; "
                "copy or download it whole"
            )


def _same_tokenizer(folder: Path, tokenizer: Path) -> None:
    from tokenizers import Tokenizer

    paths = [path / "tokenizer.json" for path in (folder, tokenizer)]
    try:
        theirs, ours = (Tokenizer.from_file(str(path)) for path in paths)
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(
            f"the tokenizers of {folder} and of the shards cannot be compared ({error}); "
            "both folders need a tokenizer.json"
        ) from error
    same = theirs.get_vocab() == ours.get_vocab()
    if not same or theirs.encode(PROBE).ids != ours.encode(PROBE).ids:
        raise InputError(
            f"{folder} has another tokenizer ({theirs.get_vocab_size():,} entries) than the shards "
            f"({ours.get_vocab_size():,}); make the shards with its tokenizer.json, or start from another model"
        )


def _empty(folder: Path) -> PreTrainedModel:
    """The model without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        said = str(error).strip().splitlines()[0]
        raise InputError(f"transformers makes no causal language model of {folder}: {said}; take another") from error
    named = config.architectures or [type(model).__name__]
    if type(model).__name__ not in named:  # such as one that sees the words to come: it loads, and knows them
        raise InputError(f"{folder} is a {named[0]}, not a causal language model; take another")
    return model


def _has_moments(folder: Path, model: PreTrainedModel) -> None:
    """Refuse moments of other parameters: what has none would begin with none, and nobody would notice."""
    from safetensors import safe_open

    from mixlaw.runner.models.llama import MOMENTS

    with safe_open(folder / OPTIMIZER, "pt") as file:
        kept = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name, weight in model.named_parameters():
        for moment in MOMENTS:
            shape = () if moment == "step" else tuple(weight.shape)
            if kept.get(f"{moment}.{name}") != shape:
                raise InputError(
                    f"{folder / OPTIMIZER} has {kept.get(f'{moment}.{name}', 'nothing')} for {moment}.{name}, which is "
                    f'of shape {shape}; write it anew from the parameters of this model, or take "fresh"'
                )


def _count(model: PreTrainedModel, sequence: int) -> tuple[int, float]:
    """Non-embedding parameters, and training FLOPs per token as `Shape.flops_per_token` counts them."""
    from torch import nn

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]  # of positions, too
    heads = [model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    sizes = {id(module.weight): module.weight.numel() for module in (*tables, *heads) if module is not None}
    params = model.num_parameters() - sum(sizes.values())
    config: Any = model.config
    matrices = params - sum(w.numel() for w in model.parameters() if w.ndim < 2)
    head = config.vocab_size * config.hidden_size
    return params, 6.0 * (matrices + head) + 12.0 * config.num_hidden_layers * config.hidden_size * sequence


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(json.dumps([path.name, sha256_of(path)]).encode())
    return digest.hexdigest()[:16]
