"""What a plan costs: FLOPs with and without sharing, hours on so many workers, disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixlaw.printable import Printable
from mixlaw.recipe import Recipe
from mixlaw.runner.plan import show as plan_text
from mixlaw.runner.plan.placement import makespan
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, Tree


@dataclass(frozen=True)
class Plan(Printable):
    """A segment tree with its price.

    Attributes:
        tree: segments and recipes.
        setup: how they are trained.
        measured: lineages of recipes that have a record.
        trained: lineages that have a checkpoint.
        speed: params -> measured training tokens per second of one worker, at least for sizes still to be trained.
        workers: processes that train at once.
    """

    tree: Tree
    setup: Setup
    measured: frozenset[str]
    trained: frozenset[str]
    speed: Mapping[int, float]
    workers: int

    @property
    def pending(self) -> list[Segment]:
        """Segments still to be trained or evaluated."""
        return self.tree.needed(self.measured, self.trained)

    @property
    def untrained(self) -> list[Segment]:
        """Segments still to be trained."""
        return self.tree.untrained(self.measured, self.trained)

    @property
    def flops_shared(self) -> float:
        """FLOPs of the tree, every segment once."""
        return sum(self.setup.flops(s.recipe.params, s.tokens) for s in self.tree.segments)

    @property
    def flops_separate(self) -> float:
        """FLOPs of the same recipes, each trained from its initialisation."""
        return sum(self.setup.flops(recipe.params, recipe.tokens) for recipe in self.tree.recipes)

    @property
    def tokens_shared(self) -> int:
        """Tokens of the tree, every segment once."""
        return sum(segment.tokens for segment in self.tree.segments)

    @property
    def seconds(self) -> float:
        """Training time of what is pending on `workers` workers, segments handed out longest way first."""
        return makespan({s.lineage: (s.parent, self.segment_seconds(s)) for s in self.untrained}, self.workers)

    def segment_seconds(self, segment: Segment) -> float:
        """Training time of one segment on one worker."""
        return segment.tokens / self.speed[segment.recipe.params]

    @property
    def disk_bytes(self) -> int:
        """Disk for a checkpoint (weights and two moments, 4 bytes each) at the end of every segment."""
        return sum(self.checkpoint_bytes(segment.recipe) for segment in self.tree.segments)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return plan_text.as_json(self)

    def __str__(self) -> str:
        return plan_text.text(self)

    def checkpoint_bytes(self, recipe: Recipe) -> int:
        """Bytes of one checkpoint: weights, embeddings among them, and two moments of 4 bytes each."""
        return 12 * self.setup.weights(recipe.params)
