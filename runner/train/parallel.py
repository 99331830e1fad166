"""The processes that train one segment together, and FSDP2 over them."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import distributed
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.checkpoint import checkpoint

from mixlaw.errors import InputError
from mixlaw.runner.models.deferred import allocate
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.plan.devices import CONTEXT

COLLECTIVES = timedelta(minutes=10)  # a rank that does not come to a sum or a gather within this has failed
ORDERS = timedelta(days=7)  # what ranks wait for the first one at most, while it evaluates, saves or has no segment
SIZES = 256  # compiled versions of a layer in a process
CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together.

    Attributes:
        rank, world: its number, and how many there are.
        device: what it trains on.
        bf16: whether it computes in bf16; weights, moments and sums of gradients are fp32 in any case.
        orders: the process group in which ranks wait for the first one; the default group if None.
        saves: the process group in which checkpoints are written in the background; the default group if None.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    bf16: bool = False
    orders: Any = field(default=None, compare=False, repr=False)
    saves: Any = field(default=None, compare=False, repr=False)

    @property
    def first(self) -> bool:
        """Whether this rank reports, logs and writes for all."""
        return self.rank == 0

    @property
    def shards(self) -> bool:
        """Whether FSDP2 shards the weights; a single CPU process keeps plain tensors."""
        return self.world > 1 or self.bf16 or self.device.type != "cpu"

    def total(self, values: torch.Tensor) -> list[float]:
        """Sums of numbers, shape (n,), over all ranks; all of them call it."""
        if self.world > 1:
            distributed.all_reduce(values)
        sums: list[float] = values.tolist()
        return sums

    def agreed(self, *answers: bool) -> tuple[bool, ...]:
        """The first rank's answers; all ranks call it."""
        if self.world == 1:
            return answers
        shared = torch.tensor(answers)
        distributed.broadcast(shared, src=0, group=self.orders)
        return tuple(shared.tolist())

    def common(self, *values: float) -> tuple[float, ...]:
        """The first rank's numbers, so that all ranks decide alike; all ranks call it."""
        if self.world == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(shared, src=0, group=self.orders)
        return tuple(shared.tolist())

    def least(self, value: int) -> int:
        """The smallest of all ranks' numbers; all ranks call it."""
        if self.world == 1:
            return value
        smallest = torch.tensor(value)
        distributed.all_reduce(smallest, distributed.ReduceOp.MIN, group=self.orders)
        return int(smallest)

    def broadcast(self, value: Any = None) -> Any:
        """The first rank's value; all ranks call it."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=CPU, group=self.orders)
        return box[0]

    def on_first(self, work: Callable[[], T]) -> T:
        """What work returns on the first rank, on all of them; all ranks call it.

        Raises:
            InputError: the first rank met it; all ranks meet it.
        """
        result: Any = None
        if self.first:
            try:
                result = work()
            except InputError as error:
                result = error
        result = self.broadcast(result)
        if isinstance(result, InputError):
            raise result
        return cast("T", result)

    def gather(self, value: Any) -> list[Any]:
        """All ranks' values on the first one, in order, and none on the others; all ranks call it."""
        if self.world == 1:
            return [value]
        values = [None] * self.world if self.first else None
        distributed.gather_object(value, values, dst=0, group=self.orders)
        return values or []


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun started, or alone; on the GPU with its local rank if there are GPUs.

    A single GPU uses FSDP2 too, for its bf16: results then depend on the number of GPUs only by the order of sums. GPUs
    without bf16 of their own (before Ampere) compute in fp32.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    if not gpu and world == 1:
        yield ALONE
        return
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else CPU
    if gpu:
        torch.cuda.set_device(device)
    bf16 = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if gpu and not bf16:
        print(f"{torch.cuda.get_device_name(device)} has no bf16: training in fp32", file=sys.stderr)
    store = None if "RANK" in os.environ else HashStore()
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    distributed.init_process_group(backend, timeout=COLLECTIVES, store=store, rank=rank, world_size=world)
    orders, saves = (distributed.new_group(backend="gloo", timeout=ORDERS) if world > 1 else None for _ in range(2))
    try:
        yield Ranks(rank, world, device, bf16, orders, saves)
    finally:
        distributed.destroy_process_group()


