"""Tensors in safetensors files, hashed while they are written, through torch.distributed.checkpoint.

Every tensor lies whole in one file, and every rank writes the files of the tensors that it was given. So the weights
are a Hugging Face directory as they are, no rank holds more than its part, nothing is merged afterwards, and any number
of ranks reads the slices that it needs. DCP's own writer for this layout builds each file in memory first, and ranks
that write shards with it read and write them all again to merge them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

WEIGHTS, MOMENTS = "model", "optimizer"  # beginnings of file names
INDEX = "model.safetensors.index.json"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
CHUNK = 1 << 24  # bytes hashed and written at a time


def file_name(kind: str, rank: int, world: int) -> str:
    """Name of a rank's file of a kind, as transformers names the parts of a model."""
    return f"{kind}.safetensors" if world == 1 else f"{kind}-{rank + 1:05}-of-{world:05}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write contiguous CPU tensors as safetensors; return the SHA-256 of the file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # aligned
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            digest.update(part)
            file.write(part)
        for _, tensor in ordered:
            data = tensor.reshape(-1).view(torch.uint8).numpy().data
            for begin in range(0, len(data), CHUNK):
                digest.update(data[begin : begin + CHUNK])
                file.write(data[begin : begin + CHUNK])
    return digest.hexdigest()


class Writer(StorageWriter):
    """Writes the tensors of every rank to the files named for them.

    Args:
        draft: the folder, which exists.
        files: file of each of this rank's tensors.
        finished: called on the first rank with the checksums by file when all ranks have written theirs.
    """

    def __init__(self, draft: Path, files: Mapping[str, str], finished: Callable[[dict[str, str]], None]) -> None:
        self.draft, self.files, self.finished = draft, files, finished

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's files."""
        by_file: dict[str, dict[str, torch.Tensor]] = {}
        for item in plan.items:
            tensor: Any = planner.resolve_data(item)
            by_file.setdefault(self.files[item.index.fqn], {})[item.index.fqn] = tensor
        results = []
        for name, tensors in by_file.items():
            checksum = write_tensors(self.draft / name, tensors)
            sizes = {each: tensor.nbytes for each, tensor in tensors.items()}
            results.append(WriteResult(MetadataIndex(name), sum(sizes.values()), (checksum, sizes)))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index of a model in parts, and hand over the checksums; called on the first rank."""
        checksums, where, size = dict[str, str](), dict[str, str](), 0
        for result in (each for rank in results for each in rank):
            name, (checksum, sizes) = result.index.fqn, result.storage_data
            checksums[name] = checksum
            if name.startswith(f"{WEIGHTS}-"):
                where |= dict.fromkeys(sizes, name)
                size += result.size_in_bytes
        if where:
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
            (self.draft / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        self.finished(checksums)

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept from one checkpoint to the next."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """The plans as they are."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Any folder."""
        return True
