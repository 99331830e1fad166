"""Values inside the JSON documents of `mixlaw.documents`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Numbers = dict[str, float]


class Part(BaseModel):
    """A value inside documents."""

    model_config = ConfigDict(extra="forbid")


class Interval(Part):
    """A value with its 90 % interval, all in one unit."""

    mean: float
    lo90: float
    hi90: float


class Coefficient(Part):
    """A coefficient of a law: value, standard error (0 for a constant), 90 % interval and meaning."""

    value: float
    error: float
    lo90: float
    hi90: float
    meaning: str


class FittedLaw(Part):
    """A law in a task: its share of the prediction and its coefficients; a regressor has none."""

    share: float
    coefficients: dict[str, Coefficient]


class Gain(Part):
    """What a recipe gains over another: in all, by task and group, with probabilities to be better."""

    total: Interval
    by_task: dict[str, Interval]
    probability: float
    better: Numbers
    by_group: dict[str, Interval]
    better_groups: Numbers
    parts: Numbers
    without: dict[str, Interval]


class TaskFit(Part):
    """One task of a fit."""

    unit: str
    laws: dict[str, FittedLaw]
    status: str
    readiness: dict[str, Any]
    link: dict[str, Any] | None
    notes: list[str]
    noise: float
    spread: float
