"""What finished trials teach: the objective's surface, and the mixtures that promise most beside what is running."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.optimizer.optuna.simplex import Simplex
from mixlaw.optimizer.optuna.trials import Stage
from mixlaw.records import phase_order

Floats = NDArray[np.float64]
Mixed = Sequence[tuple[Stage, Mapping[str, float]]]  # the phases of one trial in order, with their shares

#: Posterior draws of a surface.
DRAWS = 64
#: Recipes tried at random, and in each round around the best of all so far.
TRIED, ROUND = 256, 128
#: How far a round looks around them, in log shares, and how many they are.
WIDTHS, KEPT = (0.7, 0.35, 0.2, 0.1, 0.05), 12
#: The objective becomes a loss around 1 with this spread, which is common for losses over mixtures.
SPREAD = 0.05
#: Standard scores further out than these count as these.
BEST, WORST = -15.0, 8.0


@dataclass(frozen=True)
class Data:
    """R finished trials as numbers, equal and hashed by content.

    Attributes:
        phases, domains: axes, phases in the order of training.
        rows: tokens by phase and domain, then unique tokens by domain (infinity where unlimited), (R, P K + K).
        losses: the objective as a loss, (R,).
    """

    phases: tuple[str, ...]
    domains: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    losses: tuple[float, ...]

    @classmethod
    def of(cls, trials: Sequence[Mixed], values: Floats) -> Data:
        """Read trials and their objective, to be minimised, (R,)."""
        phases = phase_order(dict.fromkeys(tuple(stage.phase for stage, _ in trial) for trial in trials))
        domains = dict.fromkeys(name for trial in trials for stage, _ in trial for name in stage.simplex.domains)
        bare = cls(tuple(phases), tuple(domains), (), tuple(as_losses(values).tolist()))
        return cls(bare.phases, bare.domains, tuple(tuple(bare.row(trial).tolist()) for trial in trials), bare.losses)

    def knows(self, stage: Stage) -> bool:
        """Whether a phase and all its domains are among the axes."""
        return stage.phase in self.phases and set(stage.simplex.domains) <= set(self.domains)

    def row(self, trial: Mixed) -> Floats:
        """One trial on these axes, (P K + K,)."""
        row = np.concatenate([np.zeros(len(self.phases) * len(self.domains)), np.full(len(self.domains), np.inf)])
        for stage, mixture in trial:
            row[self.columns(stage)] = [stage.tokens * mixture.get(name, 0.0) for name in stage.simplex.domains]
            for name, count in stage.unique.items():
                row[len(self.phases) * len(self.domains) + self.domains.index(name)] = count
        return row

    def columns(self, stage: Stage) -> list[int]:
        """Where the domains of a phase stand in a row."""
        first = self.phases.index(stage.phase) * len(self.domains)
        return [first + self.domains.index(name) for name in stage.simplex.domains]

    def table(self, rows: Floats) -> pl.DataFrame:
        """Rows as a table of records without metrics; the model's size is the same for all, so any will do.

        Tokens may be shares, of one token in all: a size that is no larger keeps them tokens to a law.
        """
        params = min(1e8, float(rows[:, : len(self.phases) * len(self.domains)].sum(1).min(initial=1e8)))
        names = [f"tokens:{p}:{d}" for p in self.phases for d in self.domains] + [f"unique:{d}" for d in self.domains]
        return pl.DataFrame({"params": np.full(len(rows), params), **dict(zip(names, rows.T, strict=True))})


def as_losses(values: Floats) -> Floats:
    """An objective to be minimised as a loss that a law can take: median 1, robust spread SPREAD, (R,).

    A law of a loss stays one under such a change of scale, which moves its floor and scales its terms.
    """
    finite = values[np.isfinite(values)]
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    scale = (high - low) / 1.349 if high > low else 1.0  # the quartiles of a normal lie 1.349 deviations apart
    return np.asarray(1 + SPREAD * np.clip((values - middle) / scale, BEST, WORST))


def propose(
    data: Data, running: Sequence[Mixed], fixed: Mixed, ahead: Sequence[Stage], seed: int, rng: np.random.Generator
) -> list[Floats]:
    """Mixtures of the open phases with the greatest expected improvement over all that is measured or running.

    In each posterior draw the best of the measured and running recipes is the one to beat (noisy expected improvement,
    Letham et al. 2019), so a running trial takes away the promise of its surroundings.

    Args:
        data: finished trials.
        running: trials under way, as far as they are mixed.
        fixed: phases of this trial that are mixed already.
        ahead: the others, in order.
        seed: of the posterior draws.
        rng: of the search.
    """
    surfaces = _surfaces(data, seed)
    known = [data.row(trial) for trial in running if trial and all(data.knows(stage) for stage, _ in trial)]
    base, columns = data.row([*fixed, *((stage, {}) for stage in ahead)]), [*map(data.columns, ahead)]

    def losses(rows: Floats) -> Floats:
        """Loss of recipes in each posterior draw, (S, R)."""
        with torch.no_grad():
            return surfaces.draws(Design.from_table(data.table(rows), {}), DRAWS)[..., 0].numpy()

    best = losses(np.array([*data.rows, *known])).min(1, keepdims=True)

    def gain(points: Sequence[Floats]) -> Floats:
        """Expected improvement of N recipes, given as mixtures (N, K) of each open phase, (N,)."""
        rows = np.tile(base, (len(points[0]), 1))
        for stage, where, shares in zip(ahead, columns, points, strict=True):
            rows[:, where] = stage.tokens * shares
        return np.asarray(np.maximum(best - losses(rows), 0).mean(0))

    simplices = [stage.simplex for stage in ahead]
    first = np.array(data.rows)[np.argsort(data.losses, kind="stable")[:KEPT]]
    starts = [stage.simplex.read(_shares(first[:, at])) for stage, at in zip(ahead, columns, strict=True)]
    return _search(gain, simplices, starts, rng)


def _shares(tokens: Floats) -> Floats:
    """Tokens (R, K) by the sum of their row; zeros where there are none."""
    return np.asarray(tokens / np.maximum(tokens.sum(1, keepdims=True), 1e-12))


def _search(
    gain: Callable[[Sequence[Floats]], Floats],
    simplices: Sequence[Simplex],
    starts: Sequence[Floats],
    rng: np.random.Generator,
) -> list[Floats]:
    """The point of a product of simplices with the greatest gain: starts and uniform tries, then around the best."""
    points = [np.concatenate([s, simplex.uniform(TRIED, rng)]) for s, simplex in zip(starts, simplices, strict=True)]
    gains = gain(points)
    for width in WIDTHS:
        top = np.argsort(-gains, kind="stable")[:KEPT]
        points, gains = [p[top] for p in points], gains[top]
        parents = np.arange(ROUND) % len(top)
        tried = [s.near(p[parents], width, rng) for s, p in zip(simplices, points, strict=True)]
        points = [np.concatenate(pair) for pair in zip(points, tried, strict=True)]
        gains = np.concatenate([gains, gain(tried)])
    return [p[gains.argmax()] for p in points]


@lru_cache(maxsize=4)
def _surfaces(data: Data, seed: int) -> Surfaces:
    """Surface of the objective; kept for the other phases of the same trial."""
    table = data.table(np.array(data.rows)).with_columns(pl.Series("metric:objective", data.losses))
    units = {"objective": "bits/byte"}
    return fit(table, units=units, unique={}, resamples=DRAWS, seed=seed, audited=False)
