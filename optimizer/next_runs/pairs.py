"""Pairs of recipes with the same totals in the other order of phases: they tell a phase's effect from the mixture's."""

from __future__ import annotations

from mixlaw.optimizer.next_runs.branching import kept_by
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Mixture, Phase, Recipe

#: Shares that are moved between two phases, the largest that the limits allow; below the last no pair is made.
STEPS = (0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
_LEAST = 1e-4  # weight of a domain that one of the phases lacks


def swapped_pairs(allowed: Feasible, middle: Recipe) -> list[tuple[Recipe, Recipe]]:
    """Pairs around a recipe, for every two neighbouring phases of the target in turn, the last two first.

    With phases of lengths l and k and mixtures a and b, one recipe takes a + k d then b - l d, the other a - k d then
    b + l d: the totals are the same, whatever the lengths. The direction d is code against the rest, or, where the
    limits leave no room for that, a domain against the others.
    """
    first = len(middle.phases) - len(allowed.target.phases)
    groups = _groups(allowed)
    found = []
    for late in range(len(middle.phases) - 1, first, -1):
        pairs = (_pair(allowed, middle, middle.phases[late - 1], middle.phases[late], group) for group in groups)
        found += [pair for pair in pairs if pair is not None][:1]
    return found


def _groups(allowed: Feasible) -> list[set[str]]:
    """Domains that are moved against the others: code first, then every one by itself."""
    names = [d.name for d in allowed.domains]
    code = {d.name for d in allowed.domains if d.kind.is_code}
    singles = [{name} for name in names] if len(names) > 1 else []
    return [code, *singles] if 0 < len(code) < len(names) else singles


def _pair(
    allowed: Feasible, middle: Recipe, early: Phase, late: Phase, group: set[str]
) -> tuple[Recipe, Recipe] | None:
    """The recipes that move a group of domains as far between two phases as the limits let both of them."""
    weight = {
        d.name: max(min(early.mixture.share(d.name), late.mixture.share(d.name)), _LEAST) for d in allowed.domains
    }
    inside = sum(w for name, w in weight.items() if name in group)
    outside = sum(weight.values()) - inside
    direction = {name: w / inside if name in group else -w / outside for name, w in weight.items()}
    whole = early.tokens + late.tokens

    def at(step: float) -> Recipe | None:
        """The recipe after a step along the direction, None where it leaves the simplex or the limits."""
        one = {n: early.mixture.share(n) + step * d * late.tokens / whole for n, d in direction.items()}
        two = {n: late.mixture.share(n) - step * d * early.tokens / whole for n, d in direction.items()}
        if min(*one.values(), *two.values()) < 0:
            return None
        moved = middle.with_mixture(early.name, Mixture.normalised(one)).with_mixture(
            late.name, Mixture.normalised(two)
        )
        return moved if kept_by(allowed, [moved]) else None

    for step in STEPS:
        one, two = at(step), at(-step)
        if one is not None and two is not None:
            return one, two
    return None
