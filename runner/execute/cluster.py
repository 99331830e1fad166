"""The Ray executor: the same tree, handed out to worker actors on the nodes of a cluster."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.runner.execute.local import Executor, WorkerHandle
from mixlaw.runner.execute.machines import Machine, Place
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.execute.ray_worker import RayWorker
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.gpus import GPUS
from mixlaw.runner.train.sinks import Entry, Sink, opened
from mixlaw.runner.train.store import Store

PATIENCE = 180.0  # seconds that a head node is asked again to let a driver in; it may take 40 to say no
RECOVERY = 20.0  # seconds that a node is left alone after an actor was lost there: Ray finds out late that it is gone


class RayExecutor(Executor):
    """Trains on a Ray cluster; this process is its driver.

    Args:
        setup: how to train; every node sees its data folder at the same path.
        runs: folder of the study's runs; records are written here, by this process.
        show: called whenever something moved.
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
        self.shared, self.url, self.workers = store is None, store or str(runs.resolve()), workers
        self.store = Store(self.url)
        self.lost: dict[str, float] = {}
        self.kind = "cpu"
        connect(address)

    def machines(self) -> Sequence[Machine]:
        """The nodes that are alive now."""
        now = time.monotonic()
        found = [m for m in nodes() if now - self.lost.get(m.name, -RECOVERY) >= RECOVERY]
        self.kind = found[0].kind if found else self.kind
        return found if self.workers is None else _first(found, self.workers)

    def hire(self, number: int, place: Place) -> WorkerHandle:
        """Start an actor on a node, with one CPU or so many GPUs."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        count = len(place.devices)
        resources = {"num_gpus": count, "num_cpus": 1} if self.kind == "cuda" else {"num_cpus": count}
        node = NodeAffinitySchedulingStrategy(place.machine, soft=False)
        actor = ray.remote(RayWorker).options(**resources, max_concurrency=4, scheduling_strategy=node)
        setup = replace(self.setup, sinks=())  # their entries come here with the other news
        seat = actor.remote(json.dumps(setup.as_json()), self.url, self.shared, count, self.kind == "cpu")
        return _RayWorkerHandle(number, place, seat, self)

    def origin(self, segment: Segment) -> str | None:
        """Name of the checkpoint that a segment would go on from now."""
        begin = segment.start // self.setup.step_tokens(segment.recipe.params)
        return next(iter(self.store.origins(segment, begin)), None)


class _RayWorkerHandle(WorkerHandle):
    """An actor on a node; a thread asks it for news while it has a segment."""

    def __init__(self, number: int, place: Place, seat: Any, driver: RayExecutor) -> None:
        super().__init__(number, place)
        self.seat, self.driver = seat, driver
        self.ended, self.begun, self.thread = "by order", False, threading.Thread()
        self.sinks: list[Sink] = []

    def send(self, order: Mapping[str, Any]) -> None:
        self.thread = threading.Thread(target=self._follow, args=(json.dumps(order),), daemon=True)
        self.thread.start()

    def _follow(self, order: str) -> None:
        """Hand on what the actor tells, until it is through with a segment or lost."""
        import ray

        try:
            ray.get(self.seat.work.remote(order))
            self.begun = True
            while True:
                for event in json.loads(ray.get(self.seat.poll.remote())):
                    if not self._hear(event):
                        return
        except Exception as error:  # Ray has many names for it: actor, node or network are gone
            self.ended = f"by losing its node or actor ({type(error).__name__})"
            self.driver.lost[self.place.machine] = time.monotonic()
            self._log(None)
            self.driver.events.put((self, None))

    def _hear(self, event: dict[str, Any]) -> bool:
        """Put an event into the study and hand it on; False after the last one of a segment."""
        if event["event"] != "progress":
            self._log(event.get("entry"))
        with self.driver.log(self.number).open("a", encoding="utf-8") as log:
            log.write(event.pop("log", ""))
        if event.get("record") is not None and self.segment:
            write_text(self.driver.runs / self.segment.lineage / "record.json", event.pop("record"))
        if event["event"] in ("died", "stopped"):
            self.ended = event.get("how", "when it was stopped")
            self.driver.events.put((self, None))
            return False
        self.driver.events.put((self, event))
        return event["event"] not in ("done", "failed")

    def _log(self, entry: Entry | None) -> None:
        """Put an entry of the worker's log into the study's sinks; None closes them."""
        if entry and self.segment and not self.sinks:
            self.sinks = opened(self.driver.setup.sinks, self.driver.runs, self.segment)
        for sink in self.sinks:
            sink(entry)
        self.sinks = self.sinks if entry else []

    def stop(self) -> None:
        import ray

        if self.begun:
            self.seat.stop.remote()
        else:  # it may wait for a place for ever
            ray.kill(self.seat)

    def wait(self) -> str:
        import ray

        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join()
        with suppress(Exception):  # it may be gone
            ray.get(self.seat.close.remote(), timeout=10)
        with suppress(Exception):
            ray.kill(self.seat)
        return self.ended


def connect(address: str) -> None:
    """Join a Ray cluster, unless this process has.

    Behind `ray://` the head node starts a process for each driver, which now and then dies at birth (ray-project/ray,
    issue 63202): it is asked again for some minutes.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError:
        raise InputError('the ray executor needs Ray; pip install "mixlaw[ray]" here and on every node') from None
    if ray.is_initialized():
        return
    until = time.monotonic() + PATIENCE if address.startswith("ray://") else 0.0
    try:
        _knock(address)
        while not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)
    except (OSError, ValueError, RuntimeError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[-1]  # the reason ends a traceback
        raise InputError(f"no Ray cluster answers at {address!r} ({why}); start one with `ray start --head`") from None


def _knock(address: str) -> None:
    """Find out within seconds whether somebody is there: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def nodes() -> list[Machine]:
    """The nodes of the cluster that are alive: those with GPUs, or all where there are none."""
    import ray

    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = [Machine(name, int(has["GPU"]), "cuda", _gpu_memory(has)) for name, has in alive if has.get("GPU", 0) >= 1]
    cores = [(name, int(has.get("CPU", 0)), has.get("memory", 0.0)) for name, has in alive]
    return gpus or [Machine(name, cpus, "cpu", int(memory / cpus)) for name, cpus, memory in cores if cpus]


def _gpu_memory(resources: Mapping[str, float]) -> int | None:
    """Bytes of each GPU of a node, by the type that Ray tells; None for one that is not known here."""
    types = [key.removeprefix("accelerator_type:") for key in resources if key.startswith("accelerator_type:")]
    return max((GPUS[name].memory for name in types if name in GPUS), default=None)


def _first(machines: Sequence[Machine], count: int) -> list[Machine]:
    """So many devices of them, at most."""
    kept: list[Machine] = []
    for machine in machines:
        devices = min(count - sum(m.devices for m in kept), machine.devices)
        if devices > 0:
            kept.append(Machine(machine.name, devices, machine.kind, machine.memory))
    return kept
