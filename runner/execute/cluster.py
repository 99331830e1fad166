"""Training on a Ray cluster: a driver hands the segment tree to actors, each of which keeps a worker on its node.

The worker is the process that trains on one machine, so that its results are the same. An actor also keeps a scratch
folder on the node's own disk, and copies checkpoints to and from the store. Only text crosses the cluster: JSON in both
directions.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.machine import is_alive
from mixlaw.records import UNMEASURED
from mixlaw.runner.execute.executor import Executor, WorkerHandle
from mixlaw.runner.execute.local import WorkerProcess
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.plan.devices import GPUS, Machine, Place
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.log import Entry, Sink, open_sinks
from mixlaw.runner.train.store import FINAL, PARTIAL, Copier, Damaged, Store

CONNECT_SECONDS = 180.0  # retry window for ray:// connections; one refused attempt takes up to 40
RECOVERY_SECONDS = 20.0  # without new actors on a node that lost one: Ray learns late that a node is gone
POLL_SECONDS = 1.0  # most that a call of `poll` waits for events


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
        self.kind = "cpu"
        connect(address)

    def machines(self) -> Sequence[Machine]:
        """The nodes that are alive now."""
        now = time.monotonic()
        alive = [m for m in nodes() if now - self.lost.get(m.name, -RECOVERY_SECONDS) >= RECOVERY_SECONDS]
        self.kind = alive[0].kind if alive else self.kind
        return alive if self.most is None else _first(alive, self.most)

    def start_worker(self, number: int, place: Place) -> WorkerHandle:
        """Start an actor on a node, with one CPU or as many GPUs as the place has."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        count = len(place.devices)
        resources = {"num_gpus": count, "num_cpus": 1} if self.kind == "cuda" else {"num_cpus": count}
        node = NodeAffinitySchedulingStrategy(place.machine, soft=False)
        actor = ray.remote(RayWorker).options(**resources, max_concurrency=4, scheduling_strategy=node)
        setup = replace(self.setup, sinks=())  # the driver writes their entries
        handle = actor.remote(json.dumps(setup.as_json()), self.url, self.shared, count, self.kind == "cpu")
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
                    if not self._receive(event):
                        return
        except Exception as error:  # Ray has many types for it: the actor, its node or the network is gone
            self.ended = f"by losing its node or actor ({type(error).__name__})"
            self.driver.lost[self.place.machine] = time.monotonic()
            self._log(None)
            self.driver.events.put((self, None))

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
        import ray

        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join()
        with suppress(Exception):  # the actor may be gone
            ray.get(self.actor.close.remote(), timeout=10)
        with suppress(Exception):
            ray.kill(self.actor)
        return self.ended


