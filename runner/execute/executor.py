"""The loop of every executor: hand a tree's segments to workers, parents first, with retries and a clean stop."""

from __future__ import annotations

import math
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.records import Record, write_record
from mixlaw.runner.execute.locks import exclusive
from mixlaw.runner.execute.queue import RunOutcome, RunProgress, RunQueue
from mixlaw.runner.execute.signals import Interrupts
from mixlaw.runner.plan.devices import Machine, Needs, Place, Pool
from mixlaw.runner.plan.placement import Choice
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, Tree
from mixlaw.runner.train.store import sweep

Event = Mapping[str, Any]
IDLE_SECONDS = 5.0  # without an event, after which an executor looks again which machines there are
#: Silence of a worker that trains, after which it is replaced: it reports every pass, and within minutes of its start.
STALL_SECONDS = 3600.0


class WorkerHandle(ABC):
    """A worker as its driver sees it.

    Attributes:
        number: smallest that no other worker has; names it in progress and logs.
        place: the devices it holds.
        segment, tokens: what it trains, and how far that is; None while it is idle.
        speed: tokens per second of the segment, once reported.
        heard: when it last said something; infinite where it may be silent, as in evaluation.
        ran: whether it ever ran; the end of one that did not says nothing about its segment.
    """

    def __init__(self, number: int, place: Place) -> None:
        self.number, self.place = number, place
        self.segment: Segment | None = None
        self.tokens = 0
        self.speed: float | None = None
        self.heard = math.inf
        self.ran = True

    @abstractmethod
    def send(self, order: Mapping[str, Any]) -> None:
        """Give it a segment; its events arrive in the executor's `events`, None when it has ended."""

    @abstractmethod
    def stop(self) -> None:
        """Let it save a checkpoint and end; does not wait for it."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once, whatever it does; does not wait for it."""

    @abstractmethod
    def wait(self) -> str:
        """Wait for its end; how it ended, in words."""


