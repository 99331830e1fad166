"""The local executor: worker processes that follow the segment tree, with retries, progress and a clean stop."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe
from mixlaw.runner import checkpoint
from mixlaw.runner.setup import Setup
from mixlaw.runner.train import origin
from mixlaw.runner.tree import Segment, Tree

TRIES = 3  # of a segment from one checkpoint, its worker dying; a segment that fails with an error is not tried again


@dataclass(frozen=True)
class Progress:
    """State of a run, told to a progress display.

    Attributes:
        done, total: FLOPs of training finished and to be done in this call.
        segments_done, segments: the same in segments.
        doing: worker number -> segment and its tokens done.
    """

    done: float
    total: float
    segments_done: int
    segments: int
    doing: Mapping[int, tuple[Segment, int]]


@dataclass(frozen=True)
class Outcome:
    """What a run left: lineages that are done, those that failed with the reason, and those behind a failure."""

    done: tuple[str, ...]
    failed: Mapping[str, str]
    blocked: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"done": list(self.done), "failed": dict(self.failed), "blocked": list(self.blocked)}

    def __str__(self) -> str:
        lines = [f"{lineage} failed: {why}" for lineage, why in self.failed.items()]
        behind = [f"{len(self.blocked)} segments behind it wait; mend the cause and run again"] if self.blocked else []
        return "\n".join([f"{len(self.done)} segments done, {len(self.failed)} failed", *lines, *behind])


@dataclass
class _Hand:
    """A worker process as its driver sees it."""

    number: int
    process: subprocess.Popen[str]
    segment: Segment | None = None
    tokens: int = 0


@dataclass
class _State:
    """What is still to do; the only mutable state of a run."""

    waiting: dict[str, Segment]
    tries: Counter[tuple[str, Path | None]] = field(default_factory=Counter)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)


class LocalExecutor:
    """Trains a tree of segments in worker processes on this machine, one thread each.

    Args:
        setup: how to train.
        runs: folder of runs, shared with any other executor.
        workers: processes; None takes the cores there are.
        show: called whenever something moved.
    """

    def __init__(
        self, setup: Setup, runs: Path, workers: int | None = None, show: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self.setup, self.runs, self.show = setup, runs, show
        self.workers = workers or len(os.sched_getaffinity(0))
        self.events: queue.Queue[tuple[_Hand, dict[str, Any] | None]] = queue.Queue()

    def run(self, tree: Tree, segments: list[Segment]) -> Outcome:
        """Work on `segments`, parents before children; checkpoints and stops on KeyboardInterrupt.

        Raises:
            InputError: a checkpoint is damaged, or another process is running this study.
        """
        self.recipes = {recipe.lineage: recipe for recipe in tree.recipes}
        self.segments = {segment.lineage: segment for segment in segments}
        self.weight = {s.lineage: self.setup.flops(s.recipe.params, s.tokens) for s in segments}
        self.ahead = self._critical_paths(segments)
        state = _State(dict(self.segments))
        if not segments:
            return Outcome((), {}, ())
        hands: list[_Hand] = []
        with _only_one(self.runs) as self.lock:
            _sweep(self.runs)
            self._verify(segments)
            try:
                while state.waiting or any(hand.segment for hand in hands):
                    self._hand_out(state, hands)
                    if not any(hand.segment for hand in hands):
                        break
                    self._listen(state, hands)
            finally:
                self._stop(hands)
                _sweep(self.runs)
        return Outcome(tuple(state.done), state.failed, tuple(state.blocked))

    def _critical_paths(self, segments: list[Segment]) -> dict[str, float]:
        """FLOPs from the start of each segment to the end of its longest line of descendants."""
        ahead: dict[str, float] = {}
        for segment in reversed(segments):
            below = [ahead[s.lineage] for s in segments if s.parent == segment.lineage]
            ahead[segment.lineage] = self.weight[segment.lineage] + max(below, default=0.0)
        return ahead

    def _verify(self, segments: list[Segment]) -> None:
        """Read the checkpoints to go on from before anything is trained, so that a damaged one changes nothing."""
        for folder in {origin(segment, self.setup, self.runs) for segment in segments}:
            if folder is not None and folder.is_dir():
                checkpoint.verify(folder)

    def _hand_out(self, state: _State, hands: list[_Hand]) -> None:
        """Give ready segments to workers, the longest way to go first; workers are started as work comes up."""
        ready = [s for s in state.waiting.values() if s.parent not in self.segments or s.parent in state.done]
        for segment in sorted(ready, key=lambda s: -self.ahead[s.lineage]):
            hand = next((hand for hand in hands if hand.segment is None), None)
            if hand is None and len(hands) == self.workers:
                return
            if hand is None:
                hand = self._start(min(set(range(self.workers)) - {hand.number for hand in hands}))
                hands.append(hand)
            del state.waiting[segment.lineage]
            hand.segment, hand.tokens = segment, 0
            finished: Recipe | None = segment.finished(self.recipes)
            self._send(hand, {"segment": segment.as_json(), "finished": finished.as_json() if finished else None})

    def _listen(self, state: _State, hands: list[_Hand]) -> None:
        """Wait for one event and act on it."""
        hand, event = self.events.get()
        if event is None:
            self._bury(state, hands, hand)
        elif event["event"] == "progress":
            hand.tokens = event["tokens"]
        elif event["event"] == "done" and hand.segment:
            state.done.append(hand.segment.lineage)
            hand.segment = None
        elif event["event"] == "failed" and hand.segment:
            if event["input"]:
                raise InputError(event["error"])
            self._fail(state, hand.segment, event["error"])
            hand.segment = None
        self.show(self._progress(state, hands))

    def _bury(self, state: _State, hands: list[_Hand], hand: _Hand) -> None:
        """A worker died: try its segment again from its last checkpoint, unless it dies there every time."""
        hands.remove(hand)
        code = hand.process.wait()
        if hand.segment is None:
            return
        here = (hand.segment.lineage, origin(hand.segment, self.setup, self.runs))
        state.tries[here] += 1
        if state.tries[here] < TRIES:
            state.waiting[hand.segment.lineage] = hand.segment
        else:
            why = f"its worker died {TRIES} times, last with code {code}; see {self._log(hand.number)}"
            self._fail(state, hand.segment, why)

    def _fail(self, state: _State, segment: Segment, why: str) -> None:
        """Give a segment up, and everything behind it."""
        state.failed[segment.lineage] = why
        lost = {segment.lineage}
        for other in list(state.waiting.values()):
            if other.parent in lost:
                lost.add(other.lineage)
                state.blocked.append(other.lineage)
                del state.waiting[other.lineage]

    def _progress(self, state: _State, hands: list[_Hand]) -> Progress:
        doing = {hand.number: (hand.segment, hand.tokens) for hand in hands if hand.segment}
        part = sum(self.weight[s.lineage] * tokens / s.tokens for s, tokens in doing.values())
        done = sum(self.weight[lineage] for lineage in state.done) + part
        return Progress(done, sum(self.weight.values()), len(state.done), len(self.segments), doing)

    def _log(self, number: int) -> Path:
        return self.runs / f"worker-{number}.log"

    def _start(self, number: int) -> _Hand:
        """Start a worker in a session of its own, so that Ctrl-C reaches the driver alone."""
        quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with self._log(number).open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mixlaw.runner.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **quiet},
                start_new_session=True,
                pass_fds=(self.lock,),
            )
        hand = _Hand(number, process)
        self._send(hand, {"setup": self.setup.as_json(), "runs": str(self.runs)})
        assert process.stdout is not None  # for the type checker: PIPE was asked for
        threading.Thread(target=self._read, args=(hand, process.stdout), daemon=True).start()
        return hand

    def _read(self, hand: _Hand, stdout: IO[str]) -> None:
        for line in stdout:
            with suppress(ValueError):  # half a line: it died over it
                self.events.put((hand, json.loads(line)))
        self.events.put((hand, None))

    def _send(self, hand: _Hand, message: dict[str, Any]) -> None:
        """Write one line to a worker; one that has just died is noticed by its closed stdout."""
        try:
            assert hand.process.stdin is not None  # for the type checker: PIPE was asked for
            hand.process.stdin.write(json.dumps(message) + "\n")
            hand.process.stdin.flush()
        except BrokenPipeError:
            pass

    def _stop(self, hands: list[_Hand]) -> None:
        """Let busy workers checkpoint, and wait for all of them."""
        for hand in hands:
            if hand.process.poll() is None:
                hand.process.send_signal(signal.SIGTERM)  # one that is still starting dies of it, with nothing to lose
            with suppress(BrokenPipeError):
                if hand.process.stdin is not None:
                    hand.process.stdin.close()
        for hand in hands:
            hand.process.wait()


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


def _sweep(runs: Path) -> None:
    """Remove what killed workers left: half-written checkpoints, and partial ones beside the final one."""
    drafts = [*runs.glob("*/.checkpoint.*.tmp"), *runs.glob("*/.partial-*.tmp")]
    outlived = [path for path in runs.glob("*/partial-*") if (path.parent / "checkpoint").is_dir()]
    for path in (*drafts, *outlived):
        shutil.rmtree(path)
