"""What every law offers: a callable frozen value, and a form that the fitting engine can solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor
from torch.func import jvp, vmap

from mixlaw.analysis.data.design import Design

#: Forward-mode levels are global to torch: two threads must not open them at once.
_FORWARD_MODE = Lock()


class Law(Protocol):
    """A fitted or published law: a frozen value, called on recipes."""

    def __call__(self, design: Design) -> Tensor:
        """Expected loss of every recipe, (R,), in the unit of the law's own loss."""
        ...

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of this law over what `design` varies, ready to be fitted."""
        ...


@dataclass(frozen=True)
class Parameter:
    """One entry of a form's vector: its prior, normal with `mean` and `spread`, and how it may move.

    Attributes:
        name: as printed; entries are logarithms of natural parameters.
        mean, spread: of the prior, of the entry.
        between: expected spread between tasks; above 0 the tasks are partially pooled: they share a mean and a
            spread, both learned.
        held: not fitted, because the data cannot tell.
        loose: where it is held, every draw holds it at another value of its prior: it matters to other recipes than
            the measured ones. What is held and would contradict the data stays at the mean.
    """

    name: str
    mean: float
    spread: float
    between: float = 0.0
    held: bool = False
    loose: bool = False


class Curve(ABC):
    """What the engine can fit: values of R recipes from one vector theta (B, n), for B fits at once.

    Everything is in log loss over a task's own scale, so priors hold for every unit.
    """

    parameters: tuple[Parameter, ...]

    @abstractmethod
    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss (B, R) of R recipes under B parameter vectors; differentiable in both arguments."""

    @cached_property
    def free(self) -> Tensor:
        """Numbers of the entries that are fitted, (m,)."""
        return torch.tensor([i for i, p in enumerate(self.parameters) if not p.held], dtype=torch.long)

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R), here by one forward-mode pass per entry."""
        basis = torch.eye(theta.shape[1], dtype=theta.dtype)[self.free]

        def along(direction: Tensor) -> tuple[Tensor, Tensor]:
            value, slope, *_ = jvp(lambda t: self.log_loss(t, design), (theta,), (direction.expand_as(theta),))
            return value, slope

        with _FORWARD_MODE:
            values, rows = vmap(along)(basis)
        return values[0], rows.movedim(0, 1)


class Form(Curve):
    """A law's shape over what a design varies, with what the design cannot tell in words."""

    notes: tuple[str, ...]

    @abstractmethod
    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law that one vector (n,) stands for, with losses multiplied by exp(log_scale)."""
