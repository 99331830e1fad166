"""Learning rate over the peak at any token of a recipe."""

from __future__ import annotations

import math

from mixlaw.recipe import Recipe, Schedule


def rate(recipe: Recipe, position: int, warmup: int) -> float:
    """Learning rate over the peak for the step that begins after `position` tokens.

    Linear warm-up over `warmup` tokens, times the schedule: warmup-stable-decay goes linearly through every phase from
    where the one before it ended (1 at first) to its `lr_end`; cosine is one half wave over all tokens.
    """
    warm = min(1.0, (position + 1) / warmup) if warmup else 1.0
    if recipe.schedule is Schedule.COSINE:
        return warm * 0.5 * (1 + math.cos(math.pi * position / recipe.tokens))
    level, begin = 1.0, 0
    for phase in recipe.phases:
        end = 1.0 if phase.lr_end is None else phase.lr_end
        if position < begin + phase.tokens:
            return warm * (level + (end - level) * (position - begin) / phase.tokens)
        level, begin = end, begin + phase.tokens
    return warm * level
