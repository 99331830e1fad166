"""Recipes that are set by hand: a slider for every share of every phase, and one for the length of each phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dash.development.base_component import Component

from mixlaw.dashboard.dials import Dial, group
from mixlaw.dashboard.view import View
from mixlaw.dashboard.watched import Opened
from mixlaw.optimizer.target.target import WHOLE
from mixlaw.recipe import Mixture, Recipe

#: `PHASE:DOMAIN` -> share of the phase's tokens, and `recipe:PHASE` -> share of the tokens still to be trained.
Shares = Mapping[str, float]


def shares_of(study: Opened, recipe: Recipe) -> dict[str, float]:
    """All shares of the phases that are still to be trained, as the sliders have them."""
    phases = recipe.phases[-len(study.target.phases) :]
    tokens = sum(phase.tokens for phase in phases)
    lengths = {f"{WHOLE}:{phase.name}": phase.tokens / tokens for phase in phases} if len(phases) > 1 else {}
    return {f"{p.name}:{d.name}": p.mixture.share(d.name) for p in phases for d in study.domains} | lengths


def recipe_by_hand(study: Opened, view: View, base: Recipe, shares: Shares) -> Recipe:
    """The recipe of these shares, at the size and tokens of a view; limits are not looked at.

    Args:
        study: whose phases and domains they are.
        view: with size and tokens.
        base: has the phases before, and the ends of the learning rate.
        shares: of every phase, as `shares_of` has them.
    """
    count = len(study.target.phases)
    before, phases = base.phases[:-count], base.phases[-count:]
    tokens = view.tokens - sum(phase.tokens for phase in before)
    made, left = [], tokens
    for number, phase in enumerate(phases, 1):
        length = shares.get(f"{WHOLE}:{phase.name}", 1.0)
        own = left if number == count else min(max(round(length * tokens), 1), left - (count - number))
        mixture = {d.name: max(shares[f"{phase.name}:{d.name}"], 0.0) for d in study.domains}
        made.append(replace(phase, tokens=own, mixture=Mixture.normalised({n: s for n, s in mixture.items() if s})))
        left -= own
    return replace(base, params=view.params, phases=(*before, *made))


def sliders(study: Opened, shares: Shares) -> list[Component]:
    """The sliders, a group for each phase; the page's script scales the other shares of a phase as one is moved."""
    groups = []
    for phase in study.target.phases:
        parts = [_dial(phase, domain.name, shares[f"{phase}:{domain.name}"]) for domain in study.domains]
        groups.append(group(f"Mixture of {phase}", parts, opened=True))
    if len(study.target.phases) > 1:
        parts = [_dial(WHOLE, phase, shares[f"{WHOLE}:{phase}"]) for phase in study.target.phases]
        groups.append(group("Share of the tokens", parts, opened=True))
    return groups


def _dial(place: str, name: str, share: float) -> Dial:
    return Dial(f"{place}:{name}", name, "part", 0.0, 1.0, 0.001, round(share, 3))
