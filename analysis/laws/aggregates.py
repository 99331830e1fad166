"""What a recipe's tokens add up to for a task: the CES aggregates of the exposure laws, with their derivatives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.phases import Joined, Retained, joined, retained, throughout
from mixlaw.analysis.laws.terms import fresh


@dataclass(frozen=True)
class Aggregate(ABC):
    """Effective tokens of R recipes under B vectors.

    Attributes:
        log: log of the CES aggregate over the central budget, (B, R).
        amount: of each domain in D, in tokens as good as fresh ones, (B, K, R); B is 1 where theta does not enter.
        read: of each domain, what takes up capacity, (B, K, R).
    """

    log: Tensor
    amount: Tensor
    read: Tensor

    @abstractmethod
    def slopes(self, by_log: Tensor, by_amount: Tensor, by_read: Tensor) -> dict[str, Tensor]:
        """Derivatives by elasticity, worth, repeats and phases, (B, k, R) each.

        Args:
            by_log: that by `log`, (B, R).
            by_amount: that by the logarithm of each amount, apart from its part in `log`, (B, K, R) or 0.
            by_read: the same of `read`.
        """


@dataclass(frozen=True)
class Values:
    """Blocks of the vector that an aggregate depends on, as logarithms but for the elasticity itself.

    Attributes:
        worth: (B, K).
        elasticity: g, (B, 1).
        repeats: (B, 1).
        phases: retention of all phases but the last, (B, P - 1), and evenness, (B, 1).
        log_d: log of the central budget.
    """

    worth: Tensor
    elasticity: Tensor
    repeats: Tensor
    phases: Sequence[Tensor]
    log_d: float

    def fresh(self, design: Design) -> tuple[Tensor | float, Tensor | None]:
        """Share of each domain's tokens that are as good as fresh ones, and its slope: see `terms.fresh`."""
        return fresh(design.tokens.sum(1).T, design.unique.T, self.repeats.exp()[..., None])

    def log_of(self, amount: Tensor) -> Tensor:
        """Log of amounts over the central budget, 0 where there is none."""
        return torch.where(amount > 0, amount, torch.full_like(amount, math.exp(self.log_d))).log() - self.log_d


@dataclass(frozen=True)
class ByDomain(Aggregate):
    """Phases add up domain by domain: A = (sum_j worth_j d_j**g)**(1/g), d_j of the exposures of `retained`."""

    _exposure: Retained
    _values: Values
    _log_amount: Tensor  # (B, K, R)
    _weights: Tensor  # softmax of the terms of the sum, (B, K, R)
    _by_repeats: Tensor | None  # d log d / d log repeats, None where nothing repeats

    @classmethod
    def of(cls, values: Values, design: Design) -> ByDomain:
        """The aggregate of every recipe."""
        exposure = retained(values.phases, design.tokens)
        share, by_repeats = values.fresh(design)
        amount = exposure.exposure * share
        log_amount, g = values.log_of(amount), values.elasticity
        powers = (values.worth[..., None] + g[..., None] * log_amount).masked_fill(amount <= 0, -torch.inf)
        total = powers.logsumexp(1)
        weights = torch.exp(powers - total[:, None])
        return cls(total / g, amount, exposure.exposure, exposure, values, log_amount, weights, by_repeats)

    def slopes(self, by_log: Tensor, by_amount: Tensor, by_read: Tensor) -> dict[str, Tensor]:
        """See `Aggregate`."""
        by_term = by_log[:, None] * self._weights
        bent = (self._weights * self._log_amount).sum(1)
        found = {
            "elasticity": (by_log * (bent - self.log))[:, None],
            "worth": by_term / self._values.elasticity[..., None],
        }
        by_amount = by_term + by_amount
        if self._by_repeats is not None:
            found["repeats"] = (by_amount * self._by_repeats).sum(1, keepdim=True)
        return found | self._exposure.by_phase(by_amount + by_read)


@dataclass(frozen=True)
class ByPhase(Aggregate):
    """Phases add up as a whole: A = (sum_p w_p A_p**c)**(1/c), A_p the CES of the phase's mixture held throughout."""

    _joined: Joined
    _values: Values
    _taught: Tensor  # log A_p, (B, P, R)
    _log_amount: Tensor  # (B, P, K, R)
    _weights: Tensor  # softmax of the terms of A_p, (B, P, K, R)
    _by_repeats: Tensor | None

    @classmethod
    def of(cls, values: Values, design: Design) -> ByPhase:
        """The aggregate of every recipe."""
        share, by_repeats = values.fresh(design)
        held = throughout(design.tokens).permute(1, 2, 0)[None] * (
            share if isinstance(share, float) else share[:, None]
        )
        log_amount, g = values.log_of(held), values.elasticity[..., None]
        powers = (values.worth[:, None, :, None] + g[..., None] * log_amount).masked_fill(held <= 0, -torch.inf)
        there = (design.tokens.sum(2) > 0).T[None, :, None]  # no empty phase may make a gradient that is no number
        total = torch.where(there, powers, torch.zeros_like(powers)).logsumexp(2)
        parts = joined(values.phases, design.tokens, total / g)
        weights, read = torch.exp(powers - total[:, :, None]), design.tokens.sum(1).T[None]
        return cls(parts.log, read * share, read, parts, values, total / g, log_amount, weights, by_repeats)

    def slopes(self, by_log: Tensor, by_amount: Tensor, by_read: Tensor) -> dict[str, Tensor]:
        """See `Aggregate`; what takes up capacity is free of theta."""
        by_term = (by_log[:, None] * self._joined.share)[:, :, None] * self._weights
        by_worth = by_term.sum(1)
        by_elasticity = (by_term * (self._log_amount - self._taught[:, :, None])).sum((1, 2))
        found = {"elasticity": by_elasticity[:, None], "worth": by_worth / self._values.elasticity[..., None]}
        if self._by_repeats is not None:
            found["repeats"] = ((by_worth + by_amount) * self._by_repeats).sum(1, keepdim=True)
        return found | self._joined.by_phase(by_log)
