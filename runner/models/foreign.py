"""A pretrained checkpoint to start from: for continued pretraining, or a cooldown of another team's model."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.files import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPTIMIZER = "optimizer.safetensors"
#: Two tokenizers with one vocabulary that encode this alike are considered the same.
PROBE = "The year 1984:\n\tdef f(x_1):  return 'naïve' + \"x\" * 17  # Größe, 中文, ∑ ½ 😀\r\n"


@dataclass(frozen=True)
class InitialCheckpoint:
    """A Hugging Face directory with safetensors weights, identified by its content.

    Attributes:
        path: the directory.
        hash: of configuration and weights, and of the optimizer's state if that is loaded.
        params: non-embedding parameters.
        weights: all parameters.
        flops_per_token: of training, at the study's sequence length.
        optimizer: whether AdamW's moments are loaded as well, from optimizer.safetensors.
    """

    path: str
    hash: str
    params: int
    weights: int
    flops_per_token: float
    optimizer: bool = False


@dataclass(frozen=True)
class Built:
    """Dimensions of a pretrained model, the rows of its embeddings, and whether its output has a matrix of its own."""

    params: int
    width: int
    depth: int
    heads: int
    inner: int
    embedded: int
    untied: bool


def built(start: InitialCheckpoint) -> Built:
    """What a pretrained model is, by its config.json, under the names of Llama or of GPT-2."""
    config = json.loads((Path(start.path) / "config.json").read_text(encoding="utf-8"))

    def number(default: int, *names: str) -> int:
        return next((int(value) for name in names if (value := config.get(name))), default)

    width, depth = number(1, "hidden_size", "n_embd"), number(1, "num_hidden_layers", "n_layer")
    rows, heads = number(1, "vocab_size"), number(1, "num_attention_heads", "n_head")
    untied = start.weights - start.params > 1.5 * rows * width
    return Built(start.params, width, depth, heads, number(4 * width, "intermediate_size", "n_inner"), rows, untied)


def read_start(
    name: str, root: Path, *, optimizer: bool, tokenizer: Path, vocabulary: int, sequence: int
) -> InitialCheckpoint:
    """Inspect a checkpoint without loading its weights.

    Args:
        name: directory, relative to `root` or absolute, or the id of a model on the Hugging Face hub.
        optimizer: whether its optimizer's state is to be loaded.
        tokenizer: folder of the tokenizer of the study's shards.
        vocabulary, sequence: of the shards and of training.

    Raises:
        InputError: there is no such model, its weights are incomplete or not safetensors, it is not a causal language
            model, it has another tokenizer, its context is too short, or its optimizer state is missing or a pickle.
    """
    folder = _folder(name, root)
    hashed = _hashed(folder, optimizer)
    if len(hashed) < 2 + optimizer or not hashed[0].exists():
        raise InputError(
            f"{folder} is not a Hugging Face directory with config.json and *.safetensors; "
            "pickled weights are not read: load them in transformers once and save_pretrained() them"
        )
    _check_complete(folder)
    if optimizer and not optimizer_files(folder):
        raise InputError(
            f'{folder} has no {OPTIMIZER}; set training.optimizer = "fresh", or write one with the tensors '
            "step.NAME, exp_avg.NAME and exp_avg_sq.NAME of every parameter (an optimizer.pt is a pickle and not read)"
        )
    _check_tokenizer(folder, tokenizer)
    model = _on_meta(folder)
    if model.config.vocab_size < vocabulary:
        raise InputError(
            f"{folder} knows {model.config.vocab_size:,} token ids and the shards have {vocabulary:,}; "
            "make the shards with its tokenizer"
        )
    if sequence > (longest := getattr(model.config, "max_position_embeddings", None) or sequence):
        raise InputError(f"{folder} has a context of {longest} tokens; lower training.sequence = {sequence}")
    if optimizer:
        _check_moments(folder, model)
    params, flops = _count(model, sequence)
    return InitialCheckpoint(str(folder), _hash(hashed), params, model.num_parameters(), flops, optimizer)


def check_start(start: InitialCheckpoint) -> None:
    """Check that a checkpoint is what `read_start` saw.

    Raises:
        InputError: it has changed since.
    """
    folder = Path(start.path)
    if _hash(_hashed(folder, start.optimizer)) != start.hash:
        raise InputError(f"{folder} has changed since the run began; restore it, or run again from the new one")


def _hashed(folder: Path, optimizer: bool) -> list[Path]:
    """The files that define the model, and the optimizer's state."""
    moments = optimizer_files(folder)
    files = [path for path in sorted(folder.glob("*.safetensors")) if path not in moments]
    return [folder / "config.json", *files, *((moments or [folder / OPTIMIZER]) if optimizer else [])]


def optimizer_files(folder: Path) -> list[Path]:
    """Files with AdamW's moments: one, or one of each rank that wrote them; none where a study drops them."""
    return sorted([*folder.glob(OPTIMIZER), *folder.glob("optimizer-?????-of-?????.safetensors")])


