"""What a run would show about the gains of contenders: from posterior draws, or by a linear model of what is not known.

Outcomes and gains are taken to be jointly normal. An outcome, measured with noise, then moves the expected gain of
contender m by b_m z, b_m = cov(gain, outcome) / sd(outcome), z standard normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mixlaw.analysis.data.recipes import design_of
from mixlaw.analysis.surface.model import ResponseModel
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.recipe import Recipe

TINY = 1e-150
#: Mixtures whose own luck is followed.
MIXTURES = 800


class Information(Protocol):
    """C candidate runs, M contenders."""

    def slopes(self) -> Tensor:
        """How far one standard deviation of each outcome moves each gain over the leader's: J a run, (C, M, J)."""

    def after(self, candidate: int, seed: int) -> Information:
        """What is left once a candidate was measured."""

    def tasks(self) -> Tensor:
        """Index of the task on which each candidate tells most, (C,)."""


def normal(rows: int, columns: int, seed: int) -> Tensor:
    """Standard normal numbers (rows, columns): even for every seed, and in no order between seeds."""
    sobol: Any = torch.quasirandom.SobolEngine  # without types in torch
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    points = sobol(columns, scramble=True, seed=seed).draw(rows, dtype=torch.float64)
    numbers: Tensor = torch.special.ndtri(points[order].clamp(1e-9, 1 - 1e-9))
    return numbers


def own_luck(posterior: Posterior, recipes: Sequence[Recipe], counts: Tensor) -> Tensor:
    """Features (R, F) whose products are the covariances of what each mixture has for itself, over a run's noise.

    The mean over the tasks that count (T,), at every size alike; nothing where the posterior knows of no such part.
    Mixtures beyond the first MIXTURES have none: the cost of what follows grows with the cube of their number.
    """
    if not isinstance(posterior, ResponseModel):
        return torch.zeros(len(recipes), 0, dtype=torch.float64)
    mixtures = [tuple((phase.name, phase.mixture) for phase in recipe.phases) for recipe in recipes]
    first = {mixture: i for i, mixture in reversed([*enumerate(mixtures)])}
    some = sorted(first.values())[:MIXTURES]
    with torch.no_grad():
        design = design_of([recipes[i] for i in some], posterior.phases, posterior.domains, {})
        value, vector = torch.linalg.eigh(posterior.luck(design, counts))
    by_place = torch.zeros(len(recipes), len(some), dtype=torch.float64)
    by_place[some] = vector * value.clamp_min(0).sqrt()
    found: Tensor = by_place[torch.tensor([first[mixture] for mixture in mixtures], dtype=torch.long)]
    return found


@dataclass(frozen=True, eq=False)
class FromDraws:
    """The covariance over S posterior draws; tasks are taken to be independent.

    A few dozen draws correlate by chance, so each slope is shrunk by how far its correlation could be chance.

    Attributes:
        outcomes: log losses about their mean over draws, (S, C, T).
        ahead: gains over the leader's by task, about their mean, (S, M, T).
        noise: (C, T).
    """

    outcomes: Tensor
    ahead: Tensor
    noise: Tensor

    @classmethod
    def of(cls, outcomes: Tensor, task_gains: Tensor, noise: Tensor, leader: int) -> FromDraws:
        """From draws of log losses (S, C, T) and of gains by task (S, M, T)."""
        ahead = task_gains - task_gains[:, leader : leader + 1]
        return cls(outcomes - outcomes.mean(0), ahead - ahead.mean(0), noise)

    def slopes(self) -> Tensor:
        """By task, (C, M, T)."""
        return self._slopes(self.outcomes, self.ahead, self.noise)

    def after(self, candidate: int, seed: int) -> FromDraws:
        """The draws, each moved as far as a noisy outcome in it would move it."""
        outcome, noise = self.outcomes[:, [candidate]], self.noise[[candidate]]
        shown = outcome + noise * normal(len(outcome), noise.shape[1], seed)[:, None]
        surprise = (shown - shown.mean(0)) / torch.sqrt(outcome.var(0) + noise**2).clamp_min(TINY)
        return replace(
            self,
            outcomes=self.outcomes - self._slopes(outcome, self.outcomes, noise)[0] * surprise,
            ahead=self.ahead - self._slopes(outcome, self.ahead, noise)[0] * surprise,
        )

    def tasks(self) -> Tensor:
        """By the mean square of its slopes."""
        return self.slopes().square().mean(1).argmax(-1)

    def _slopes(self, outcomes: Tensor, of: Tensor, noise: Tensor) -> Tensor:
        """How far one standard deviation of a measured outcome (S, C, T) moves what is expected `of` (S, M, T)."""
        draws = len(of)
        covariance = torch.einsum("sct,smt->cmt", outcomes, of) / (draws - 1)
        own, other = outcomes.var(0)[:, None], of.var(0)[None]
        square = (covariance.square() / (own * other).clamp_min(TINY)).clamp(max=1.0)
        sure = (1 - (1 - square) / (square * max(draws - 2, 1)).clamp_min(TINY)).clamp_min(0.0)
        return covariance * sure / torch.sqrt(own + noise[:, None] ** 2).clamp_min(TINY)


@dataclass(frozen=True, eq=False)
class Linear:
    """A Bayesian linear model of what the law does not know, of all tasks together.

    Dozens of draws have as many directions at most: conditioned on as many outcomes nothing is left of them. The linear
    model knows exactly what a run adds to those before it; draws say how much there is to know about each contender.

    Attributes:
        rows: features of the candidates, (C, F), in units of the noise of a run.
        ahead: features of the contenders less those of the leader, (M, F).
        covariance: of the coefficients, given what is measured, (F, F).
        scale: standard deviation over draws of each gain over the leader's, over that of the linear model, (M,).
        told: index of the task on which each candidate tells most, (C,).
    """

    rows: Tensor
    ahead: Tensor
    covariance: Tensor
    scale: Tensor
    told: Tensor

    @classmethod
    def of(
        cls, rows: Tensor, contenders: Tensor, measured: Tensor, deviation: Tensor, leader: int, told: Tensor
    ) -> Linear:
        """From features (., F) of candidates, contenders and measured runs.

        Args:
            rows, contenders, measured: features.
            deviation: standard deviation over draws of each contender's gain over the leader's, (M,).
            leader: the contender that is recommended.
            told: see above.
        """
        covariance = torch.linalg.inv(torch.eye(rows.shape[1], dtype=torch.float64) + measured.T @ measured)
        ahead = contenders - contenders[leader]
        own = torch.einsum("mf,fg,mg->m", ahead, covariance, ahead).clamp_min(0).sqrt()
        scale = torch.where(own > 1e-9, deviation / own.clamp_min(1e-9), torch.zeros_like(own))
        return cls(rows, ahead, covariance, scale, told)

    def slopes(self) -> Tensor:
        """One outcome a run, (C, M, 1)."""
        both = self.rows @ self.covariance
        spread = torch.sqrt((both * self.rows).sum(1) + 1)
        return ((both @ self.ahead.T) / spread[:, None] * self.scale)[..., None]

    def after(self, candidate: int, seed: int) -> Linear:
        """The model with the candidate among what is measured."""
        both = self.covariance @ self.rows[candidate]
        taken = torch.outer(both, both) / (1 + self.rows[candidate] @ both)
        return replace(self, covariance=self.covariance - taken)

    def tasks(self) -> Tensor:
        """As the draws say."""
        return self.told
