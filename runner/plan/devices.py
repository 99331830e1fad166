"""Machines and their devices: GPUs by name, what a size of model needs of them, and which of them are free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mixlaw.errors import InputError
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.memory import devices_needed
from mixlaw.runner.plan.setup import Setup

LEAST_TOKENS = 2**15  # of a step on a GPU that shares a segment with others


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        peak: FLOPs per second of dense matrix products in bf16, or in fp32 on a GPU that has none.
        memory: bytes.
    """

    peak: float
    memory: int


#: Dense bf16 tensor FLOPs (half of the "with sparsity" figure where the sheet gives that one) and memory, by NVIDIA's
#: data sheets of L4, L40S, A100 SXM, H100 SXM, H200 SXM and of HGX B200, and so on; names as Ray reports them. T4 and
#: V100 have no bf16.
GPUS = {
    "T4": Gpu(8.1e12, 16 * 10**9),
    "V100": Gpu(15.7e12, 16 * 10**9),  # of either size: the smaller one
    "A10G": Gpu(70e12, 24 * 10**9),
    "A40": Gpu(149.7e12, 48 * 10**9),
    "L40": Gpu(181e12, 48 * 10**9),
    "L4": Gpu(121e12, 24 * 10**9),
    "L40S": Gpu(362e12, 48 * 10**9),
    "A100": Gpu(312e12, 40 * 10**9),  # of either size: the smaller one
    "A100-40G": Gpu(312e12, 40 * 10**9),
    "A100-80G": Gpu(312e12, 80 * 10**9),
    "H100": Gpu(989e12, 80 * 10**9),
    "H100-PCIe": Gpu(756e12, 80 * 10**9),
    "H100-NVL": Gpu(835e12, 94 * 10**9),
    "GH200": Gpu(989e12, 96 * 10**9),
    "H200": Gpu(989e12, 141 * 10**9),
    "B200": Gpu(2250e12, 180 * 10**9),
}


def gpu_named(name: str) -> Gpu | None:
    """The GPU that a driver calls by this name; None if it is not in the table.

    Example:
        >>> gpu_named("NVIDIA A100-SXM4-80GB") == GPUS["A100-80G"], gpu_named("NVIDIA H100 PCIe") == GPUS["H100-PCIe"]
        (True, True)
    """
    words = {re.sub(r"^([0-9]+G)B$", r"\1", word) for word in re.split(r"[\s-]+", name)}
    matches = [key for key in GPUS if set(key.split("-")) <= words]
    return GPUS[max(matches, key=len)] if matches else None


@dataclass(frozen=True)
class Machine:
    """A machine that trains.

    Attributes:
        name: different for every machine.
        devices: how many may be used: GPUs, or cores with one thread each.
        kind: "cuda" or "cpu".
        memory: bytes of each device; None sets no limit.
    """

    name: str
    devices: int
    kind: str = "cpu"
    memory: int | None = None

    def __str__(self) -> str:
        return f"{self.devices} {'GPUs' if self.kind == 'cuda' else 'cores'} of {self.name}"


@dataclass(frozen=True)
class Place:
    """Devices of one machine that a worker holds."""

    machine: str
    devices: tuple[int, ...]

    def overlaps(self, other: Place) -> bool:
        """Whether a device belongs to both."""
        return self.machine == other.machine and bool(set(self.devices) & set(other.devices))

    def __str__(self) -> str:
        return f"{self.machine}:{','.join(map(str, self.devices))}"


def devices_for(setup: Setup, params: int, machines: Sequence[Machine]) -> int:
    """Devices of one machine that train a segment of a size: those set for it, else as few as hold it.

    Raises:
        InputError: no machine has that many.
    """
    most, wanted = max(machine.devices for machine in machines), setup.overrides(params).gpus
    if wanted is not None and machines[0].kind == "cuda":
        if wanted > most:
            raise InputError(
                f"training.sizes wants {wanted} GPUs for {params:,} parameters and no machine has more than {most}; "
                "lower gpus, or let one worker span machines with --launch"
            )
        return wanted
    limits = [machine.memory for machine in machines if machine.memory is not None]
    if not limits:
        return 1
    bf16 = machines[0].kind == "cuda"
    count = devices_needed(
        shape(params), setup.embedded, setup.sequence, min(limits), bf16=bf16, untied=setup.architecture.untied
    )
    if count > most:
        raise InputError(
            f"{params:,} parameters need {count} devices of {min(limits) / 1e9:.0f} GB and no machine has more than "
            f"{most}; take more with --gpus or --workers, or let one worker span machines with --launch"
        )
    return count


def widest_for(setup: Setup, params: int, machines: Sequence[Machine]) -> int:
    """Most devices on which a segment of a size is trained where others are idle.

    GPUs alone, where the study does not say how many: on cores the width changes bits. Every GPU has at least
    `LEAST_TOKENS` of a step, below which it waits for the others more than it computes.
    """
    count = devices_for(setup, params, machines)
    if machines[0].kind != "cuda" or setup.overrides(params).gpus is not None:
        return count
    return max(count, min(setup.step_tokens(params) // LEAST_TOKENS, setup.sequences(params)))


class Pool:
    """The devices that are free.

    Args:
        machines: with all their devices.
        held: places that are in use.
    """

    def __init__(self, machines: Iterable[Machine], held: Iterable[Place] = ()) -> None:
        self.free = {machine.name: list(range(machine.devices)) for machine in machines}
        for place in held:
            self.free[place.machine] = [d for d in self.free.get(place.machine, []) if d not in place.devices]

    def take(self, count: int, machines: Collection[str] | None = None) -> Place | None:
        """This many devices of the machine with the fewest left, so that others stay whole for wide segments."""
        allowed = self.free if machines is None else machines
        fitting = [name for name, free in self.free.items() if len(free) >= count and name in allowed]
        if not fitting:
            return None
        name = min(fitting, key=lambda machine: len(self.free[machine]))
        devices, self.free[name] = self.free[name][:count], self.free[name][count:]
        return Place(name, tuple(devices))

    def give(self, place: Place) -> None:
        """Take devices back."""
        self.free[place.machine] = sorted([*self.free[place.machine], *place.devices])
