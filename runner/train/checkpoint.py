"""Saving and loading checkpoints: a Hugging Face directory plus the optimizer's moments, the step and loop state.

They are written in the background, by every rank its part, while training goes on.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.distributed import checkpoint
from torch.distributed.checkpoint.staging import AsyncStager

from mixlaw.errors import InputError
from mixlaw.files import write_json
from mixlaw.runner.models.deferred import parameters_on_meta
from mixlaw.runner.models.foreign import optimizer_files
from mixlaw.runner.models.llama import MOMENTS, MOMENTUM
from mixlaw.runner.models.load import hide_progress_bars, load_model, skeleton
from mixlaw.runner.models.pieces import Piece, pieces, rows_of
from mixlaw.runner.train.parallel import ALONE, Ranks, gather_full, scattered, shard_like
from mixlaw.runner.train.store import seal, verify
from mixlaw.runner.train.tensor_files import MOMENTS as OPTIMIZER
from mixlaw.runner.train.tensor_files import WEIGHTS, Writer, file_name, write_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

dcp: Any = checkpoint  # which does not say what it exports
warnings.filterwarnings("ignore", "torch.distributed is disabled")  # of a single process, which is meant
EXTRA = "training.json"  # state of the loop beside weights, moments and step
Fill = Callable[["PreTrainedModel", torch.optim.Optimizer], None]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: model (fp32, CPU), AdamW's moments by parameter name, steps done, and the loop's state.

    There are no moments where it was saved without.
    """

    model: PreTrainedModel
    moments: dict[str, torch.Tensor]
    step: int
    extra: dict[str, Any]


@dataclass(frozen=True)
class Saving:
    """A checkpoint that is being written; `folder` appears when it is complete."""

    folder: Path
    future: Future[Any]

    @property
    def done(self) -> bool:
        """Whether this rank has written its part; on the first rank, whether the checkpoint is complete or failed."""
        return self.future.done()

    def wait(self) -> None:
        """Wait until it is complete.

        Raises:
            OSError, RuntimeError: a rank could not write its part; the older checkpoints are as they were.
        """
        try:
            self.future.result()
        except dcp.CheckpointException as error:  # all ranks meet it
            rank, (first, _) = min(error.failures.items())
            raise RuntimeError(f"rank {rank} could not write {self.folder}: {first}") from first


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    tokenizer: Path,
    extra: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
    keep_optimizer: bool = True,
    wait: bool = True,
) -> Saving:
    """Write a checkpoint to `folder`, replacing an older one; transformers loads it as it is.

    All ranks call it, and each writes the whole of some tensors, so that any number of ranks can resume from it.

    Args:
        folder: appears under this name only when complete.
        step: optimizer steps since the start of the recipe.
        tokenizer: folder of the tokenizer files, copied into the checkpoint where they exist.
        extra: plain data that `load` returns.
        ranks: this process among those that train the model.
        keep_optimizer: False leaves the moments out, so that no training can resume from it.
        wait: False returns as soon as the tensors are copied; one checkpoint at a time is written.
    """
    tensors, files = _parts(model, optimizer if keep_optimizer else None, ranks, copy=not wait)
    draft = ranks.broadcast(_begin(folder, model, tokenizer, extra or {}) if ranks.first else None)
    if (
        keep_optimizer and ranks.first and not any(optimizer.state.values())
    ):  # before the first step: empty, not left out
        write_tensors(draft / file_name(OPTIMIZER, 0, 1), {})
    writer = Writer(draft, files, lambda checksums: seal(draft, folder, step, checksums))
    options: Any = {"storage_writer": writer, "process_group": ranks.saves, "no_dist": ranks.world == 1}
    if not wait:
        return Saving(folder, dcp.async_save(tensors, async_stager=_Staged(), **options))
    future: Future[Any] = Future()
    try:
        future.set_result(dcp.save(tensors, **options))
    except dcp.CheckpointException as error:
        future.set_exception(error)
    saving = Saving(folder, future)
    saving.wait()
    ranks.broadcast()  # no rank continues before it is complete
    return saving


