"""Discrepancy between sizes: what every law misses beyond the measured sizes and budgets, as a random effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mixlaw.analysis.audit.held import LARGEST, Held
from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Design, tenfolds
from mixlaw.analysis.data.observed import Observed

#: Expected before any fold: spread of a task's level, as a share of the loss, and of the differences between mixtures,
#: as a share of themselves, for a tenfold of size or budget; and the weight of that in folds.
LEVEL, MIXTURE, FOLDS = 0.02, 0.1, 1.0
#: The same level where all runs have one size: exponents are the prior's then. Between neighbouring sizes of the ladder
#: levels were missed by .2 to .35 for a tenfold, in simulations by .1 to .25.
LEVEL_OF_ONE_SIZE = 0.15
#: A fold that trains on one size alone counts for this much of one: its exponents come from the prior.
OF_ONE_SIZE = 0.25


@dataclass(frozen=True, eq=False)
class Discrepancy:
    """Standard deviations, in log loss, of a random effect that grows with the distance from what was measured.

        shift(recipe, task) = x (level u + mixture w . f / sqrt(F))      u and w standard normal, tied over tasks

    x counts tenfolds of size or of budget, the larger of the two, beyond the measured ones; f are the recipe's F
    coordinates of exposure, in standard units, so that w . f / sqrt(F) has a spread of about 1 over measured recipes.

    Attributes:
        level: of a task at all recipes alike, (T,).
        mixture: of differences between recipes, (T,).
    """

    level: Tensor
    mixture: Tensor

    def shifts(self, design: Design, measured: Design, features: Features, tied: Tensor, count: int) -> Tensor:
        """`count` draws of the shift of every recipe and task, (S, R, T); the same index is the same draw."""
        x = tenfolds(design, measured)
        f = features(design)[:, : features.groups[-1].start]
        normal = _normals(len(self.level), 1 + f.shape[1])[torch.arange(count) % _DRAWS]
        tied_normal = torch.einsum("tu,suf->stf", tied, normal)
        level = self.level * tied_normal[:, :, 0]
        slope = self.mixture[:, None] * tied_normal[:, :, 1:] / math.sqrt(f.shape[1])
        return x[:, None] * (level[:, None] + torch.einsum("rf,stf->srt", f, slope))


_SEED, _DRAWS = 20, 256


@cache  # a search asks for the same numbers at every step
def _normals(tasks: int, terms: int) -> Tensor:
    """Standard normal numbers of every draw, (_DRAWS, tasks, terms)."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(_DRAWS, tasks, terms, generator=generator, dtype=torch.float64)


def expected_discrepancy(observed: Observed) -> Discrepancy:
    """What other tables showed; differences between mixtures scale with their spread over the measured runs."""
    spread = [row[seen].std(correction=0) for row, seen in zip(observed.target, observed.seen, strict=True)]
    mixture = MIXTURE * torch.stack(spread).nan_to_num(0.0)
    return Discrepancy(torch.full_like(mixture, LEVEL if observed.design.sizes > 1 else LEVEL_OF_ONE_SIZE), mixture)


def learn_discrepancy(observed: Observed, held: Sequence[Held], calibration: Tensor) -> Discrepancy:
    """From how the largest size was predicted without it, under `expected_discrepancy`; without such a fold, that.

    Squared errors beyond what the laws' own posterior expects are split into the task's mean and what differs between
    recipes, per tenfold, and pooled over tasks: a fold is one draw of the effect, however many rows it has.
    """
    before = expected_discrepancy(observed)
    level, mixture, count = LEVEL**2 * FOLDS, MIXTURE**2 * FOLDS, FOLDS
    for fold in (h for h in held if h.fold.kind == LARGEST):
        train, test = observed.design.select(fold.fold.train), observed.design.select(fold.fold.test)
        x = float(tenfolds(test, train).mean())
        if x == 0:
            continue
        known = observed.seen[:, fold.fold.test].to(torch.float64)
        rows = known.sum(1).clamp(min=1)
        error = (observed.target[:, fold.fold.test] - fold.mean.T) * known
        mean = error.sum(1) / rows
        within = ((error - mean[:, None]).square() * known).sum(1) / (rows - 1).clamp(min=1)
        alone = expected_discrepancy(observed.select(fold.fold.train))
        discrepancy = x**2 * (alone.level**2 + alone.mixture**2)
        laws = ((calibration[:, None] * fold.deviation.T).square() * known).sum(1) / rows - discrepancy
        excess = (1 - laws.clamp(min=0) / (mean**2 + within).clamp(min=1e-12)).clamp(min=0)
        weight = 1.0 if fold.fold.extrapolates else OF_ONE_SIZE
        level += weight * float((excess * mean**2).mean()) / x**2
        mixture += weight * float((excess * within / (before.mixture / MIXTURE).clamp(min=1e-6) ** 2).mean()) / x**2
        count += weight
    scale = torch.ones_like(before.level)
    return Discrepancy(math.sqrt(level / count) * scale, math.sqrt(mixture / count) / MIXTURE * before.mixture)
