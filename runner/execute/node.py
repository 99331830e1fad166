"""One node of a Ray cluster: an actor that keeps a worker process, its scratch folder and copies of checkpoints.

A worker that spans nodes is a torchrun on each of them: one actor speaks with the first rank as with any worker, and
its peers keep the other ranks. They read and write checkpoints in the store itself, a folder that all of them see.

The worker is the process that trains on one machine, so that its results are the same. Only text crosses the cluster:
JSON in both directions.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.machine import is_alive
from mixlaw.records import UNMEASURED
from mixlaw.runner.execute.local import WorkerProcess
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.store import FINAL, PARTIAL, Copier, Damaged, Store

POLL_SECONDS = 1.0  # most that a call of `poll` waits for events


class RayWorker:
    """An actor: trains one segment after another for a driver on another machine.

    Args:
        setup: JSON of how to train.
        store: URL of the checkpoints.
        shared: whether the store is a folder that this node must be able to read.
        devices: how many the worker trains on.
        cpu: whether to leave GPUs unused.
        share: how many workers share its GPU.
    """

    def __init__(self, setup: str, store: str, shared: bool, devices: int, cpu: bool, share: int = 1) -> None:
        self.setup = Setup.from_json(json.loads(setup))
        self.store, self.shared, self.devices, self.share = Store(store), shared, devices, share
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

    def work(self, order: str, widths: Sequence[int] = (), meeting: tuple[str, int] = ("", 0)) -> None:
        """Begin a segment; `poll` reports what becomes of it.

        Args:
            widths: devices on each node, where the worker spans several.
            meeting: address and port where their ranks meet.
        """
        launch = torchrun(widths, 0, *meeting) if widths else []
        threading.Thread(target=self._work, args=(json.loads(order), launch), daemon=True).start()

    def rendezvous(self) -> tuple[str, int]:
        """Address of this node and a port that is free, where ranks of several nodes meet."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return str(ray.util.get_node_ip_address()), free.getsockname()[1]  # type: ignore[no-untyped-call]

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

    def close(self, at_once: bool = False) -> None:
        """End the worker, at once if it may wait for ranks that are gone, and delete the scratch folder."""
        self.stop()
        if self.process is not None:
            if at_once:
                self.process.kill()
            self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _work(self, order: dict[str, Any], launch: Sequence[str]) -> None:
        try:
            segment = Segment.from_json(order["segment"])
            if self.process is None:
                try:
                    self._check()
                except InputError as error:
                    self._report({"event": "failed", "error": f"node {self.node}: {error}", "everywhere": True})
                    return
                self.runs = Path(self.store.root) if launch else self.scratch
                self.process = WorkerProcess(
                    self.setup, self.runs, self.log, self.devices, self.environment, launch, share=self.share
                )
                self.stream = self.process.events()
            if self.runs == self.scratch:
                self._fetch(segment)
            write_results(self.runs / segment.lineage, order.pop("results"))
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
        home, newest, copies = self.runs / segment.lineage, None, self.runs == self.scratch
        for event in self.stream:
            if event["event"] == "saved":
                if copies:
                    newest = Path(event["path"])
                    self.copier.offer(newest)
                continue
            if event["event"] == "done" and copies:
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


class RayPeer:
    """An actor on another node of a worker that spans several: it keeps this node's ranks, which follow the first one.

    Args:
        setup: JSON of how to train.
        cpu: whether to leave GPUs unused.
    """

    def __init__(self, setup: str, cpu: bool) -> None:
        self.setup, self.scratch = Setup.from_json(json.loads(setup)), _scratch()
        self.environment = {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
        self.process: WorkerProcess | None = None

    def run(self, widths: Sequence[int], number: int, meeting: tuple[str, int]) -> str:
        """Start the ranks of this node, `number` of those, and wait for their end; JSON of their reports and log."""
        log, launch = self.scratch / "worker.log", torchrun(widths, number, *meeting)
        self.process = WorkerProcess(self.setup, self.scratch, log, 0, self.environment, launch)
        events = list(self.process.events())
        code = self.process.wait()
        text = log.read_text(encoding="utf-8", errors="replace")
        return json.dumps({"events": events, "log": f"{text}ended with code {code} on {socket.gethostname()}\n"})

    def close(self) -> None:
        """End the ranks, if they have not ended with the first one, and delete the scratch folder."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def torchrun(widths: Sequence[int], number: int, address: str, port: int) -> list[str]:
    """Command that starts the ranks of one of several nodes, given how many each has."""
    nodes = [f"--nnodes={len(widths)}", f"--node-rank={number}", f"--nproc-per-node={widths[number]}"]
    return [
        sys.executable, "-m", "torch.distributed.run", *nodes, f"--master-addr={address}", f"--master-port={port}"
    ]  # fmt: skip


def _scratch() -> Path:
    """A folder of this process on the node's own disk; folders of processes that have ended are deleted."""
    root = Path(tempfile.gettempdir(), f"mixlaw-{os.getuid()}")
    for path in root.glob("[0-9]*"):  # beside them is the code that workers of this node have compiled
        if not path.name.isdecimal() or not is_alive(int(path.name)) or path.name == str(os.getpid()):
            shutil.rmtree(path, ignore_errors=True)
    own = root / str(os.getpid())
    own.mkdir(parents=True, exist_ok=True)
    return own


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
