"""Learning rate over the peak at any token of a recipe."""

from __future__ import annotations

import math

from mixlaw.recipe import Decay, Recipe, Schedule


def rate(recipe: Recipe, position: int, warmup: int) -> float:
    """Learning rate over the peak for the step that begins after `position` tokens.

    Linear warm-up over `warmup` tokens, times the schedule: warmup-stable-decay goes through every phase from where the
    one before it ended (1 at first) to its `lr_end`, in the phase's shape; cosine is one half wave over all tokens, to
    the last phase's `lr_end`.
    """
    warm = min(1.0, (position + 1) / warmup) if warmup else 1.0
    if recipe.schedule is Schedule.COSINE:
        end = recipe.cosine_end
        return warm * (end + (1 - end) * fall(Decay.COSINE, position / recipe.tokens))
    level, begin = 1.0, 0
    for phase in recipe.phases:
        end = 1.0 if phase.lr_end is None else phase.lr_end
        if position < begin + phase.tokens:
            done = (position - begin) / phase.tokens
            if phase.decay is Decay.LINEAR:
                return warm * (level + (end - level) * done)
            return warm * (end + (level - end) * fall(phase.decay, done))
        level, begin = end, begin + phase.tokens
    return warm * level


def fall(decay: Decay, done: float) -> float:
    """What is left of a fall from 1 to 0 after `done` (0..1) of it."""
    if decay is Decay.COSINE:
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - (math.sqrt(done) if decay is Decay.ONE_SQRT else done)