def read_results(home: Path) -> dict[str, str]:
    """What evaluation has written of a run: record, unmeasured tasks, samples, transcripts; by path below `home`."""
    paths = [home / "record.json", home / UNMEASURED, *(home / "evaluation").rglob("*")]
    return {str(path.relative_to(home)): path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def write_results(home: Path, results: Mapping[str, str]) -> None:
    """Write what `read_results` read elsewhere, the record last; tasks may be unmeasured no longer."""
    for name, text in sorted(results.items(), key=lambda item: item[0] == "record.json"):
        write_text(home / name, text)
    if "record.json" in results and UNMEASURED not in results:
        (home / UNMEASURED).unlink(missing_ok=True)


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
    gpus = [Machine(name, int(has["GPU"]), "cuda", _gpu_memory(has)) for name, has in alive if has.get("GPU", 0) >= 1]
    cores = [(name, int(has.get("CPU", 0)), has.get("memory", 0.0)) for name, has in alive]
    return gpus or [Machine(name, cpus, "cpu", int(memory / cpus)) for name, cpus, memory in cores if cpus]


def _gpu_memory(resources: Mapping[str, float]) -> int | None:
    """Bytes of each GPU of a node, by the type that Ray reports; None for a type that is not in the table."""
    types = [key.removeprefix("accelerator_type:") for key in resources if key.startswith("accelerator_type:")]
    return max((GPUS[name].memory for name in types if name in GPUS), default=None)


def _first(machines: Sequence[Machine], count: int) -> list[Machine]:
    """Machines with at most `count` devices together."""
    chosen: list[Machine] = []
    for machine in machines:
        devices = min(count - sum(m.devices for m in chosen), machine.devices)
        if devices > 0:
            chosen.append(Machine(machine.name, devices, machine.kind, machine.memory))
    return chosen


class RayWorker:
    """An actor: trains one segment after another for a driver on another machine.

    Args:
        setup: JSON of how to train.
        store: URL of the checkpoints.
        shared: whether the store is a folder that this node must be able to read.
        devices: how many the worker trains on.
        cpu: whether to leave GPUs unused.
    """

    def __init__(self, setup: str, store: str, shared: bool, devices: int, cpu: bool) -> None:
        self.setup = Setup.from_json(json.loads(setup))
        self.store, self.shared, self.devices = Store(store), shared, devices
        # The driver has looked for the tasks' data in its own caches; this node's may have to be filled.
        self.environment = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")}
        self.environment |= {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
        self.node = socket.gethostname()
        self.events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.scratch = _scratch()
        self.log, self.log_sent = self.scratch / "worker.log", 0
        self.copier = Copier(self.store, self.scratch / "outbox", self._complain)
        self.process: WorkerProcess | None = None
        self.stopping = False

    def work(self, order: str) -> None:
        """Begin a segment; `poll` reports what becomes of it."""
        threading.Thread(target=self._work, args=(json.loads(order),), daemon=True).start()

    def poll(self) -> str:
        """JSON list of the events since the last call; waits a second for the first one."""
        events: list[dict[str, Any]] = []
        with suppress(Empty):
            events.append(self.events.get(timeout=POLL_SECONDS))
            while True:
                events.append(self.events.get_nowait())
        return json.dumps(events)

    def stop(self) -> None:
        """Let the worker save a checkpoint and end."""
        self.stopping = True
        if self.process is not None:
            self.process.stop()

    def close(self) -> None:
        """End the worker and delete the scratch folder."""
        self.stop()
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _work(self, order: dict[str, Any]) -> None:
        try:
            segment = Segment.from_json(order["segment"])
            if self.process is None:
                try:
                    self._check()
                except InputError as error:
                    self._report({"event": "failed", "error": f"node {self.node}: {error}", "everywhere": True})
                    return
                self.process = WorkerProcess(self.setup, self.scratch, self.log, self.devices, self.environment)
                self.stream = self.process.events()
            self._fetch(segment)
            write_results(self.scratch / segment.lineage, order.pop("results"))
            if self.stopping:
                self.process.stop()
            self.process.send(order)
            self._relay(segment, self.process)
        except InputError as error:
            self._report({"event": "failed", "error": f"node {self.node}: {error}", "everywhere": False})
        except Exception as error:  # the store, or the disk: another worker may fare better
            self._report({"event": "died", "how": f"with {type(error).__name__}: {error}"})

    def _relay(self, segment: Segment, process: WorkerProcess) -> None:
        """Report the events of the worker, until its segment ends."""
        home, newest = self.scratch / segment.lineage, None
        for event in self.stream:
            if event["event"] == "saved":
                newest = Path(event["path"])
                self.copier.offer(newest)
                continue
            if event["event"] == "done":
                self.copier.finish(home / "checkpoint")
            if event["event"] == "stopped" and newest is not None:
                self.copier.finish(newest)
            if event["event"] in ("done", "failed", "stopped"):
                self._report({**event, "results": read_results(home)})
                return
            self._report(event)
        self._report({"event": "died", "how": f"with code {process.wait()}", "results": read_results(home)})

    def _fetch(self, segment: Segment) -> None:
        """Copy the checkpoints that a segment resumes from, also after a rollback, to this node; delete all others."""
        keep = {segment.lineage, segment.parent}
        for path in self.scratch.iterdir():
            if path.is_dir() and path.name not in keep:
                shutil.rmtree(path)
        got = False
        for name in self.store.origins(segment, self.setup):
            try:
                if not (self.scratch / name).is_dir():
                    self.store.get(name, self.scratch / name)
                got = True
            except Damaged:
                if not got and f"/{PARTIAL}" not in name:
                    raise
            if name == f"{segment.lineage}/{FINAL}":
                return

    def _check(self) -> None:
        """Refuse to train without the study's data, or if a shared folder is not the driver's."""
        from mixlaw.runner.batches.shards import open_shards

        folder, runs = self.setup.folder, Path(self.store.root)
        if not (folder / "manifest.json").exists():
            raise InputError(f"there is no {folder}; every node must see the study's data folder at the same path")
        if (data := open_shards(folder).hash) != self.setup.data_hash:
            raise InputError(f"{folder} holds other data ({data}) than the driver sees ({self.setup.data_hash})")
        if self.shared and not (runs / ".lock").exists():
            raise InputError(f"there is no {runs}; put the study on a shared file system, or give a --store")

    def _complain(self, what: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{what}\n")

    def _report(self, event: dict[str, Any]) -> None:
        """Queue an event, with the lines added to the log since the last one."""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self.log_sent)
                added = log.read()
            self.log_sent += len(added)
            event = {**event, "log": added.decode(errors="replace")}
        self.events.put(event)


def _scratch() -> Path:
    """A folder of this process on the node's own disk; folders of processes that have ended are deleted."""
    root = Path(tempfile.gettempdir(), f"mixlaw-{os.getuid()}")
    for path in root.glob("[0-9]*"):  # beside them is the code that workers of this node have compiled
        if not path.name.isdecimal() or not is_alive(int(path.name)) or path.name == str(os.getpid()):
            shutil.rmtree(path, ignore_errors=True)
    own = root / str(os.getpid())
    own.mkdir(parents=True, exist_ok=True)
    return own
