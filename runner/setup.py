"""How a study trains: the ladder's rules with the study's overrides, as one value that travels to the workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mixlaw.recipe import Recipe
from mixlaw.runner.ladder import RULES, Hyperparameters, batch_rule, hyperparameters, shape


@dataclass(frozen=True)
class Setup:
    """Training settings of a study; None means the rule of `runner.ladder` for the size.

    Attributes:
        data: folder of tokenizer, shards and items.
        data_hash: identity of what lies in it.
        vocabulary: token ids.
        sequence: tokens per sequence.
        batch: sequences per step.
        learning_rate, warmup_tokens, beta2: overrides.
        tasks: names of the tasks to evaluate at the end of a run.
        checkpoint_seconds: seconds between the checkpoints that a killed segment resumes from.
    """

    data: str
    data_hash: str
    vocabulary: int
    sequence: int
    tasks: tuple[str, ...]
    batch: int | None = None
    learning_rate: float | None = None
    warmup_tokens: int | None = None
    beta2: float | None = None
    checkpoint_seconds: float = 300.0

    @property
    def identity(self) -> str:
        """Hash of all that changes what a recipe trains to: shards, settings and rules, not tasks and folders."""
        free = ("data", "tasks", "checkpoint_seconds")
        decisive = {name: value for name, value in asdict(self).items() if name not in free}
        return hashlib.sha256(json.dumps([RULES, decisive], sort_keys=True).encode()).hexdigest()[:16]

    def sequences(self, params: int) -> int:
        """Sequences per step for a size."""
        return self.batch or max(1, round(batch_rule(params) / self.sequence))

    def step_tokens(self, params: int) -> int:
        """Tokens per step for a size."""
        return self.sequences(params) * self.sequence

    def hyperparameters(self, params: int) -> Hyperparameters:
        """Learning rate, warm-up and optimizer memory for a size."""
        rule = hyperparameters(params, self.step_tokens(params))
        return Hyperparameters(
            learning_rate=self.learning_rate or rule.learning_rate,
            warmup_tokens=rule.warmup_tokens if self.warmup_tokens is None else self.warmup_tokens,
            beta2=self.beta2 or rule.beta2,
        )

    def flops(self, params: int, tokens: int) -> float:
        """Training FLOPs of so many tokens at a size."""
        return shape(params).flops_per_token(self.vocabulary, self.sequence) * tokens

    def adopt(self, recipe: Recipe) -> Recipe:
        """The recipe as it will be trained here: a size of the ladder, whole batches per phase, this data identity."""
        params = shape(recipe.params).params
        step = self.step_tokens(params)
        whole = tuple(replace(p, tokens=max(1, round(p.tokens / step)) * step) for p in recipe.phases)
        return replace(recipe, params=params, phases=whole, data=self.identity)

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Setup.from_json`."""
        return {**asdict(self), "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setup:
        """Read what `as_json` wrote."""
        return cls(**{**data, "tasks": tuple(data["tasks"])})

    @property
    def folder(self) -> Path:
        """The data folder as a path."""
        return Path(self.data)

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer, which every checkpoint takes along."""
        return self.folder / "tokenizer"
