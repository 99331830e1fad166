"""What a recipe is worth: the weighted gain over a reference, in every world that the data allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.from_recipes import design_of
from mixlaw.analysis.scale import to_log_loss
from mixlaw.errors import InputError
from mixlaw.optimizer.beliefs import Beliefs
from mixlaw.optimizer.constraints import Feasible
from mixlaw.recipe import Recipe

#: Percent of gain that one unit of distance beyond the trust radius costs: enough to turn the search around.
LEASH = 50.0


@dataclass(frozen=True, eq=False)
class Objective:
    """Gains in percent of loss, 100 (log loss of the reference - log loss); for a score p the loss is -log p.

    Attributes:
        beliefs: what predicts.
        allowed: the recipes of the target.
        weights: of the tasks, summing to 1, (T,).
        reference: log losses of the recipe to beat, (S, T).
        worlds: indices of the draws that count, (S,), out of `count`.
        count: draws asked for.
        caution: standard deviations of the gain over worlds that are taken off its mean.
        near: token shares x of measured recipes on the target's axes, (M, P, K); empty where none is known.
        radius: distance from them that is free of charge.
    """

    beliefs: Beliefs
    allowed: Feasible
    weights: Tensor
    reference: Tensor
    worlds: Tensor
    count: int
    caution: float
    near: Tensor
    radius: float

    def design(self, shares: Tensor, cooldown: Tensor) -> Design:
        """The target with these mixtures (R, P, K) and cooldown shares (R,), on the axes of the beliefs."""
        target, domains = self.allowed.target, self.allowed.domains
        rows = len(shares)
        ends = torch.ones(rows, len(target.phases), dtype=torch.float64)
        ends[:, -1] = target.lr_end
        design = Design(
            params=torch.full((rows,), float(target.params), dtype=torch.float64),
            tokens=target.tokens * self.allowed.token_shares(shares, cooldown),
            progress=torch.ones(rows, dtype=torch.float64),
            lr_end=ends,
            unique=torch.tensor([float(d.unique_tokens) for d in domains], dtype=torch.float64).expand(rows, -1),
            phases=target.phases,
            domains=tuple(d.name for d in domains),
            runs=("",) * rows,
        )
        return design.aligned(self.beliefs.phases, self.beliefs.domains)

    def by_task(self, shares: Tensor, cooldown: Tensor) -> Tensor:
        """Gain of every task over the reference in every world, percent, (S, R, T)."""
        losses = log_losses(self.beliefs, self.design(shares, cooldown), self.count)[self.worlds]
        return 100 * (self.reference[:, None] - losses)

    def gains(self, shares: Tensor, cooldown: Tensor) -> Tensor:
        """Weighted gain in every world, percent, (S, R)."""
        return self.by_task(shares, cooldown) @ self.weights

    def value(self, shares: Tensor, cooldown: Tensor) -> Tensor:
        """Lower confidence bound of the gain, less the cost of leaving the measured recipes, (R,)."""
        gains = self.gains(shares, cooldown)
        spread = torch.sqrt(gains.var(0) + 1e-12) if len(gains) > 1 else torch.zeros(())
        beyond = (self.distance(shares, cooldown)[0] - self.radius).clamp_min(0)
        return gains.mean(0) - self.caution * spread - LEASH * beyond

    def distance(self, shares: Tensor, cooldown: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the tokens that differ from the nearest measured recipe, and its index; (R,) each."""
        if not len(self.near):
            return torch.zeros(len(shares), dtype=torch.float64), torch.zeros(len(shares), dtype=torch.long)
        found = apart(self.allowed.token_shares(shares, cooldown), self.near).min(1)
        return found.values, found.indices


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Share of tokens, by phase and domain, that two recipes do not have in common: (R, P, K), (M, P, K) -> (R, M)."""
    return 0.5 * (one[:, None] - other[None]).abs().sum((-1, -2))


def log_losses(beliefs: Beliefs, design: Design, count: int) -> Tensor:
    """Draws on the scale of log losses, as far apart as held-out runs have shown them to be, (S, R, T)."""
    values = beliefs.draws(design, count)
    parts = [to_log_loss(values[..., t], beliefs.units[task]) for t, task in enumerate(beliefs.tasks)]
    losses = torch.stack(parts, -1)
    middle = losses.mean(0)
    return middle + beliefs.calibration * (losses - middle)


def task_weights(beliefs: Beliefs, weights: Mapping[str, float] | None) -> Tensor:
    """Weights of all tasks, equal where none are given, summing to 1, (T,).

    Raises:
        InputError: an unknown task, or weights that are negative or all zero.
    """
    if weights is None:
        weights = dict.fromkeys(beliefs.tasks, 1.0)
    unknown = [task for task in weights if task not in beliefs.tasks]
    if unknown:
        raise InputError(f"no task is called {unknown[0]!r}, fitted are {', '.join(beliefs.tasks)}; rename the weight")
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise InputError(f"weights must be >= 0 and not all 0, got {dict(weights)}; leave a task out to ignore it")
    raw = torch.tensor([float(weights.get(task, 0.0)) for task in beliefs.tasks], dtype=torch.float64)
    return raw / raw.sum()


def recipes_design(beliefs: Beliefs, allowed: Feasible, recipes: Sequence[Recipe]) -> Design:
    """Recipes on the axes of the beliefs, with the unique tokens of the target's domains."""
    unique = {domain.name: float(domain.unique_tokens) for domain in allowed.domains}
    return design_of(recipes, beliefs.phases, beliefs.domains, unique)


def points_of(allowed: Feasible, recipes: Sequence[Recipe]) -> tuple[Tensor, Tensor]:
    """Shares (R, P, K) and cooldown shares (R,) of recipes with the target's phases."""
    names = [d.name for d in allowed.domains]
    shares = [[[phase.mixture.share(name) for name in names] for phase in recipe.phases] for recipe in recipes]
    parts = [recipe.phases[-1].tokens / recipe.tokens for recipe in recipes]
    return torch.tensor(shares, dtype=torch.float64), torch.tensor(parts, dtype=torch.float64)
