"""Stacking: how much each law counts for each task, by how well it foretold held-out runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mixlaw.analysis.audit.held import Held, calibrate
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.laws.identify import one_size

#: Runs that what all tasks say is worth to one task.
SHARED_RUNS = 20.0
#: Runs that ordinary folds are worth beside extrapolating ones.
ORDINARY_RUNS = 10.0
#: A law that counts less than this in the average task is left out, and so is all but the best MOST.
LEAST, MOST = 0.05, 3
#: Standard errors by which a law must foretell held-out runs better than the exposure law to stand beside it where
#: sizes vary.
AHEAD = 1.0
#: Degrees of freedom of the Student t that scores a held-out run: one wild run must not choose the law.
FREEDOM = 5.0


def stack(observed: Observed, held: Mapping[str, Sequence[Held]]) -> Tensor:
    """Weights of M laws for T tasks that make the mixture of their predictive densities score best, (T, M).

    Yao et al. 2018 (arXiv:1704.02030), with a Dirichlet prior: tasks lean on what all of them say together. Folds that
    extrapolate come first: what the others say is worth no more than a few of their runs.

    Where sizes vary, a law stands beside the exposure law only where it foretells clearly better: a stack keeps some of
    each, which matters little among the measured runs, and much at other sizes, where laws go apart. Where no fold
    extrapolates, both count alike then: which fits the measured sizes does not tell which holds at others.

    Args:
        observed: all rows.
        held: predictions of the same folds by every law.
    """
    laws = list(held)
    tasks = len(observed.tasks)
    weights = torch.full((tasks, len(laws)), 1 / len(laws), dtype=torch.float64)
    if len(laws) == 1:
        return weights
    factor = [calibrate(observed, held[law]) for law in laws]
    scored = {}
    for extrapolating in (False, True):
        parts = [
            torch.stack([_score(observed, held[law][i], c) for law, c in zip(laws, factor, strict=True)], -1)
            for i, h in enumerate(held[laws[0]])
            if h.fold.extrapolates is extrapolating
        ]
        if parts:
            scored[extrapolating] = torch.cat(parts), _per_run(observed, held[laws[0]], extrapolating)
    if scored and not one_size(observed.design):
        score, run = map(torch.cat, zip(*scored.values(), strict=True))
        ahead, error = _mean(score - score[..., :1], run)
        weights = weights * (ahead >= AHEAD * error)  # 0 >= 0 for the exposure law itself
        weights = weights / weights.sum(1, keepdim=True)
        if True not in scored:
            return weights
    for extrapolating, (score, run) in scored.items():
        trust = ORDINARY_RUNS if extrapolating else 1.0
        shared = _mixture(score.flatten(0, 1)[:, None], run.repeat_interleave(tasks) / tasks, weights.mean(0)[None])
        weights = _mixture(score, run, trust * weights + SHARED_RUNS * shared)
    return weights


def _mean(score: Tensor, run: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over tasks and rows of scores (Q, T, M) with weights of rows (Q,), and its standard error; (M,) each."""
    told, share = score.nanmean(1), run / run.sum()
    mean = share @ told
    return mean, torch.sqrt(share @ (told - mean).square() / run.sum())


def chosen(weights: Tensor) -> list[int]:
    """Numbers of the laws worth keeping, in their order."""
    middle = weights.mean(0)
    best = middle.argsort(descending=True)[:MOST].tolist()
    return sorted(i for i in best if float(middle[i]) >= LEAST)


def combined(held: Sequence[Sequence[Held]], weights: Tensor) -> list[Held]:
    """What the mixture of M laws, of which each predicted the same folds, predicted with weights (T, M)."""
    return [_combined(parts, weights) for parts in zip(*held, strict=True)]


def _combined(parts: Sequence[Held], weights: Tensor) -> Held:
    names = ("mean", "law", "deviation")
    mean, law, deviation = (torch.stack([getattr(p, name) for p in parts], -1) for name in names)
    middle = (mean * weights).sum(-1)
    variance = ((deviation**2 + (mean - middle[..., None]) ** 2) * weights).sum(-1)
    return Held(parts[0].fold, middle, (law * weights).sum(-1), variance.sqrt())


def _score(observed: Observed, held: Held, factor: Tensor) -> Tensor:
    """Log density of what was measured, NaN where nothing was, (Q, T)."""
    scale = factor * held.deviation * ((FREEDOM - 2) / FREEDOM) ** 0.5
    z = held.z(observed) * held.deviation / scale
    density: Tensor = -0.5 * (FREEDOM + 1) * torch.log1p(z**2 / FREEDOM) - scale.log()
    return density


def _per_run(observed: Observed, held: Sequence[Held], extrapolating: bool) -> Tensor:
    """Weight of every held-out row: checkpoints of one run share the weight of a run, (Q,)."""
    run = observed.design.run_index
    count = torch.bincount(run).to(torch.float64)
    rows = [h.fold.test for h in held if h.fold.extrapolates is extrapolating]
    return 1 / count[run[torch.cat(rows)]]


def _mixture(score: Tensor, row: Tensor, prior: Tensor, rounds: int = 200) -> Tensor:
    """Posterior mean-field weights of mixture components by expectation-maximisation.

    Args:
        score: log densities of Q rows, (Q, T, M); a row with NaN is skipped.
        row: how much each row counts, (Q,).
        prior: pseudo-counts, (T, M).
        rounds: of the algorithm.
    """
    seen = ~score.isnan().any(-1)
    score = torch.where(seen[..., None], score, torch.zeros_like(score))
    count = torch.where(seen, row[:, None], torch.zeros_like(row)[:, None])[..., None]
    weights = prior / prior.sum(-1, keepdim=True)
    for _ in range(rounds):
        share = torch.softmax(score + weights.log(), -1)
        total = (count * share).sum(0) + prior
        weights = total / total.sum(-1, keepdim=True)
    return weights
