"""Where a study trains: on this machine, on a Ray cluster, or by jobs in Slurm's queue."""

from __future__ import annotations

import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Protocol

from mixlaw.errors import InputError
from mixlaw.machine import cores, has_gpu_driver
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.plan.devices import Machine, gpu_named, shares
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.store import Store

if TYPE_CHECKING:
    from mixlaw.runner.execute.cluster import RayExecutor
    from mixlaw.runner.execute.local import LocalExecutor
    from mixlaw.runner.execute.queue import RunOutcome
    from mixlaw.runner.execute.slurm import SlurmQueue
    from mixlaw.runner.plan.price import Assumptions
    from mixlaw.runner.plan.tree import Segment, Tree

Show = Callable[[RunProgress], None]


def this_machine(workers: int | None = None, gpus: int | None = None) -> Machine:
    """The machine this runs on: its GPUs, or its cores if it has no GPU or `gpus` is 0.

    Args:
        workers: most devices to use, at least 1, a worker on each; may be more than there are cores.
        gpus: GPUs to use, in place of all that there are.

    Raises:
        InputError: there are fewer GPUs.
    """
    present = _gpus()
    if gpus is not None and gpus > present:
        raise InputError(f"{gpus} GPUs are wanted, {present} are here; give --gpus {present} or leave it out")
    count = present if gpus is None else gpus
    if count == 0:
        return Machine("local", workers or cores())
    import torch

    memory = min(torch.cuda.get_device_properties(index).total_memory for index in range(count))
    named = [gpu_named(torch.cuda.get_device_name(index)) for index in range(count)]
    peak = min((gpu.peak for gpu in named if gpu), default=None) if all(named) else None
    return Machine(
        "local", min(count, workers or count), "cuda", memory, peak, 1 if workers else shares(count, cores())
    )


def _gpus() -> int:
    """GPUs that torch can use; without a driver torch is not asked, since it takes seconds to load."""
    if not has_gpu_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class Trains(Protocol):
    """Trains segments of a tree."""

    def run(self, tree: Tree, segments: list[Segment], /) -> RunOutcome:
        """Train those segments, or see to it; how that ended."""


class Backend(ABC):
    """Machines that train, and where their checkpoints are kept."""

    @abstractmethod
    def machines(self) -> Sequence[Machine]:
        """The machines that can train now."""

    @abstractmethod
    def trained(self, runs: Path) -> frozenset[str]:
        """Lineages that have a checkpoint."""

    @abstractmethod
    def executor(self, setup: Setup, runs: Path, show: Show) -> Trains:
        """What trains on these machines."""

    def located(self, setup: Setup) -> Setup:
        """The setup as workers there need it."""
        return setup


@dataclass(frozen=True)
class Local(Backend):
    """This machine.

    Attributes:
        workers: most processes; as many as GPUs, or else cores, if None.
        gpus: GPUs to use; all if None.
        launch: command that takes `-m MODULE` and starts one worker, which may span machines; replaces the processes
            on devices of this one.
        segment: lineage of the one segment to train; all if None.
    """

    workers: int | None = None
    gpus: int | None = None
    launch: tuple[str, ...] = ()
    segment: str | None = None

    def machines(self) -> Sequence[Machine]:
        """This one; all that `launch` reaches counts as one device."""
        return [Machine("launched", 1) if self.launch else this_machine(self.workers, self.gpus)]

    def trained(self, runs: Path) -> frozenset[str]:
        """Lineages that have a checkpoint among the runs."""
        return frozenset(path.parent.name for path in runs.glob("*/checkpoint"))

    def executor(self, setup: Setup, runs: Path, show: Show) -> LocalExecutor:
        """Processes on this machine."""
        from mixlaw.runner.execute.local import LocalExecutor

        executor = LocalExecutor(setup, runs, self.machines()[0], show, _located(self.launch))
        executor.only = self.segment
        return executor


