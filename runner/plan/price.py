"""What a plan costs: FLOPs with and without sharing; where and when each segment trains, hours, disk, and the bill."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mixlaw.errors import InputError
from mixlaw.numbers import percent, size
from mixlaw.printable import Page, Printable
from mixlaw.runner.plan.devices import GPUS, PARTS, Machine, Needs, gpu_named
from mixlaw.runner.plan.placement import Requirement, Slot, schedule
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, Tree
from mixlaw.tables import TWO, Cell, Column, Table

HOUR = 3600.0
SHOWN = 12  # segments that are printed
MFU = (
    0.4  # share of a GPU's peak that training reaches (PaLM, arXiv:2204.02311, and OLMo 2, arXiv:2501.00656: .38 to .5)
)
CPU_FLOPS = 3e10  # of a core: docs/training.md, from 30 at 0.1M parameters to 70 at 5M
OTHER_FLOPS = 4e13  # of a GPU that is in no table


@dataclass(frozen=True)
class Assumptions:
    """GPUs to plan with, in place of the devices that are here.

    Attributes:
        gpus: a number of GPUs on one machine, or machines x GPUs ("4x8").
        gpu: their name, for memory and for the speed of sizes that were not timed on such a GPU.
        mfu: share of the named GPU's peak FLOPs that those sizes reach.
        price: of a device for an hour, in any currency.

    Raises:
        InputError: `gpus` has neither form, the GPU is not in the table, or `mfu` is not a share.
    """

    gpus: str | None = None
    gpu: str | None = None
    mfu: float = MFU
    price: float | None = None

    def __post_init__(self) -> None:
        if self.gpus is not None and not re.fullmatch(r"([1-9][0-9]*x)?[1-9][0-9]*", self.gpus):
            raise InputError(f"--gpus is a number, or machines x GPUs such as 4x8, got {self.gpus!r}")
        if self.gpu is not None and self.gpu not in GPUS:
            raise InputError(f"unknown GPU {self.gpu!r}: --gpu takes {', '.join(GPUS)}")
        if not 0 < self.mfu <= 1:
            raise InputError(f"--mfu is a share of the peak, above 0 and up to 1, got {self.mfu}; 0.4 is usual")

    def machines(self) -> list[Machine]:
        """The machines that `gpus` and `gpu` describe; an empty list if neither is given."""
        if self.gpus is None and self.gpu is None:
            return []
        count, _, each = (self.gpus or "1").rpartition("x")
        gpu = GPUS[self.gpu] if self.gpu else None
        about = (gpu.memory, gpu.peak, PARTS) if gpu else ()
        return [Machine(f"node-{index}", int(each), "cuda", *about) for index in range(int(count or 1))]

    def speed(self, setup: Setup, params: int) -> float:
        """Training tokens per second of a size on one of the named GPUs.

        Example:
            >>> setup = Setup("", "", vocabulary=32_768, sequence=2048, tasks=())
            >>> round(Assumptions(gpu="H100", mfu=0.4).speed(setup, 472_904_960))
            102922
        """
        return self.mfu * GPUS[self.gpu or ""].peak / setup.flops(params, 1)


def assumed_speed(setup: Setup, params: int, device: str) -> tuple[float, str]:
    """Training tokens per second of a size on one device that was not timed, and what that is derived from.

    Args:
        setup: how it is trained.
        params: the size.
        device: name of the GPU as its driver gives it, or "cpu".
    """
    gpu = gpu_named(device)
    flops, source = CPU_FLOPS, f"{CPU_FLOPS / 1e9:.0f} GFLOP/s a core"
    if gpu is not None:
        flops, source = MFU * gpu.peak, f"{percent(MFU)} of the peak of {device}"
    elif device != "cpu":
        flops, source = OTHER_FLOPS, f"{OTHER_FLOPS / 1e12:.0f} TFLOP/s a GPU"
    return flops / setup.flops(params, 1), source


@dataclass(frozen=True)
class Plan(Printable):
    """A segment tree with its price, and its schedule on machines.

    Attributes:
        tree: segments and recipes.
        setup: how they are trained.
        measured: lineages of recipes that have a record.
        trained: lineages that have a checkpoint.
        speed: params -> training tokens per second of one device, at least for sizes still to be trained.
        machines: what trains them.
        assumed: sizes whose speed was not measured -> what it was derived from.
        price: of a device for an hour, in any currency; None if it was not given.
        held_out: tokens of held-out text by domain, for what `evaluate_at` takes.
    """

    tree: Tree
    setup: Setup
    measured: frozenset[str]
    trained: frozenset[str]
    speed: Mapping[int, float]
    machines: Sequence[Machine]
    assumed: Mapping[int, str] = field(default_factory=dict)
    price: float | None = None
    held_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def pending(self) -> list[Segment]:
        """Segments still to be trained or evaluated."""
        return self.tree.needed(self.measured, self.trained)

    @cached_property
    def untrained(self) -> list[Segment]:
        """Segments still to be trained."""
        return self.tree.untrained(self.measured, self.trained)

    @property
    def flops_shared(self) -> float:
        """FLOPs of the tree, every segment once."""
        return self._flops(self.tree.segments)

    @property
    def flops_separate(self) -> float:
        """FLOPs of the same recipes, each trained from its initialisation."""
        return sum(self.setup.recipe_flops(recipe) for recipe in self.tree.recipes)

    @property
    def flops_pending(self) -> float:
        """FLOPs still to be trained."""
        return self._flops(self.untrained)

    @property
    def tokens_shared(self) -> int:
        """Tokens of the tree, every segment once."""
        return sum(segment.tokens for segment in self.tree.segments)

    @property
    def disk_bytes(self) -> int:
        """Disk for a checkpoint at the end of every segment."""
        return self._disk(self.tree.segments)

    @property
    def disk_bytes_pending(self) -> int:
        """Disk for the checkpoints of the segments still to be trained."""
        return self._disk(self.untrained)

    @cached_property
    def slots(self) -> list[Slot]:
        """Untrained segments in their places, in the order in which they begin; evaluation costs next to nothing."""
        return schedule({segment.lineage: self._requirement(segment) for segment in self.untrained}, self.machines)

    @property
    def devices(self) -> int:
        """Devices that train at once."""
        return sum(machine.devices for machine in self.machines)

    @property
    def seconds(self) -> float:
        """Training time of what is pending, from the first segment's beginning to the last one's end."""
        return max((slot.end for slot in self.slots), default=0.0)

    @property
    def busy_hours(self) -> float:
        """Device hours of training."""
        return sum((s.end - s.begin) * s.place.width / s.place.share for s in self.slots) / HOUR

    @property
    def held_hours(self) -> float:
        """Device hours to pay for: all devices, until the last segment is done."""
        return self.seconds * self.devices / HOUR

    @property
    def bill(self) -> float | None:
        """Price of the device hours to pay for; None without a price."""
        return None if self.price is None else self.price * self.held_hours

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        slots = {slot.lineage: slot for slot in self.slots}
        return {
            "recipes": len(self.tree.recipes),
            "flops_shared": self.flops_shared,
            "flops_separate": self.flops_separate,
            "flops_pending": self.flops_pending,
            "tokens_shared": self.tokens_shared,
            "seconds": self.seconds,
            "devices": self.devices,
            "machines": [machine.__dict__ for machine in self.machines],
            "device_hours": self.held_hours,
            "device_hours_training": self.busy_hours,
            "price": self.price,
            "bill": self.bill,
            "disk_bytes": self.disk_bytes,
            "disk_bytes_pending": self.disk_bytes_pending,
            "tokens_per_second": {str(params): speed for params, speed in self.speed.items()},
            "assumed": {str(params): source for params, source in self.assumed.items()},
            "segments": [self._segment_json(segment, slots.get(segment.lineage)) for segment in self.tree.segments],
        }

    def page(self) -> Page:
        """The tree, a line per segment, the price, and how much is left."""
        price = Table("price", TWO, self._rows())
        return Page(self.sentence, tables=[self._segments(), price])

    def _segments(self) -> Table:
        slots = {slot.lineage: slot for slot in self.slots}
        roots = self.tree.children.get(None, [])
        rows = [row for root in roots for row in self._branch(root, slots, "", "")]
        columns = [
            "segment",
            Column("tokens"),
            "state",
            *(Column(x, numeric=False, extra=True) for x in ("mixture", "run")),
        ]
        return Table("segments", columns, rows, shown=SHOWN)

    @property
    def sentence(self) -> str:
        """One line: how much is left, how long it takes and what it costs."""
        count = len(self.tree.segments)
        if not self.pending:
            return f"Nothing to train: all {count} segments are done."
        bill = "" if self.bill is None else f", and a bill of {self.bill:,.2f}"
        return (
            f"{len(self.pending)} of {count} segments to train or evaluate: about {duration(self.seconds)} of training "
            f"on {', '.join(map(str, self.machines))}{bill}."
        )

    def _rows(self) -> list[tuple[str, str]]:
        """The price as rows of name and value."""
        sizes = Counter(recipe.params for recipe in self.tree.recipes)
        saved = 1 - self.flops_shared / self.flops_separate
        share = f", training in {percent(self.busy_hours / self.held_hours)} of them" if self.held_hours else ""
        speed = [
            f"{size(params)} {value:,.0f} tokens/s a device ({self.assumed.get(params, 'measured')})"
            for params, value in sorted(self.speed.items())
        ]
        count, pending = len(self.tree.segments), len(self.pending)
        rows = [
            ("recipes", ", ".join(f"{number} of {size(params)} params" for params, number in sorted(sizes.items()))),
            ("segments", f"{count}, {count - pending} done"),
            (
                "FLOPs",
                f"{self.flops_shared:.3g} shared, {self.flops_separate:.3g} separately: sharing saves {percent(saved)}",
            ),
            (
                "tokens",
                f"{size(self.tokens_shared)} trained, {size(sum(r.tokens for r in self.tree.recipes))} separately",
            ),
            *([("speed", ", ".join(speed))] if speed else []),
            ("left", f"{self.flops_pending:.3g} FLOPs, about {duration(self.seconds)} of training, evaluation apart"),
            ("device hours", f"{self.held_hours:,.2f}{share}"),
            (
                "disk",
                f"{self.disk_bytes / 1e6:,.0f} MB of checkpoints, {self.disk_bytes_pending / 1e6:,.0f} MB to come",
            ),
        ]
        if scored := sum(map(self._scored, self.untrained)):
            rows.append(("scored", f"{size(scored)} tokens of held-out text while training, in the time above"))
        return rows if self.bill is None else [*rows, ("bill", f"{self.bill:,.2f} at {self.price:g} per device hour")]

    def _branch(self, segment: Segment, slots: Mapping[str, Slot], lead: str, below: str) -> Iterator[list[Cell | str]]:
        """Rows of a segment and of those behind it."""
        phase = next(p for p in segment.recipe.phases if p.name == segment.phase)
        model = f"{size(segment.recipe.params)}, seed {segment.recipe.seed}: " if segment.parent is None else ""
        state = self._state(segment.lineage, slots.get(segment.lineage))
        tokens = Cell(size(segment.tokens), segment.tokens)
        run = segment.lineage if segment.is_run else ""
        yield [f"{lead}{model}{segment.phase}", tokens, state, str(phase.mixture), run]
        children = self.tree.children.get(segment.lineage, [])
        for child in children:
            last = child is children[-1]
            corner, line = ("└─ ", "   ") if last else ("├─ ", "│  ")
            yield from self._branch(child, slots, below + corner, below + line)

    def _state(self, lineage: str, slot: Slot | None) -> str:
        if slot is not None:
            return f"to do, {duration(slot.begin)} to {duration(slot.end)} on {slot.place}"
        return "measured" if lineage in self.measured else "trained" if lineage in self.trained else "to do"

    def _segment_json(self, segment: Segment, slot: Slot | None) -> dict[str, Any]:
        return {
            "lineage": segment.lineage,
            "parent": segment.parent,
            "params": segment.recipe.params,
            "phase": segment.phase,
            "tokens": segment.tokens,
            "run": segment.is_run,
            "measured": segment.lineage in self.measured,
            "trained": segment.lineage in self.trained,
            "machine": slot and slot.place.machine,
            "devices": slot and list(slot.place.devices),
            "beside": slot and [{"machine": p.machine, "devices": list(p.devices)} for p in slot.place.beside],
            "share": slot and slot.place.share,
            "begin": slot and slot.begin,
            "end": slot and slot.end,
        }

    def _requirement(self, segment: Segment) -> Requirement:
        params = segment.recipe.params
        needs = self._needs[params]
        tokens = segment.tokens + self._scored(segment) / 3  # a forward pass is a third of training
        seconds = tokens / self.speed[params] / needs.devices
        return Requirement(segment.parent, needs.devices, seconds, needs.widest, needs.share)

    def _scored(self, segment: Segment) -> int:
        """Tokens of held-out text that are scored while a segment trains."""
        times = len(self.setup.moments(segment.recipe, segment.start, segment.stop))
        return times * self.setup.scored(segment.recipe.params, self.held_out)

    @cached_property
    def _needs(self) -> dict[int, Needs]:
        """Devices of every size that is still to be trained."""
        sizes = dict.fromkeys(segment.recipe.params for segment in self.untrained)
        return {params: Needs.of(self.setup, params, self.machines) for params in sizes}

    def _flops(self, segments: Sequence[Segment]) -> float:
        return sum(self.setup.recipe_flops(segment.recipe, segment.phase, segment.tokens) for segment in segments)

    def _disk(self, segments: Sequence[Segment]) -> int:
        return sum(self.checkpoint_bytes(segment) for segment in segments)

    def checkpoint_bytes(self, segment: Segment) -> int:
        """Bytes of its last checkpoint: weights, embeddings among them, and where they are kept two moments, 4 each."""
        kept = self.setup.keep_optimizer or not segment.is_leaf
        return (12 if kept else 4) * self.setup.weights(segment.recipe.params)


def duration(seconds: float) -> str:
    """Seconds in the two largest units that fit.

    Example:
        >>> duration(42.4), duration(754), duration(3 * 3600 + 125), duration(5e5)
        ('42 s', '12 min 34 s', '3 h 2 min', '5 d 19 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    if seconds < 86_400:
        return "{} h {} min".format(*divmod(round(seconds / 60), 60))
    return "{} d {} h".format(*divmod(round(seconds / 3600), 24))
