"""Machines, their devices, and what a model size needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mixlaw.errors import InputError
from mixlaw.machine import cores, has_gpu_driver
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.memory import devices_needed
from mixlaw.runner.plan.setup import Setup


@dataclass(frozen=True)
class Machine:
    """A machine that trains.

    Attributes:
        name: different for every machine.
        devices: how many there are to use: GPUs, or cores with one thread each.
        kind: "cuda" or "cpu".
        memory: bytes of each device; None where memory sets no limit.
    """

    name: str
    devices: int
    kind: str = "cpu"
    memory: int | None = None


@dataclass(frozen=True)
class Place:
    """Devices of one machine that a worker holds."""

    machine: str
    devices: tuple[int, ...]

    def overlaps(self, other: Place) -> bool:
        """Whether both hold a device."""
        return self.machine == other.machine and bool(set(self.devices) & set(other.devices))

    def __str__(self) -> str:
        return f"{self.machine}:{','.join(map(str, self.devices))}"


def this_machine(workers: int | None = None, gpus: int | None = None) -> Machine:
    """The machine this runs on: its GPUs, or its cores where there are none or none are wanted.

    Args:
        workers: most devices to use, at least 1; may be more than there are cores.
        gpus: GPUs to use, in place of all that there are.

    Raises:
        InputError: there are not so many GPUs.
    """
    found = _gpus()
    if gpus is not None and gpus > found:
        raise InputError(f"{gpus} GPUs are wanted, {found} are here; give --gpus {found} or leave it out")
    count = found if gpus is None else gpus
    if count == 0:
        return Machine("local", workers or cores())
    import torch

    memory = min(torch.cuda.get_device_properties(index).total_memory for index in range(count))
    return Machine("local", min(count, workers or count), "cuda", memory)


def _gpus() -> int:
    """GPUs that torch can use; where no driver is, torch is not asked: it takes seconds to load."""
    if not has_gpu_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def needed(setup: Setup, params: int, machines: Sequence[Machine]) -> int:
    """Devices that a segment of a size takes: as few as hold it, on one machine.

    Raises:
        InputError: no machine has so many.
    """
    limits = [machine.memory for machine in machines if machine.memory is not None]
    if not limits:
        return 1
    bf16 = machines[0].kind == "cuda"
    count = devices_needed(shape(params), setup.vocabulary, setup.sequence, min(limits), bf16=bf16)
    most = max(machine.devices for machine in machines)
    if count > most:
        raise InputError(
            f"{params:,} parameters need {count} devices of {min(limits) / 1e9:.0f} GB and no machine has more than "
            f"{most}; take more with --gpus or --workers, or let one worker span machines with --launch"
        )
    return count


class Pool:
    """The devices that are free.

    Args:
        machines: with all their devices.
        held: places that are taken.
    """

    def __init__(self, machines: Iterable[Machine], held: Iterable[Place] = ()) -> None:
        self.free = {machine.name: list(range(machine.devices)) for machine in machines}
        for place in held:
            self.free[place.machine] = [d for d in self.free.get(place.machine, []) if d not in place.devices]

    def take(self, count: int) -> Place | None:
        """So many devices of the machine that has least left, so that others stay whole for wide segments."""
        fitting = [name for name, free in self.free.items() if len(free) >= count]
        if not fitting:
            return None
        name = min(fitting, key=lambda machine: len(self.free[machine]))
        taken, self.free[name] = self.free[name][:count], self.free[name][count:]
        return Place(name, tuple(taken))

    def give(self, place: Place) -> None:
        """Take devices back."""
        self.free[place.machine] = sorted([*self.free[place.machine], *place.devices])
