"""Discrepancy between sizes: what every law misses beyond the measured sizes and budgets, as a random effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from mixlaw.analysis.audit.held import LARGEST, Held
from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Design, tenfolds
from mixlaw.analysis.data.observed import Observed

#: Expected before any fold, for a tenfold of size or budget: spread of a task's level, as a share of the loss; of what
#: single domains are worth, as a share of the differences between mixtures; of the factor on all differences, in logs.
LEVEL, MIXTURE, SCALE = 0.02, 0.1, 0.2
#: Weight of that in folds.
FOLDS = 1.0
#: The same level where all runs have one size: exponents are the prior's then. Between neighbouring sizes of the ladder
#: levels were missed by .2 to .35 for a tenfold, in simulations by .1 to .25.
LEVEL_OF_ONE_SIZE = 0.15
#: A fold that trains on one size alone counts for this much of one: its exponents come from the prior.
OF_ONE_SIZE = 0.25


@dataclass(frozen=True, eq=False)
class Discrepancy:
    """Standard deviations, in log loss, of a random effect that grows with the distance from what was measured.

        shift(recipe, task) = x (level u + mixture w . f / sqrt(F)) + d (exp(x scale v - (x scale)^2 / 2) - 1)

    x counts tenfolds of size or of budget, the larger of the two, beyond the measured ones; f are the recipe's F
    coordinates of exposure, in standard units, so that w . f / sqrt(F) has a spread of about 1 over measured recipes;
    d is how far the recipe's predicted log loss is from that of a typical mixture at the same size and budget. u, w
    and v are standard normal, and correlated over tasks: v by a half.

    Attributes:
        level: of a task at all recipes alike, (T,).
        mixture: of differences between recipes, (T,).
        scale: of the logarithm of the factor by which all differences grow, ().
    """

    level: Tensor
    mixture: Tensor
    scale: Tensor

    def shifts(
        self, design: Design, measured: Design, features: Features, tied: Tensor, apart: Tensor, count: int
    ) -> Tensor:
        """`count` draws of the shift of every recipe and task, (S, R, T); the same index is the same draw.

        Args:
            design: the recipes.
            measured: what was measured.
            features: the coordinates of both.
            tied: factor of the correlation of tasks, (T, T).
            apart: d, (R, T).
            count: S.
        """
        x = tenfolds(design, measured)
        f = features(design)[:, : features.groups[-1].start]
        tasks = len(self.level)
        normal = _normals(tasks + 1, f.shape[1] + 2)[torch.arange(count) % _DRAWS]
        tied_normal = torch.einsum("tu,suf->stf", tied, normal[:, :tasks, :-1])
        level = self.level * tied_normal[:, :, 0]
        slope = self.mixture[:, None] * tied_normal[:, :, 1:] / math.sqrt(f.shape[1])
        spread = self.scale * x[:, None]
        own, common = normal[:, None, :tasks, -1], normal[:, None, tasks:, -1]
        factor = torch.exp(spread * (own + common) / math.sqrt(2) - spread**2 / 2)
        return x[:, None] * (level[:, None] + torch.einsum("rf,stf->srt", f, slope)) + (factor - 1) * apart


_SEED, _DRAWS = 20, 256


@cache  # a search asks for the same numbers at every step
def _normals(tasks: int, terms: int) -> Tensor:
    """Standard normal numbers of every draw, (_DRAWS, tasks, terms)."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(_DRAWS, tasks, terms, generator=generator, dtype=torch.float64)


def typical_run(measured: Design, features: Features) -> Design:
    """The measured run whose mixture is nearest to the mean of all, one row."""
    return measured.select([int(features(measured)[:, : features.groups[-1].start].square().sum(1).argmin())])


def in_mixture_of(typical: Design, design: Design) -> Design:
    """The rows of a design in the mixture and schedule of a run, one row, no pool limited."""
    rows = len(design)
    return replace(
        design,
        tokens=typical.shares * design.total.detach()[:, None, None],
        lr_end=typical.lr_end.expand(rows, -1),
        decay=typical.decay.expand(rows, -1),
        unique=torch.full_like(design.unique, math.inf),
    )


