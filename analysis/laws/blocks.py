"""Forms made of named blocks of parameters: what the laws of the literature need."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mixlaw.analysis.design import Design
from mixlaw.analysis.laws.base import Form, Parameter
from mixlaw.analysis.laws.chinchilla import scale_notes


def per_domain(name: str, design: Design, mean: float, spread: float, between: float = 0.0) -> tuple[Parameter, ...]:
    """A block with one entry per domain."""
    return tuple(Parameter(f"{name} {d}", mean, spread, between) for d in design.domains)


class BlockForm(Form):
    """A form whose vector is a row of named blocks."""

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
