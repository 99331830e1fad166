"""Bytes that training takes on a device: weights, gradients and moments, which ranks share, and activations.

Counted from the tensors that autograd keeps of a Llama layer, in bytes per token, with width w and SwiGLU width f:

- two norms keep their input, what they normalised and their output; attention keeps queries, keys, values and output;
  SwiGLU keeps gate, its activation, the other branch and their product: 10 w + 4 f numbers;
- in bf16 a norm keeps its input as 4 bytes a number, everything else 2;
- recomputed layers (activation checkpointing) keep their input alone, and one of them at a time the rest.

Weights, gradients and two moments are fp32, 16 bytes a parameter; FSDP shares them, and gathers embeddings and two
layers at a time in the type that is computed in.
"""

from __future__ import annotations

from mixlaw.errors import InputError
from mixlaw.runner.models.ladder import Shape

HEAD_ROWS = {True: 2048, False: 256}  # rows of logits that exist at a time, under bf16 (accelerators) and fp32 (CPU)
USABLE = 0.9  # of a device's memory: the rest is the driver's, and fragments


def training_bytes(
    shape: Shape,
    vocabulary: int,
    sequence: int,
    sequences: int,
    *,
    ranks: int = 1,
    bf16: bool = False,
    recompute: bool = False,
    accumulate: bool = False,
) -> int:
    """Peak bytes on each device while a size is trained.

    Args:
        shape: the model.
        vocabulary: token ids.
        sequence: tokens per sequence.
        sequences: sequences on one device at once, those of one forward and backward pass.
        ranks: devices that share weights, gradients and moments.
        bf16: whether it computes in bf16 (accelerators) or fp32 (CPU).
        recompute: whether layers are computed again in the backward pass, instead of kept.
        accumulate: whether a step takes several passes, so that gradients stay while the next one runs.
    """
    size = 2 if bf16 else 4
    embeddings = vocabulary * shape.width
    weights = shape.params + embeddings
    layer = shape.params / shape.depth
    gathered = size * (embeddings + 2 * layer) + 4 * (embeddings + layer) if ranks > 1 or bf16 else 0.0
    tokens = sequence * sequences
    kept, rest = _layer_bytes(shape, size)
    layers = shape.depth * kept + (rest if recompute else shape.depth * rest)
    last = shape.width * (8 if bf16 else 12)
    # In fp32 logits and their gradient are one block, in bf16 two of bf16 and one of fp32 between them.
    block = min(tokens, HEAD_ROWS[bf16]) * vocabulary * (8 if bf16 else 4)
    head = block + 4 * embeddings + size * tokens * shape.width
    activations = tokens * (layers + last) + head
    gradients = 4 * weights / ranks
    peak = activations + (gradients if accumulate else 0.0)
    return int(12 * weights / ranks + gathered + max(peak, gradients))


def _layer_bytes(shape: Shape, size: int) -> tuple[float, float]:
    """Bytes per token that a layer keeps of its input, and of everything behind it."""
    norms = 2 * shape.width * (4 + 2 + 2 if size == 2 else 4 + 4 + 4)
    attention = size * 4 * shape.width + 4 * shape.heads
    swiglu = size * 4 * shape.inner
    first = size * shape.width
    return float(first), float(norms + attention + swiglu - first)


def devices_needed(
    shape: Shape, vocabulary: int, sequence: int, device_bytes: float, *, bf16: bool = True, recompute: bool = True
) -> int:
    """Devices that a size needs at least: the smallest power of two on which one sequence each fits.

    Raises:
        InputError: activations and what is gathered do not fit, however many devices share the rest.
    """
    for ranks in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        needed = training_bytes(shape, vocabulary, sequence, 1, ranks=ranks, bf16=bf16, recompute=recompute)
        if needed <= USABLE * device_bytes:
            return ranks
    raise InputError(
        f"a model of {shape.params:,} parameters and one sequence of {sequence} take {needed / 1e9:.1f} GB on every "
        f"device, of {device_bytes / 1e9:.1f} GB; take larger devices or shorten training.sequence"
    )


def sequences_at_once(
    shape: Shape,
    vocabulary: int,
    sequence: int,
    most: int,
    device_bytes: float,
    *,
    ranks: int = 1,
    bf16: bool = True,
    recompute: bool = False,
) -> int:
    """Largest number of sequences, up to `most`, that fit on a device at once; at least one is tried."""
    best, high = 1, most
    while best < high:
        middle = (best + high + 1) // 2
        needed = training_bytes(
            shape, vocabulary, sequence, middle, ranks=ranks, bf16=bf16, recompute=recompute, accumulate=middle < most
        )
        best, high = (middle, high) if needed <= USABLE * device_bytes else (best, middle - 1)
    return best
