"""Peers that are hard to beat, as scikit-learn estimators of a Design; and mixtures chosen without a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from torch import Tensor

from mixlaw.analysis.audit.result import REGRESSIONS
from mixlaw.analysis.data.design import Design, Floats
from mixlaw.analysis.data.recipe_features import RecipeFeatures

#: Fewer rows than this and boosted trees only memorise.
TREES_NEED = 60
MEAN, TREES = "mean", "boosted trees"


class SingleScale(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The value of the nearest mixture at the largest measured size: ranking at one scale (DataDecide)."""

    def fit(self, design: Design, values: Floats) -> Self:
        """Keep the runs of the largest size."""
        largest = torch.nonzero(design.at_largest).squeeze(1)
        self.nearest_ = KNeighborsRegressor(1).fit(_shares(design.select(largest)), values[largest.numpy()])
        return self

    def predict(self, design: Design) -> Floats:
        """Values of recipes of any size, (R,)."""
        predicted: Floats = self.nearest_.predict(_shares(design))
        return predicted


def peers(rows: int) -> dict[str, Any]:
    """Estimators that fit this many rows, by the name that the audit prints: `fit(design, values).predict(design)`.

    The mean suits a task that recipes do not move; ridge regression picks its penalty by leave-one-out.
    """
    alphas = np.geomspace(1e-3, 1e3, 13)
    ridge = RidgeCV(alphas) if rows > 1 else Ridge()  # one row cannot be left out
    estimators: dict[str, Any] = {
        MEAN: make_pipeline(RecipeFeatures("plain"), DummyRegressor()),
        "nearest run": make_pipeline(RecipeFeatures(), KNeighborsRegressor(1)),
        "single scale": SingleScale(),
    } | {name: make_pipeline(RecipeFeatures(shares), ridge) for name, shares in REGRESSIONS.items()}
    if rows >= TREES_NEED:
        trees = HistGradientBoostingRegressor(early_stopping=False, random_state=0)
        estimators[TREES] = make_pipeline(RecipeFeatures("plain"), trees)
    return estimators


def _shares(design: Design) -> Floats:
    shares: Floats = design.shares.flatten(1).numpy()
    return shares


def uniform_choice(design: Design) -> Floats:
    """How far every recipe is from as many tokens of each domain, (R,)."""
    return _distance(design, torch.ones_like(design.unique))


def proportional_choice(design: Design) -> Floats:
    """How far every recipe is from tokens in proportion to what each domain has; NaN where that is unlimited, (R,)."""
    return _distance(design, design.unique)


def _distance(design: Design, wanted: Tensor) -> Floats:
    distance: Floats = (design.mixture - wanted / wanted.sum(1, keepdim=True)).abs().sum(1).numpy()
    return distance


#: Mixtures that are chosen without any fit: the measured recipe nearest to them represents them.
CHOICES: dict[str, Callable[[Design], Floats]] = {"uniform": uniform_choice, "proportional": proportional_choice}
