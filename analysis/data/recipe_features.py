"""Recipes as columns of numbers for estimators of scikit-learn."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin

from mixlaw.analysis.data.coordinates import SOFT, Features
from mixlaw.analysis.data.design import Design, Floats

Shares = Literal["exposure", "plain", "root", "log"]
#: A column with a smaller standard deviation than this never varies: rounded tokens must not get a slope.
STEADY = {"share": 5e-4, "size": 0.01}


class RecipeFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Shares by phase, log size, log tokens and progress of recipes, standardised on the runs of `fit`, (R, F).

    A column that these runs never varied is 0 for every recipe.

    Args:
        shares: "plain", their square "root" or "log"; or "exposure", the coordinates of the residual process: log
            shares from each phase on, size, tokens and schedule, stretched outside of the measured sizes.

    Example:
        >>> from sklearn.linear_model import RidgeCV
        >>> from sklearn.pipeline import make_pipeline
        >>> ridge = make_pipeline(RecipeFeatures("root"), RidgeCV())  # ridge.fit(design, values).predict(design)
    """

    def __init__(self, shares: Shares = "exposure") -> None:
        self.shares = shares

    def fit(self, design: Design, values: Floats | None = None) -> Self:
        """Learn centre and units."""
        if self.shares == "exposure":
            self.features_ = Features.of(design)
            return self
        columns = _columns(design, self.shares)
        self.centre_, spread = columns.mean(0), columns.std(0)
        least = np.full(columns.shape[1], STEADY["size"])
        # A root or logarithm stretches the smallest shares: what counts is whether the shares themselves vary.
        shares = _columns(design, "plain")[:, :-3]
        least[:-3] = np.where(shares.std(0) > STEADY["share"], 0.0, np.inf)
        self.unit_ = np.where(spread > least, spread, np.inf)
        return self

    def transform(self, design: Design) -> Floats:
        """Coordinates of every recipe."""
        if self.shares == "exposure":
            coordinates: Floats = self.features_(design).detach().numpy()
            return coordinates
        standard: Floats = (_columns(design, self.shares) - self.centre_) / self.unit_
        return standard


def _columns(design: Design, how: Shares) -> Floats:
    """Shares by phase, log size, log tokens and progress, (R, P K + 3)."""
    shares = design.shares.detach().flatten(1)
    by_kind = {"plain": shares, "root": shares.sqrt(), "log": torch.log(shares + SOFT)}
    size = torch.stack([design.params.log(), design.total.log(), design.progress], 1)
    columns: Floats = torch.cat([by_kind[how], size.detach()], 1).numpy()
    return columns
