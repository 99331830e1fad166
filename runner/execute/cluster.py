"""Training on a Ray cluster: a driver hands the segment tree to actors, each of which keeps a worker on its node.

The worker is the process that trains on one machine, so that its results are the same. An actor also keeps a scratch
folder on the node's own disk, and copies checkpoints to and from the store. Only text crosses the cluster: JSON in both
directions.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError, of_machine
from mixlaw.runner.execute.executor import Executor, WorkerHandle
from mixlaw.runner.execute.node import RayWorker, read_results, write_results
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.plan.devices import GPUS, Gpu, Machine, Place, shares
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.log import Entry, Sink, open_sinks
from mixlaw.runner.train.store import Store

CONNECT_SECONDS = 180.0  # retry window for ray:// connections; one refused attempt takes up to 40
LOOK_SECONDS = 5.0  # between two looks at what others hold
RECOVERY_SECONDS = 20.0  # without new actors on a node that lost one: Ray learns late that a node is gone


class RayExecutor(Executor):
    """Trains on a Ray cluster; this process is its driver.

    Args:
        setup: how to train; every node sees its data folder at the same path.
        runs: folder of the study's runs; records are written here, by this process.
        show: called with the state of the run after every event.
        address: of the cluster, as `ray.init` takes it.
        store: URL of the checkpoints; None keeps them in `runs`, which every node must see at the same path.
        workers: most devices to use.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        setup: Setup,
        runs: Path,
        show: Callable[[RunProgress], None] = lambda _: None,
        address: str = "auto",
        store: str | None = None,
        workers: int | None = None,
    ) -> None:
        super().__init__(setup, runs.resolve(), show)
        self.shared, self.url, self.most = store is None, store or str(runs.resolve()), workers
        self.store = Store(self.url)
        self.lost: dict[str, float] = {}
        self.kind, self.looked = "cpu", -LOOK_SECONDS
        self.others: dict[str, int] = {}  # node -> devices that others held at the last look
        connect(address)

    def machines(self) -> Sequence[Machine]:
        """The nodes that are alive now."""
        now = time.monotonic()
        alive = [m for m in nodes() if now - self.lost.get(m.name, -RECOVERY_SECONDS) >= RECOVERY_SECONDS]
        self.kind = alive[0].kind if alive else self.kind
        return alive if self.most is None else _first(alive, self.most)

    def taken(self) -> Sequence[Place]:
        """Devices that other programs of the cluster hold, so that no actor waits for them: as many as are not ours."""
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            placed = [worker.place for worker in self.workers if getattr(worker, "placed", False)]
            self.others = held_by_others(self.kind, placed)
            self.looked = time.monotonic()
        places, totals = [], {node.name: node.devices for node in nodes()}
        for machine in self.machines():
            ours = {device for w in self.workers if w.place.machine == machine.name for device in w.place.devices}
            others = [device for device in reversed(range(machine.devices)) if device not in ours]
            spare = totals.get(machine.name, machine.devices) - machine.devices  # which `workers` keeps us from anyway
            places.append(Place(machine.name, tuple(others[: max(0, self.others.get(machine.name, 0) - spare)])))
        return places

    def start_worker(self, number: int, place: Place) -> WorkerHandle:
        """Start an actor on a node, with one CPU or with as many GPUs as the place has, or a part of one."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        count = len(place.devices)
        resources = {"num_gpus": count / place.share, "num_cpus": 1} if self.kind == "cuda" else {"num_cpus": count}
        node = NodeAffinitySchedulingStrategy(place.machine, soft=False)
        actor = ray.remote(RayWorker).options(**resources, max_concurrency=4, scheduling_strategy=node)
        setup = replace(self.setup, sinks=())  # the driver writes their entries
        how = json.dumps(setup.as_json()), self.url, self.shared, count, self.kind == "cpu", place.share
        handle = actor.remote(*how)
        return _RayWorkerHandle(number, place, handle, self)

    def origin(self, segment: Segment) -> str | None:
        """Name of the checkpoint in the store that a segment would resume from now."""
        return next(iter(self.store.origins(segment, self.setup)), None)


class _RayWorkerHandle(WorkerHandle):
    """An actor on a node; a thread polls it for events while it has a segment."""

    def __init__(self, number: int, place: Place, actor: Any, driver: RayExecutor) -> None:
        super().__init__(number, place)
        self.actor, self.driver = actor, driver
        self.ended, self.placed, self.thread = "when it was stopped", False, threading.Thread()
        self.sinks: list[Sink] = []

    def send(self, order: Mapping[str, Any]) -> None:
        home = self.driver.runs / order["segment"]["lineage"]
        order = {**order, "results": read_results(home) if order["finished"] else {}}
        self.thread = threading.Thread(target=self._follow, args=(json.dumps(order),), daemon=True)
        self.thread.start()

    def _follow(self, order: str) -> None:
        """Pass on the events of the actor, until its segment ends or it is lost."""
        import ray

        try:
            ray.get(self.actor.work.remote(order))
            self.placed = True
            while True:
                for event in json.loads(ray.get(self.actor.poll.remote())):
                    if not self._pass_on(event):
                        return
        except Exception as error:  # Ray has many types for it: the actor, its node or the network is gone
            self.ended = f"by losing its node or actor ({type(error).__name__})"
            self.ran = self.placed or getattr(error, "actor_init_failed", False)  # else its node was gone already
            self.driver.lost[self.place.machine] = time.monotonic()
            self._log(None)
            self.driver.events.put((self, None))

    def _pass_on(self, event: dict[str, Any]) -> bool:
        """Receive an event; where the driver cannot write, every segment would fail as this one does."""
        try:
            return self._receive(event)
        except OSError as error:
            sinks, self.sinks = self.sinks, []
            for sink in sinks:
                with suppress(OSError):
                    sink(None)
            error.filename = error.filename or str(self.driver.runs)
            why = of_machine(error) or str(error)
            self.driver.events.put((self, {"event": "failed", "error": why, "everywhere": True}))
            return False

    def _receive(self, event: dict[str, Any]) -> bool:
        """Write an event's log and record into the study and pass it on; False after the last one of a segment."""
        if event["event"] != "progress":
            self._log(event.get("entry"))
        with self.driver.log(self.number).open("a", encoding="utf-8") as log:
            log.write(event.pop("log", ""))
        if "results" in event and self.segment:
            write_results(self.driver.runs / self.segment.lineage, event.pop("results"))
        if event["event"] in ("died", "stopped"):
            self.ended = event.get("how", self.ended)
            self.driver.events.put((self, None))
            return False
        self.driver.events.put((self, event))
        return event["event"] not in ("done", "failed")

    def _log(self, entry: Entry | None) -> None:
        """Write an entry of the segment's log to the study's sinks; None closes them."""
        if entry and self.segment and not self.sinks:
            self.sinks = open_sinks(self.driver.setup.sinks, self.driver.runs, self.segment)
        for sink in self.sinks:
            sink(entry)
        self.sinks = self.sinks if entry else []

    def stop(self) -> None:
        import ray

        if self.placed:
            self.actor.stop.remote()
        else:  # it may never be placed
            ray.kill(self.actor)

    def kill(self) -> None:
        import ray

        if self.placed:  # it may wait for a free node as long as it takes
            ray.kill(self.actor)

    def wait(self) -> str:
        """Wait for the worker to end; what it said last."""
        import ray

        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join()
        with suppress(Exception):  # the actor may be gone
            ray.get(self.actor.close.remote(), timeout=10)
        with suppress(Exception):
            ray.kill(self.actor)
        return self.ended


