"""Proxies: the sizes that can be trained, what is trained already, and what one more recipe costs on top of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import mode

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe, Schedule

Counts = NDArray[np.int64]
Start = tuple[Recipe | None, int]  # a recipe whose training can be resumed, and after how many tokens


def six_per_token(params: int, tokens: int) -> float:
    """Training FLOPs by the rule 6 N D (Kaplan et al. 2020, arXiv:2001.08361)."""
    return 6.0 * params * tokens


def usual_seed(recipes: Iterable[Recipe]) -> int:
    """The seed that most recipes have; 0 without any. Runs of one seed share part of their luck (docs/ladder.md)."""
    return mode([recipe.seed for recipe in recipes] or [0])


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
        checkpoints: (recipe, tokens): what is left of a recipe after that many tokens, ready to resume from.
        flops: training FLOPs of a number of tokens at a size, in proportion to them.
        adopt: a recipe as it will really be trained: whole batches, a size of the ladder, the seed of most runs.
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
    """FLOPs of every candidate after some of them are chosen; remembers what candidates share.

    FLOPs have to be proportional to tokens, as all of training is.
    """

    def __init__(self, proxies: Proxies, candidates: Sequence[Recipe]) -> None:
        self._rates = np.array([proxies.flops(recipe.params, 1) for recipe in candidates])
        self._tokens = np.array([recipe.tokens for recipe in candidates], dtype=np.int64)
        self._paid = np.array([proxies.start(recipe)[1] for recipe in candidates], dtype=np.int64)
        self._heads = _Heads(candidates)
        self._shared: dict[int, Counts] = {}

    def __call__(self, chosen: Sequence[int]) -> Tensor:
        """Costs (C,) once the candidates `chosen` are bought; of what is paid in full, a token's."""
        shared = np.max([self._paid, *map(self._with, chosen)], axis=0)
        return torch.tensor(self._rates * np.maximum(self._tokens - shared, 1))

    def total(self, chosen: Sequence[int]) -> float:
        """Cost of candidates together."""
        if not chosen:
            return 0.0
        picked = np.array(chosen)
        before = np.triu(np.stack([self._with(index)[picked] for index in chosen]), 1)  # of each, with those before it
        shared = np.maximum(self._paid[picked], before.max(0))
        return float(np.sum(self._rates[picked] * np.maximum(self._tokens[picked] - shared, 1)))

    def _with(self, chosen: int) -> Counts:
        """Tokens that every candidate shares with a chosen one, (C,)."""
        if chosen not in self._shared:
            self._shared[chosen] = self._heads.shared(chosen)
        return self._shared[chosen]


class _Heads:
    """What recipes begin with, as numbers: `Recipe.shared_tokens` of one with all others in a few comparisons."""

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        numbers: dict[object, int] = {}

        def number(what: object) -> int:
            """Equal things have equal numbers."""
            return numbers.setdefault(what, len(numbers))

        most = max((len(recipe.phases) for recipe in recipes), default=0)
        self._tokens, self._whole, self._trunks = (np.zeros((len(recipes), most), dtype=np.int64) for _ in range(3))
        self._whole -= 1 + np.arange(len(recipes))[:, None]  # a phase that is not there equals no other's
        self._trunks -= 1 + np.arange(len(recipes))[:, None]
        for i, recipe in enumerate(recipes):
            flat = recipe.schedule is Schedule.WSD
            for p, phase in enumerate(recipe.phases):
                flat = flat and phase.lr_end == 1
                shards = tuple(recipe.shards.get(name) for name in phase.mixture)
                self._tokens[i, p], self._whole[i, p] = phase.tokens, number((phase, shards))
                if flat:
                    self._trunks[i, p] = number((phase.name, phase.mixture, shards))
        self._kinds = np.array([number(_kind(recipe)) for recipe in recipes], dtype=np.int64)

    def shared(self, index: int) -> Counts:
        """Tokens that every recipe shares with one of them, (R,)."""
        alike, done = self._kinds == self._kinds[index], np.zeros(len(self._kinds), dtype=np.int64)
        for tokens, whole, trunks in zip(self._tokens.T, self._whole.T, self._trunks.T, strict=True):
            same = alike & (whole == whole[index])
            part = alike & ~same & (trunks == trunks[index])
            done += np.where(same, tokens, 0) + np.where(part, np.minimum(tokens, tokens[index]), 0)
            alike = same
        return done


def _kind(recipe: Recipe) -> tuple[object, ...]:
    """Everything but the phases that recipes must have in common to share training."""
    cosine = recipe.tokens if recipe.schedule is Schedule.COSINE else 0
    same = recipe.params, recipe.seed, tuple(recipe.unique.items()), recipe.data, recipe.lr, recipe.warmup
    return *same, recipe.schedule, cosine
