"""A worker process: reads segments from stdin, trains and evaluates one after another, reports on stdout.

One JSON document per line. In: first {"setup", "runs", "share"}, then {"segment", "finished", "plan"} any number of
times. Out: {"event": "ready" | "progress" | "log" | "saved" | "measured" | "memory" | "evaluating" | "done" | "stopped"
| "failed", ...}. End of input and SIGTERM save a checkpoint and stop, so that no worker outlives its driver. Run as
`python -m mixlaw.runner.execute.worker`: it shares nothing with its driver but pipes and files.

Under torchrun (`torchrun --nproc-per-node 4 -m mixlaw.runner.execute.worker`) the first rank reads and reports, and the
others follow it. If one fails it exits, and torchrun ends the rest: the driver sees a dead worker and retries.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mixlaw.errors import InputError
from mixlaw.machine import collect_as_usual, collect_rarely, keep_freed_memory

if __name__ == "__main__":
    collect_rarely()  # before the libraries are imported

from mixlaw.recipe import Recipe
from mixlaw.records import Record
from mixlaw.runner.batches.shards import Shards, open_shards
from mixlaw.runner.evaluate.moments import Moments
from mixlaw.runner.evaluate.record import record
from mixlaw.runner.models.foreign import on_this_machine
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.log import Entry
from mixlaw.runner.train.loop import Diverged, OutOfMemory, Stopped, train_segment
from mixlaw.runner.train.parallel import ALONE, Ranks, joined, limit_memory
from mixlaw.runner.train.step import StepPlan

REPORT_SECONDS = 10.0  # for the first rank to report an error that all ranks meet


class Worker:
    """Trains segments of one study, alone or as one of several ranks; the token shards are opened once."""

    def __init__(self, setup: Setup, runs: Path, ranks: Ranks = ALONE) -> None:
        self.setup, self.runs, self.ranks = setup, runs, ranks
        if setup.start is not None:
            self.setup = replace(setup, start=on_this_machine(setup.start))
        self.shards: Shards = open_shards(setup.folder)
        self.stopping = False
        self.orders: SimpleQueue[dict[str, Any] | None] = SimpleQueue()

    def listen(self) -> None:
        """Queue the driver's orders until the pipe is closed, by the driver or by its death."""
        with suppress(ValueError):  # half a line: the driver died over it
            for line in sys.stdin:
                self.orders.put(json.loads(line))
        self.stop()

    def stop(self, *_: object) -> None:
        """Stop after the current step; takes the arguments of a signal handler."""
        self.stopping = True
        self.orders.put(None)

    def order(self) -> dict[str, Any] | None:
        """The next order of the driver, None at the end; all ranks call it, and wait for the first one."""
        order = self.orders.get() if self.ranks.first else None
        shared: dict[str, Any] | None = self.ranks.broadcast(None if self.stopping else order)
        return shared

    def work(self, segment: Segment, finished: Recipe | None, plan: StepPlan | None = None) -> dict[str, Any]:
        """Train a segment; where a recipe ends with it, evaluate and write its record. Returns the closing event."""
        streams = {name: self.shards[name].tokens for name in segment.recipe.domains if name in self.shards.domains}
        trained = train_segment(
            segment,
            self.setup,
            streams,
            self.runs,
            _report_progress,
            lambda: self.stopping,
            _report_saved,
            self.ranks,
            _report_log,
            plan,
            Moments(segment, self.setup, self.shards, self.ranks, _report_moment) if self.setup.evaluate_at else None,
        )
        began, unmeasured = time.monotonic(), dict[str, str]()
        if finished is not None:
            unmeasured = record(finished, trained, self.setup, streams, self.runs, _report_evaluation, self.ranks)
        seconds = time.monotonic() - began
        return {
            "event": "done",
            "loss": trained.loss,
            "seconds": trained.seconds,
            "evaluation_seconds": seconds,
            "unmeasured": unmeasured,
        }


def _report(event: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the driver died: the end of input stops this worker, after a checkpoint
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def _report_progress(tokens: int) -> None:
    _report({"event": "progress", "tokens": tokens})


def _report_saved(checkpoint: Path) -> None:
    _report({"event": "saved", "path": str(checkpoint)})


def _report_log(entry: Entry | None) -> None:
    if entry is not None:
        _report({"event": "log", "entry": dict(entry)})


def _report_moment(record: Record) -> None:
    _report({"event": "measured", "record": record.as_json()})


def _report_evaluation(_: float, tasks: str) -> None:
    _report({"event": "evaluating", "tasks": tasks})


def _load() -> None:
    """Import the libraries that every segment needs, quietly: stdout belongs to the protocol."""
    from transformers import LlamaForCausalLM  # noqa: F401
    from transformers.utils import logging

    collect_as_usual()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def main() -> None:
    """Train segments until stdin ends."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()
    _load()
    with joined() as ranks:
        start = ranks.broadcast(json.loads(sys.stdin.readline()) if ranks.first else None)
        limit_memory(ranks.device, start["share"])
        try:
            worker = Worker(Setup.from_json(start["setup"]), Path(start["runs"]), ranks)
        except InputError as error:
            _fail(error, ranks, everywhere=True)
            return
        if ranks.first:
            signal.signal(signal.SIGTERM, worker.stop)
            threading.Thread(target=worker.listen, daemon=True).start()
            _report({"event": "ready"})
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first rank decides when to stop
        while (order := worker.order()) is not None:
            _serve(worker, order)


def _serve(worker: Worker, order: dict[str, Any]) -> None:
    """Carry out one order and report how it ended; all ranks call it."""
    finished = None if order["finished"] is None else Recipe.from_json(order["finished"])
    plan = StepPlan(**order["plan"]) if order.get("plan") else None
    try:
        done = worker.work(Segment.from_json(order["segment"]), finished, plan)
        if worker.ranks.first:
            _report(done)
    except Stopped:
        if worker.ranks.first:
            _report({"event": "stopped"})
    except OutOfMemory as error:  # of this rank: the others wait for it
        traceback.print_exc()
        _report({"event": "memory", "plan": asdict(error.plan)})
        os._exit(1)
    except Exception as error:  # the next segment may be fine
        _fail(error, worker.ranks)


def _fail(error: Exception, ranks: Ranks, everywhere: bool = False) -> None:
    """Report a failure that all ranks meet; exit if it may be this rank's alone.

    Args:
        everywhere: whether no segment can be trained here, so that the run ends; otherwise this segment alone fails.
    """
    wrong_input = isinstance(error, InputError)
    if not wrong_input:
        traceback.print_exc()  # stderr is the worker's log
    if ranks.first and (ranks.world == 1 or wrong_input or isinstance(error, Diverged)):
        text = str(error) if wrong_input else f"{type(error).__name__}: {error}"
        _report({"event": "failed", "error": text, "everywhere": everywhere})
    elif not isinstance(error, Diverged):
        if wrong_input:
            print(error, file=sys.stderr)
            time.sleep(REPORT_SECONDS)
        os._exit(1)  # without waiting for ranks that wait for this one


if __name__ == "__main__":
    main()
