"""What gains refer to: baselines for a target, inside its limits, and which of them a proposal has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.optimizer.goal.baselines import Baseline, defaults_of, named, of_mixture, of_recipe
from mixlaw.optimizer.goal.gains import recipes_losses
from mixlaw.optimizer.goal.goal import Utility
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.goal.values import PROPOSAL
from mixlaw.optimizer.target.feasible import Feasible, feasible
from mixlaw.optimizer.target.nearest import nearest
from mixlaw.optimizer.target.rates import Rates
from mixlaw.optimizer.target.schedule import phase_tokens
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.recipe import Domain, Mixture, Phase, Recipe

#: Names of baselines, or by name a baseline, its mixture, or a recipe whose mixtures it has.
Compared = Sequence[str] | Mapping[str, Baseline | Mixture | Recipe]

SIZES = 9  # tried for a baseline whose size is free


@dataclass(frozen=True)
class Entry:
    """A recipe and the target that it is for: branches of one target differ in what has been trained already.

    Attributes:
        recipe: for the target.
        allowed: what the target allows.
        moved: the limits that its mixture would break, in words: it has been drawn inside them.
    """

    recipe: Recipe
    allowed: Feasible
    moved: tuple[str, ...] = ()

    def losses(self, posterior: Posterior, count: int) -> Tensor:
        """Log losses in every draw, (count, T)."""
        return recipes_losses(posterior, self.allowed, [self.recipe], count)[:, 0]


@dataclass(frozen=True, eq=False)
class References:
    """Baselines with what they are expected to measure.

    Attributes:
        entries: by name.
        losses: log losses of each in every draw, (S, T).
        against: the one that gains refer to: as asked for, or that of the greatest utility.
    """

    entries: Mapping[str, Entry]
    losses: Mapping[str, Tensor]
    against: str

    @property
    def baseline(self) -> Tensor:
        """Log losses of the one that gains refer to, (S, T)."""
        return self.losses[self.against]


def references_of(
    posterior: Posterior,
    variants: Sequence[Feasible],
    utility: Utility,
    compared: Compared | None,
    draws: int,
    against: str = "",
) -> References:
    """Build baselines for a target, inside its limits: for each name the best of its branches and sizes.

    Lengths of phases and learning rates that are free are in the middle of their ranges; `Problem.scheduled` compares
    recipes with baselines of their own schedule. Those of `defaults_of` where none are named.

    Raises:
        InputError: no baseline, an unknown one, or one that is called like the proposal.
    """
    builders = builders_of(defaults_of(variants[0].target) if compared is None else compared)
    if not builders or PROPOSAL in builders:
        raise InputError(f"give at least one baseline, none called {PROPOSAL!r}; got {list(builders)}")
    if against and against not in builders:
        raise InputError(f"gains refer to {against!r}, compared are {', '.join(builders)}; name one of them")
    tried = [(name, entry) for allowed in variants for name, build in builders.items() for entry in _at(build, allowed)]
    every = torch.cat(
        [_losses(posterior, allowed, [e for _, e in tried if e.allowed is allowed], draws) for allowed in variants], 1
    )
    entries, losses = {}, {}
    for name in builders:
        mine = [i for i, (of, _) in enumerate(tried) if of == name]
        candidates = every[:, mine]  # (S, entries, T)
        best = mine[int(utility.total(candidates, candidates[:, 0]).mean(0).argmax())]
        entries[name], losses[name] = tried[best][1], every[:, best]
    every = torch.stack(list(losses.values()), 1)
    best = int(utility.total(every, every.mean(1)).mean(0).argmax())
    return References(entries, losses, against or list(builders)[best])


def builders_of(compared: Compared) -> dict[str, Baseline]:
    """Baselines by name.

    Raises:
        InputError: there is none of that name.
    """
    if not isinstance(compared, Mapping):
        return {name: named(name) for name in compared}
    return {name: _builder(baseline) for name, baseline in compared.items()}


def _builder(baseline: Baseline | Mixture | Recipe) -> Baseline:
    if isinstance(baseline, Mixture):
        return of_mixture(baseline)
    return of_recipe(baseline) if isinstance(baseline, Recipe) else baseline


def _losses(posterior: Posterior, allowed: Feasible, entries: Sequence[Entry], draws: int) -> Tensor:
    """Log losses of entries of one branch, (draws, entries, T)."""
    return recipes_losses(posterior, allowed, [entry.recipe for entry in entries], draws)


def _at(build: Baseline, allowed: Feasible) -> list[Entry]:
    """One baseline at every size to try."""
    sizes = [float(allowed.target.params)] if allowed.target.sizes is None else np.geomspace(*allowed.sizes, SIZES)
    return [entry_of(build, allowed, size) for size in sizes]


def entry_of(build: Baseline, allowed: Feasible, size: float) -> Entry:
    """A baseline of one size inside the limits, resuming from the target's prefix."""
    target = allowed.target.at(size)
    tokens = {part.phase: part.tokens for part in target.prefix} | phase_tokens(target, sum(allowed.cooldown) / 2)
    whole = build(target.params, tokens, allowed.domains, sum(target.lr_range) / 2)
    history = tuple(part.as_phase() for part in target.prefix) if target.known else ()
    first, *later = whole.phases[len(target.prefix) :]
    recipe = Recipe(target.params, (*history, _gone_on(first, target), *later))
    recipe = target.rates.applied(recipe, 1 + len(later))
    broken = allowed.violations(recipe)
    return Entry(nearest(allowed, recipe) if broken else recipe, allowed, broken)


