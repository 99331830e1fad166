"""Forms made of named blocks of parameters: what the laws of the literature need."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Parameter
from mixlaw.analysis.laws.chinchilla import scale_notes


def per_domain(name: str, design: Design, mean: float, spread: float, between: float = 0.0) -> tuple[Parameter, ...]:
    """A block with one entry per domain."""
    return tuple(Parameter(f"{name} {d}", mean, spread, between) for d in design.domains)


class BlockForm(Form):
    """A form whose vector is a row of named blocks; it gives the derivative by each block in closed form."""

    def __init__(self, design: Design, **blocks: Sequence[Parameter] | Parameter) -> None:
        self.phases, self.domains = design.phases, design.domains
        self.log_n = float(design.params.log().mean())
        self.log_d = float(design.total.log().mean())
        self.notes = scale_notes(design)
        self.at: dict[str, slice] = {}
        entries: list[Parameter] = []
        for name, block in blocks.items():
            added = [block] if isinstance(block, Parameter) else list(block)
            self.at[name] = slice(len(entries), len(entries) + len(added))
            entries += added
        self.parameters = tuple(entries)
        self.free_in = {name: [i for i, p in enumerate(entries[at]) if not p.held] for name, at in self.at.items()}

    @abstractmethod
    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss (B, R) and its derivative by the k entries of each block that has free ones, (B, k, R)."""

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R), in closed form."""
        value, slopes = self.slopes(theta, design)
        rows = []
        for name, free in self.free_in.items():
            if free:
                block = slopes[name]
                rows.append(block if len(free) == block.shape[1] else block[:, free])
        return value, torch.cat(rows, 1)

    def block(self, theta: Tensor, name: str) -> Tensor:
        """The entries of one block, (B, k)."""
        return theta[:, self.at[name]]

    def numbers(self, theta: Tensor, name: str) -> list[float]:
        """The entries of one block of a single vector (n,)."""
        found: list[float] = theta[self.at[name]].tolist()
        return found


def mixture(design: Design) -> Tensor:
    """Share of every domain in all tokens, phases ignored, (R, K)."""
    return design.shares.sum(1)


def softmax_parts(parts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """log sum exp of terms (B, R) or (B, 1), and the share of each in the sum, (B, 1, R)."""
    whole = max(parts, key=lambda part: part.shape[1])
    terms = torch.stack([part.expand_as(whole) for part in parts])
    value = terms.logsumexp(0)
    return value, list(torch.exp(terms - value)[:, :, None].unbind(0))