def connect(address: str) -> None:
    """Join a Ray cluster, unless this process has.

    For `ray://` the head node starts a process for each driver, which now and then dies at once (ray-project/ray, issue
    63202), so connecting is retried for some minutes.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise InputError('the ray executor needs Ray; pip install "mixlaw[ray]" here and on every node') from None
    if ray.is_initialized():
        return
    address, source = _found(address)
    until = time.monotonic() + CONNECT_SECONDS if address.startswith("ray://") else 0.0
    try:
        _probe(address)
        while not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[-1]  # the reason ends a traceback
        raise InputError(
            f"no Ray cluster answers at {address!r}{source} ({why}); start one with `ray start --head`"
        ) from None


def _found(address: str) -> tuple[str, str]:
    """What `auto` means to Ray: RAY_ADDRESS, or the cluster that this machine joined last; and who says so."""
    given = os.environ.get("RAY_ADDRESS", "").strip() if address == "auto" else ""
    if given and given != "auto":
        return given, ", which RAY_ADDRESS names"
    with suppress(ImportError, OSError):
        from ray._private.utils import read_ray_address

        if address == "auto" and (last := read_ray_address()):
            return str(last), ", the last one of this machine"
    return address, ""


def _probe(address: str) -> None:
    """Raise OSError within seconds if nothing listens at the address: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def nodes() -> list[Machine]:
    """The nodes of the cluster that are alive: those with GPUs, or all if there are no GPUs."""
    import ray

    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = [_with_gpus(name, has) for name, has in alive if has.get("GPU", 0) >= 1]
    cores = [(name, int(has.get("CPU", 0)), has.get("memory", 0.0)) for name, has in alive]
    return gpus or [Machine(name, cpus, "cpu", int(memory / cpus)) for name, cpus, memory in cores if cpus]


