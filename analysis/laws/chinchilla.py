"""The Chinchilla law: loss of a model of N parameters trained on D tokens (Hoffmann et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, ClosedForm, Form, Parameter, Procedure
from mixlaw.analysis.laws.identify import one_budget, one_size
from mixlaw.analysis.laws.terms import softmax_parts


@dataclass(frozen=True)
class Chinchilla:
    """Loss of a model with N parameters trained on D tokens, mixture ignored.

        L(N, D) = floor + a / N**alpha + b / D**beta

    Attributes:
        floor: irreducible loss, nats per token.
        a, alpha: scale and exponent of the capacity term, N in parameters.
        b, beta: scale and exponent of the data term, D in tokens.

    Source: Hoffmann et al. 2022, arXiv:2203.15556, approach 3.

    Example:
        >>> round(float(HOFFMANN_2022.at(70e9, 1.4e12)), 3)
        1.937
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    #: Hoffmann et al. 2022, section 3.3, as Besiroglu et al. 2024 repeat it.
    procedure: ClassVar[Procedure] = Procedure(delta=1e-3)

    def at(self, params: Tensor | float, tokens: Tensor | float) -> Tensor:
        """Loss at N parameters and D tokens, broadcast."""
        n, d = torch.as_tensor(params, dtype=torch.float64), torch.as_tensor(tokens, dtype=torch.float64)
        return self.floor + self.a * n**-self.alpha + self.b * d**-self.beta

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        return self.at(design.params, design.total)

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law around the centre of the measured sizes and budgets."""
        return ChinchillaForm(design)


#: Hoffmann et al. 2022, arXiv:2203.15556, approach 3.
HOFFMANN_2022 = Chinchilla(floor=1.69, a=406.4, alpha=0.34, b=410.7, beta=0.28)
#: Besiroglu et al. 2024, arXiv:2404.10102, the replication of approach 3.
BESIROGLU_2024 = Chinchilla(floor=1.8172, a=482.01, alpha=0.3478, b=2085.43, beta=0.3658)


def scale_blocks(design: Design) -> dict[str, Parameter]:
    """Floor, capacity and data term at the centre, and their exponents: what laws of scale have in common."""
    size, budget = one_size(design), one_budget(design)
    return {
        "floor": Parameter("floor", *TERM_PRIOR),
        "a": Parameter("capacity", *TERM_PRIOR, held=size),
        "b": Parameter("data", *TERM_PRIOR, held=budget),
        "alpha": Parameter("alpha", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=size),
        "beta": Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN, held=budget),
    }


def scale_coefficients(form: Form, theta: Tensor, log_scale: float) -> tuple[float, float, float, float, float]:
    """Floor, a, alpha, b and beta in natural units, from the blocks of `scale_blocks` in one vector (n,)."""
    floor, a, b, alpha, beta = (form.numbers(theta, name)[0] for name in ("floor", "a", "b", "alpha", "beta"))
    alpha, beta = math.exp(alpha), math.exp(beta)
    a, b = a + alpha * form.log_n, b + beta * form.log_d
    return math.exp(floor + log_scale), math.exp(a + log_scale), alpha, math.exp(b + log_scale), beta


class ChinchillaForm(ClosedForm):
    """theta = logarithms of floor, capacity term and data term at the centre, alpha, beta."""

    def __init__(self, design: Design) -> None:
        super().__init__(design, **scale_blocks(design))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log of the three terms' sum, (B, R)."""
        return self.slopes(theta, design)[0]

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        floor, a, b, alpha, beta = self.blocks(theta, "floor", "a", "b", "alpha", "beta")
        by_alpha = -alpha.exp() * (design.params.log() - self.log_n)
        by_beta = -beta.exp() * (design.total.log() - self.log_d)
        value, (first, second, third) = softmax_parts(floor, a + by_alpha, b + by_beta)
        slopes = {"floor": first, "a": second, "b": third}
        return value, slopes | {"alpha": second * by_alpha[:, None], "beta": third * by_beta[:, None]}

    def law(self, theta: Tensor, log_scale: float) -> Chinchilla:
        """The law in natural units."""
        return Chinchilla(*scale_coefficients(self, theta, log_scale))
