"""Train one segment of the tree, from its parent's checkpoint to its own; killed at any moment, it resumes exactly.

On CPUs that is to the bit; on GPUs sums may differ in their last digits, as atomic additions do.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from mixlaw.errors import InputError
from mixlaw.runner.batches.loader import Batches, Prefetcher, Tokens
from mixlaw.runner.models.context import set_context
from mixlaw.runner.models.foreign import check_start
from mixlaw.runner.models.llama import optimizer_of
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.checkpoint import Saving
from mixlaw.runner.train.log import Entry, Meter, open_sinks
from mixlaw.runner.train.parallel import ALONE, Ranks, release_memory, shard_model
from mixlaw.runner.train.spikes import ROLLBACKS, Diverging, Watch
from mixlaw.runner.train.step import OutOfMemory as OutOfMemory
from mixlaw.runner.train.step import StepPlan, fresh_model, rate, step_plan, train_step
from mixlaw.runner.train.store import (
    FINAL,
    PARTIAL,
    check_optimizer,
    expendable,
    origin,
    partial_name,
    partial_steps,
    remove,
)
from mixlaw.runner.train.trained import Trained as Trained

REPORT_SECONDS = 0.5


class Look(Protocol):
    """Measures a model while it trains."""

    @property
    def steps(self) -> Collection[int]:
        """After how many steps; the same on all ranks."""

    def measure(self, step: int, losses: LossModule, micro_batch: int, beat: Callable[[], None]) -> None:
        """Measure after a step, calling `beat` from time to time; all ranks call it."""


class Diverged(RuntimeError):
    """The loss is not finite or spikes, again after every rollback."""


class Stopped(RuntimeError):
    """Stopped by the caller; a checkpoint holds the progress."""


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
    plan: StepPlan | None = None,
    moments: Look | None = None,
) -> Trained:
    """Train a segment and write `runs/<lineage>/checkpoint`; all ranks call it.

    Args:
        segment: what to train; its parent's checkpoint is in `runs`.
        setup: hyperparameters and data.
        streams: tokens per domain.
        runs: folder of the study's runs, the same for all ranks.
        report: called with the tokens of the segment done so far, about twice a second.
        stop: called after every step; True saves a checkpoint and raises Stopped.
        saved: called with every checkpoint, partial or final, once it is complete on disk.
        ranks: this process among those that train the segment together; these functions are the first one's.
        log: called with every entry of the segment's log, and None at its end.
        plan: how to compute a step; None decides by the memory that is free.
        moments: measures after some steps.

    Raises:
        InputError: a checkpoint is damaged, or a domain of the recipe has no tokens.
        Diverged: the loss was not finite or spiked again after ROLLBACKS rollbacks.
        Stopped: `stop` returned True.
        OutOfMemory: memory did not suffice for the plan; a single process goes on with smaller ones by itself.
    """
    return _Loop(segment, setup, streams, runs, _Calls(report, stop, saved, log, moments), ranks, plan).run()


@dataclass(frozen=True)
class _Calls:
    """The functions of the caller."""

    report: Callable[[int], None]
    stop: Callable[[], bool]
    saved: Callable[[Path], None]
    log: Callable[[Entry | None], None]
    moments: Look | None


@dataclass
class _State:
    """State that changes from step to step."""

    losses: LossModule
    adamw: torch.optim.Optimizer
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
        plan: StepPlan | None,
    ) -> None:
        params, sequence = segment.recipe.params, setup.sequence
        self.rules, self.step_tokens = setup.rates(segment.recipe), setup.step_tokens(params)
        batches = Batches(segment.recipe, streams, sequence, setup.sequences(params))
        self.phase = next(phase for phase in segment.recipe.phases if phase.name == segment.phase)
        setup = setup.in_phase(params, self.phase)
        self.ratio = setup.sequence / sequence
        self.segment, self.setup, self.runs, self.calls, self.ranks = segment, setup, runs, calls, ranks
        self.sequences, self.home = setup.sequences(params), runs / segment.lineage
        if self.sequences < ranks.world:
            raise InputError(
                f"a step has {self.sequences} sequences, too few for {ranks.world} devices; raise training.batch"
            )
        self.last = segment.stop // self.step_tokens
        self.batches = Prefetcher(batches, self.last, ranks.rank, ranks.world)
        self.watch = Watch(begin=segment.start // self.step_tokens)
        self.tail: list[tuple[int, float]] = []
        self.saving: Saving | None = None
        self.saved = self.took = 0.0  # when the last checkpoint was complete, and the seconds that it took
        release_memory()
        self.plan = plan or step_plan(setup, params, ranks)
        self.reported = time.monotonic()
        # All segments of a study share compiled code.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(runs.resolve().parent / "compiled"))

    def run(self) -> Trained:
        """Train to the end, with rollbacks."""
        try:
            return self._run()
        finally:  # where training failed, what was being written is completed all the same
            if self.saving is not None:
                with suppress(Exception):
                    self.saving.wait()

    def _run(self) -> Trained:
        state = self._begin(None)
        began, first = time.monotonic(), state.step
        with self._meter(first) as meter:
            while True:
                at, most = state.step, None
                event: dict[str, Any] = {"event": "out of memory"}
                try:
                    self._train(state, meter)
                    break
                except torch.OutOfMemoryError as error:
                    self.plan = self._smaller(error)
                    at = state.step
                    event |= {"micro_batch": self.plan.micro_batch, "recompute": self.plan.recompute}
                except Diverging as diverging:
                    if self.watch.rollbacks > ROLLBACKS:
                        raise Diverged(
                            f"the loss is {diverging.loss} at step {state.step} of {self.segment.lineage} after "
                            f"{ROLLBACKS} rollbacks; lower training.learning_rate"
                        ) from diverging
                    at, most = state.step, diverging.step
                    event = {"event": "rolled back", "loss": repr(diverging.loss)}
                del state  # before there is another one
                release_memory()
                state = self._begin(most)
                self._forget_after(state.step)
                meter.resumed(at, state.step, **event)
        seconds = time.monotonic() - began
        self._finish(state)
        done = max(1, (self.last - first) // 10)
        tail = [loss for step, loss in self.tail if step >= self.last - done]
        mean = sum(tail) / len(tail) if tail else float("nan")
        speed = (self.last - first) * self.step_tokens / max(seconds, 1e-9)
        model = None if self.ranks.shards else state.losses.model  # shards and moments go, before it is read back
        skipped = tuple(self.watch.skipped)
        return Trained(self.home / FINAL, self.ranks.device, mean, seconds, speed, skipped, self.ranks.bf16, model)

    def _train(self, state: _State, meter: Meter) -> None:
        """Step by step to the end of the segment.

        Raises:
            Diverging: too many bad steps in a row.
            Stopped: the caller's `stop` returned True.
        """
        self.saved = time.monotonic()
        while state.step < self.last:
            step = state.step
            if not self.watch.skips(step):
                self._step(state, meter)
            state.step += 1
            self._report(state.step)
            moments = self.calls.moments
            if moments is not None and state.step in moments.steps:
                moments.measure(state.step, state.losses, self.plan.micro_batch, lambda: self._report(state.step))
            if state.step < self.last:
                stop, late, written = self.ranks.agreed(self.calls.stop(), self._late(), self._written())
                if stop or written:
                    self._finish_saving()
                if stop or late:
                    self._save_partial(state)
                if stop:
                    self._finish_saving()
                    raise Stopped(self.segment.lineage)

    def _late(self) -> bool:
        """Whether it is time for a checkpoint; training gets at least as long between two as one takes."""
        return self.saving is None and time.monotonic() - self.saved > max(self.took, self.setup.checkpoint_seconds)

    def _written(self) -> bool:
        """Whether a checkpoint has just been written."""
        return self.saving is not None and self.saving.done

    def _report(self, step: int) -> None:
        """Report the steps done, unless that was done just now; inside long steps too: silence means a hang."""
        now = time.monotonic()
        if now - self.reported > REPORT_SECONDS and self.ranks.first:
            self.calls.report(step * self.step_tokens - self.segment.start)
            self.reported = now

    def _smaller(self, error: torch.OutOfMemoryError) -> StepPlan:
        """The plan to go on with.

        Raises:
            InputError, MemoryError: one sequence is too much, for one process and for one of several.
            OutOfMemory: of several ranks, which wait for each other and have to begin again together.
        """
        plan, several = self.plan.smaller(), self.ranks.world > 1
        if plan is None:
            kind = MemoryError if several else InputError  # this rank's alone: it must not wait for orders
            raise kind(
                f"one sequence of {self.setup.sequence} of a model of {self.segment.recipe.params:,} parameters does "
                f"not fit on {self.ranks.world} device(s) ({error}); take more or larger ones, or lower "
                "training.sequence"
            ) from error
        if several:
            raise OutOfMemory(plan) from error
        return plan

    def _step(self, state: _State, meter: Meter) -> None:
        """Train on the batch of a step, unless it is a bad one."""
        step = state.step
        tokens, codes = map(torch.from_numpy, self.batches.at(step))
        factor = rate(self.segment.recipe, step * self.step_tokens, self.rules.warmup_tokens)
        result = train_step(
            state.losses,
            state.adamw,
            tokens,
            self.rules.learning_rate * factor,
            sequences=self.sequences,
            micro_batch=self.plan.micro_batch,
            clip=self.rules.clip,
            ranks=self.ranks,
            accept=lambda loss, norm: self.watch.accepts(step, loss, norm),
            beat=lambda: self._report(step),
            domains=(codes, len(self.segment.recipe.domains)),
        )
        self.tail.append((step, result.loss))
        meter.tick(step, result, self.rules.learning_rate * factor)
        if step + 1 == self.last and not math.isfinite(result.loss + result.norm):
            raise self.watch.diverging(step, result.loss)

    def _begin(self, most: int | None) -> _State:
        """Model, optimizer and step to resume from, with at most this many steps done."""
        self._finish_saving()
        folder = self.ranks.broadcast(origin(self.segment, self.setup, self.runs, most))
        step, extra, moments = 0, dict[str, Any](), True
        if folder is not None:
            if folder != self.home / FINAL:
                check_optimizer(folder)
            step, extra = checkpoint.read_state(folder, self.ranks)
        elif (start := self.setup.start) is not None:
            self.ranks.on_first(lambda: check_start(start))
            folder, moments = Path(start.path), start.optimizer
        params, seed = self.segment.recipe.params, self.segment.recipe.seed
        model, fill = checkpoint.source(folder, lambda: fresh_model(self.setup, params, seed), moments, self.ranks)
        if self.phase.context is not None:
            set_context(model, self.phase.context, self.ratio)
        self.ranks.broadcast()  # some read faster than others: from here on they wait minutes, no longer
        model.train(False)  # no dropout, which foreign models may have: a resumed run could not repeat it
        how = {"recompute": self.plan.recompute, "compiled": self.plan.compiled}
        end = self.setup.end if self.setup.document_masks else None
        losses = shard_model(model, self.ranks, **how, z_loss=self.rules.z_loss, end=end)
        adamw = optimizer_of(model, self.rules, self.setup.muon, self.setup.architecture)
        fill(model, adamw)
        phases = self.segment.recipe.phases
        begins = [sum(phase.tokens for phase in phases[:index]) for index in range(len(phases))]
        self.watch.resume(extra, same_phase=step * self.step_tokens not in begins)
        return _State(losses, adamw, step)

    def _save(self, folder: Path, state: _State, *, keep_optimizer: bool = True, wait: bool = True) -> Saving:
        extra, model = self.watch.as_json(), state.losses.model
        step, tokenizer = state.step, self.setup.tokenizer
        return checkpoint.save(folder, model, state.adamw, step, tokenizer, extra, self.ranks, keep_optimizer, wait)

    def _save_partial(self, state: _State) -> None:
        """Begin to write a checkpoint inside the segment; training goes on."""
        self.saved = time.monotonic()
        self.saving = self._save(self.home / partial_name(state.step), state, wait=False)

    def _finish_saving(self) -> None:
        """Wait for the checkpoint that is being written, then delete those no rollback will need; all ranks call it.

        Raises:
            RuntimeError: it could not be written.
        """
        if self.saving is None:
            return
        saving, self.saving = self.saving, None
        saving.wait()
        self.ranks.broadcast()  # complete for all
        if self.ranks.first:
            self.calls.saved(saving.folder)
            begin, steps = self.segment.start // self.step_tokens, partial_steps(self.home)
            for step in expendable(steps, begin):
                remove(self.home / partial_name(step))
        began, self.saved = self.saved, time.monotonic()
        self.took = self.saved - began

    def _forget_after(self, step: int) -> None:
        """Delete the checkpoints after `step` and their losses: training takes another way from there."""
        self.tail = [(at, loss) for at, loss in self.tail if at < step]
        for later in partial_steps(self.home) if self.ranks.first else ():
            if later > step:
                remove(self.home / partial_name(later))

    def _finish(self, state: _State) -> None:
        """Write the final checkpoint and delete the partial ones."""
        self._finish_saving()
        if not self.ranks.agreed((self.home / FINAL).exists())[0]:
            keep = self.setup.keep_optimizer or not self.segment.is_leaf
            self._save(self.home / FINAL, state, keep_optimizer=keep)
            if self.ranks.first:
                self.calls.saved(self.home / FINAL)
        for partial in self.home.glob(f"{PARTIAL}*") if self.ranks.first else ():
            remove(partial)

    @contextmanager
    def _meter(self, first: int) -> Iterator[Meter]:
        """A meter that logs into the study, closed at the end."""
        recipe = self.segment.recipe
        logs = self.ranks.first and first < self.last
        sinks = [*open_sinks(self.setup.sinks, self.runs, self.segment), self.calls.log] if logs else []
        flops, steps = self.setup.flops(recipe.params, 1), (first, self.last)
        meter = Meter(self.ranks, sinks, flops, self.step_tokens, steps, recipe.domains)
        try:
            yield meter
        finally:
            meter.close()
            self.batches.close()
