"""What every law offers: a callable frozen value, and a form that the fitting engine can solve."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor
from torch.func import jvp, vmap

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.identify import scale_notes

#: Forward-mode levels are global to torch: two threads must not open them at once.
_FORWARD_MODE = Lock()
#: Exponents of the literature (Hoffmann .34/.28, Besiroglu .35/.37, Muennighoff .353): log normal around .35.
EXPONENT_PRIOR = (math.log(0.35), 0.3)
#: Shares of floor, capacity and data terms in the loss of a typical proxy, log normal.
TERM_PRIOR = (math.log(0.33), 0.8)
#: Exponents and other shapes differ little between tasks: partial pooling expects this spread of their logarithms.
SHAPE_BETWEEN = 0.15


@dataclass(frozen=True)
class Procedure:
    """How the authors of a law fit it: Huber loss on the logarithm of the loss, one task at a time, no prior.

    Attributes:
        delta: residual from which on the loss is linear.
        of_loss: whether residuals are those of the loss itself, to first order, not of its logarithm.
        tied: blocks that have the value of another: block -> the other.
        after_repeats: blocks that are fitted to all runs after the others were fitted to the runs without repeats.
    """

    delta: float
    of_loss: bool = False
    tied: Mapping[str, str] = field(default_factory=dict)
    after_repeats: tuple[str, ...] = ()


class FittedLaw(Protocol):
    """A fitted or published law: a frozen value, called on recipes."""

    def __call__(self, design: Design) -> Tensor:
        """Expected loss of every recipe, (R,), in the unit of the law's own loss."""
        ...


class Law(FittedLaw, Protocol):
    """A law that can be fitted."""

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
        held: not fitted, because the data do not identify it.
        loose: if held, posterior draws sample it from its prior, because it affects extrapolation although the data do
            not inform it. What is held and would contradict the data stays at the mean.
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
    """A law's shape over what a design varies, its vector a row of named blocks.

    Attributes:
        phases, domains: names of the axes.
        log_n, log_d: centre of the measured sizes and budgets, where terms are stated.
        notes: in words, what the design does not identify.
        at: entries of each block.
    """

    def __init__(self, design: Design, **blocks: Sequence[Parameter] | Parameter) -> None:
        self.phases, self.domains = design.phases, design.domains
        self.log_n = float(design.params.log().mean())
        self.log_d = float(design.total.log().mean())
        self.notes: tuple[str, ...] = scale_notes(design)
        self.at: dict[str, slice] = {}
        self.parameters = ()
        self.extend(**blocks)

    def extend(self, **blocks: Sequence[Parameter] | Parameter) -> None:
        """Add blocks at the end of the vector."""
        for name, block in blocks.items():
            entries = (block,) if isinstance(block, Parameter) else tuple(block)
            self.at[name] = slice(len(self.parameters), len(self.parameters) + len(entries))
            self.parameters += entries

    def replace(self, **blocks: Sequence[Parameter] | Parameter | None) -> None:
        """Give some of the blocks other entries, or none at all; the order of the vector stays."""
        before = {name: self.parameters[at] for name, at in self.at.items()}
        self.at, self.parameters = {}, ()
        self.extend(**{name: block for name, block in (before | blocks).items() if block is not None})

    @abstractmethod
    def law(self, theta: Tensor, log_scale: float) -> FittedLaw:
        """The law of one vector (n,), with losses multiplied by exp(log_scale)."""

    def block(self, theta: Tensor, name: str) -> Tensor:
        """The entries of one block, (B, k)."""
        return theta[:, self.at[name]]

    def blocks(self, theta: Tensor, *names: str) -> tuple[Tensor, ...]:
        """The entries of several blocks, (B, k) each."""
        return tuple(theta[:, self.at[name]] for name in names)

    def numbers(self, theta: Tensor, name: str) -> tuple[float, ...]:
        """The entries of one block of a single vector (n,)."""
        return tuple(theta[self.at[name]].tolist())

    def natural(self, theta: Tensor, name: str, log_scale: float = 0.0) -> tuple[float, ...]:
        """Exponentials of the entries of one block of a single vector (n,)."""
        return tuple((theta[self.at[name]] + log_scale).exp().tolist())


class ClosedForm(Form):
    """A form that gives the derivative by each block in closed form: what is fitted often has to be fast."""

    @cached_property
    def free_in(self) -> dict[str, list[int]]:
        """Free entries within each block that has any."""
        free = {name: [i for i, p in enumerate(self.parameters[at]) if not p.held] for name, at in self.at.items()}
        return {name: entries for name, entries in free.items() if entries}

    @abstractmethod
    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss (B, R) and its derivative by the k entries of each block, (B, k, R) or (1, k, R).

        Blocks without free entries may be left out, as may those that change nothing in these recipes.
        """

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R), in closed form."""
        value, slopes = self.slopes(theta, design)
        count, rows = value.shape
        parts = []
        for name, free in self.free_in.items():
            block = slopes.get(name)
            if block is None:
                block = value.new_zeros(1, len(free), rows)
            elif len(free) < block.shape[1]:
                block = block[:, free]
            parts.append(block.expand(count, -1, rows))
        return value, torch.cat(parts, 1)


def per_domain(name: str, design: Design, mean: float, spread: float, between: float = 0.0) -> tuple[Parameter, ...]:
    """A block with one entry per domain."""
    return tuple(Parameter(f"{name} {d}", mean, spread, between) for d in design.domains)
