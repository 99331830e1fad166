"""NSGA-II (Deb et al. 2002) over recipes, by Optuna: whole generations are evaluated in one batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.points import Points

Floats = NDArray[np.float64]

POPULATION = 40
LOW, HIGH = -14.0, 8.0  # of logits, whose greatest in a phase is 0, and of dials


def evolved(
    allowed: Feasible, values: Callable[[Points], Tensor], known: Points, evaluations: int, seed: int
) -> Points:
    """Evolve recipes for several objectives at once; all that were evaluated, the known ones first.

    Args:
        allowed: where to stay; genes are the numbers that it maps to recipes.
        values: objectives of R recipes, (R, G), to be maximised.
        known: recipes to begin with, of which the best are the first generation.
        evaluations: recipes to evaluate.
        seed: of the sampler.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    with torch.no_grad():
        worth = values(known).numpy()
    study = optuna.create_study(directions=["maximize"] * worth.shape[1], sampler=sampler)
    for row in _genes(allowed, known[best_first(worth)[: min(POPULATION, evaluations)]]):
        study.enqueue_trial({f"x{i}": float(gene) for i, gene in enumerate(row)})
    seen, left = [known], evaluations
    while left > 0:
        trials = [study.ask() for _ in range(min(POPULATION, left))]
        rows = [[trial.suggest_float(f"x{i}", LOW, HIGH) for i in range(allowed.size)] for trial in trials]
        with torch.no_grad():
            points = allowed.points(torch.tensor(rows, dtype=torch.float64))
            found = values(points).tolist()
        for trial, value in zip(trials, found, strict=True):
            study.tell(trial, value)
        seen.append(points)
        left -= len(trials)
    return Points.cat(seen)


def beaten(values: Floats) -> NDArray[np.int64]:
    """How many other rows of (R, G) are worse than each one in no column and better in some, (R,)."""
    one, other = values[:, None], values[None]
    worse = np.all(one <= other, axis=-1) & np.any(one < other, axis=-1)
    return np.asarray(worse.sum(1), dtype=np.int64)


def best_first(values: Floats) -> Tensor:
    """Indices of rows (R, G), those beaten by few others first."""
    return torch.tensor(np.argsort(beaten(values), kind="stable"))


def _genes(allowed: Feasible, points: Points) -> Floats:
    """Numbers of recipes within the range of genes, (R, size)."""
    numbers = allowed.numbers(points)
    phases, domains = allowed.shape
    logits = numbers[:, : phases * domains].reshape(-1, phases, domains)
    logits = logits - logits.amax(-1, keepdim=True)
    found = torch.cat([logits.flatten(1), numbers[:, phases * domains :]], 1)
    return found.clamp(LOW, HIGH).detach().numpy()