def expected_discrepancy(observed: Observed) -> Discrepancy:
    """What other tables showed; of mixtures in shares of what they differ by at one size and budget."""
    scale = torch.stack([observed.design.params.log(), observed.design.total.log()], 1)
    spread = [_beyond(scale[seen], row[seen]) for row, seen in zip(observed.target, observed.seen, strict=True)]
    mixture = MIXTURE * torch.tensor(spread, dtype=torch.float64)
    level = torch.full_like(mixture, LEVEL if observed.design.sizes > 1 else LEVEL_OF_ONE_SIZE)
    return Discrepancy(level, mixture, torch.tensor(SCALE, dtype=torch.float64))


def _beyond(x: Tensor, y: Tensor) -> float:
    """Standard deviation of y, (R,), beyond a line in x, (R, C); 0 where there are too few values."""
    with_one = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), x], 1).detach()
    found = torch.linalg.lstsq(with_one, y[:, None], rcond=1e-9, driver="gelsd")
    freedom = len(y) - int(found.rank)
    rest = (y - (with_one @ found.solution)[:, 0]).square().sum()
    return math.sqrt(float(rest) / freedom) if freedom > 0 else 0.0


def learn_discrepancy(observed: Observed, held: Sequence[Held], calibration: Tensor) -> Discrepancy:
    """From how the largest size was predicted without it, under `expected_discrepancy`; without such a fold, that.

    Squared errors beyond what the laws' own posterior expects are split into the task's mean, the slope of what was
    measured on what was predicted, and the rest, per tenfold, and pooled over tasks: a fold is one draw of the effect,
    however many rows it has.
    """
    before = expected_discrepancy(observed)
    level, mixture, count = LEVEL**2 * FOLDS, MIXTURE**2 * FOLDS, FOLDS
    scale, counted = SCALE**2 * FOLDS, FOLDS
    for fold in (h for h in held if h.fold.kind == LARGEST):
        train, test = observed.design.select(fold.fold.train), observed.design.select(fold.fold.test)
        x = float(tenfolds(test, train).mean())
        if x == 0:
            continue
        known = observed.seen[:, fold.fold.test].to(torch.float64)
        rows = known.sum(1).clamp(min=1)
        error = (observed.target[:, fold.fold.test] - fold.mean.T) * known
        mean = error.sum(1) / rows
        off = (error - mean[:, None]) * known
        unit = before.mixture.clamp(min=1e-6) / MIXTURE
        apart = (fold.mean.T - ((fold.mean.T * known).sum(1) / rows)[:, None]) * known
        slope, doubt = _slope(apart, off)
        within, rest = (y.square().sum(1) / (rows - 1).clamp(min=1) for y in (off, off - slope[:, None] * apart))
        alone = expected_discrepancy(observed.select(fold.fold.train))
        discrepancy = x**2 * (alone.level**2 + alone.mixture**2 + (alone.scale**2 * apart.square()).sum(1) / rows)
        laws = ((calibration[:, None] * fold.deviation.T).square() * known).sum(1) / rows - discrepancy
        excess = (1 - laws.clamp(min=0) / (mean**2 + within).clamp(min=1e-12)).clamp(min=0)
        weight = 1.0 if fold.fold.extrapolates else OF_ONE_SIZE
        level += weight * float((excess * mean**2).mean()) / x**2
        mixture += weight * float((excess * rest / unit**2).mean()) / x**2
        telling = excess * apart.square().sum(1) / unit**2  # what the laws expect anyway tells nothing of it
        share = telling / telling.sum().clamp(min=1e-12)
        scale += weight * float(excess.mean()) * max(float((share * (slope**2 - doubt**2)).sum()), 0.0) / x**2
        counted += weight * float(excess.mean())
        count += weight
    grown = math.sqrt(mixture / count) / MIXTURE * before.mixture
    even = torch.full_like(grown, math.sqrt(level / count))
    return Discrepancy(even, grown, torch.tensor(math.sqrt(scale / counted), dtype=torch.float64))


def _slope(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes through the origin of y on x, both (T, Q), and their standard errors, (T,) each."""
    weight = x.square().sum(1).clamp(min=1e-12)
    slope = (x * y).sum(1) / weight
    return slope, (x * (y - slope[:, None] * x)).square().sum(1).sqrt() / weight
