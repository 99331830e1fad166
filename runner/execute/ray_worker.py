"""A worker's seat on a node of a Ray cluster: it keeps a worker process, its scratch folder, and the store in step.

The training itself is the same process as on one machine, so that its results are. Only text crosses the cluster: JSON
in both directions.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mixlaw.errors import InputError
from mixlaw.machine import is_alive
from mixlaw.runner.execute.process import WorkerProcess
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.store import Copier, Damaged, Store

POLL_SECONDS = 1.0  # most that a call of `poll` waits for news


class RayWorker:
    """An actor: trains one segment after another for a driver far away.

    Args:
        setup: JSON of how to train.
        store: URL of the checkpoints.
        shared: whether the store is a folder that this node must see.
        devices: how many the worker trains on.
        cpu: whether GPUs are not to be used.
    """

    def __init__(self, setup: str, store: str, shared: bool, devices: int, cpu: bool) -> None:
        self.setup = Setup.from_json(json.loads(setup))
        self.store, self.shared, self.devices = Store(store), shared, devices
        self.environment = {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
        self.node = socket.gethostname()
        self.news: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.scratch = _scratch()
        self.log, self.told = self.scratch / "worker.log", 0
        self.copier = Copier(self.store, self.scratch / "outbox", self._complain)
        self.process: WorkerProcess | None = None
        self.stopping = False

    def work(self, order: str) -> None:
        """Begin a segment; what becomes of it is told by `poll`."""
        threading.Thread(target=self._work, args=(json.loads(order),), daemon=True).start()

    def poll(self) -> str:
        """JSON list of the events since the last call, after a moment at most."""
        found: list[dict[str, Any]] = []
        with suppress(Empty):
            found.append(self.news.get(timeout=POLL_SECONDS))
            while True:
                found.append(self.news.get_nowait())
        return json.dumps(found)

    def stop(self) -> None:
        """Let the worker save a checkpoint and end."""
        self.stopping = True
        if self.process is not None:
            self.process.stop()

    def close(self) -> None:
        """Leave nothing behind on this node; the worker has ended."""
        self.stop()
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _work(self, order: dict[str, Any]) -> None:
        try:
            segment = Segment.from_json(order["segment"])
            if self.process is None:
                self._look()
                self.process = WorkerProcess(self.setup, self.scratch, self.log, self.devices, self.environment)
                self.events = self.process.events()
            self._fetch(segment)
            if self.stopping:
                self.process.stop()
            self.process.send(order)
            self._relay(segment, self.process)
        except InputError as error:
            self._tell({"event": "failed", "error": f"node {self.node}: {error}", "input": True})
        except Exception as error:  # the store, or the disk: another worker may fare better
            self._tell({"event": "died", "how": f"with {type(error).__name__}: {error}"})

    def _relay(self, segment: Segment, process: WorkerProcess) -> None:
        """Tell what the worker tells, until it is through with the segment."""
        home, newest = self.scratch / segment.lineage, None
        for event in self.events:
            if event["event"] == "saved":
                newest = Path(event["path"])
                self.copier.offer(newest)
                continue
            if event["event"] == "done":
                self.copier.finish(home / "checkpoint")
                record = home / "record.json"
                event["record"] = record.read_text(encoding="utf-8") if record.exists() else None
            if event["event"] == "stopped" and newest is not None:
                self.copier.finish(newest)
            self._tell(event)
            if event["event"] in ("done", "failed", "stopped"):
                return
        self._tell({"event": "died", "how": f"with code {process.wait()}"})

    def _fetch(self, segment: Segment) -> None:
        """Have the checkpoint here that a segment goes on from, and none that it does not need."""
        keep = {segment.lineage, segment.parent}
        for path in self.scratch.iterdir():
            if path.is_dir() and path.name not in keep:
                shutil.rmtree(path)
        begin = segment.start // self.setup.step_tokens(segment.recipe.params)
        for name in self.store.origins(segment, begin):
            if (self.scratch / name).is_dir():
                return
            try:
                self.store.get(name, self.scratch / name)
                return
            except Damaged:
                if "/partial-" not in name:
                    raise

    def _look(self) -> None:
        """Refuse to work without the study's data, or where a shared folder is not the driver's."""
        from mixlaw.runner.batches.shards import open_shards

        folder, runs = self.setup.folder, Path(self.store.root)
        if not (folder / "manifest.json").exists():
            raise InputError(f"there is no {folder}; every node must see the study's data folder at the same path")
        if (found := open_shards(folder).hash) != self.setup.data_hash:
            raise InputError(f"{folder} holds other data ({found}) than the driver sees ({self.setup.data_hash})")
        if self.shared and not (runs / ".lock").exists():
            raise InputError(f"there is no {runs}; put the study on a shared file system, or give a --store")

    def _complain(self, what: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{what}\n")

    def _tell(self, event: dict[str, Any]) -> None:
        """Queue an event, with what was added to the log since the last one."""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self.told)
                added = log.read()
            self.told += len(added)
            event = {**event, "log": added.decode(errors="replace")}
        self.news.put(event)


def _scratch() -> Path:
    """A folder of this process on the node's own disk; those of processes that are gone are deleted."""
    root = Path(tempfile.gettempdir(), f"mixlaw-{os.getuid()}")
    for path in _abandoned(root):
        shutil.rmtree(path, ignore_errors=True)
    own = root / str(os.getpid())
    own.mkdir(parents=True, exist_ok=True)
    return own


def _abandoned(root: Path) -> Iterator[Path]:
    for path in root.glob("[0-9]*"):  # and not the code that workers of this node have compiled
        if not path.name.isdecimal() or not is_alive(int(path.name)) or path.name == str(os.getpid()):
            yield path