class Executor(ABC):
    """Trains a tree of segments with workers, each of which trains many segments.

    Args:
        setup: how to train.
        runs: folder of the study's runs.
        show: called with the state of the run after every event.

    Attributes:
        only: lineage of the one segment to train, beside drivers that train others; all if None.
    """

    only: str | None = None

    def __init__(self, setup: Setup, runs: Path, show: Callable[[RunProgress], None] = lambda _: None) -> None:
        self.setup, self.runs, self.show = setup, runs, show
        self.events: queue.Queue[tuple[WorkerHandle, Event | None]] = queue.Queue()
        self.workers: list[WorkerHandle] = []
        self.plans: dict[str, Mapping[str, Any]] = {}  # lineage -> how to compute a step, where memory did not suffice
        self.lock, self.interrupts = -1, Interrupts()

    @abstractmethod
    def machines(self) -> Sequence[Machine]:
        """The machines that can train now."""

    def taken(self) -> Sequence[Place]:
        """Devices of these machines that others hold now."""
        return ()

    @abstractmethod
    def start_worker(self, number: int, place: Place) -> WorkerHandle:
        """Start a worker on devices that are free."""

    @abstractmethod
    def origin(self, segment: Segment) -> str | None:
        """Name of the checkpoint that a segment would resume from now; None for a fresh model."""

    def check(self, segments: Sequence[Segment]) -> None:  # noqa: B027 - not every executor has something to check
        """Fail before anything is trained, where it would fail later.

        Raises:
            InputError: a checkpoint is damaged.
        """

    def run(self, tree: Tree, segments: list[Segment]) -> RunOutcome:
        """Train `segments`, parents before children; saves checkpoints and stops on KeyboardInterrupt and SIGTERM.

        Raises:
            InputError: a checkpoint is damaged, a size fits nowhere, or another process is running this study.
        """
        segments = [segment for segment in segments if self.only in (None, segment.lineage)]
        if not segments:
            return RunOutcome((), {}, ())
        self.recipes = {recipe.lineage: recipe for recipe in tree.recipes}
        with exclusive(self.runs, self.only) as self.lock, Interrupts() as self.interrupts:
            sweep(self.runs, self.only or "*")
            self.check(segments)
            machines = self.machines()
            sizes = dict.fromkeys(segment.recipe.params for segment in segments)
            needs = {params: Needs.of(self.setup, params, machines) for params in sizes}
            flops = {s.lineage: self.setup.recipe_flops(s.recipe, s.phase, s.tokens) for s in segments}
            work = RunQueue(segments, flops, needs)
            try:
                while work.first or any(worker.segment for worker in self.workers):
                    self._assign(work)
                    self._handle_event(work)
            finally:
                self._stop()
                sweep(self.runs, self.only or "*")
        return work.outcome

    def _assign(self, work: RunQueue) -> None:
        """Give ready segments to workers while there is room."""
        while (choice := work.choose(*self._room(work))) is not None:
            worker = self._idle_worker(choice)
            if worker is None:
                return
            segment = work.segments[work.take(choice.lineage)]
            worker.segment, worker.tokens, worker.speed = segment, 0, None
            recipe = segment.finished(self.recipes)
            worker.heard = time.monotonic()
            plan = self.plans.get(segment.lineage)
            worker.send({"segment": segment.as_json(), "finished": recipe.as_json() if recipe else None, "plan": plan})

    def _room(self, work: RunQueue) -> tuple[Pool, list[tuple[Place, float]]]:
        """Devices without a segment, and places with one and what it has still to do."""
        busy = [(w.place, work.remaining(w.segment, w.tokens, w.place)) for w in self.workers if w.segment]
        return Pool(self.machines(), [*(place for place, _ in busy), *self.taken()]), busy

    def _idle_worker(self, choice: Choice) -> WorkerHandle | None:
        """An idle worker on as many devices, or as large a part of one, as was chosen, else a new one, else None."""
        idle, how = [worker for worker in self.workers if worker.segment is None], (choice.devices, choice.share)
        for worker in idle:
            held = worker.place
            if (held.width, held.share) == how and all(p.machine in choice.machines for p in held.by_machine):
                return worker
        machines = self.machines()
        # If the devices that no worker holds do not suffice, idle workers of another width make room.
        for holding in (self.workers, [worker for worker in self.workers if worker.segment]):
            place = Pool(machines, [*(worker.place for worker in holding), *self.taken()]).take(
                choice.devices, choice.machines, choice.share
            )
            if place is not None:
                if holding is not self.workers:
                    self._dismiss([worker for worker in idle if worker.place.overlaps(place)])
                numbers = {worker.number for worker in self.workers}
                with self.interrupts.deferred():
                    self.workers.append(self.start_worker(min(set(range(len(numbers) + 1)) - numbers), place))
                return self.workers[-1]
        return None

    def _dismiss(self, workers: Sequence[WorkerHandle]) -> None:
        for worker in workers:
            worker.stop()
            worker.wait()
            self.workers.remove(worker)

    def _handle_event(self, work: RunQueue) -> None:
        """Wait for one event and act on it."""
        try:
            worker, event = self.events.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        finally:
            self._kill_silent()
        if worker not in self.workers:  # dismissed before its last event arrived
            return
        worker.heard = time.monotonic()
        if event is None:
            self._on_worker_exit(work, worker)
        elif event["event"] == "evaluating":
            worker.heard = math.inf  # programs and requests have limits of their own
        elif event["event"] == "memory" and worker.segment:
            self.plans[worker.segment.lineage] = event["plan"]
        elif event["event"] == "progress":
            worker.tokens = event["tokens"]
        elif event["event"] == "log":
            worker.speed = event["entry"].get("tokens_per_second", worker.speed)
        elif event["event"] == "measured":
            write_record(self.runs, Record.from_json(event["record"]))
        elif event["event"] == "done" and worker.segment:
            work.finish(worker.segment.lineage, event.get("unmeasured"))
            worker.segment = None
        elif event["event"] == "failed":
            if event["everywhere"]:
                raise InputError(event["error"])
            if worker.segment:
                work.fail(worker.segment.lineage, f"{event['error']}; see {self.log(worker.number)}")
            worker.segment = None
        busy = {w.number: w for w in self.workers if w.segment}
        training = {number: (w.segment, w.tokens) for number, w in busy.items() if w.segment}
        self.show(work.progress(training, {number: w.speed for number, w in busy.items() if w.speed}))

    def _kill_silent(self) -> None:
        """End workers that train and have not been heard of for long; their segments are tried again."""
        now = time.monotonic()
        for worker in self.workers:
            if worker.segment and now - worker.heard > STALL_SECONDS:
                worker.heard = math.inf
                worker.kill()

    def _on_worker_exit(self, work: RunQueue, worker: WorkerHandle) -> None:
        """Retry the segment of a dead worker from its last checkpoint, at most TRIES times from one checkpoint."""
        self.workers.remove(worker)
        how = worker.wait()
        if worker.segment and not worker.ran:
            work.add(worker.segment.lineage)
        elif worker.segment:
            segment = worker.segment
            # Another way to compute a step is another beginning.
            beginning = f"{self.origin(segment)} {self.plans.get(segment.lineage)}"
            work.retry(segment.lineage, beginning, f"{how}; see {self.log(worker.number)}")

    def _stop(self) -> None:
        """Let busy workers save checkpoints, and wait for all of them."""
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.wait()

    def log(self, number: int) -> Path:
        """File of a worker's stderr."""
        return self.runs / f"worker-{self.only or number}.log"
