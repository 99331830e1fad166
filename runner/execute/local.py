"""Executors: they hand a tree's segments to workers, parents before children, with retries and a clean stop."""

from __future__ import annotations

import fcntl
import queue
import shutil
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe
from mixlaw.runner.execute.machines import Machine, Place, Pool, needed
from mixlaw.runner.execute.process import WorkerProcess
from mixlaw.runner.execute.queue import Outcome, Queue, RunProgress
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, Tree
from mixlaw.runner.train.checkpoint_files import origin, verify

Event = Mapping[str, Any]
PATIENCE = 5.0  # seconds without news after which an executor looks again which machines there are


class WorkerHandle(ABC):
    """A worker as its driver sees it.

    Attributes:
        number: smallest that no other worker has; names it in progress and logs.
        place: the devices it holds.
        segment, tokens: what it trains, and how far that is.
        speed: tokens per second, once it has told.
    """

    def __init__(self, number: int, place: Place) -> None:
        self.number, self.place = number, place
        self.segment: Segment | None = None
        self.tokens = 0
        self.speed: float | None = None

    @abstractmethod
    def send(self, order: Mapping[str, Any]) -> None:
        """Give it a segment; what it tells arrives in the executor's `events`, None when it has ended."""

    @abstractmethod
    def stop(self) -> None:
        """Let it save a checkpoint and end; does not wait for it."""

    @abstractmethod
    def wait(self) -> str:
        """Wait for its end; how it ended, in words."""


class Executor(ABC):
    """Trains a tree of segments by workers that outlive segments.

    Args:
        setup: how to train.
        runs: folder of the study's runs.
        show: called whenever something moved.
    """

    def __init__(self, setup: Setup, runs: Path, show: Callable[[RunProgress], None] = lambda _: None) -> None:
        self.setup, self.runs, self.show = setup, runs, show
        self.events: queue.Queue[tuple[WorkerHandle, Event | None]] = queue.Queue()
        self.hands: list[WorkerHandle] = []
        self.lock, self.interrupts = -1, _Interrupts()

    @abstractmethod
    def machines(self) -> Sequence[Machine]:
        """Where there is something to train on now."""

    @abstractmethod
    def hire(self, number: int, place: Place) -> WorkerHandle:
        """Start a worker."""

    @abstractmethod
    def origin(self, segment: Segment) -> str | None:
        """Name of the checkpoint that a segment would go on from now."""

    def check(self, segments: Sequence[Segment]) -> None:  # noqa: B027 - not every executor has something to check
        """Refuse to start on what would fail later."""

    def run(self, tree: Tree, segments: list[Segment]) -> Outcome:
        """Work on `segments`, parents before children; checkpoints and stops on KeyboardInterrupt and SIGTERM.

        Raises:
            InputError: a checkpoint is damaged, a size fits nowhere, or another process is running this study.
        """
        if not segments:
            return Outcome((), {}, ())
        self.recipes = {recipe.lineage: recipe for recipe in tree.recipes}
        with _only_one(self.runs) as self.lock, _Interrupts() as self.interrupts:
            _sweep(self.runs)
            self.check(segments)
            machines = self.machines()
            sizes = {s.recipe.params: 0 for s in segments}
            sizes = {params: needed(self.setup, params, machines) for params in sizes}
            self.needs = {s.lineage: sizes[s.recipe.params] for s in segments}
            flops = {s.lineage: self.setup.flops(s.recipe.params, s.tokens) for s in segments}
            work = Queue(segments, flops, self.needs)
            try:
                while work.ready or any(hand.segment for hand in self.hands):
                    self._hand_out(work)
                    self._listen(work)
            finally:
                self._stop()
                _sweep(self.runs)
        return work.outcome

    def _hand_out(self, work: Queue) -> None:
        """Give ready segments to workers; workers are started as work comes up."""
        for segment in work.ready:
            hand = self._free_hand(self.needs[segment.lineage])
            if hand is None:
                return
            work.take(segment)
            hand.segment, hand.tokens, hand.speed = segment, 0, None
            finished: Recipe | None = segment.finished(self.recipes)
            hand.send({"segment": segment.as_json(), "finished": finished.as_json() if finished else None})

    def _free_hand(self, devices: int) -> WorkerHandle | None:
        """A worker on so many devices that has nothing to do: an old one, else a new one, else None."""
        idle = [hand for hand in self.hands if hand.segment is None]
        for hand in idle:
            if len(hand.place.devices) == devices:
                return hand
        machines = self.machines()
        # Where devices that nobody holds do not suffice, idle workers of another width make room.
        for held in (self.hands, [hand for hand in self.hands if hand.segment]):
            place = Pool(machines, (hand.place for hand in held)).take(devices)
            if place is not None:
                self._let_go([hand for hand in idle if hand.place.overlaps(place)])
                with self.interrupts.held():
                    self.hands.append(self.hire(min(set(range(len(self.hands) + 1)) - self._numbers), place))
                return self.hands[-1]
        return None

    @property
    def _numbers(self) -> set[int]:
        return {hand.number for hand in self.hands}

    def _let_go(self, hands: Sequence[WorkerHandle]) -> None:
        for hand in hands:
            hand.stop()
            hand.wait()
            self.hands.remove(hand)

    def _listen(self, work: Queue) -> None:
        """Wait for one event and act on it."""
        try:
            hand, event = self.events.get(timeout=PATIENCE)
        except queue.Empty:
            return
        if hand not in self.hands:  # its last word, after it was let go
            return
        if event is None:
            self._bury(work, hand)
        elif event["event"] == "progress":
            hand.tokens = event["tokens"]
        elif event["event"] == "log":
            hand.speed = event["entry"].get("tokens_per_second", hand.speed)
        elif event["event"] == "done" and hand.segment:
            work.finish(hand.segment)
            hand.segment = None
        elif event["event"] == "failed":
            if event["input"]:
                raise InputError(event["error"])
            if hand.segment:
                work.fail(hand.segment, f"{event['error']}; see {self.log(hand.number)}")
            hand.segment = None
        doing = {h.number: (h.segment, h.tokens) for h in self.hands if h.segment}
        self.show(work.progress(doing, {h.number: h.speed for h in self.hands if h.segment and h.speed}))

    def _bury(self, work: Queue, hand: WorkerHandle) -> None:
        """A worker died: its segment is tried again from its last checkpoint, unless it dies there every time."""
        self.hands.remove(hand)
        how = hand.wait()
        if hand.segment:
            work.died(hand.segment, self.origin(hand.segment), f"{how}; see {self.log(hand.number)}")

    def _stop(self) -> None:
        """Let busy workers checkpoint, and wait for all of them."""
        for hand in self.hands:
            hand.stop()
        for hand in self.hands:
            hand.wait()

    def log(self, number: int) -> Path:
        """File with what a worker wrote to stderr."""
        return self.runs / f"worker-{number}.log"


