"""Machines and their devices: GPUs by name, what a size of model needs of them, and which of them are free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from mixlaw.errors import InputError
from mixlaw.runner.models.memory import USABLE, devices_needed, training_bytes
from mixlaw.runner.plan.setup import Setup

LEAST_TOKENS = 2**15  # of a step on a GPU that shares a segment with others
PARTS = 8  # of a GPU that several segments share
LAYER_SECONDS = 1e-3  # that launching a layer's kernels, forward and backward, takes at least
REACHED = 0.4  # share of a GPU's peak that a large model reaches: below its time for a step the GPU waits for kernels
CONTEXT = 10**9  # bytes of a GPU that a process takes besides its tensors


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
        peak: FLOPs per second of each GPU; None where that is not known.
        share: most segments that a GPU trains at once: 1, 2, 4 or 8.
    """

    name: str
    devices: int
    kind: str = "cpu"
    memory: int | None = None
    peak: float | None = None
    share: int = 1

    def __str__(self) -> str:
        return f"{self.devices} {'GPUs' if self.kind == 'cuda' else 'cores'} of {self.name}"


@dataclass(frozen=True)
class Place:
    """Devices of a machine that a worker holds, or one of `share` equal parts of one device.

    Of a worker that spans machines `beside` has those on the others.
    """

    machine: str
    devices: tuple[int, ...]
    share: int = 1
    beside: tuple[Place, ...] = ()

    @property
    def by_machine(self) -> tuple[Place, ...]:
        """The devices on each machine."""
        return (replace(self, beside=()), *self.beside)

    @property
    def width(self) -> int:
        """Devices on all machines."""
        return sum(len(place.devices) for place in self.by_machine)

    def overlaps(self, other: Place) -> bool:
        """Whether a device belongs to both."""
        mine, theirs = ({(p.machine, d) for p in place.by_machine for d in p.devices} for place in (self, other))
        return bool(mine & theirs)

    def __str__(self) -> str:
        part = f" (1/{self.share})" if self.share > 1 else ""
        return " and ".join(f"{p.machine}:{','.join(map(str, p.devices))}{part}" for p in self.by_machine)


