"""Bytes that training takes on a device: weights, gradients and moments, sharded across ranks, and activations.

Counted from the tensors that autograd keeps of a Llama layer, in bytes per token, with width w and SwiGLU width f:

- two norms keep their input, what they normalised and their output; attention keeps queries, keys, values and output;
  SwiGLU keeps gate, its activation, the other branch and their product: 10 w + 4 f numbers;
- in bf16 a norm keeps its input as 4 bytes a number, everything else 2;
- with recomputation (activation checkpointing) each layer keeps only its input; one layer at a time holds the rest.

Weights, gradients and two moments are fp32, 16 bytes a parameter; FSDP shards them, and gathers embeddings and two
layers at a time in the compute type.
"""

from __future__ import annotations

from typing import Protocol

from mixlaw.errors import InputError

HEAD_ROWS = {
    True: 2048,
    False: 256,
}  # rows of logits that exist at a time, by whether they are bf16 (GPUs) or fp32 (CPUs)
USABLE = 0.9  # share of a device's memory: the driver and fragmentation take the rest


class Dimensions(Protocol):
    """What the estimate takes of a model: its layers, and its parameters without embeddings."""

    @property
    def params(self) -> int:
        """Parameters without embeddings."""

    @property
    def width(self) -> int:
        """Of the hidden state."""

    @property
    def depth(self) -> int:
        """Layers."""

    @property
    def heads(self) -> int:
        """Attention heads."""

    @property
    def inner(self) -> int:
        """Width of the SwiGLU layer."""


def training_bytes(
    shape: Dimensions,
    vocabulary: int,
    sequence: int,
    sequences: int,
    *,
    ranks: int = 1,
    bf16: bool = False,
    recompute: bool = False,
    accumulate: bool = False,
    untied: bool = False,
) -> int:
    """Peak bytes on each device while a size is trained.

    Args:
        shape: the model.
        vocabulary: token ids.
        sequence: tokens per sequence.
        sequences: micro-batch, the sequences of one forward and backward pass on a device.
        ranks: devices across which weights, gradients and moments are sharded.
        bf16: whether it computes in bf16 (accelerators) or fp32 (CPU).
        recompute: whether the backward pass recomputes activations instead of keeping them.
        untied: whether the output has a matrix of its own.
        accumulate: whether a step has several micro-batches, so that gradients stay while the next one runs.
    """
    size = 2 if bf16 else 4
    embeddings = vocabulary * shape.width
    weights = shape.params + embeddings * (1 + untied)
    layer = shape.params / shape.depth
    tables = embeddings * (1 + untied)
    gathered = size * (tables + 2 * layer) + 4 * (tables + layer) if ranks > 1 or bf16 else 0.0
    tokens = sequence * sequences
    inputs, rest = _layer_bytes(shape, size)
    last = shape.width * (8 if bf16 else 12)
    # In fp32 logits and their gradient are one block, in bf16 two of bf16 and one of fp32 between them.
    block = min(tokens, HEAD_ROWS[bf16]) * vocabulary * (8 if bf16 else 4)
    product = 4 * embeddings if bf16 else 0  # of a block in bf16, and the sum once it is bf16
    head = 4 * embeddings + product + size * tokens * shape.width
    # A layer is recomputed once the block of logits is gone.
    layers = max(block, tokens * rest) if recompute else block + tokens * shape.depth * rest
    activations = tokens * (shape.depth * inputs + last) + layers + head
    gradients = 4 * weights / ranks
    peak = activations + (gradients if accumulate else 0.0)
    return int(12 * weights / ranks + gathered + max(peak, gradients))


def _layer_bytes(shape: Dimensions, size: int) -> tuple[float, float]:
    """Bytes per token that a layer keeps: its input, and everything after that."""
    norms = 2 * shape.width * (4 + 2 + 2 if size == 2 else 4 + 4 + 4)
    attention = size * 4 * shape.width + 4 * shape.heads
    swiglu = size * 4 * shape.inner
    first = size * shape.width
    return float(first), float(norms + attention + swiglu - first)


def devices_needed(
    shape: Dimensions,
    vocabulary: int,
    sequence: int,
    device_bytes: float,
    *,
    bf16: bool = True,
    recompute: bool = True,
    untied: bool = False,
) -> int:
    """Fewest devices for a size: the smallest power of two on which one sequence per device fits.

    Raises:
        InputError: activations and gathered weights do not fit, across however many devices the rest is sharded.
    """
    for ranks in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        needed = training_bytes(
            shape, vocabulary, sequence, 1, ranks=ranks, bf16=bf16, recompute=recompute, untied=untied
        )
        if needed <= USABLE * device_bytes:
            return ranks
    raise InputError(
        f"a model of {shape.params:,} parameters and one sequence of {sequence} take {needed / 1e9:.1f} GB on every "
        f"device, of {device_bytes / 1e9:.1f} GB; use devices with more memory or lower training.sequence"
    )


def largest_micro_batch(
    shape: Dimensions,
    vocabulary: int,
    sequence: int,
    most: int,
    device_bytes: float,
    *,
    ranks: int = 1,
    bf16: bool = True,
    recompute: bool = False,
    untied: bool = False,
) -> int:
    """Sequences per forward pass, up to `most`, that fit on a device; at least one."""
    best, high = 1, most
    while best < high:
        middle = (best + high + 1) // 2
        needed = training_bytes(
            shape,
            vocabulary,
            sequence,
            middle,
            ranks=ranks,
            bf16=bf16,
            recompute=recompute,
            accumulate=middle < most,
            untied=untied,
        )
        best, high = (middle, high) if needed <= USABLE * device_bytes else (best, middle - 1)
    return best
