"""What a run would do, without doing it: where and when each segment trains, hours, FLOPs, disk, and the bill."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mixlaw.errors import InputError
from mixlaw.printable import Printable
from mixlaw.runner.execute.machines import Machine, needed
from mixlaw.runner.plan.placement import Job, Slot, placed
from mixlaw.runner.plan.price import Plan
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.show import duration
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.gpus import GPUS

HOUR = 3600.0


@dataclass(frozen=True)
class Assumptions:
    """What to reckon with.

    Attributes:
        gpus: GPUs in place of the devices that are here: a number on one machine, or machines x GPUs ("4x8").
        gpu: their name, for memory and for the speed of sizes that were not timed on such a GPU.
        mfu: share of the named GPU's peak FLOPs that those sizes reach.
        price: of a device for an hour, in any currency.

    Raises:
        InputError: `gpus` is neither form, or nothing is known of the GPU.
    """

    gpus: str | None = None
    gpu: str | None = None
    mfu: float = 0.4
    price: float | None = None

    def __post_init__(self) -> None:
        if self.gpus is not None and not re.fullmatch(r"([1-9][0-9]*x)?[1-9][0-9]*", self.gpus):
            raise InputError(
                f"--gpus is a number, or machines x GPUs such as 4x8, got {self.gpus!r}; write one of them"
            )
        if self.gpu is not None and self.gpu not in GPUS:
            raise InputError(f"no figures are known for GPU {self.gpu!r}; take one of {', '.join(GPUS)}")
        if not 0 < self.mfu <= 1:
            raise InputError(f"--mfu is a share of the peak, above 0 and up to 1, got {self.mfu}; 0.4 is usual")

    def machines(self) -> list[Machine]:
        """The machines that `gpus` and `gpu` describe; none where neither is given."""
        if self.gpus is None and self.gpu is None:
            return []
        count, _, each = (self.gpus or "1").rpartition("x")
        memory = GPUS[self.gpu].memory if self.gpu else None
        return [Machine(f"node-{index}", int(each), "cuda", memory) for index in range(int(count or 1))]

    def speed(self, setup: Setup, params: int) -> float:
        """Training tokens per second of a size on one of the named GPUs.

        Example:
            >>> setup = Setup("", "", vocabulary=32_768, sequence=2048, tasks=())
            >>> round(Terms(gpu="H100", mfu=0.4).speed(setup, 475_854_080))
            102450
        """
        return self.mfu * GPUS[self.gpu or ""].peak / setup.flops(params, 1)


@dataclass(frozen=True)
class DryRun(Printable):
    """What of a plan is still to be trained, on which devices and when.

    Attributes:
        plan: the tree, and training tokens per second of one device by size.
        machines: what it would train on.
        assumed: sizes whose speed was not measured, and in words what it was taken from.
        price: of a device for an hour, in any currency; None where nobody asked.
    """

    plan: Plan
    machines: Sequence[Machine]
    assumed: Mapping[int, str]
    price: float | None = None

    @cached_property
    def segments(self) -> dict[str, Segment]:
        """Segments to be trained; those that are only evaluated cost next to nothing."""
        return {segment.lineage: segment for segment in self.plan.untrained}

    @cached_property
    def slots(self) -> list[Slot]:
        """Segments in their places, in the order of their beginning."""
        jobs = {}
        for lineage, segment in self.segments.items():
            devices = needed(self.plan.setup, segment.recipe.params, self.machines)
            jobs[lineage] = Job(segment.parent, devices, self.plan.segment_seconds(segment) / devices)
        return placed(jobs, self.machines)

    @property
    def seconds(self) -> float:
        """From the first segment's beginning to the last one's end."""
        return max((slot.end for slot in self.slots), default=0.0)

    @property
    def busy_hours(self) -> float:
        """Device hours of training."""
        return sum((slot.end - slot.begin) * len(slot.place.devices) for slot in self.slots) / HOUR

    @property
    def held_hours(self) -> float:
        """Device hours to pay for: all devices, until the last segment is done."""
        return self.seconds * sum(machine.devices for machine in self.machines) / HOUR

    @property
    def flops(self) -> float:
        """FLOPs to be trained."""
        return sum(self.plan.setup.flops(s.recipe.params, s.tokens) for s in self.segments.values())

    @property
    def disk_bytes(self) -> int:
        """Disk for the checkpoints to be left."""
        return sum(self.plan.checkpoint_bytes(segment.recipe) for segment in self.segments.values())

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "seconds": self.seconds,
            "flops": self.flops,
            "disk_bytes": self.disk_bytes,
            "device_hours": self.held_hours,
            "device_hours_training": self.busy_hours,
            "price": self.price,
            "bill": None if self.price is None else self.price * self.held_hours,
            "tokens_per_second": {str(params): speed for params, speed in self.plan.speed.items()},
            "assumed": {str(params): why for params, why in self.assumed.items()},
            "machines": [machine.__dict__ for machine in self.machines],
            "placement": [self._slot_json(slot) for slot in self.slots],
        }

    def _slot_json(self, slot: Slot) -> dict[str, Any]:
        segment = self.segments[slot.job]
        return {
            "lineage": slot.job,
            "parent": segment.parent,
            "params": segment.recipe.params,
            "phase": segment.phase,
            "tokens": segment.tokens,
            "machine": slot.place.machine,
            "devices": list(slot.place.devices),
            "begin": slot.begin,
            "end": slot.end,
        }

    def __str__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        lines = (f"{name:>{width}}  {value}" for name, value in rows)
        return "\n".join([self.sentence, *lines, "", *self._table()])

    @property
    def sentence(self) -> str:
        """What it comes to."""
        if not self.segments:
            return "Nothing to train."
        bill = "" if self.price is None else f" and cost {self.price * self.held_hours:,.2f}"
        devices = sum(machine.devices for machine in self.machines)
        return f"{len(self.segments)} segments would train for {duration(self.seconds)} on {devices} devices{bill}."

    def _rows(self) -> list[tuple[str, str]]:
        speeds = [f"{p / 1e6:.3g}M {v:,.0f} tokens/s {self._source(p)}" for p, v in sorted(self.plan.speed.items())]
        share = f", {self.busy_hours / self.held_hours:.0%} of them training" if self.held_hours else ""
        rows = [
            ("to train", f"{len(self.segments)} of {len(self.plan.tree.segments)} segments, {self.flops:.3g} FLOPs"),
            (
                "on",
                ", ".join(f"{m.devices} {'GPUs' if m.kind == 'cuda' else 'cores'} of {m.name}" for m in self.machines),
            ),
            *([("speed", ", ".join(speeds))] if speeds else []),
            ("time", f"{duration(self.seconds)} of training, evaluation apart"),
            ("device hours", f"{self.held_hours:,.2f}{share}"),
            ("disk", f"{self.disk_bytes / 1e6:,.0f} MB of checkpoints"),
        ]
        if self.price is not None:
            rows.append(("bill", f"{self.price * self.held_hours:,.2f} at {self.price:g} per device hour"))
        return rows

    def _source(self, params: int) -> str:
        return f"a device ({self.assumed.get(params, 'measured')})"

    def _table(self) -> list[str]:
        places = max([len(str(slot.place)) for slot in self.slots], default=0)
        return [f"{'from':>12} {'to':>12}  {'where':{places}}  segment"] * bool(self.slots) + [
            f"{duration(slot.begin):>12} {duration(slot.end):>12}  {slot.place!s:{places}}  {self._segment(slot)}"
            for slot in self.slots
        ]

    def _segment(self, slot: Slot) -> str:
        segment = self.segments[slot.job]
        after = f" after {segment.parent}" if segment.parent in self.segments else ""
        return f"{slot.job} {segment.recipe.params / 1e6:.3g}M {segment.phase} {segment.tokens:,} tokens{after}"
