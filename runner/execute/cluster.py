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
from mixlaw.runner.execute.node import RayPeer, RayWorker, read_results, write_results
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.plan.devices import GPUS, Gpu, Machine, Place, devices_for, shares
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.log import Entry, Sink, open_sinks
from mixlaw.runner.train.store import Store

CONNECT_SECONDS = 180.0  # retry window for ray:// connections; one refused attempt takes up to 40
LOOK_SECONDS = 5.0  # between two looks at what others hold
PEER_SECONDS = 15.0  # for the ranks of other nodes to end after the first one's
CLOSE_SECONDS = 60.0  # torchrun kills ranks that do not end by themselves after 30
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
        return at_most(self.most, alive)

    def taken(self) -> Sequence[Place]:
        """Devices that other programs of the cluster hold, so that no actor waits for them: as many as are not ours."""
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            placed = [worker.place for worker in self.workers if getattr(worker, "placed", False)]
            self.others = held_by_others(self.kind, placed)
            self.looked = time.monotonic()
        places, totals = [], {node.name: node.devices for node in nodes()}
        for machine in self.machines():
            held = (place for worker in self.workers for place in worker.place.by_machine)
            ours = {device for place in held if place.machine == machine.name for device in place.devices}
            others = [device for device in reversed(range(machine.devices)) if device not in ours]
            spare = totals.get(machine.name, machine.devices) - machine.devices  # which `workers` keeps us from anyway
            places.append(Place(machine.name, tuple(others[: max(0, self.others.get(machine.name, 0) - spare)])))
        return places

    def check(self, segments: Sequence[Segment]) -> None:
        """Refuse sizes that span nodes where these see no common folder for their checkpoints.

        Raises:
            InputError: the store is no folder.
        """
        machines = self.machines()
        most = max((machine.devices for machine in machines), default=0)
        for params in dict.fromkeys(segment.recipe.params for segment in segments):
            if machines and not self.store.local and devices_for(self.setup, params, machines) > most:
                raise InputError(
                    f"{params:,} parameters take the GPUs of several nodes, which write one checkpoint together and "
                    f"cannot in {self.url}; give a --store that is a folder on all nodes, or leave it out"
                )

    def start_worker(self, number: int, place: Place) -> WorkerHandle:
        """Start an actor on each node of a place, with one CPU or as many GPUs as are its there, or a part of one.

        Those of several nodes begin together or not at all: a placement group holds their devices.
        """
        import ray
        from ray.util import placement_group
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

        group, strategies, needs = None, list[Any](), [self._resources(each) for each in place.by_machine]
        if place.beside:
            bundles = [{"CPU": need["num_cpus"], "GPU": need["num_gpus"]} for need in needs]
            bundles = [{kind: count for kind, count in bundle.items() if count} for bundle in bundles]
            where = [{"ray.io/node-id": each.machine} for each in place.by_machine]
            group = placement_group(bundles, bundle_label_selector=where)
            strategies = [PlacementGroupSchedulingStrategy(group, index) for index in range(len(bundles))]
        else:
            strategies = [NodeAffinitySchedulingStrategy(place.machine, soft=False)]
        setup, cpu = json.dumps(replace(self.setup, sinks=()).as_json()), self.kind == "cpu"  # the driver has the sinks
        actor = ray.remote(RayWorker).options(**needs[0], max_concurrency=4, scheduling_strategy=strategies[0])
        handle = actor.remote(setup, self.url, self.shared, len(place.devices), cpu, place.share)
        peers = [
            ray.remote(RayPeer).options(**need, max_concurrency=2, scheduling_strategy=strategy).remote(setup, cpu)
            for need, strategy in zip(needs[1:], strategies[1:], strict=True)
        ]
        return _RayWorkerHandle(number, place, handle, self, peers, group)

    def _resources(self, place: Place) -> dict[str, float]:
        """What an actor takes of a node."""
        count = len(place.devices)
        return (
            {"num_gpus": count / place.share, "num_cpus": 1}
            if self.kind == "cuda"
            else {"num_gpus": 0, "num_cpus": count}
        )

    def origin(self, segment: Segment) -> str | None:
        """Name of the checkpoint in the store that a segment would resume from now."""
        return next(iter(self.store.origins(segment, self.setup)), None)


