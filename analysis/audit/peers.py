"""Predictors that are hard to beat: the mean, the nearest run, one size's ranking, linear regression, LightGBM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.data.coordinates import Features
from mixlaw.analysis.data.design import Design, Floats

#: Maps measured recipes, their values of one task (R,) and new recipes to predictions.
Baseline = Callable[[Design, Floats, Design], Floats]
#: Fewer rows than this and boosted trees only memorise.
TREES_NEED = 60


def mean(train: Design, values: Floats, new: Design) -> Floats:
    """The mean of what was measured: what a task says that recipes do not move."""
    return np.full(len(new), values.mean())


def nearest_run(train: Design, values: Floats, new: Design) -> Floats:
    """The value of the run whose recipe is nearest in log exposures, size and tokens."""
    features = Features.of(train)
    found: Floats = values[torch.cdist(features(new), features(train)).argmin(1).numpy()]
    return found


def single_scale(train: Design, values: Floats, new: Design) -> Floats:
    """The value of the nearest mixture at the largest measured size: ranking at one scale (DataDecide)."""
    largest = torch.nonzero(train.at_largest).squeeze(1)
    at = train.select(largest)
    gap = torch.cdist(new.shares.flatten(1), at.shares.flatten(1))
    found: Floats = values[largest.numpy()][gap.argmin(1).numpy()]
    return found


def linear(train: Design, values: Floats, new: Design) -> Floats:
    """Ridge regression on shares by phase, log size and log tokens; the penalty is chosen by leave-one-out."""
    x, z = _columns(train), _columns(new)
    centre, unit = x.mean(0), x.std(0) + 1e-9
    left, singular, right = np.linalg.svd((x - centre) / unit, full_matrices=False)
    residual, best = values - values.mean(), (np.inf, np.zeros(x.shape[1]))
    for penalty in np.geomspace(1e-3, 1e3, 13):
        shrink = singular**2 / (singular**2 + penalty)
        leverage = (left**2 * shrink).sum(1) + 1 / len(values)
        fitted = left @ (shrink * (left.T @ residual))
        score = float(np.mean(((residual - fitted) / np.clip(1 - leverage, 1e-3, None)) ** 2))
        slopes = right.T @ (singular / (singular**2 + penalty) * (left.T @ residual))
        best = min(best, (score, slopes), key=lambda pair: pair[0])
    predicted: Floats = values.mean() + (z - centre) / unit @ best[1]
    return predicted


def lightgbm(train: Design, values: Floats, new: Design) -> Floats:
    """Boosted trees as RegMix sets them (1,000 rounds, rate .01); NaN where LightGBM is absent or rows are few."""
    if len(values) < TREES_NEED:
        return np.full(len(new), np.nan)
    try:
        from lightgbm import LGBMRegressor  # an extra, used for comparison only; it takes seconds to import
    except ImportError:
        return np.full(len(new), np.nan)
    trees = LGBMRegressor(n_estimators=1000, learning_rate=0.01, verbose=-1, n_jobs=1)
    return np.asarray(trees.fit(_columns(train), values).predict(_columns(new)), dtype=np.float64)


def uniform_choice(design: Design) -> Floats:
    """How far every recipe is from as many tokens of each domain, (R,)."""
    return _apart(design, torch.ones_like(design.unique))


def proportional_choice(design: Design) -> Floats:
    """How far every recipe is from tokens in proportion to what each domain has; NaN where that is unlimited, (R,)."""
    return _apart(design, design.unique)


def _apart(design: Design, wanted: Tensor) -> Floats:
    shares = wanted / wanted.sum(1, keepdim=True)
    found: Floats = (design.mixture - shares).abs().sum(1).numpy()
    return found


def _columns(design: Design) -> Floats:
    parts = [design.shares.flatten(1), torch.stack([design.params.log(), design.total.log(), design.progress], 1)]
    columns: Floats = torch.cat(parts, 1).numpy()
    return columns


#: All of them by the name that the audit prints.
BASELINES: dict[str, Baseline] = {
    "mean": mean,
    "nearest run": nearest_run,
    "single scale": single_scale,
    "linear": linear,
    "LightGBM": lightgbm,
}

#: Mixtures that are chosen without any fit: the recipe nearest to them stands for them.
CHOICES: dict[str, Callable[[Design], Floats]] = {"uniform": uniform_choice, "proportional": proportional_choice}
