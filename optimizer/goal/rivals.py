"""Recipes that a proposal has to beat, each as good as the target lets it be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.optimizer.answers.proposal import PROPOSAL
from mixlaw.optimizer.goal.baselines import named
from mixlaw.optimizer.goal.evidence import Entry
from mixlaw.optimizer.goal.gains import recipes_losses
from mixlaw.optimizer.goal.goal import Worth
from mixlaw.optimizer.goal.posterior import Beliefs
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.recipe import Mixture, Phase, Recipe

BASELINES = ("proportional", "text-only", "balanced->text")
SIZES = 9  # tried for a baseline whose size is free


@dataclass(frozen=True, eq=False)
class Rivals:
    """Baselines with what they are expected to measure.

    Attributes:
        entries: by name.
        losses: log losses of each in every draw, (S, T).
        best: name of the one that is worth most.
    """

    entries: Mapping[str, Entry]
    losses: Mapping[str, Tensor]
    best: str


def rivals_of(
    beliefs: Beliefs,
    variants: Sequence[Feasible],
    worth: Worth,
    wanted: Sequence[str] | Mapping[str, Recipe],
    draws: int,
) -> Rivals:
    """Build baselines for a target: for each name the best of its branches and sizes.

    Raises:
        InputError: no baseline, an unknown one, or one that is called like the proposal.
    """
    if not wanted or PROPOSAL in wanted:
        raise InputError(f"give at least one baseline, none called {PROPOSAL!r}; got {list(wanted)}")
    tried = [(name, entry) for allowed in variants for name in wanted for entry in _entries(name, wanted, allowed)]
    every = torch.cat(
        [_losses(beliefs, allowed, [e for _, e in tried if e.allowed is allowed], draws) for allowed in variants], 1
    )
    entries, losses = {}, {}
    for name in wanted:
        mine = [i for i, (of, _) in enumerate(tried) if of == name]
        found = every[:, mine]  # (S, entries, T)
        best = mine[int(worth.total(found, found[:, 0]).mean(0).argmax())]
        entries[name], losses[name] = tried[best][1], every[:, best]
    every = torch.stack(list(losses.values()), 1)
    best = int(worth.total(every, every.mean(1)).mean(0).argmax())
    return Rivals(entries, losses, list(wanted)[best])


def _losses(beliefs: Beliefs, allowed: Feasible, entries: Sequence[Entry], draws: int) -> Tensor:
    """Log losses of entries of one branch, (draws, entries, T)."""
    return recipes_losses(beliefs, allowed, [entry.recipe for entry in entries], draws)


def _entries(name: str, wanted: Sequence[str] | Mapping[str, Recipe], allowed: Feasible) -> list[Entry]:
    """One baseline at every size to try; a recipe that is given is what it is."""
    if isinstance(wanted, Mapping):
        return [Entry(wanted[name], allowed)]
    target = allowed.target
    if target.sizes is None:
        return [Entry(_baseline(name, target, allowed), allowed)]
    sizes = np.geomspace(*allowed.sizes, SIZES).tolist()
    return [Entry(_baseline(name, target.at(size), allowed), allowed) for size in sizes]


def _baseline(name: str, target: Target, allowed: Feasible) -> Recipe:
    """A named baseline with lengths in the middle of what is allowed, going on from the target's prefix."""
    tokens = {part.phase: part.tokens for part in target.prefix} | target.phase_tokens(sum(allowed.cooldown) / 2)
    whole = named(name)(target.params, tokens, allowed.domains, sum(target.lr_range) / 2)
    past = tuple(part.as_phase() for part in target.prefix) if target.known else ()
    first, *later = whole.phases[len(target.prefix) :]
    return Recipe(target.params, (*past, _gone_on(first, target.under_way), *later))


def _gone_on(phase: Phase, begun: Trained | None) -> Phase:
    """A phase whose mixture holds from where a run is in it."""
    if begun is None or begun.mixture is None:
        return phase
    rest = max(phase.tokens - begun.tokens, 0)
    parts = ((begun.tokens, begun.mixture), (rest, phase.mixture))
    names = {*phase.mixture, *begun.mixture}
    return replace(phase, mixture=Mixture.normalised({d: sum(n * m.share(d) for n, m in parts) for d in names}))
