"""A worker process: takes segments from stdin, trains and evaluates them one after another, tells on stdout.

One JSON document per line. In: first {"setup", "runs"}, then {"segment", "finished"} any number of times. Out:
{"event": "ready" | "progress" | "saved" | "done" | "stopped" | "failed", ...}. End of input and SIGTERM save a
checkpoint and stop, so that no worker outlives its driver. Run as
`python -m mixlaw.runner.execute.worker`: it shares nothing with its driver but pipes and files.

Under torchrun (`torchrun --nproc-per-node 4 -m mixlaw.runner.execute.worker`) the first rank reads and talks, and the
others do as it does. One that fails ends, and torchrun ends the rest: the driver sees a dead worker and retries.
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
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mixlaw.errors import InputError
from mixlaw.machine import collect_as_usual, collect_rarely, keep_freed_memory
from mixlaw.recipe import Recipe
from mixlaw.records import Measurement, Record, write_record
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.batches.shards import Shards, open_shards
from mixlaw.runner.evaluate.measure import Measured
from mixlaw.runner.evaluate.run import evaluate, read_measure
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.loop import Diverged, Stopped, Trained, train_segment
from mixlaw.runner.train.parallel import ALONE, Ranks, joined
from mixlaw.runner.train.sinks import Entry

SAY_SECONDS = 10.0  # in which the first rank can say what another one has found as well


class Worker:
    """Trains segments of one study, alone or as one of several ranks; the token shards are opened once."""

    def __init__(self, setup: Setup, runs: Path, ranks: Ranks = ALONE) -> None:
        self.setup, self.runs, self.ranks = setup, runs, ranks
        self.shards: Shards = open_shards(setup.folder)
        self.stopping = False
        self.orders: SimpleQueue[dict[str, Any] | None] = SimpleQueue()

    def listen(self) -> None:
        """Queue the orders of the driver until it closes the pipe, or dies and the system closes it."""
        with suppress(ValueError):  # half a line: the driver died over it
            for line in sys.stdin:
                self.orders.put(json.loads(line))
        self.stop()

    def stop(self, *_: object) -> None:
        """Stop after the step at hand; takes what a signal handler is given."""
        self.stopping = True
        self.orders.put(None)

    def order(self) -> dict[str, Any] | None:
        """The next segment, None at the end; all ranks wait for what the first one is told."""
        order = self.orders.get() if self.ranks.first else None
        told: dict[str, Any] | None = self.ranks.told(None if self.stopping else order)
        return told

    def work(self, segment: Segment, finished: Recipe | None) -> dict[str, Any]:
        """Train a segment; where a recipe ends with it, evaluate and write its record. Returns the closing event."""
        streams = {name: self.shards[name].tokens for name in segment.recipe.domains if name in self.shards.domains}
        trained = train_segment(
            segment,
            self.setup,
            streams,
            self.runs,
            _tell_progress,
            lambda: self.stopping,
            _tell_saved,
            self.ranks,
            _tell_log,
        )
        began = time.monotonic()
        if finished is not None and self.ranks.first:
            batches = Batches(finished, streams, self.setup.sequence, self.setup.sequences(finished.params))
            write_record(self.runs, self._record(finished, trained, batches))
        seconds = time.monotonic() - began
        return {"event": "done", "loss": trained.loss, "seconds": trained.seconds, "evaluation_seconds": seconds}

    def _evaluate(self, recipe: Recipe, trained: Trained) -> dict[str, Measurement]:
        return evaluate(
            trained.model,
            self.setup.folder,
            self.setup.tasks,
            sequence=self.setup.sequence,
            measures={task: read_measure(told) for task, told in self.setup.measures.items()},
            folder=self.runs / recipe.lineage / "evaluation",
        )

    def _record(self, recipe: Recipe, trained: Trained, batches: Batches) -> Record:
        """What the run measured; nothing in it depends on when, where or in how many pieces it was trained."""
        rules = self.setup.hyperparameters(recipe.params)
        found = self._evaluate(recipe, trained)
        told = {task: dict(m.details) for task, m in found.items() if isinstance(m, Measured) and m.details}
        return Record(
            run=recipe.lineage,
            recipe=recipe,
            values={task: Measurement(m.value, m.stderr, m.count) for task, m in found.items()},
            tokens={phase: {d: float(n) for d, n in drawn.items()} for phase, drawn in batches.achieved().items()},
            details={
                "epochs": batches.epochs(),
                "learning_rate": rules.learning_rate,
                "warmup_tokens": rules.warmup_tokens,
                "batch_tokens": self.setup.step_tokens(recipe.params),
                "flops": self.setup.flops(recipe.params, recipe.tokens),
                **({"skipped_steps": list(trained.skipped)} if trained.skipped else {}),
                **({"precision": "bf16"} if self.ranks.bf16 else {}),
                **({"tasks": told} if told else {}),
            },
        )


def _tell(event: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the driver died: the end of input stops this worker, after a checkpoint
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def _tell_progress(tokens: int) -> None:
    _tell({"event": "progress", "tokens": tokens})


def _tell_saved(checkpoint: Path) -> None:
    _tell({"event": "saved", "path": str(checkpoint)})


def _tell_log(entry: Entry | None) -> None:
    if entry is not None:
        _tell({"event": "log", "entry": dict(entry)})


def _load() -> None:
    """Import what every segment takes; stdout belongs to the protocol, and libraries that print go to stderr."""
    collect_rarely()
    from transformers import LlamaForCausalLM  # noqa: F401
    from transformers.utils import logging

    collect_as_usual()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def main() -> None:
    """Serve segments until stdin ends."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()
    _load()
    with joined() as ranks:
        hello = ranks.told(json.loads(sys.stdin.readline()) if ranks.first else None)
        try:
            worker = Worker(Setup.from_json(hello["setup"]), Path(hello["runs"]), ranks)
        except InputError as error:
            _fail(error, ranks)
            return
        if ranks.first:
            signal.signal(signal.SIGTERM, worker.stop)
            threading.Thread(target=worker.listen, daemon=True).start()
            _tell({"event": "ready"})
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first rank decides when to stop
        while (order := worker.order()) is not None:
            _serve(worker, order)


def _serve(worker: Worker, order: dict[str, Any]) -> None:
    """Work on one order and tell how it ended."""
    finished = None if order["finished"] is None else Recipe.from_json(order["finished"])
    try:
        done = worker.work(Segment.from_json(order["segment"]), finished)
        if worker.ranks.first:
            _tell(done)
    except Stopped:
        if worker.ranks.first:
            _tell({"event": "stopped"})
    except Exception as error:  # whatever happened to this segment, the next one may be fine
        _fail(error, worker.ranks)


def _fail(error: Exception, ranks: Ranks) -> None:
    """Tell of a failure that all ranks have; end, if it may be this rank's alone."""
    wrong_input = isinstance(error, InputError)
    if not wrong_input:
        traceback.print_exc()  # stderr is the worker's log
    if ranks.first and (ranks.world == 1 or wrong_input or isinstance(error, Diverged)):
        what = str(error) if wrong_input else f"{type(error).__name__}: {error}"
        _tell({"event": "failed", "error": what, "input": wrong_input})
    elif not isinstance(error, Diverged):
        if wrong_input:
            print(error, file=sys.stderr)
            time.sleep(SAY_SECONDS)
        os._exit(1)  # no farewell to ranks that may wait for this one


if __name__ == "__main__":
    main()
