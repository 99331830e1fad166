"""Train one segment of the tree, from its parent's checkpoint to its own; killed at any moment, it resumes exactly."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mixlaw.errors import InputError
from mixlaw.runner.batches.loader import Batches, Tokens
from mixlaw.runner.models.foreign import load_start
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.checkpoint_files import origin, remove
from mixlaw.runner.train.log import Meter
from mixlaw.runner.train.parallel import ALONE, Ranks, spread
from mixlaw.runner.train.schedule import rate
from mixlaw.runner.train.sinks import Entry, Sink, opened
from mixlaw.runner.train.spikes import RETURNS, Diverging, Watch
from mixlaw.runner.train.step import Passes, passes, train_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPORT_SECONDS = 0.5


class Diverged(RuntimeError):
    """The loss is no longer a number, or leaps again and again."""


class Stopped(RuntimeError):
    """Asked to stop; what was done is in a checkpoint."""


@dataclass(frozen=True)
class Trained:
    """What a finished segment leaves.

    Attributes:
        model: whole, on the device it was trained on; of several ranks only the first has it whole.
        loss: mean of its last tenth, nats per token.
        seconds, tokens_per_second: of this call.
        skipped: steps since the beginning of the recipe that were not made, their batches being bad.
    """

    model: PreTrainedModel
    loss: float
    seconds: float
    tokens_per_second: float
    skipped: tuple[int, ...] = ()


def train_segment(
    segment: Segment,
    setup: Setup,
    streams: Mapping[str, Tokens],
    runs: Path,
    report: Callable[[int], None] = lambda tokens: None,
    stop: Callable[[], bool] = lambda: False,
    saved: Callable[[Path], None] = lambda checkpoint: None,
    ranks: Ranks = ALONE,
    log: Callable[[Entry | None], None] = lambda entry: None,
) -> Trained:
    """Train a segment and leave `runs/<lineage>/checkpoint`.

    Args:
        segment: what to train; its parent's checkpoint lies under `runs`.
        setup: hyperparameters and data.
        streams: tokens per domain.
        runs: folder of the study's runs, the same for all ranks.
        report: told the tokens of the segment done so far, about twice a second.
        stop: asked after every step; True saves a checkpoint and raises Stopped.
        saved: told every checkpoint, partial or final, once it is whole on disk.
        ranks: this process among those that train the segment together; the first one reports, asks and tells.
        log: told every entry of the segment's log, and None at its end.

    Raises:
        InputError: a checkpoint is damaged, or a domain of the recipe has no tokens.
        Diverged: the loss became infinite or not a number, or leapt, more often than turning back can mend.
        Stopped: `stop` said so.
    """
    return _Loop(segment, setup, streams, runs, _Calls(report, stop, saved, log), ranks).run()


@dataclass(frozen=True)
class _Calls:
    """What the caller wants to be told and asked."""

    report: Callable[[int], None]
    stop: Callable[[], bool]
    saved: Callable[[Path], None]
    log: Callable[[Entry | None], None]


@dataclass
class _State:
    """What changes from step to step."""

    losses: LossModule
    adamw: torch.optim.AdamW
    step: int


class _Loop:
    """The training of one segment."""

    def __init__(
        self,
        segment: Segment,
        setup: Setup,
        streams: Mapping[str, Tokens],
        runs: Path,
        calls: _Calls,
        ranks: Ranks,
    ) -> None:
        self.segment, self.setup, self.runs, self.calls, self.ranks = segment, setup, runs, calls, ranks
        params = segment.recipe.params
        self.rules, self.step_tokens = setup.hyperparameters(params), setup.step_tokens(params)
        self.sequences, self.home = setup.sequences(params), runs / segment.lineage
        if self.sequences < ranks.world:
            raise InputError(
                f"a step has {self.sequences} sequences, too few for {ranks.world} devices; raise training.batch"
            )
        self.batches = Batches(segment.recipe, streams, setup.sequence, self.sequences)
        self.last = segment.stop // self.step_tokens
        self.watch = Watch(begin=segment.start // self.step_tokens)
        self.tail: list[tuple[int, float]] = []
        self.passes: Passes = passes(setup, params, ranks)
        # All segments of a study find what one of them compiled.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(runs.resolve().parent / "compiled"))

    def run(self) -> Trained:
        """Train to the end, turning back as often as it helps."""
        state = self._begin(None)
        began, first = time.monotonic(), state.step
        with self._meter(first) as meter:
            while True:
                try:
                    self._train(state, meter)
                    break
                except Diverging as spoilt:
                    if self.watch.returns > RETURNS:
                        raise Diverged(
                            f"the loss is {spoilt.loss} at step {state.step} of {self.segment.lineage}, though it "
                            f"turned back {RETURNS} times; lower training.learning_rate"
                        ) from spoilt
                    at, state = state.step, self._begin(spoilt.step)
                    meter.turned_back(at, state.step, spoilt.loss)
        seconds = time.monotonic() - began
        self._finish(state)
        done = max(1, (self.last - first) // 10)
        tail = [loss for step, loss in self.tail if step >= self.last - done]
        mean = sum(tail) / len(tail) if tail else float("nan")
        speed = (self.last - first) * self.step_tokens / max(seconds, 1e-9)
        return Trained(self._whole(state), mean, seconds, speed, tuple(self.watch.skipped))

    def _train(self, state: _State, meter: Meter) -> None:
        """Step by step to the end of the segment.

        Raises:
            Diverging: too many bad steps in a row.
            Stopped: the caller wants it.
        """
        kept = told = time.monotonic()
        while state.step < self.last:
            step = state.step
            if not self.watch.skips(step):
                self._step(state, meter)
            state.step += 1
            now = time.monotonic()
            if now - told > REPORT_SECONDS and self.ranks.first:
                self.calls.report(state.step * self.step_tokens - self.segment.start)
                told = now
            if state.step < self.last:
                stop, late = self.ranks.decided(self.calls.stop(), now - kept > self.setup.checkpoint_seconds)
                if stop or late:
                    self._save_partial(state)
                    kept = now
                if stop:
                    raise Stopped(self.segment.lineage)

    def _step(self, state: _State, meter: Meter) -> None:
        """Train on the batch of a step, unless its loss says better not."""
        step = state.step
        tokens = torch.from_numpy(self.batches.at(step, self.ranks.rank, self.ranks.world))
        factor = rate(self.segment.recipe, step * self.step_tokens, self.rules.warmup_tokens)
        seen = train_step(
            state.losses,
            state.adamw,
            tokens,
            self.rules.learning_rate * factor,
            sequences=self.sequences,
            at_once=self.passes.sequences,
            ranks=self.ranks,
            judge=lambda loss, norm: self.watch.made(step, loss, norm),
        )
        self.tail.append((step, seen.loss))
        meter.tick(step, seen, self.rules.learning_rate * factor)
        if step + 1 == self.last and not math.isfinite(seen.loss + seen.norm):
            raise self.watch.spoilt(step, seen.loss)

    def _begin(self, most: int | None) -> _State:
        """Model, optimizer and step to go on from, with at most so many steps done."""
        found = origin(self.segment, self.setup, self.runs, most)
        step, moments, kept = 0, dict[str, torch.Tensor](), {}
        if found is not None:
            restored = checkpoint.load(found)
            model, moments, step, kept = restored.model, restored.moments, restored.step, restored.kept
        elif self.setup.start is not None:
            model, moments = load_start(self.setup.start)
        else:
            size, seed = shape(self.segment.recipe.params), self.segment.recipe.seed
            model = initialise(size, self.setup.vocabulary, self.setup.sequence, seed, self.setup.end)
        model.train(False)  # no dropout, which foreign models may have: a resumed run could not repeat it
        losses = spread(model, self.ranks, recompute=self.passes.recompute, compiled=self.passes.compiled)
        adamw = optimizer(model, self.rules.learning_rate, self.rules.beta2)
        checkpoint.restore_moments(adamw, model, moments)
        phases = self.segment.recipe.phases
        begins = [sum(phase.tokens for phase in phases[:index]) for index in range(len(phases))]
        self.watch.go_on(kept, same_phase=step * self.step_tokens not in begins)
        return _State(losses, adamw, step)

    def _save(self, folder: Path, state: _State) -> None:
        kept = self.watch.as_json()
        model, ranks = state.losses.model, self.ranks
        checkpoint.save(folder, model, state.adamw, state.step, self.setup.tokenizer, kept, ranks)
        if ranks.first:
            self.calls.saved(folder)

    def _save_partial(self, state: _State) -> None:
        """Write a checkpoint inside the segment; the one before it goes only once the new one is whole."""
        older = list(self.home.glob("partial-*"))
        newest = self.home / f"partial-{state.step:012}"
        self._save(newest, state)
        for path in older if self.ranks.first else ():
            if path != newest:
                remove(path)

    def _finish(self, state: _State) -> None:
        """Leave the final checkpoint and nothing beside it."""
        if not self.ranks.decided((self.home / "checkpoint").exists())[0]:
            self._save(self.home / "checkpoint", state)
        for partial in self.home.glob("partial-*") if self.ranks.first else ():
            remove(partial)

    def _whole(self, state: _State) -> PreTrainedModel:
        """The model to evaluate: its weights together again, where they were shared."""
        if self.ranks.shards and self.ranks.first:
            model = checkpoint.load_model(self.home / "checkpoint")
            model.to(self.ranks.device)  # type: ignore[arg-type]
            return model
        trained: PreTrainedModel = state.losses.model
        return trained

    @contextmanager
    def _meter(self, first: int) -> Iterator[Meter]:
        """A meter that logs into the study, closed at the end."""
        recipe = self.segment.recipe
        sinks: list[Sink] = []
        if self.ranks.first and first < self.last:
            sinks = [*opened(self.setup.sinks, self.runs, self.segment), self.calls.log]
        meter = Meter(self.ranks, sinks, self.setup.flops(recipe.params, 1), self.step_tokens, (first, self.last))
        try:
            yield meter
        finally:
            meter.close()
