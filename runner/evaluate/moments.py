"""Held-out loss during training, at shares of a recipe: rows of the table with progress below 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixlaw.recipe import Recipe, Schedule
from mixlaw.records import MEASURED_ON, Measurement, Record, Unit
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.batches.shards import Shards
from mixlaw.runner.batches.tokenizer import load
from mixlaw.runner.evaluate.coding import Coding
from mixlaw.runner.evaluate.scoring import Window, held_out_windows, measured
from mixlaw.runner.models.loss import IGNORED, LossModule
from mixlaw.runner.plan.setup import Setup, held_out_rule
from mixlaw.runner.plan.tree import Segment
from mixlaw.runner.train.parallel import Ranks


def trained_until(recipe: Recipe, tokens: int) -> Recipe:
    """What a recipe has trained on after this many tokens, under the schedule that it follows."""
    phases, left = [], tokens
    for phase in recipe.phases:
        if left > 0:
            phases.append(replace(phase, tokens=min(phase.tokens, left)))
            left -= phase.tokens
    if recipe.schedule is Schedule.COSINE:
        phases[-1] = replace(phases[-1], lr_end=recipe.cosine_end)
    return replace(recipe, phases=tuple(phases))


class Moments:
    """The moments of a segment at which training measures; all ranks have the same.

    Args:
        segment: of which the recipe's moments are measured, though others may share it.
        setup: with `evaluate_at`.
        shards: the study's data.
        ranks: this process among those that train the segment.
        report: called on the first rank with every record.
    """

    def __init__(
        self, segment: Segment, setup: Setup, shards: Shards, ranks: Ranks, report: Callable[[Record], None]
    ) -> None:
        self.recipe, self.setup, self.shards, self.ranks, self.report = segment.recipe, setup, shards, ranks, report
        self.steps = setup.moments(self.recipe, segment.start, segment.stop)

    def measure(self, step: int, losses: LossModule, micro_batch: int, beat: Callable[[], None]) -> None:
        """Score held-out text of every domain that is a task, after this many steps; all ranks call it."""
        setup, tokens = self.setup, step * self.setup.step_tokens(self.recipe.params)
        most = setup.held_out_tokens or held_out_rule(self.recipe.params)
        coding = Coding(load(self.shards.tokenizer), self.shards.manifest.end)
        sizes, length = coding.bytes(), setup.sequence
        windows = {
            task: list(held_out_windows(coding.held_out(self.shards[task], length, most), sizes, length, most))
            for task in setup.tasks
            if task in self.shards.domains
        }
        masked, losses.end = losses.end, None  # a window is one document after an end of text, as in `evaluate`
        try:
            nats = iter(self._score([each for task in windows.values() for each in task], losses, micro_batch, beat))
        finally:
            losses.end = masked
        values: dict[str, Measurement] = {}
        for task, of in windows.items():
            values[task] = measured(Unit.BITS_PER_BYTE, of, np.array([next(nats) for _ in of]))
        if not self.ranks.first or not values:
            return
        recipe = trained_until(self.recipe, tokens)
        streams = {name: self.shards[name].tokens for name in recipe.domains}
        drawn = Batches(recipe, streams, length, setup.sequences(recipe.params)).achieved()
        details: dict[str, Any] = {
            MEASURED_ON: {task: setup.measured_on[task] for task in values if task in setup.measured_on}
        }
        by_phase = {phase: {d: float(n) for d, n in counts.items()} for phase, counts in drawn.items()}
        share = tokens / self.recipe.tokens
        self.report(Record(self.recipe.lineage, recipe, values, share, tokens=by_phase, details=details))

    def _score(
        self, windows: Sequence[Window], losses: LossModule, micro_batch: int, beat: Callable[[], None]
    ) -> NDArray[np.float64]:
        """Nats of each window, shape (windows,); ranks take turns, and each makes as many passes as the others."""
        ranks, width = self.ranks, self.setup.sequence
        nats = torch.zeros(len(windows), dtype=torch.float64, device=ranks.device)
        together = micro_batch * ranks.world
        for begin in range(0, len(windows), together):
            mine = range(begin + ranks.rank, min(begin + together, len(windows)), ranks.world)
            inputs = np.zeros((micro_batch, width), np.int64)
            labels = np.full((micro_batch, width), IGNORED)
            for row, number in enumerate(mine):
                tokens = windows[number].tokens
                inputs[row, : tokens.size - 1], labels[row, : tokens.size - 1] = tokens[:-1], tokens[1:]
            with torch.no_grad():
                losses(*(torch.from_numpy(ids).to(ranks.device) for ids in (inputs, labels)))
            nats[list(mine)] = losses.sequence_losses[: len(mine)].to(torch.float64)
            beat()
        return np.array(ranks.total(nats))
