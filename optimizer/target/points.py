"""Recipes of a target as tensors: what a search moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """R recipes for one target.

    Attributes:
        shares: of the domains in each phase still to be trained, each row summing to 1, (R, P, K).
        lengths: of those phases, summing to 1, (R, P).
        lr_end: learning rate at the end over the peak, (R,).
        params: size, (R,).
    """

    shares: Tensor
    lengths: Tensor
    lr_end: Tensor
    params: Tensor

    def __len__(self) -> int:
        return len(self.shares)

    @property
    def tokens(self) -> Tensor:
        """Share of each phase and domain in the tokens still to be trained, (R, P, K), summing to 1 over both."""
        return self.shares * self.lengths[..., None]

    def __getitem__(self, index: Tensor | slice) -> Points:
        return Points(*(getattr(self, f.name)[index] for f in fields(self)))

    def repeat(self, count: int) -> Points:
        """The same recipes again and again."""
        return Points(*(torch.cat([getattr(self, f.name)] * count) for f in fields(self)))

    def detach(self) -> Points:
        """The same numbers without their gradients."""
        return Points(*(getattr(self, f.name).detach() for f in fields(self)))

    def where(self, mask: Tensor, other: Points) -> Points:
        """These recipes where the mask (R,) is true, the others elsewhere."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return Points(*(torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in pairs))

    @classmethod
    def cat(cls, groups: Sequence[Points]) -> Points:
        """One after the other."""
        return cls(*(torch.cat([getattr(group, f.name) for group in groups]) for f in fields(cls)))