class LocalExecutor(Executor):
    """Trains in worker processes on one machine: a core or a GPU each, several where a size needs them.

    Args:
        setup: how to train.
        runs: folder of the study's runs.
        machine: its devices.
        show: called whenever something moved.
        launch: command that starts a worker, in place of Python: takes `-m MODULE`.
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
        """This one."""
        return [self.machine]

    def hire(self, number: int, place: Place) -> WorkerHandle:
        """Start a process; where there are GPUs it sees its own alone."""
        visible = ",".join(map(str, place.devices)) if self.machine.kind == "cuda" else ""
        process = WorkerProcess(
            self.setup,
            self.runs,
            self.log(number),
            devices=len(place.devices),
            environment={} if self.launch else {"CUDA_VISIBLE_DEVICES": visible},
            launch=self.launch,
            pass_fds=(self.lock,),
        )
        return _LocalWorkerHandle(number, place, process, self.events)

    def origin(self, segment: Segment) -> str | None:
        """Path of the checkpoint that a segment would go on from now."""
        found = origin(segment, self.setup, self.runs)
        return None if found is None else str(found)

    def check(self, segments: Sequence[Segment]) -> None:
        """Read the checkpoints to go on from before anything is trained, so that a damaged one changes nothing."""
        for folder in {origin(segment, self.setup, self.runs) for segment in segments}:
            if folder is not None and folder.is_dir():
                verify(folder)


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

    def wait(self) -> str:
        return f"with code {self.process.wait()}"


@contextmanager
def _only_one(runs: Path) -> Iterator[int]:
    """Hold the locks of a study's runs; gives the handle of the one that workers take along.

    The system gives a lock up when the last process that holds it dies. The workers' lock is waited for: it is held for
    some seconds after a driver was killed, until its workers have noticed and saved a checkpoint.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("w") as drivers, (runs / ".workers").open("w") as workers:
        try:
            fcntl.flock(drivers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another `mixlaw run` is at work in {runs}; wait for it, or stop it and repeat") from None
        fcntl.flock(workers, fcntl.LOCK_EX)
        yield workers.fileno()


class _Interrupts:
    """Ctrl-C, and SIGTERM, which cluster schedulers send before they take a machine back: both stop a run.

    They raise KeyboardInterrupt in what is entered; what is `held` comes to its end first, but for a second Ctrl-C.
    After the first one SIGTERM changes nothing any more. Signals reach the main thread alone: in another one nothing
    is changed.
    """

    def __init__(self) -> None:
        self.holding = self.came = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._come)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background it is ignored
                self.before[signal.SIGINT] = signal.signal(signal.SIGINT, self._come)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _come(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.came or not self.holding:
            raise KeyboardInterrupt
        self.came = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let this come to its end: a worker that was started and is not noted yet would be left alone."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
        if self.came:
            raise KeyboardInterrupt


def _sweep(runs: Path) -> None:
    """Remove what killed workers left: half-written checkpoints, and partial ones beside the final one."""
    drafts = [*runs.glob("*/.checkpoint.*.tmp"), *runs.glob("*/.partial-*.tmp")]
    outlived = [path for path in runs.glob("*/partial-*") if (path.parent / "checkpoint").is_dir()]
    for path in (*drafts, *outlived):
        shutil.rmtree(path)