class _Staged(AsyncStager):
    """Tensors that are copies already."""

    _synchronize_after_execute = False

    def stage(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """The tensors."""
        return tensors

    def synchronize_staging(self) -> None:
        """Nothing to wait for."""
        return

    def close(self) -> None:
        """Nothing to close."""
        return


def _begin(folder: Path, model: Any, tokenizer: Path, extra: Mapping[str, Any]) -> Path:
    """A draft with the small files of a checkpoint."""
    hide_progress_bars()
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    model.config.architectures, model.config.dtype = [type(model).__name__], "float32"
    model.config.save_pretrained(draft)
    if model.can_generate():
        model.generation_config.save_pretrained(draft)
    write_json(draft / EXTRA, extra)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, draft / name)
    return draft


def _parts(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer | None, ranks: Ranks, copy: bool
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """This rank's tensors of a checkpoint, whole and on the CPU, and the file of each.

    Each kind is split in order, by size, so that every rank has about as much; all ranks gather all tensors, one after
    another, and each drops those of others.
    """
    tensors, files, where = dict[str, torch.Tensor](), dict[str, str](), pieces(model)
    kinds = {WEIGHTS: list(_weights(model)), OPTIMIZER: list(_moments(model, optimizer)) if optimizer else []}
    for kind, named in kinds.items():
        total, before = sum(tensor.nbytes for _, tensor in named), 0
        for name, tensor in named:
            rank = min(before * ranks.world // max(1, total), ranks.world - 1)
            before += tensor.nbytes
            if (full := gather_full(tensor, rank == ranks.rank, copy)) is not None:
                for piece in where.get(name) or [Piece(name, tuple(full.shape))]:
                    tensors[piece.name] = piece.of(rows_of(full))
                    files[piece.name] = file_name(kind, rank, ranks.world)
    return tensors, files


def _moments(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in model.named_parameters():
        for key, value in optimizer.state[weight].items():
            yield f"{key}.{name}", value


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights and buffers by name, tied ones once."""
    ignored, seen = set(model._keys_to_ignore_on_save or ()), set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and name not in ignored:
            yield name, tensor
        seen.add(id(tensor))


def read_state(folder: Path, ranks: Ranks = ALONE) -> tuple[int, dict[str, Any]]:
    """Verify every file of a checkpoint, each rank its part; return its steps and the loop's state. All ranks call it.

    Raises:
        InputError: a file is missing or differs from its checksum, which all ranks meet.
    """
    step, damage = 0, None
    try:
        step = verify(folder, ranks.rank, ranks.world)
    except InputError as error:
        damage = error
    faults = [fault for fault in ranks.gather(damage) if fault]

    def state() -> tuple[int, dict[str, Any]]:
        if faults:
            raise faults[0]
        return step, _extra(folder)

    return ranks.on_first(state)


def _extra(folder: Path) -> dict[str, Any]:
    path = folder / EXTRA
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def load(folder: Path, ranks: Ranks = ALONE) -> Checkpoint:
    """Read a whole checkpoint after verifying every file of it, each rank its part; all ranks call it.

    Raises:
        InputError: a file is missing or differs from its checksum.
    """
    step, extra = read_state(folder, ranks)
    return Checkpoint(load_model(folder), load_moments(folder), step, extra)


def load_moments(folder: Path) -> dict[str, torch.Tensor]:
    """AdamW's moments in a Hugging Face directory by name; none where it has none."""
    return {name: tensor for path in optimizer_files(folder) for name, tensor in load_file(path).items()}


def source(
    folder: Path | None, fresh: Callable[[], PreTrainedModel], moments: bool, ranks: Ranks
) -> tuple[PreTrainedModel, Fill]:
    """The model of a directory, or a fresh one, and what fills it and its optimizer once it is sharded.

    Several ranks get a model without memory, and each fills its shards alone.

    Args:
        folder: verified before.
        fresh: builds the model where there is no folder.
        moments: whether the optimizer's state is to be read too.
    """
    if not ranks.shards:
        state = load_moments(folder) if folder is not None and moments else {}
        whole = fresh() if folder is None else load_model(folder)
        return whole, lambda model, optimizer: restore_moments(optimizer, model, state)
    with parameters_on_meta(record=folder is None) as draws:
        model: Any = fresh() if folder is None else skeleton(folder)
    if folder is None:
        before = dict(model.named_parameters())

        def draw(model: PreTrainedModel, _: torch.optim.Optimizer) -> None:
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(shard_like(draws.repeat(before[name]), weight))

        return model, draw
    where = _pieces_in(folder, model, ranks)
    if where is None:  # in another form: transformers converts whole models
        read = dict[str, torch.Tensor]()

        def first() -> list[str]:
            read.update(load_model(folder).state_dict() | (load_moments(folder) if moments else {}))
            return list(read)

        names = ranks.on_first(first)
        return model, lambda model, optimizer: _hand_out(read, names, model, optimizer, ranks)
    return model, lambda model, optimizer: _read_shards(folder, model, optimizer if moments else None, where, ranks)


def _hand_out(
    read: dict[str, torch.Tensor], names: list[str], model: Any, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> None:
    """Fill a sharded model and the moments of its optimizer from what the first rank has read; all ranks call it."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        with torch.no_grad():
            tensor.copy_(scattered(read.pop(name, None), tensor, ranks))
    for name, weight in model.named_parameters():
        for key in (key for key in (*MOMENTS, MOMENTUM) if f"{key}.{name}" in names):
            moment, like = read.pop(f"{key}.{name}", None), torch.zeros((), device=weight.device)
            optimizer.state[weight][key] = scattered(moment, like if key == "step" else weight.detach(), ranks)


def _pieces_in(folder: Path, model: PreTrainedModel, ranks: Ranks) -> dict[str, list[Piece]] | None:
    """The pieces of each weight and buffer of a model in a directory; None where one is not there in whole rows.

    Parameters of several pieces must be sharded between these, as experts are.
    """
    there = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    found, usual, tensors = dict[int, list[Piece]](), pieces(model), model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        shard = -(-len(tensor) // ranks.world) * math.prod(tensor.shape[1:-1]) if tensor.ndim else 1
        for parts in ([Piece(name, tuple(tensor.shape))], usual[name]):
            whole = len(parts) == 1 or all(part.first // shard == part.last // shard for part in parts)
            if whole and all(getattr(there.get(part.name), "size", None) == part.shape for part in parts):
                found.setdefault(id(tensor), parts)
                break
    where = {name: found.get(id(tensor)) for name, tensor in tensors.items()}
    return None if None in where.values() else where  # type: ignore[return-value]


def _read_shards(
    folder: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer | None,
    where: dict[str, list[Piece]],
    ranks: Ranks,
) -> None:
    """Fill a sharded model, and the moments of its optimizer, with the slices that this rank has; all ranks call it."""
    reader = dcp.HuggingFaceStorageReader(str(folder))
    there = reader.read_metadata().state_dict_metadata
    state = dict[str, torch.Tensor]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        weight, parts = tensor.detach(), where[name]
        if len(parts) == 1:
            state[parts[0].name] = weight
            continue
        before = ranks.rank * -(-len(weight) // ranks.world) * math.prod(weight.shape[1:-1])
        local = rows_of(weight.to_local() if hasattr(weight, "to_local") else weight)
        state |= {part.name: part.of(local, before) for part in parts if part.is_in(local, before)}
    for name, weight in model.named_parameters() if optimizer is not None else ():
        kept = [key for key in (*MOMENTS, MOMENTUM) if f"{key}.{name}" in there]
        if kept:  # none before the first step
            mine = {key: torch.zeros(()) if key == "step" else torch.zeros_like(weight.detach()) for key in kept}
            optimizer.state[weight] = mine  # type: ignore[union-attr]
            state |= {f"{key}.{name}": moment for key, moment in mine.items()}
    dcp.load(state, storage_reader=reader, process_group=ranks.orders, no_dist=ranks.world == 1)
    if optimizer is not None and ranks.device.type != "cpu":
        for moments in optimizer.state.values():
            if "step" in moments:  # Muon has none
                moments["step"] = moments["step"].to(ranks.device)


def restore_moments(optimizer: torch.optim.Optimizer, model: PreTrainedModel, moments: dict[str, torch.Tensor]) -> None:
    """Put AdamW's moments and step counts back, by parameter name; each rank takes its shard of them."""
    for name, weight in model.named_parameters():
        state = {key: moments[f"{key}.{name}"] for key in (*MOMENTS, MOMENTUM) if f"{key}.{name}" in moments}
        if state:  # empty before the first step
            optimizer.state[weight] = {
                k: v.to(weight.device, copy=True) if k == "step" else shard_like(v, weight) for k, v in state.items()
            }