def _folder(name: str, root: Path) -> Path:
    """The directory, or else the model of that id from the hub or its cache."""
    here = (root / name).expanduser()
    if here.is_dir():
        return here.resolve()
    try:
        return _snapshot(name)
    except Exception as error:  # the hub's client raises unrelated types
        raise InputError(
            f"training.start = {name!r} is neither a folder at {here} nor a model on the Hugging Face hub "
            f"({type(error).__name__}); fix the path, or the id and the network"
        ) from error


def _snapshot(name: str, revision: str | None = None) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"]))


def on_this_machine(start: InitialCheckpoint) -> InitialCheckpoint:
    """A checkpoint where it lies on this machine: the hub's may be in a cache of its own here, which is filled.

    Raises:
        InputError: it is not here and not on the hub.
    """
    folder = Path(start.path)
    if folder.is_dir():
        return start
    try:
        if folder.parent.name != "snapshots":
            raise FileNotFoundError(start.path)
        name = folder.parents[1].name.removeprefix("models--").replace("--", "/")
        return replace(start, path=str(_snapshot(name, folder.name)))
    except Exception as error:  # the hub's client raises unrelated types
        raise InputError(
            f"{socket.gethostname()} has no {folder}, which training.start names ({type(error).__name__}); put it "
            "where every node sees it, or let them reach the Hugging Face hub"
        ) from error


def _check_complete(folder: Path) -> None:
    """Refuse a checkpoint with missing files, such as one that was copied in part."""
    index = folder / "model.safetensors.index.json"
    if index.exists() and not (folder / "model.safetensors").exists():  # preferred over the index
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(name for name in files if not (folder / name).exists())
        if missing:
            raise InputError(
                f"{folder} lacks {len(missing)} of {len(files)} files of weights, such as {missing[0]}; "
                "copy or download all of it"
            )


def _check_tokenizer(folder: Path, tokenizer: Path) -> None:
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


def _on_meta(folder: Path) -> PreTrainedModel:
    """The model without its weights."""
    import torch

    from mixlaw.runner.models.load import skeleton

    with torch.device("meta"):
        model = skeleton(folder)
    names = model.config.architectures or [type(model).__name__]
    if type(model).__name__ not in names:  # a bidirectional model loads as well, and sees the tokens to predict
        raise InputError(f"{folder} is a {names[0]}, not a causal language model; choose another")
    return model


def _check_moments(folder: Path, model: PreTrainedModel) -> None:
    """Refuse moments of other parameters: a parameter without moments would silently start with none."""
    from safetensors import safe_open

    from mixlaw.runner.models.llama import MOMENTS

    shapes: dict[str, tuple[int, ...]] = {}
    for path in optimizer_files(folder):
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name, weight in model.named_parameters():
        for moment in MOMENTS:
            shape = () if moment == "step" else tuple(weight.shape)
            if shapes.get(f"{moment}.{name}") != shape:
                raise InputError(
                    f"{folder / OPTIMIZER} has {shapes.get(f'{moment}.{name}', 'nothing')} for {moment}.{name}, which "
                    f"has shape {shape}; write it again from the parameters of this model, or set "
                    'training.optimizer = "fresh"'
                )


def params_of(folder: Path) -> int:
    """Non-embedding parameters of a Hugging Face directory, counted without its weights.

    Raises:
        InputError: transformers cannot build a causal language model from its config.json.
    """
    return _count(_on_meta(folder), 1)[0]


def _count(model: PreTrainedModel, sequence: int) -> tuple[int, float]:
    """Non-embedding parameters, and training FLOPs per token as `Shape.flops_per_token` counts them."""
    from torch import nn

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]  # those of positions too
    heads = [model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    sizes = {id(module.weight): module.weight.numel() for module in (*tables, *heads) if module is not None}
    params = model.num_parameters() - sum(sizes.values())
    config: Any = model.config
    matrices = params - sum(w.numel() for w in model.parameters() if w.ndim < 2) - _idle_experts(model)
    head = config.vocab_size * config.hidden_size
    return params, 6.0 * (matrices + head) + 12.0 * config.num_hidden_layers * config.hidden_size * sequence


def _idle_experts(model: PreTrainedModel) -> float:
    """Weights of experts that a token does not go through: all but `num_experts_per_tok` of each layer's."""
    config: Any = model.config
    used = getattr(config, "num_experts_per_tok", None)
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    there = next((count for name in names if (count := getattr(config, name, None))), None)
    if not used or not there:
        return 0.0
    routed = sum(w.numel() for name, w in model.named_parameters() if ".experts." in name and w.ndim > 1)
    return float(routed * (1 - used / there))


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(json.dumps([path.name, sha256_of(path)]).encode())
    return digest.hexdigest()[:16]