class _RayWorkerHandle(WorkerHandle):
    """An actor on a node, and its peers on others; a thread polls it for events while it has a segment."""

    def __init__(
        self, number: int, place: Place, actor: Any, driver: RayExecutor, peers: Sequence[Any] = (), group: Any = None
    ) -> None:
        super().__init__(number, place)
        self.actor, self.driver, self.peers, self.group = actor, driver, peers, group
        self.running: list[Any] = []  # a call of each peer, which returns when its ranks have ended
        self.ended, self.placed, self.thread = "when it was stopped", False, threading.Thread()
        self.meeting: tuple[Any, ...] = ()
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
            if self.peers and not self.running:
                self._meet()
            ray.get(self.actor.work.remote(order, *self.meeting))
            self.placed = True
            while True:
                events = json.loads(ray.get(self.actor.poll.remote()))
                if not events and self._peer_has_ended():
                    events = [{"event": "died", "how": "by losing ranks of another node"}]
                for event in events:
                    if not self._pass_on(event):
                        return
        except Exception as error:  # Ray has many types for it: the actor, its node or the network is gone
            self.ended = f"by losing its node or actor ({type(error).__name__})"
            self.ran = self.placed or getattr(error, "actor_init_failed", False)  # else its node was gone already
            self.driver.lost |= dict.fromkeys((place.machine for place in self.place.by_machine), time.monotonic())
            self._log(None)
            self.driver.events.put((self, None))

    def _meet(self) -> None:
        """Start the ranks of the peers, which wait for the first one."""
        import ray

        while not self.group.wait(LOOK_SECONDS):  # for ever, once a node of it is gone
            here = {node.name for node in nodes()}
            if any(place.machine not in here for place in self.place.by_machine):
                raise RuntimeError("a node is gone")
        widths = [len(place.devices) for place in self.place.by_machine]
        self.meeting = widths, ray.get(self.actor.rendezvous.remote())
        self.running = [peer.run.remote(widths, n, self.meeting[1]) for n, peer in enumerate(self.peers, 1)]

    def _peer_has_ended(self) -> bool:
        import ray

        return bool(self.running and ray.wait(self.running, timeout=0)[0])

    def _hear_peers(self) -> None:
        """Pass on what the ranks of other nodes reported, that their memory did not suffice, and their logs."""
        import ray

        ended = ray.wait(self.running, num_returns=len(self.running), timeout=PEER_SECONDS)[0] if self.running else []
        for report in (json.loads(ray.get(call)) for call in ended):
            with self.driver.log(self.number).open("a", encoding="utf-8") as log:
                log.write(report["log"])
            for event in report["events"]:
                self.driver.events.put((self, event))

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
            self._hear_peers()
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
        with suppress(Exception):  # an actor may be gone
            ends = [self.actor.close.remote(bool(self.peers)), *(peer.close.remote() for peer in self.peers)]
            ray.wait(ends, num_returns=len(ends), timeout=CLOSE_SECONDS if self.peers else 10)
        for actor in (self.actor, *self.peers):
            with suppress(Exception):
                ray.kill(actor)
        if self.group is not None:
            ray.util.remove_placement_group(self.group)
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
        own = sum(len(p.devices) / p.share for place in ours for p in place.by_machine if p.machine == name)
        left = free.get(name, {})
        usable = left.get(key, 0.0) if left.get("CPU", 0.0) >= 1 else 0.0
        held[name] = min(total, max(0, math.ceil(total - own - usable - 1e-6)))
    return held


def at_most(count: int | None, machines: Sequence[Machine]) -> list[Machine]:
    """Machines with at most `count` devices together; None sets no limit."""
    chosen, left = list[Machine](), math.inf if count is None else count
    for machine in machines:
        devices = min(left, machine.devices)
        if devices > 0:
            chosen.append(replace(machine, devices=int(devices)))
            left -= devices
    return chosen
