"""A law of your own: a dataclass with a formula; how it is fitted is read off its fields."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import SHAPE_BETWEEN, TERM_PRIOR, Form, Parameter

#: Key of a field's metadata.
_PRIOR = "mixlaw"


def loss_term(share: float = math.exp(TERM_PRIOR[0]), factor: float = math.exp(TERM_PRIOR[1])) -> Any:
    """A coefficient in the unit of the loss.

    Args:
        share: of a typical loss that the term is at the centre of the measured sizes and budgets.
        factor: of one standard deviation of the prior.
    """
    return field(metadata={_PRIOR: ("loss", share, factor)})


def exponent(typical: float = 0.35, factor: float = 1.35) -> Any:
    """A number above 0 without a unit, alike for all tasks; `factor` is one standard deviation of its prior."""
    return field(metadata={_PRIOR: ("shape", typical, factor)})


def by_domain(typical: float = 1.0, factor: float = 3.0) -> Any:
    """Numbers above 0, one per domain: a tensor (K,); `factor` is one standard deviation of their prior."""
    return field(metadata={_PRIOR: ("domain", typical, factor)})


@dataclass(frozen=True, eq=False)
class ParametricLaw(ABC):
    """Base of a law of your own: declare the coefficients as fields, write the formula as `loss`.

    A field is a `loss_term()`, an `exponent()` or a vector `by_domain()`. All are positive and fitted as logarithms,
    terms of the loss by every task alone, exponents partially pooled over tasks.

    Attributes:
        phases, domains: names of the axes.
        typical_params, typical_tokens: centre of the measured runs; `loss` sees sizes and tokens in these units, so
            that terms are of the order of the loss and their priors fit any scale.
    """

    phases: tuple[str, ...] = field(default=(), kw_only=True)
    domains: tuple[str, ...] = field(default=(), kw_only=True)
    typical_params: float = field(default=1.0, kw_only=True)
    typical_tokens: float = field(default=1.0, kw_only=True)

    @abstractmethod
    def loss(self, design: Design) -> Tensor:
        """Expected loss of every recipe, (R,); params, tokens and unique tokens in units of typical ones."""

    def __call__(self, design: Design) -> Tensor:
        """Expected loss of every recipe, (R,), in the unit of the law's own loss."""
        aligned = design.aligned(self.phases or design.phases, self.domains or design.domains)
        kinds = {one.name: one.metadata.get(_PRIOR, ("",))[0] for one in fields(self)}
        vectors: dict[str, Any] = {
            name: torch.as_tensor(getattr(self, name), dtype=torch.float64) for name in kinds if kinds[name] == "domain"
        }
        return replace(self, **vectors).loss(_in_units(aligned, self.typical_params, self.typical_tokens))

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return _OwnForm(cls, design)


def _in_units(design: Design, params: float, tokens: float) -> Design:
    return replace(design, params=design.params / params, tokens=design.tokens / tokens, unique=design.unique / tokens)


def _parameters(law: type[ParametricLaw], design: Design) -> dict[str, tuple[Parameter, ...]]:
    blocks = {}
    for one in fields(law):
        kind, typical, factor = one.metadata.get(_PRIOR, (None, 1.0, 1.0))
        mean, spread = math.log(typical), math.log(factor)
        if kind == "domain":
            blocks[one.name] = tuple(Parameter(f"{one.name} {d}", mean, spread, spread) for d in design.domains)
        elif kind is not None:
            blocks[one.name] = (Parameter(one.name, mean, spread, SHAPE_BETWEEN if kind == "shape" else 0.0),)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise TypeError(
                f"{law.__name__}.{one.name} has no prior; declare it as loss_term(), exponent() or by_domain()"
            )
    return blocks


class _OwnForm(Form):
    """theta = logarithms of the fields, in their order."""

    def __init__(self, law: type[ParametricLaw], design: Design) -> None:
        super().__init__(design, **_parameters(law, design))
        kinds = {one.name: one.metadata[_PRIOR][0] for one in fields(law) if _PRIOR in one.metadata}
        self.family, self.kinds = law, kinds
        self.centre: dict[str, Any] = {
            "phases": self.phases,
            "domains": self.domains,
            "typical_params": math.exp(self.log_n),
            "typical_tokens": math.exp(self.log_d),
        }

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        scaled = _in_units(design, math.exp(self.log_n), math.exp(self.log_d))
        value: Tensor = vmap(lambda row: self._law(row, 0.0).loss(scaled).log())(theta)
        return value

    def law(self, theta: Tensor, log_scale: float) -> ParametricLaw:
        """The law of one vector (n,)."""
        found = self._law(theta, log_scale)
        numbers: dict[str, Any] = {
            name: float(getattr(found, name)) for name, kind in self.kinds.items() if kind != "domain"
        }
        return replace(found, **numbers)

    def _law(self, theta: Tensor, log_scale: float) -> ParametricLaw:
        shift = {"loss": log_scale}
        parts = {name: (theta[self.at[name]] + shift.get(kind, 0.0)).exp() for name, kind in self.kinds.items()}
        values: dict[str, Any] = {
            name: part if self.kinds[name] == "domain" else part[0] for name, part in parts.items()
        }
        return self.family(**values, **self.centre)