@dataclass(frozen=True)
class Slurm(Backend):
    """A Slurm cluster, from a machine where jobs are submitted; every node sees study and data at the same path.

    Attributes:
        gpus: of each node, 1 if None; no GPU at all without `gpu`.
        gpu: their name, for their memory and the jobs' time limits.
    """

    gpus: str | None = None
    gpu: str | None = None

    def machines(self) -> Sequence[Machine]:
        """A node as it was described, or a core."""
        return self._assumptions().machines() or [Machine("node", 1)]

    def trained(self, runs: Path) -> frozenset[str]:
        """Lineages that have a checkpoint among the runs."""
        return Local().trained(runs)

    def executor(self, setup: Setup, runs: Path, show: Show) -> SlurmQueue:
        """Jobs in the queue, one for each segment."""
        from mixlaw.runner.execute.slurm import SlurmQueue

        return SlurmQueue(setup, runs, self._assumptions())

    def _assumptions(self) -> Assumptions:
        from mixlaw.runner.plan.price import Assumptions

        return Assumptions(self.gpus, self.gpu)


@dataclass(frozen=True)
class Ray(Backend):
    """A Ray cluster; nodes see the study's data folder at the same path.

    Attributes:
        address: as `ray.init` takes it: "auto", "HOST:6379", "ray://HOST:10001".
        store: fsspec URL of the checkpoints; None keeps them in the study, which every node must see.
        workers: most devices to use.
    """

    address: str = "auto"
    store: str | None = None
    workers: int | None = None

    def machines(self) -> Sequence[Machine]:
        """The nodes of the cluster, with as many devices as may be used."""
        from mixlaw.runner.execute.cluster import at_most, connect, nodes

        connect(self.address)
        return at_most(self.workers, nodes())

    def trained(self, runs: Path) -> frozenset[str]:
        """Lineages that have a checkpoint in the store."""
        return Store(self.store or str(runs.resolve())).trained()

    def located(self, setup: Setup) -> Setup:
        """The setup with the store of each run that a judge compares with and that is in no folder here."""
        if self.store is None:
            return setup
        trained, measures = Store(self.store).trained(), dict(setup.measures)
        for task, measure in measures.items():
            folder = Path(measure.get("reference", "."))
            if not folder.exists() and folder.parent.name in trained:
                measures[task] = {**measure, "store": self.store}
        return replace(setup, measures=measures)

    def executor(self, setup: Setup, runs: Path, show: Show) -> RayExecutor:
        """The driver of the cluster's workers."""
        from mixlaw.runner.execute.cluster import RayExecutor

        return RayExecutor(setup, runs, show, self.address, self.store, self.workers)


def backend_of(
    executor: str,
    workers: int | None = None,
    gpus: str | None = None,
    launch: str | None = None,
    address: str | None = None,
    store: str | None = None,
    gpu: str | None = None,
    segment: str | None = None,
) -> Backend:
    """Where to train, from the options of a command line.

    Raises:
        InputError: `gpus` is not a number, or an option belongs to another executor.
    """
    options = {"--address": address, "--store": store, "--gpus": gpus, "--launch": launch, "--workers": workers}
    takes = {"ray": {"--address", "--store", "--workers"}, "slurm": {"--gpus"}}
    of_this = takes.get(executor, {"--gpus", "--launch", "--workers"})
    foreign = [name for name, value in options.items() if value is not None and name not in of_this]
    if foreign:
        raise InputError(f"the {executor} executor takes no {foreign[0]}; leave it out, or choose another --executor")
    if executor == "ray":
        return Ray(address or "auto", store, workers)
    if executor == "slurm":
        return Slurm(gpus, gpu)
    if gpus is not None and not gpus.isdecimal():
        raise InputError(f"--gpus is a number of GPUs of this machine, got {gpus!r}; 4x8 is for --dry-run")
    try:
        command = tuple(shlex.split(launch or ""))
    except ValueError as error:
        raise InputError(f"--launch takes a command, got {launch!r} ({error}); quote it as a shell wants") from error
    return Local(workers, None if gpus is None else int(gpus), command, segment)


def _located(command: Sequence[str]) -> tuple[str, ...]:
    """A command, its program by its path: on PATH, or beside the Python that runs this.

    Raises:
        InputError: there is no such program.
    """
    if not command:
        return ()
    beside = Path(sys.executable).parent
    path = which(command[0]) or which(command[0], path=str(beside))
    if path is None:
        raise InputError(
            f"there is no command {command[0]!r} on PATH, nor in {beside}; install it, or give its path to --launch"
        )
    return path, *command[1:]