def release_memory() -> None:
    """Free what the last segment left, and count the peak of memory anew.

    Layers with a forward pass of their own refer to themselves: only the garbage collector frees them, and what they
    hold on a GPU does not make it run.
    """
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def limit_memory(device: torch.device, share: int) -> None:
    """Leave the memory of a GPU that `share` processes use to all of them alike, their contexts aside."""
    if share > 1 and device.type == "cuda":
        part = 1 / share - CONTEXT / torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(part, device)


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process can still allocate, within its part where several share it."""
    free, total = torch.cuda.mem_get_info(device)
    part = torch.cuda.get_per_process_memory_fraction(device) * total
    return min(free, int(part) - torch.cuda.memory_reserved(device))


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The decoder layers of a Hugging Face model."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def shard_model(
    model: Any,
    ranks: Ranks,
    *,
    recompute: bool = False,
    compiled: bool = False,
    z_loss: float = 0.0,
    end: int | None = None,
) -> LossModule:
    """A model ready to train: moved to the device, its parameters sharded across ranks; all ranks call it.

    Every decoder layer is one FSDP2 unit, embeddings and last norm another. Under bf16 the weights that a layer
    gathers are bf16, half the bytes of gathering fp32 and casting (autocast); gradients are summed over ranks in fp32.

    Args:
        model: on the CPU, or its parameters on the meta device: then each rank allocates its shards, unfilled. Its
            layers are changed in place.
        recompute: activation checkpointing: keep only a layer's input and recompute the rest in the backward pass.
        compiled: compile each layer; layers of one shape share the code.
        z_loss: as in `Hyperparameters`.
        end: token between documents, where these do not see each other.
    """
    if compiled:  # an entry per size and per length of the last pass; beyond the limit layers would run uncompiled
        torch._dynamo.config.recompile_limit = SIZES
        torch._dynamo.config.accumulated_recompile_limit = 8 * SIZES
    for layer in layers(model) if recompute or compiled else ():
        forward = layer.forward
        if recompute:
            forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        layer.forward = torch.compile(forward) if compiled else forward  # FSDP's hooks stay outside
    losses = LossModule(model, compiled, z_loss, end)
    if not ranks.shards:
        return losses
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if ranks.bf16 else MixedPrecisionPolicy()
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(losses, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    allocate(losses, ranks.device)
    return losses.to(ranks.device)


def gather_full(tensor: torch.Tensor, keep: bool, copy: bool = False) -> torch.Tensor | None:
    """A sharded tensor gathered on the CPU of a rank that keeps it; all ranks call it in the same order.

    Args:
        copy: whether training may change the tensor while the gathered one is used.
    """
    full = tensor.detach()
    if hasattr(full, "full_tensor"):
        full = full.full_tensor()
    return full.to(CPU, copy=copy).contiguous() if keep else None


def shard_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's shard of a full tensor, sharded and placed as `like` is; every rank holds the full one."""
    if hasattr(like, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        sharded: DTensor = like  # type: ignore[assignment]
        return distribute_tensor(tensor.to(like.device), sharded.device_mesh, sharded.placements, src_data_rank=None)
    return tensor.to(like.device, copy=True)


def scattered(tensor: torch.Tensor | None, like: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """A full tensor of the first rank, sharded and placed as `like` is; the others have none. All ranks call it."""
    full = torch.empty(like.shape, dtype=like.dtype, device=like.device) if tensor is None else tensor.to(like.device)
    if hasattr(like, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        sharded: DTensor = like  # type: ignore[assignment]
        return distribute_tensor(full, sharded.device_mesh, sharded.placements)
    if ranks.world > 1:
        distributed.broadcast(full, src=0)
    return full.clone()
