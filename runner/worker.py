"""A worker process: takes segments from stdin, trains and evaluates them one after another, tells on stdout.

One JSON document per line. In: first {"setup", "runs"}, then {"segment", "finished"} any number of times. Out:
{"event": "ready" | "progress" | "done" | "stopped" | "failed", ...}. End of input ends the process; SIGTERM saves a
checkpoint and stops. Run as `python -m mixlaw.runner.worker`: it shares nothing with its driver but pipes and files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe
from mixlaw.records import Measurement, Record, write_record
from mixlaw.runner.corpora.shards import Shards, open_shards
from mixlaw.runner.evaluate import evaluate
from mixlaw.runner.loader import Batches
from mixlaw.runner.setup import Setup
from mixlaw.runner.train import Stopped, Trained, train_segment
from mixlaw.runner.tree import Segment


class Worker:
    """Trains segments of one study; the token shards are opened once."""

    def __init__(self, setup: Setup, runs: Path) -> None:
        self.setup, self.runs = setup, runs
        self.shards: Shards = open_shards(setup.folder)
        self.stopping = False

    def work(self, segment: Segment, finished: Recipe | None) -> dict[str, Any]:
        """Train a segment; where a recipe ends with it, evaluate and write its record. Returns the closing event."""
        streams = {name: self.shards[name].tokens for name in segment.recipe.domains if name in self.shards.domains}
        trained = train_segment(segment, self.setup, streams, self.runs, _tell_progress, lambda: self.stopping)
        began = time.monotonic()
        if finished is not None:
            batches = Batches(finished, streams, self.setup.sequence, self.setup.sequences(finished.params))
            write_record(self.runs, self._record(finished, trained, batches))
        seconds = time.monotonic() - began
        return {"event": "done", "loss": trained.loss, "seconds": trained.seconds, "evaluation_seconds": seconds}

    def _evaluate(self, trained: Trained) -> dict[str, Measurement]:
        found = evaluate(trained.model, self.setup.folder, self.setup.tasks, sequence=self.setup.sequence)
        return {task: Measurement(m.value, m.stderr, m.count) for task, m in found.items()}

    def _record(self, recipe: Recipe, trained: Trained, batches: Batches) -> Record:
        """What the run measured; nothing in it depends on when, where or in how many pieces it was trained."""
        rules = self.setup.hyperparameters(recipe.params)
        return Record(
            run=recipe.lineage,
            recipe=recipe,
            values=self._evaluate(trained),
            tokens={phase: {d: float(n) for d, n in drawn.items()} for phase, drawn in batches.achieved().items()},
            details={
                "epochs": batches.epochs(),
                "learning_rate": rules.learning_rate,
                "warmup_tokens": rules.warmup_tokens,
                "batch_tokens": self.setup.step_tokens(recipe.params),
                "flops": self.setup.flops(recipe.params, recipe.tokens),
            },
        )


def _tell(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _tell_progress(tokens: int) -> None:
    _tell({"event": "progress", "tokens": tokens})


def _quiet() -> None:
    """Stdout belongs to the protocol: libraries that print go to stderr, and progress bars stay off."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def main() -> None:
    """Serve segments until stdin ends."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    _quiet()
    hello = json.loads(sys.stdin.readline())
    worker = Worker(Setup.from_json(hello["setup"]), Path(hello["runs"]))

    def stop(*_: object) -> None:
        worker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    _tell({"event": "ready"})
    for line in sys.stdin:
        order = json.loads(line)
        finished = None if order["finished"] is None else Recipe.from_json(order["finished"])
        try:
            _tell(worker.work(Segment.from_json(order["segment"]), finished))
        except Stopped:
            _tell({"event": "stopped"})
        except InputError as error:
            _tell({"event": "failed", "error": str(error), "input": True})
        except Exception as error:  # whatever happened to this segment, the next one may be fine
            _tell({"event": "failed", "error": f"{type(error).__name__}: {error}", "input": False})
        if worker.stopping:
            return


if __name__ == "__main__":
    main()