def _with_gpus(name: str, resources: Mapping[str, float]) -> Machine:
    """A node by its resources; of a type of GPU that is not in the table memory and speed are not known."""
    types = [key.removeprefix("accelerator_type:") for key in resources if key.startswith("accelerator_type:")]
    gpu: Gpu | None = max((GPUS[name] for name in types if name in GPUS), key=lambda gpu: gpu.memory, default=None)
    count, cores = int(resources["GPU"]), int(resources.get("CPU", 0))
    return Machine(name, count, "cuda", gpu.memory if gpu else None, gpu.peak if gpu else None, shares(count, cores))


def held_by_others(kind: str, ours: Sequence[Place]) -> dict[str, int]:
    """How many GPUs, or cores, of each node neither these places hold nor anybody could have now.

    A node without a free core counts as full, since an actor takes one beside its GPUs.
    """
    import ray
    from ray._private.state import available_resources_per_node  # what ray.util.tpu uses; there is no public one
    from ray.util.client import ray as client

    if client.is_connected():  # type: ignore[no-untyped-call]  # a driver outside of the cluster cannot ask by itself
        look = ray.remote(available_resources_per_node).options(num_cpus=0)
        free: dict[str, dict[str, float]] = ray.get(look.remote())
    else:
        free = available_resources_per_node()  # type: ignore[no-untyped-call]
    key, held = "GPU" if kind == "cuda" else "CPU", {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        name, total = node["NodeID"], int(node["Resources"].get(key, 0))
        own = sum(len(place.devices) / place.share for place in ours if place.machine == name)
        left = free.get(name, {})
        usable = left.get(key, 0.0) if left.get("CPU", 0.0) >= 1 else 0.0
        held[name] = min(total, max(0, math.ceil(total - own - usable - 1e-6)))
    return held


def _first(machines: Sequence[Machine], count: int) -> list[Machine]:
    """Machines with at most `count` devices together."""
    chosen: list[Machine] = []
    for machine in machines:
        devices = min(count - sum(m.devices for m in chosen), machine.devices)
        if devices > 0:
            chosen.append(Machine(machine.name, devices, machine.kind, machine.memory))
    return chosen
