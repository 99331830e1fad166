"""How the learning rate goes in what a target still has to train, apart from the end of its last phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mixlaw.errors import InputError
from mixlaw.recipe import Decay, Recipe, Schedule


@dataclass(frozen=True)
class Rates:
    """Peak rate, schedule, and the decays of phases; None is what the measured runs usually have.

    Attributes:
        lr: peak rate over that of the rule for the size.
        warmup: tokens of warm-up; None, the rule's.
        schedule: decays by phase, or one cosine over all of them.
        ends: learning rate at the end of phases before the last, over the peak.
        shapes: shape of the fall to the end of a phase.

    Raises:
        InputError: a rate that is not positive, or an end outside 0..1.
    """

    lr: float | None = None
    warmup: int | None = None
    schedule: Schedule | None = None
    ends: Mapping[str, float] = field(default_factory=dict)
    shapes: Mapping[str, Decay] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"lr, the peak rate over the rule's, must be above 0, got {self.lr}; 1 is the rule's")
        wrong = {name: end for name, end in self.ends.items() if not 0 <= end <= 1}
        if wrong:
            raise InputError(f"the learning rate must end between 0 and 1 of its peak, got {wrong}; 1 stays constant")

    @classmethod
    def of(cls, recipe: Recipe) -> Rates:
        """Those of a recipe."""
        return cls(
            lr=recipe.lr,
            warmup=recipe.warmup,
            schedule=recipe.schedule,
            ends={p.name: p.lr_end for p in recipe.phases[:-1] if p.lr_end is not None},
            shapes={p.name: p.decay for p in recipe.phases},
        )

    def end(self, phase: str) -> float:
        """Where the rate of a phase before the last ends, over the peak."""
        return self.ends.get(phase, 1.0)

    def applied(self, recipe: Recipe, count: int) -> Recipe:
        """The recipe with these rates in its last `count` phases; the end of the last one stays."""
        done, rest = recipe.phases[: len(recipe.phases) - count], recipe.phases[len(recipe.phases) - count :]
        phases = [replace(p, lr_end=self.end(p.name), decay=self.shapes.get(p.name, p.decay)) for p in rest[:-1]]
        last = replace(rest[-1], decay=self.shapes.get(rest[-1].name, rest[-1].decay))
        return replace(
            recipe,
            phases=(*done, *phases, last),
            schedule=self.schedule or Schedule.WSD,
            lr=1.0 if self.lr is None else self.lr,
            warmup=self.warmup,
        )