def devices_for(setup: Setup, params: int, machines: Sequence[Machine]) -> int:
    """Devices that train a segment of a size: those set for it, else as few as hold it.

    They are of one machine where one has that many, and else of several.

    Raises:
        InputError: there are fewer.
    """
    most, wanted = sum(machine.devices for machine in machines), setup.overrides(params).gpus
    if wanted is not None and machines[0].kind == "cuda":
        if wanted > most:
            raise InputError(
                f"training.sizes wants {wanted} GPUs for {params:,} parameters and there are {most}; lower gpus, or "
                "let one worker span machines, on Ray or with --launch"
            )
        return wanted
    limits = [machine.memory for machine in machines if machine.memory is not None]
    if not limits:
        return 1
    bf16 = machines[0].kind == "cuda"
    size = setup.built(params)
    count = devices_needed(size, size.embedded, setup.sequence, min(limits), bf16=bf16, untied=size.untied)
    if count > most:
        raise InputError(
            f"{params:,} parameters need {count} devices of {min(limits) / 1e9:.0f} GB and there are {most}; take more "
            "with --gpus or --workers, or let one worker span machines, on Ray or with --launch"
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


def share_for(setup: Setup, params: int, machines: Sequence[Machine]) -> int:
    """How many segments of a size train on one GPU at once: 1, 2, 4 or 8.

    A step of a small model takes as long as its kernels take to launch, while most of the GPU idles. As many share it
    as their computation and memory allow, each with the whole step as one micro-batch.
    """
    share = min(machine.share for machine in machines)
    peaks, memories = ([getattr(machine, key) for machine in machines] for key in ("peak", "memory"))
    if share == 1 or setup.overrides(params).gpus is not None or None in (*peaks, *memories):
        return 1
    size, tokens = setup.built(params), setup.step_tokens(params)
    computing = setup.flops(params, tokens) / (REACHED * min(peaks))
    rows, untied = setup.sequences(params), size.untied
    needed = training_bytes(size, size.embedded, setup.sequence, rows, bf16=True, untied=untied)
    while share > 1 and (
        share * computing > size.depth * LAYER_SECONDS or share * (needed + CONTEXT) > USABLE * min(memories)
    ):
        share //= 2
    return share


def shares(gpus: int, cores: int) -> int:
    """Most segments that train on each of a machine's GPUs at once, each on a core of its own: 1, 2, 4 or 8."""
    return max(share for share in (1, 2, 4, PARTS) if share == 1 or share * gpus <= cores)


@dataclass(frozen=True)
class Needs:
    """Devices that train a segment of a size, the most where others are idle, and how many segments share a device."""

    devices: int
    widest: int = 1
    share: int = 1

    @classmethod
    def of(cls, setup: Setup, params: int, machines: Sequence[Machine]) -> Needs:
        """What a size needs on these machines.

        Raises:
            InputError: there are not enough devices.
        """
        devices = devices_for(setup, params, machines)
        share = share_for(setup, params, machines) if devices == 1 else 1
        return cls(devices, widest_for(setup, params, machines), share)


class Pool:
    """The devices that are free.

    Args:
        machines: with all their devices.
        held: places that are in use.

    Attributes:
        free: whole devices by machine.
        largest: devices, free or not, of the machine that has most.
        parts: free parts of devices that are shared, by machine and device.
    """

    def __init__(self, machines: Iterable[Machine], held: Iterable[Place] = ()) -> None:
        self.free = {machine.name: list(range(machine.devices)) for machine in machines}
        self.largest = max(map(len, self.free.values()), default=0)
        self.parts: dict[str, dict[int, int]] = {}
        for place in held:
            self._hold(place)

    def room(self, machines: Iterable[str], share: int) -> int:
        """Whole devices of the machine that has most free, or 1 where a shared device has room for such a part."""
        names = list(machines)
        if share > 1 and any(n >= PARTS // share for name in names for n in self.parts.get(name, {}).values()):
            return 1
        return max((len(self.free[name]) for name in names), default=0)

    def fits(self, count: int, share: int = 1) -> bool:
        """Whether there is room for a segment: on one machine, or on several where none has that many devices."""
        return (self.whole if count > self.largest else self.room(self.free, share)) >= count

    @property
    def whole(self) -> int:
        """Whole devices of all machines."""
        return sum(map(len, self.free.values()))

    def take(self, count: int, machines: Collection[str] | None = None, share: int = 1) -> Place | None:
        """This many devices of the machine with the fewest left, so that others stay whole for wide segments.

        With a share, a part of the fullest device that is shared already and has room for it, else of a whole one.
        More than any machine has are taken from as few as possible.
        """
        allowed = self.free if machines is None else [name for name in machines if name in self.free]
        shared = [name for name in allowed if name in self.parts] if share > 1 else []
        rooms = [(n, name, device) for name in shared for device, n in self.parts[name].items() if n >= PARTS // share]
        if rooms:
            _, name, device = min(rooms)
            place = Place(name, (device,), share)
        else:
            if count > self.largest:
                return self._take_from_several(count, allowed)
            fitting = [name for name in allowed if len(self.free[name]) >= count]
            if not fitting:
                return None
            name = min(fitting, key=lambda machine: len(self.free[machine]))
            place = Place(name, tuple(self.free[name][:count]), share)
        self._hold(place)
        return place

    def _take_from_several(self, count: int, machines: Collection[str]) -> Place | None:
        places = []
        for name in sorted(machines, key=lambda name: -len(self.free[name])):
            devices = tuple(self.free[name][:count])
            count -= len(devices)
            places += [Place(name, devices)] if devices else []
        if count:
            return None
        place = replace(places[0], beside=tuple(places[1:]))
        self._hold(place)
        return place

    def give(self, place: Place) -> None:
        """Take devices back."""
        if place.share > 1:
            (device,), parts = place.devices, self.parts[place.machine]
            parts[device] += PARTS // place.share
            if parts[device] < PARTS:
                return
            del parts[device]
        for each in place.by_machine:
            self.free[each.machine] = sorted([*self.free[each.machine], *each.devices])

    def _hold(self, place: Place) -> None:
        if place.share > 1:
            (device,), parts = place.devices, self.parts.setdefault(place.machine, {})
            parts[device] = parts.get(device, PARTS) - PARTS // place.share
        for each in place.by_machine:
            free = self.free.get(each.machine, [])
            self.free[each.machine] = [device for device in free if device not in each.devices]
