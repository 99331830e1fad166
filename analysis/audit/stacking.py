"""Stacking: weight of each law in each task, by how well it predicted held-out runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.analysis.audit.held import Held, calibrate
from mixlaw.analysis.data.observed import Observed
from mixlaw.analysis.laws.identify import mixtures_vary, one_size

#: Pseudo-count, in runs, of the pooled weights in each task's weights.
SHARED_RUNS = 20.0
#: Pseudo-count, in runs, of interpolating folds when extrapolating folds exist.
ORDINARY_RUNS = 10.0
#: Laws below this mean weight are dropped, and all but the best MOST.
LEAST, MOST = 0.05, 3
#: Standard errors by which a law may predict held-out runs worse than the exposure law and still be stacked with it
#: where sizes vary.
BEHIND = 2.0
#: Standard errors by which weights by precision must score better than plain ones, where regressors are beside laws.
SURE = 2.0
#: Degrees of freedom of the Student t that scores a held-out run: one outlier must not choose the law.
FREEDOM = 5.0


def stack(observed: Observed, held: Mapping[str, Sequence[Held]], alike: int = 0) -> Tensor:
    """Weights of M laws for T tasks that make the mixture of their predictive densities score best, (T, M).

    Yao et al. 2018 (arXiv:1704.02030), with a Dirichlet prior: tasks are shrunk to their pooled weights. Folds that
    extrapolate come first: the others count for a few of their runs only.

    Where sizes vary, a law leaves the stack where it predicts clearly worse than the exposure law: small weights matter
    little among the measured runs, and much at other sizes, where laws diverge. One that is not clearly worse stays,
    since without it the stack would be too sure of the others. Where no fold extrapolates, all that stay get equal
    weights: the fit to measured sizes does not say which holds at others.

    Where mixtures vary, our own laws that stay share their weight equally: held-out runs lie far apart, and the law
    that predicts them best predicts small changes of a mixture no better. A proposal is the optimum of the weighted
    mean, and so of the errors of a law that has all the weight.

    Args:
        observed: all rows.
        held: predictions of the same folds by every law.
        alike: number of laws, the first ones, that share their weight equally where mixtures vary or sizes do not.
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
        weights = weights * (ahead >= -BEHIND * error)  # 0 >= 0 for the exposure law itself
        weights = weights / weights.sum(1, keepdim=True)
        if True not in scored:
            return weights
    for extrapolating, (score, run) in scored.items():
        trust = ORDINARY_RUNS if extrapolating else 1.0
        shared = _mixture(score.flatten(0, 1)[:, None], run.repeat_interleave(tasks) / tasks, weights.mean(0)[None])
        weights = _mixture(score, run, trust * weights + SHARED_RUNS * shared)
    if alike and (one_size(observed.design) or mixtures_vary(observed.design)):
        stay = (weights[:, :alike] > 0).to(torch.float64)
        weights[:, :alike] = weights[:, :alike].sum(1, keepdim=True) * stay / stay.sum(1, keepdim=True)
    return weights


def _mean(score: Tensor, run: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over tasks and rows of scores (Q, T, M) with weights of rows (Q,), and its standard error; (M,) each."""
    by_row, share = score.nanmean(1), run / run.sum()
    mean = share @ by_row
    return mean, torch.sqrt(share @ (by_row - mean).square() / run.sum())


def chosen(weights: Tensor) -> list[int]:
    """Numbers of the laws to keep, ascending."""
    middle = weights.mean(0)
    best = middle.argsort(descending=True)[:MOST].tolist()
    return sorted(i for i in best if float(middle[i]) >= LEAST)


def combined(held: Sequence[Sequence[Held]], weights: Tensor) -> list[Held]:
    """Predictions of the mixture, with weights (T, M), of M laws that predicted the same folds."""
    return [_combined(parts, weights) for parts in zip(*held, strict=True)]


def _combined(parts: Sequence[Held], weights: Tensor) -> Held:
    names = ("mean", "law", "deviation")
    mean, law, deviation = (torch.stack([getattr(p, name) for p in parts], -1) for name in names)
    middle, spread = blend(mean, deviation, weights)
    apart = torch.stack([p.deviation if p.apart is None else p.apart for p in parts], -1)
    differences = blend(mean - mean.mean(0), apart, weights)[1]
    return Held(parts[0].fold, middle, (law * weights).sum(-1), spread, differences)


def blend(mean: Tensor, deviation: Tensor, weights: Tensor, by_row: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a mixture of M normals, (R, T) each from (R, T, M).

    Args:
        mean, deviation: of every normal, (R, T, M).
        weights: summing to 1, (T, M).
        by_row: whether each row's weights go with predictive precision too, so that who is sure of a row decides it.
    """
    if by_row:
        weights = weights * deviation**-2
        weights = weights / weights.sum(-1, keepdim=True)
    middle = (mean * weights).sum(-1)
    variance = ((deviation**2 + (mean - middle[..., None]) ** 2) * weights).sum(-1)
    return middle, variance.sqrt()


@dataclass(frozen=True, eq=False)
class Beside:
    """How regressors enter the prediction of every task beside the laws.

    Attributes:
        shares: of each regressor, the laws having the rest, (T, E).
        scale: factor on each regressor's deviation that makes it as well calibrated as that of the laws, (T, E).
        by_row: whether rows weigh by precision, `blend`.
    """

    shares: Tensor
    scale: Tensor
    by_row: bool

    def joined(self, predictions: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Mean and deviation (R, T) from those of the laws and of every regressor, (R, T) each."""
        mean, deviation = (torch.stack(part, -1) for part in zip(*predictions, strict=True))
        one = torch.ones(len(self.scale), 1, dtype=torch.float64)
        rest = 1 - self.shares.sum(1, keepdim=True)
        scaled = deviation * torch.cat([one, self.scale], 1)
        return blend(mean, scaled, torch.cat([rest, self.shares], 1), self.by_row)

    def held(self, laws: Sequence[Held], others: Sequence[Sequence[Held]]) -> list[Held]:
        """Predictions of the same folds by the laws together and by regressors, joined."""
        joined = [self.joined([(p.mean, p.deviation) for p in parts]) for parts in zip(laws, *others, strict=True)]
        return [replace(h, mean=m, deviation=d) for h, (m, d) in zip(laws, joined, strict=True)]


def beside_laws(observed: Observed, laws: Sequence[Held], others: Sequence[Sequence[Held]], shares: Tensor) -> Beside:
    """How regressors enter: with their shares (T, E), or row by row where that scores held-out rows clearly better.

    Who is right near measured runs and wrong far from them has a low score, and next to no share; row by row all are
    equal but for their precision.
    """
    factor = calibrate(observed, laws)
    scale = torch.stack([calibrate(observed, parts) / factor for parts in others], 1)
    equal = torch.full_like(shares, 1 / (1 + len(others)))
    ways = [Beside(shares, scale, by_row=False), Beside(shares, scale, by_row=True), Beside(equal, scale, by_row=True)]
    scores = []
    for way in ways:
        held = way.held(laws, others)
        scores.append(torch.cat([_score(observed, h, calibrate(observed, held)) for h in held]))
    gains = torch.stack([(score - scores[0]).nanmean(1) for score in scores])
    best = int(gains.mean(1).argmax())
    return ways[best if gains[best].mean() > SURE * gains[best].std() / gains.shape[1] ** 0.5 else 0]


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
