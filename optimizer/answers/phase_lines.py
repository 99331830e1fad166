"""The phases of a recipe as a table and as lines of text."""

from __future__ import annotations

from mixlaw.numbers import share, size
from mixlaw.recipe import Decay, Phase, Recipe
from mixlaw.tables import Cell, Column, Table


def lr_end_of(phase: Phase) -> str:
    """Where the learning rate of a phase ends over the peak, and the shape of its fall if it is not linear."""
    shape = "" if phase.decay is Decay.LINEAR else f" ({phase.decay.value})"
    return "-" if phase.lr_end is None else f"{phase.lr_end:g}{shape}"


def phase_lines(recipe: Recipe) -> list[str]:
    """Each phase of a recipe on a line: tokens and mixture, and for the last one where its learning rate ends."""
    last = recipe.phases[-1]
    more = {last.name: f", lr to {lr_end_of(last)}" if last.lr_end is not None else ""}
    return [f"{p.name} {size(p.tokens)}: {p.mixture}{more.get(p.name, '')}" for p in recipe.phases]


def schedule_table(recipe: Recipe) -> Table:
    """Shares of the domains in each phase, those with most tokens first, and its tokens and learning rate."""
    names = sorted(recipe.domains, key=lambda name: -recipe.domain_tokens(name))
    rows: list[list[Cell | str]] = [["tokens", *(Cell(size(p.tokens), p.tokens) for p in recipe.phases)]]
    for name in names:
        parts = (phase.mixture.share(name) for phase in recipe.phases)
        rows.append([name, *(Cell(share(part), part) for part in parts)])
    if any(phase.lr_end is not None for phase in recipe.phases):
        rows.append(["lr ends at", *(Cell(lr_end_of(p), p.lr_end) for p in recipe.phases)])
    return Table("schedule", ["share of tokens", *(Column(phase.name) for phase in recipe.phases)], rows)
