"""The phases of a recipe as lines of text."""

from __future__ import annotations

from mixlaw.recipe import Decay, Phase, Recipe


def lr_end_of(phase: Phase) -> str:
    """Where the learning rate of a phase ends over the peak, and the shape of its fall if it is not linear."""
    shape = "" if phase.decay is Decay.LINEAR else f" ({phase.decay.value})"
    return "-" if phase.lr_end is None else f"{phase.lr_end:g}{shape}"


def phase_lines(recipe: Recipe) -> list[str]:
    """Each phase of a recipe on a line: tokens and mixture, and for the last one where its learning rate ends."""
    last = recipe.phases[-1]
    more = {last.name: f", lr to {lr_end_of(last)}" if last.lr_end is not None else ""}
    return [f"{p.name} {p.tokens:,}: {p.mixture}{more.get(p.name, '')}" for p in recipe.phases]
