"""Proxies: the sizes that can be trained, what is trained already, and what one more recipe costs on top of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe

Start = tuple[Recipe | None, int]  # a recipe whose training can be gone on from, and after how many tokens


def six_per_token(params: int, tokens: int) -> float:
    """Training FLOPs by the rule 6 N D (Kaplan et al. 2020, arXiv:2001.08361)."""
    return 6.0 * params * tokens


def as_given(recipe: Recipe) -> Recipe:
    """A recipe as it is."""
    return recipe


@dataclass(frozen=True, eq=False)
class Proxies:
    """What may be trained, and where it can start from.

    Attributes:
        sizes: params -> tokens of a recipe of this size.
        measured: recipes that have a record.
        queued: recipes that will be trained in any case.
        checkpoints: (recipe, tokens): what is left of a recipe after so many tokens, ready to go on from.
        flops: training FLOPs of so many tokens at a size.
        adopt: a recipe as it will really be trained: whole batches, a size of the ladder.
    """

    sizes: Mapping[int, int]
    measured: tuple[Recipe, ...] = ()
    queued: tuple[Recipe, ...] = ()
    checkpoints: tuple[tuple[Recipe, int], ...] = ()
    flops: Callable[[int, int], float] = six_per_token
    adopt: Callable[[Recipe], Recipe] = field(default=as_given)

    def __post_init__(self) -> None:
        wrong = {params: tokens for params, tokens in self.sizes.items() if params <= 0 or tokens <= 0}
        if not self.sizes or wrong:
            raise InputError(
                f"proxies need sizes with positive params and tokens, got {wrong or dict(self.sizes)}; "
                "write [sizes] into study.toml"
            )

    @cached_property
    def known(self) -> tuple[Recipe, ...]:
        """Recipes that are measured or queued."""
        return tuple(dict.fromkeys((*self.measured, *self.queued)))

    def start(self, recipe: Recipe, chosen: Sequence[Recipe] = ()) -> Start:
        """Where the training of a recipe can start: a checkpoint, or what queued and chosen recipes will train."""
        saved = [(other, stop) for other, stop in self.checkpoints if recipe.shared_tokens(other) >= stop]
        ahead = [(other, recipe.shared_tokens(other)) for other in (*self.queued, *chosen)]
        best = max([*saved, *ahead], key=lambda start: start[1], default=(None, 0))
        return best if best[1] else (None, 0)

    def cost(self, recipe: Recipe, chosen: Sequence[Recipe] = ()) -> float:
        """FLOPs that a recipe adds to what is paid and to the recipes chosen before it."""
        return self.flops(recipe.params, recipe.tokens - self.start(recipe, chosen)[1])

    def fresh(self, recipe: Recipe) -> Recipe:
        """The recipe with the first seed under which it is neither measured nor queued."""
        known, seed = set(self.known), recipe.seed
        while replace(recipe, seed=seed) in known:
            seed += 1
        return replace(recipe, seed=seed)


class Prices:
    """FLOPs of every candidate after some of them are chosen; remembers what candidates share."""

    def __init__(self, proxies: Proxies, candidates: Sequence[Recipe]) -> None:
        self._flops, self._candidates = proxies.flops, candidates
        self._sizes = [(recipe.params, recipe.tokens) for recipe in candidates]
        self._paid = [proxies.start(recipe)[1] for recipe in candidates]
        self._shared: dict[int, list[int]] = {}

    def __call__(self, chosen: Sequence[int]) -> Tensor:
        """Costs (C,) once the candidates `chosen` are bought; of what is paid in full, a token's."""
        shared = [self._paid, *map(self._with, chosen)]
        costs = [self._cost(index, max(tokens)) for index, tokens in enumerate(zip(*shared, strict=True))]
        return torch.tensor(costs, dtype=torch.float64)

    def total(self, chosen: Sequence[int]) -> float:
        """Cost of candidates together."""
        return sum(
            self._cost(index, max(self._paid[index], *(self._with(other)[index] for other in chosen[:i]), 0))
            for i, index in enumerate(chosen)
        )

    def _cost(self, index: int, shared: int) -> float:
        params, tokens = self._sizes[index]
        return self._flops(params, max(tokens - shared, 1))

    def _with(self, chosen: int) -> list[int]:
        """Tokens that every candidate shares with a chosen one."""
        if chosen not in self._shared:
            one = self._candidates[chosen]
            self._shared[chosen] = [recipe.shared_tokens(one) for recipe in self._candidates]
        return self._shared[chosen]
