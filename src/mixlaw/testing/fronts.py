"""How good a front is, and the front of NSGA-II (Deb et al. 2002) as a peer for the one of `pareto`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.optimizer.answers.front import compromises, dominated_by, group_values, group_weights
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.posterior import Posterior
from mixlaw.optimizer.search.climb import candidates
from mixlaw.optimizer.search.problem import problem_of
from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.optimizer.target.points import Points
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain

Floats = NDArray[np.float64]

POPULATION = 40
LOW, HIGH = -14.0, 8.0  # of logits, whose greatest in a phase is 0, and of dials


def hypervolume(values: Floats, floor: Floats) -> float:
    """Volume that rows (R, G) dominate above a floor (G,), by slicing along the first column (While et al. 2006)."""
    values = values[(values > floor).all(1)]
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(values.max() - floor[0])
    values, volume = values[values[:, 0].argsort()[::-1]], 0.0
    ends = np.append(values[1:, 0], floor[0])
    for i, end in enumerate(ends):
        if values[i, 0] > end:
            volume += (values[i, 0] - end) * hypervolume(values[: i + 1, 1:], floor[1:])
    return float(volume)


def nsga2_gains(
    posterior: Posterior,
    target: Target,
    domains: Sequence[Domain],
    groups: Mapping[str, Sequence[str]],
    *,
    draws: int,
    evaluations: int,
    seed: int = 0,
) -> Floats:
    """Mean gains of the recipes that NSGA-II shows for the same question as `pareto`, (R, G)."""
    goal = Goal({task: 1.0 for tasks in groups.values() for task in tasks})
    problem = problem_of(posterior, target, domains, goal=goal, draws=draws, caution=0.0)
    space, weights = problem.objectives[0], group_weights(posterior, groups)
    known = candidates(space, problem.baselines, 12, seed)
    points = evolved(space.allowed, partial(group_values, space, weights), known, evaluations, seed)
    shown = compromises([(space, points)], weights, list(groups))
    return np.array([[point.gains[name].mean for name in groups] for point in shown])


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    with torch.no_grad():
        known_values = values(known).numpy()
    study = optuna.create_study(directions=["maximize"] * known_values.shape[1], sampler=sampler)
    best_first = torch.tensor(np.argsort(dominated_by(known_values), kind="stable"))
    for row in _genes(allowed, known[best_first[: min(POPULATION, evaluations)]]):
        study.enqueue_trial({f"x{i}": float(gene) for i, gene in enumerate(row)})
    seen, remaining = [known], evaluations
    while remaining > 0:
        trials = [study.ask() for _ in range(min(POPULATION, remaining))]
        rows = [[trial.suggest_float(f"x{i}", LOW, HIGH) for i in range(allowed.size)] for trial in trials]
        with torch.no_grad():
            points = allowed.points(torch.tensor(rows, dtype=torch.float64))
            gains = values(points).tolist()
        for trial, value in zip(trials, gains, strict=True):
            study.tell(trial, value)
        seen.append(points)
        remaining -= len(trials)
    return Points.cat(seen)


def _genes(allowed: Feasible, points: Points) -> Floats:
    """Numbers of recipes within the range of genes, (R, size)."""
    numbers = allowed.numbers(points)
    phases, domains = allowed.shape
    logits = numbers[:, : phases * domains].reshape(-1, phases, domains)
    logits = logits - logits.amax(-1, keepdim=True)
    genes = torch.cat([logits.flatten(1), numbers[:, phases * domains :]], 1)
    return genes.clamp(LOW, HIGH).detach().numpy()
