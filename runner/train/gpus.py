"""GPUs by name: what they can do at most and how much memory they have, by their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """An accelerator.

    Attributes:
        peak: FLOPs per second of dense matrix products in bf16.
        memory: bytes.
    """

    peak: float
    memory: int


#: Dense bf16 tensor FLOPs (half of the "with sparsity" figure where the sheet gives that one) and memory, by NVIDIA's
#: data sheets of L4, L40S, A100 SXM, H100 SXM, H200 SXM and of HGX B200; names as Ray reports them.
GPUS = {
    "L4": Gpu(121e12, 24 * 10**9),
    "L40S": Gpu(362e12, 48 * 10**9),
    "A100": Gpu(312e12, 40 * 10**9),  # of either size: the smaller one
    "A100-40G": Gpu(312e12, 40 * 10**9),
    "A100-80G": Gpu(312e12, 80 * 10**9),
    "H100": Gpu(989e12, 80 * 10**9),
    "H200": Gpu(989e12, 141 * 10**9),
    "B200": Gpu(2250e12, 180 * 10**9),
}
