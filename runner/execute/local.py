"""Training in processes of this machine: how a worker is started, spoken to and stopped, and the executor of them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.machine import cores
from mixlaw.runner.execute.executor import Event, Executor, WorkerHandle
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.plan.devices import Machine, Place
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.store import FINAL, check_optimizer, origin, verify

KILL_SECONDS = 60.0
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


class WorkerProcess:
    """A worker in a session of its own, so that Ctrl-C reaches its driver alone.

    Args:
        setup: how to train.
        runs: folder that the worker reads checkpoints from and writes to.
        log: file that its stderr is added to.
        devices: how many it trains on; more than one are as many processes under torchrun.
        environment: variables added to those of this process.
        launch: command that takes `-m MODULE` and starts one or several workers; replaces Python or torchrun.
        pass_fds: file descriptors that it inherits.
        share: how many workers share its device, of which it may use that part of the memory.
    """

    def __init__(
        self,
        setup: Setup,
        runs: Path,
        log: Path,
        devices: int = 1,
        environment: Mapping[str, str] | None = None,
        launch: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        share: int = 1,
    ) -> None:
        start = launch or _start(devices)
        self.alone = len(start) == 1
        with log.open("a", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [*start, "-m", "mixlaw.runner.execute.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **QUIET, **(environment or {})},
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.send({"setup": setup.as_json(), "runs": str(runs), "share": share})

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line to the worker; one that has just died is noticed by its closed stdout."""
        assert self.process.stdin is not None  # for the type checker: PIPE was asked for
        with suppress(BrokenPipeError, ValueError):  # ValueError: its input is closed
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """The events that the worker reports, until it ends."""
        assert self.process.stdout is not None  # for the type checker: PIPE was asked for
        for line in self.process.stdout:
            with suppress(ValueError):  # half a line: it died over it
                yield json.loads(line)

    def stop(self) -> None:
        """Let the worker save a checkpoint and end; does not wait for it.

        Closing its input asks for that. A signal ends at once a worker that is still starting and has nothing to lose;
        torchrun would kill its processes some seconds after a signal, whether they have saved or not.
        """
        if self.alone and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def kill(self) -> None:
        """End the worker at once; torchrun gets a minute to end its processes, which would outlive it."""
        if self.alone:
            self.process.kill()
            return
        self.process.terminate()
        killer = threading.Timer(KILL_SECONDS, self.process.kill)
        killer.daemon = True
        killer.start()

    def wait(self) -> int:
        """Wait for the end of the worker; its exit code."""
        return self.process.wait()


def _start(devices: int) -> list[str]:
    if devices == 1:
        return [sys.executable]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    return [sys.executable, *torchrun]


def visible(devices: Sequence[int]) -> str:
    """CUDA_VISIBLE_DEVICES for some of the GPUs that this process may use, by their places among those.

    A cluster's scheduler or the user may have left it a few, by index, UUID or MIG instance.
    """
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return ",".join(names[device] if names else str(device) for device in devices)


class LocalExecutor(Executor):
    """Trains in worker processes on one machine: a core or a GPU each, several where a size needs them.

    Args:
        setup: how to train.
        runs: folder of the study's runs.
        machine: its devices.
        show: called with the state of the run after every event.
        launch: command that starts a worker; takes `-m MODULE` as Python does.
    """

    def __init__(
        self,
        setup: Setup,
        runs: Path,
        machine: Machine,
        show: Callable[[RunProgress], None] = lambda _: None,
        launch: Sequence[str] = (),
    ) -> None:
        super().__init__(setup, runs, show)
        self.machine, self.launch = machine, launch

    def machines(self) -> Sequence[Machine]:
        """This machine alone."""
        return [self.machine]

    def start_worker(self, number: int, place: Place) -> WorkerHandle:
        """Start a process that sees no GPUs but its own, with its share of the cores beside them."""
        environment = {"CUDA_VISIBLE_DEVICES": ""}
        if self.machine.kind == "cuda":
            threads = max(1, cores() // (self.machine.devices * place.share))
            environment = {"CUDA_VISIBLE_DEVICES": visible(place.devices), "OMP_NUM_THREADS": str(threads)}
        process = WorkerProcess(
            self.setup,
            self.runs,
            self.log(number),
            devices=len(place.devices),
            environment={} if self.launch else environment,
            launch=self.launch,
            pass_fds=(self.lock,),
            share=place.share,
        )
        return _LocalWorkerHandle(number, place, process, self.events)

    def origin(self, segment: Segment) -> str | None:
        """Path of the checkpoint that a segment would resume from now."""
        path = origin(segment, self.setup, self.runs)
        return None if path is None else str(path)

    def check(self, segments: Sequence[Segment]) -> None:
        """Look whether checkpoints to resume from are there and uncut; workers verify their tensors as they read them.

        To hash them here would read all of them twice, and keep all devices waiting: 34 GB a segment at 2.8B.
        """
        for segment in segments:
            folder = origin(segment, self.setup, self.runs)
            if folder is None:
                continue
            if folder.is_dir():
                verify(folder, tensors=False)
                if folder != self.runs / segment.lineage / FINAL:
                    check_optimizer(folder)
            elif self.only:
                raise InputError(f"{segment.lineage} begins where {segment.parent} ends; train that first")


class _LocalWorkerHandle(WorkerHandle):
    """A process on this machine."""

    def __init__(
        self, number: int, place: Place, process: WorkerProcess, events: queue.Queue[tuple[WorkerHandle, Event | None]]
    ) -> None:
        super().__init__(number, place)
        self.process, self.events = process, events
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for event in self.process.events():
            self.events.put((self, event))
        self.events.put((self, None))

    def send(self, order: Mapping[str, Any]) -> None:
        self.process.send(order)

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> str:
        return f"with code {self.process.wait()}"
