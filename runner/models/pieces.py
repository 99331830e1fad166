"""Where the weights of a model lie in files of Hugging Face's layout, which may hold them in pieces and by other names.

transformers has the experts of a layer in one tensor, and in files each expert's matrices by themselves: every
parameter is in rows, seen as a matrix with its last dimension apart, and a piece is some of them one after another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 2**40  # more than any parameter has


@dataclass(frozen=True)
class Piece:
    """A tensor of a file: its name and shape there, and the first row of the parameter that it holds."""

    name: str
    shape: tuple[int, ...]
    first: int = 0

    @property
    def last(self) -> int:
        """The last row of the parameter that it holds."""
        return self.first + math.prod(self.shape[:-1]) - 1

    def is_in(self, rows: torch.Tensor, before: int) -> bool:
        """Whether it is among these rows of the parameter, `before` of which are elsewhere."""
        return before <= self.first and self.last < before + len(rows)

    def of(self, rows: torch.Tensor, before: int = 0) -> torch.Tensor:
        """The piece as a view of rows of the parameter, shape (rows, columns), `before` of which are elsewhere."""
        return rows[self.first - before : self.last + 1 - before].view(self.shape)


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor as a matrix, shape (rows, columns)."""
    return tensor.view(-1, *tensor.shape[-1:])


def pieces(model: PreTrainedModel) -> dict[str, list[Piece]]:
    """The pieces of each weight and buffer of a model, as `save_pretrained` writes them; all rows are in one of them.

    Where transformers writes anything else than rows as they are (transposed, several parameters in one tensor), each
    is a piece under its own name.
    """
    tensors: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    names, found = list(tensors), {name: list[Piece]() for name in tensors}
    marks = {
        name: torch.arange(math.prod(tensor.shape[:-1])).add_(number * ROWS).view(*tensor.shape[:-1], 1)
        for number, (name, tensor) in enumerate(tensors.items())
    }
    for name, mark in _reverted(model, marks).items():
        rows = mark.flatten()
        number, first = divmod(int(rows[0]), ROWS)
        columns = tensors[names[number]].shape[-1:]
        if mark.shape[-1] != 1 or not torch.equal(rows, torch.arange(len(rows)) + rows[0]):
            break
        found[names[number]].append(Piece(name, (*mark.shape[:-1], *columns), first))
    whole = all(sum(map(_size, found[name])) == tensor.numel() for name, tensor in tensors.items())
    return found if whole else {name: [Piece(name, tuple(tensor.shape))] for name, tensor in tensors.items()}


def _size(piece: Piece) -> int:
    return math.prod(piece.shape)


def _reverted(model: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as `save_pretrained` would write them in place of the model's."""
    from transformers.core_model_loading import revert_weight_conversion

    reverted: dict[str, torch.Tensor] = revert_weight_conversion(model, tensors)
    return reverted
