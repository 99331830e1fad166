"""Coefficients of fitted laws: value, interval and meaning, as the law's own docstring gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from inspect import cleandoc, getdoc
from typing import Any

import numpy as np
from torch import Tensor

from mixlaw.analysis.laws.base import Law
from mixlaw.analysis.surface.member import Member
from mixlaw.numbers import percent
from mixlaw.printable import Page, Printable
from mixlaw.tables import Cell, Column, Table, number

DRAWS = 64  # posterior samples behind an interval


@dataclass(frozen=True)
class Estimate:
    """A coefficient in its own unit.

    Attributes:
        value: of the best fit.
        error: standard error.
        lo90, hi90: 90 % interval.
        meaning: what it is, and its unit.
    """

    value: float
    error: float
    lo90: float = float("nan")
    hi90: float = float("nan")
    meaning: str = ""

    def __str__(self) -> str:
        if not (np.isfinite(self.error) and self.error > 0):
            return f"{self.value:.4g}"
        if not 1e-3 < abs(self.value) < 1e5:
            return f"{self.value:.3g} ± {self.error:.2g}"
        digits = min(6, max(0, 1 - int(np.floor(np.log10(self.error)))))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class FittedLaw(Printable):
    """One law as fitted to one task.

    Attributes:
        task, name: of the task and the law.
        share: weight of the law in the prediction of the task.
        formula: the law, from its docstring.
        coefficients: by name; one for each domain or phase where the law has a vector.
    """

    task: str
    name: str
    share: float
    formula: str
    coefficients: Mapping[str, Estimate]

    def __getitem__(self, name: str) -> Estimate:
        return self.coefficients[name]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        values = {name: estimate.as_json() for name, estimate in self.coefficients.items()}
        return {"share": self.share, "coefficients": values}

    def table(self) -> Table:
        """A row per coefficient; those without an error are constants."""
        columns = ["coefficient", Column("value"), Column("90 % interval", "interval"), "meaning"]
        rows = [[name, number(e.value, ".4g"), _interval(e), e.meaning] for name, e in self.coefficients.items()]
        return Table("coefficients", columns, rows)

    def page(self) -> Page:
        """The law, its formula and its coefficients."""
        answer = f"{self.name} for {self.task}, {percent(self.share)} of the prediction"
        return Page(answer, head=self.formula, tables=[self.table()])


def _interval(estimate: Estimate) -> Cell:
    if not estimate.error > 0:
        return Cell("constant")
    ends = {"lo90": estimate.lo90, "hi90": estimate.hi90}
    return Cell(f"{estimate.lo90:.4g} to {estimate.hi90:.4g}", ends)


def law_of(member: Member, task: int, share: float = 1.0) -> FittedLaw:
    """The law of a member as fitted to a task."""
    formula = _formula(member.law)
    return FittedLaw(member.observed.tasks[task], member.name, share, formula, coefficients(member, task, DRAWS))


def coefficients(member: Member, task: int, most: int = 32) -> dict[str, Estimate]:
    """Natural coefficients of one task's law with errors over at most `most` draws."""
    scale = float(member.observed.centre[task])
    best = member.form.law(member.theta[task], scale)
    draws = [_flat(member.form.law(theta, scale)) for theta in member.draws[:most, task]]
    meanings = _meanings(best)
    found = {}
    for name, value in _flat(best).items():
        low, lower, upper, high = np.quantile([draw[name] for draw in draws], [0.05, 0.16, 0.84, 0.95])
        # Half the width of the central 68 %: a standard error robust to outlying draws.
        meaning = meanings.get(name) or meanings.get(name.partition(" ")[0], "")
        found[name] = Estimate(value, float(upper - lower) / 2, float(low), float(high), meaning)
    return found


def _flat(law: Any) -> dict[str, float]:
    flat: dict[str, float] = {}
    for field in fields(law):
        value = getattr(law, field.name)
        if is_dataclass(value) and not isinstance(value, type):  # the law, and the schedule term beside it
            flat |= _flat(value)
        elif isinstance(value, float):
            flat[field.name] = value
        elif isinstance(value, Tensor) or (isinstance(value, tuple) and value and isinstance(value[0], float)):
            numbers = value.tolist() if isinstance(value, Tensor) else value
            names = getattr(law, "phases" if field.name == "retention" else "domains", ())
            names = names if len(names) == len(numbers) else range(len(numbers))
            flat |= {f"{field.name} {n}": v for n, v in zip(names, numbers, strict=True)}
    return flat


def _meanings(law: Any) -> dict[str, str]:
    """What the fields of a law are, and of the values inside it."""
    inside = (getattr(law, one.name) for one in fields(law))
    parts = (value for value in inside if is_dataclass(value) and not isinstance(value, type))
    return {name: meaning for part in parts for name, meaning in _meanings(part).items()} | _described(
        type(law).__doc__ or ""
    )


@cache
def _described(docstring: str) -> dict[str, str]:
    """Name -> meaning, of the attributes in a docstring."""
    _, _, text = cleandoc(docstring).partition("\nAttributes:\n")
    text = re.split(r"\n\S", text)[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    plain = ((names, re.sub(r",? \([KP],\)", "", " ".join(meaning.split())).rstrip(".")) for names, meaning in entries)
    return {name: meaning for names, meaning in plain for name in names.split(", ")}


def _formula(law: type[Law]) -> str:
    """The indented lines after the first sentence of a docstring."""
    block = re.search(r"\n\n((?:    .*\n?)+)", (getdoc(law) or "").partition("\nAttributes:\n")[0])
    lines = block[1].rstrip().splitlines() if block else []
    return "\n".join(line[4:] for line in lines)