def _gone_on(phase: Phase, target: Target) -> Phase:
    """A phase whose mixture holds from where a run is in it."""
    trained: Trained | None = target.under_way
    if trained is None or trained.mixture is None:
        return phase
    rest = max(phase.tokens - trained.tokens, 0)
    parts = ((trained.tokens, trained.mixture), (rest, phase.mixture))
    names = {*phase.mixture, *trained.mixture}
    return replace(phase, mixture=Mixture.normalised({d: sum(n * m.share(d) for n, m in parts) for d in names}))


def with_schedule(target: Target, recipe: Recipe) -> Target:
    """The target with the lengths of phases and the learning rate at the end of a recipe that ends with its phases."""
    phases = recipe.phases[-len(target.phases) :]
    end = phases[-1].lr_end
    one = target.changed(lr_end=target.lr_range[0] if end is None else end)
    if len(phases) == 1:
        return one
    share = phases[-1].tokens / sum(phase.tokens for phase in phases)
    return one.changed(cooldown=(share, share), lengths={phase.name: phase.tokens for phase in phases[:-1]})


def is_scheduled(target: Target) -> bool:
    """Whether a target leaves neither a length nor the learning rate at the end free."""
    ranges = [*([target.cooldown] if len(target.phases) > 1 else []), target.lr_range]
    return all(low == high for low, high in ranges) and not any(isinstance(v, tuple) for v in target.lengths.values())


def beside(
    recipe: Recipe, baseline: Baseline | Mixture | Recipe, target: Target | None, domains: Sequence[Domain]
) -> Recipe:
    """A baseline to compare a recipe with: of its size and schedule, after the same prefix.

    For a recipe of the target it is that of `propose`, inside the limits; else what the recipe's phases ask for.
    """
    build = _builder(baseline)
    for one in [] if target is None else [target.on(branch) for branch in target.branches] or [target]:
        done = tuple(part.as_phase() for part in one.prefix) if one.known else ()
        names = tuple(phase.name for phase in recipe.phases)
        if recipe.phases[: len(done)] != done or (not one.known and names != one.phases):
            continue
        low, high = one.sizes or (one.params, one.params)
        sized = one.at(recipe.params)
        whole = (sized.tokens, one.all_phases) if one.known else (sized.rest, one.phases)
        if low <= recipe.params <= high and (recipe.tokens, names) == whole:
            allowed = feasible(with_schedule(one.at(recipe.params), recipe), domains)
            same = entry_of(build, allowed, recipe.params).recipe
            return Rates.of(recipe).applied(same, len(one.phases))
        return _whole(recipe, build, domains, len(done))
    return _whole(recipe, build, domains, 0)


def _whole(recipe: Recipe, build: Baseline, domains: Sequence[Domain], prefix: int) -> Recipe:
    """A baseline of the recipe's size and phases, whose first phases are those of the recipe."""
    end, phases = recipe.phases[-1].lr_end, {phase.name: phase.tokens for phase in recipe.phases}
    whole = build(recipe.params, phases, domains, 0.0 if end is None else end)
    later = Rates.of(recipe).applied(whole, len(whole.phases))
    return replace(later, phases=(*recipe.phases[:prefix], *later.phases[prefix:]))
