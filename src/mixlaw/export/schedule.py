"""The learning rate of a recipe as trainers write it: constant after a warm-up, with one fall at its end."""

from __future__ import annotations

from dataclasses import dataclass

from mixlaw.recipe import Decay, Recipe, Schedule


@dataclass(frozen=True)
class RateSchedule:
    """Warm-up, constant peak, and one fall at the end; the cosine of a whole recipe is a fall after the warm-up.

    Attributes:
        tokens: of the recipe.
        falling: tokens over which the rate falls, the last ones; 0 where it stays at its peak.
        shape: of the fall.
        end: rate at the end over the peak.
        warmup: tokens of warm-up; None, the trainer's own.
    """

    tokens: int
    falling: int
    shape: Decay
    end: float
    warmup: int | None

    @property
    def share(self) -> float:
        """Share of the tokens over which the rate falls."""
        return self.falling / self.tokens


def schedule_of(recipe: Recipe) -> RateSchedule | str:
    """The schedule of a recipe, or why it has no such form."""
    if recipe.schedule is Schedule.COSINE:
        falling = max(1, recipe.tokens - (recipe.warmup or 0))
        return RateSchedule(recipe.tokens, falling, Decay.COSINE, recipe.cosine_end, recipe.warmup)
    *early, last = recipe.phases
    if any(phase.lr_end is None for phase in recipe.phases):
        return "the learning rate of the recipe is not known"
    if falls := [phase.name for phase in early if phase.lr_end != 1]:
        return f"the learning rate falls in {', '.join(falls)} and not only at the end, which its schedule cannot say"
    end = 1.0 if last.lr_end is None else last.lr_end
    return RateSchedule(recipe.tokens, last.tokens if end < 1 else 0, last.decay, end, recipe.warmup)
