"""Regressors: estimators of scikit-learn fitted to all tasks, predicting beside the laws."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.audit.folds import mixture_groups
from mixlaw.analysis.audit.held import Fold, Held
from mixlaw.analysis.data.design import Design, Floats
from mixlaw.analysis.data.observed import Observed
from mixlaw.errors import InputError

#: Folds that say how far a regressor is off which knows no standard deviation of its own.
PARTS = 5
#: Fewer rows that measure a task than this, and every estimator predicts their mean.
FEWEST = 4


@dataclass(frozen=True, eq=False)
class Regressors:
    """An estimator fitted to every task, in log loss about the tasks' centres.

    Attributes:
        name: as given.
        estimators: one per task, each `predict(design)`; None where too few rows measure the task.
        spread: standard deviation of a new run about the prediction, of held-out mixtures, (T,).
    """

    name: str
    estimators: tuple[Any, ...]
    spread: Tensor

    def predict(self, design: Design) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a new run of every recipe, (R, T) each."""
        parts = [_predicted(one, design) for one in self.estimators]
        mean = torch.stack([torch.tensor(m) for m, _ in parts], 1)
        own = [torch.full_like(mean[:, 0], torch.nan) if s is None else torch.tensor(s) for _, s in parts]
        deviation = torch.stack(own, 1)
        return mean, torch.where(deviation.isnan(), self.spread.expand_as(mean), deviation)

    def held(self, observed: Observed, fold: Fold) -> Held:
        """What it predicts for the rows of a fold."""
        mean, deviation = self.predict(observed.design.select(fold.test))
        return Held(fold, mean, mean, deviation)


def fit_regressors(name: str, estimator: Any, observed: Observed) -> Regressors:
    """Fit clones of an estimator to all tasks.

    Args:
        name: for messages.
        estimator: a regressor whose first step takes a Design, as `make_pipeline(RecipeFeatures(), ...)`. If its
            `predict` takes `return_std`, that is the standard deviation of a new run; otherwise held-out
            mixtures tell it.
        observed: the measured rows.

    Raises:
        InputError: it cannot be fitted; the message says why.
    """
    try:
        every = torch.arange(len(observed.design))
        fitted = [_fit_one(estimator, observed, t, every) for t in range(len(observed.tasks))]
        sure = _knows_deviation(estimator)
        known = [sure and one is not None for one in fitted]
        spread = [torch.nan if k else _held_out_spread(estimator, observed, t) for t, k in enumerate(known)]
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the regressor {name!r} cannot be fitted ({error}); give a scikit-learn regressor that takes recipes: "
            "make_pipeline(mixlaw.RecipeFeatures(), ...)"
        ) from error
    return Regressors(name, tuple(fitted), torch.tensor(spread, dtype=torch.float64))


def _fit_one(estimator: Any, observed: Observed, t: int, rows: Tensor) -> Any:
    rows = rows[observed.seen[t, rows]]
    if len(rows) < FEWEST:
        return None
    from sklearn.base import clone  # half a second, which only fits take

    return clone(estimator).fit(observed.design.select(rows), observed.target[t, rows].numpy())


def _predicted(estimator: Any, design: Design) -> tuple[Floats, Floats | None]:
    """Mean and, where the estimator knows it, standard deviation, (R,) each."""
    if estimator is None:
        return np.zeros(len(design)), None
    if not _knows_deviation(estimator):
        return np.asarray(estimator.predict(design), dtype=np.float64), None
    mean, deviation = estimator.predict(design, return_std=True)
    return np.asarray(mean, dtype=np.float64), np.asarray(deviation, dtype=np.float64)


def _knows_deviation(estimator: Any) -> bool:
    steps: Sequence[tuple[str, Any]] = getattr(estimator, "steps", [("", estimator)])
    return "return_std" in inspect.signature(steps[-1][1].predict).parameters


def _held_out_spread(estimator: Any, observed: Observed, t: int) -> float:
    """Root mean square of the errors on held-out mixtures."""
    rows = torch.nonzero(observed.seen[t]).squeeze(1)
    group = mixture_groups(observed.design)[rows].numpy()
    parts = min(PARTS, len(set(group.tolist())))
    if parts < 2 or len(rows) < FEWEST + 1:
        return float(observed.target[t, rows].std(correction=0).nan_to_num(1.0).clamp(min=1e-4))
    errors = []
    from sklearn.model_selection import GroupKFold

    for train, test in GroupKFold(parts).split(group, groups=group):
        predicted = _predicted(_fit_one(estimator, observed, t, rows[train]), observed.design.select(rows[test]))[0]
        errors.append(predicted - observed.target[t, rows[test]].numpy())
    return float(max(np.sqrt(np.mean(np.concatenate(errors) ** 2)), 1e-4))
