"""The Chinchilla law: loss of a model of N parameters trained on D tokens (Hoffmann et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter


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

#: Exponents of the literature (Hoffmann .34/.28, Besiroglu .35/.37, Muennighoff .353): log normal around .35.
EXPONENT_PRIOR = (math.log(0.35), 0.3)
#: Shares of floor, capacity and data terms in the loss of a typical proxy, log normal.
TERM_PRIOR = (math.log(0.33), 0.8)
#: Exponents and other shapes differ little between tasks: partial pooling expects this spread of their logarithms.
SHAPE_BETWEEN = 0.15


class ChinchillaForm(Form):
    """theta = (log floor, log capacity term and log data term at the centre, log alpha, log beta)."""

    def __init__(self, design: Design) -> None:
        self.log_n = float(design.params.log().mean())
        self.log_d = float(design.total.log().mean())
        one_size = spread(design.params) < 0.01
        one_budget = spread(design.total) < 0.01
        self.parameters = (
            Parameter("floor", *TERM_PRIOR),
            Parameter("capacity", *TERM_PRIOR, held=one_size),
            Parameter("data", *TERM_PRIOR, held=one_budget),
            Parameter("alpha", *EXPONENT_PRIOR, between=SHAPE_BETWEEN, held=one_size),
            Parameter("beta", *EXPONENT_PRIOR, between=SHAPE_BETWEEN, held=one_budget),
        )
        self.notes = scale_notes(design)

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log of the three terms' sum, (B, R)."""
        floor, a, b, alpha, beta = (column[:, None] for column in theta.unbind(1))
        capacity = a - alpha.exp() * (design.params.log() - self.log_n)
        data = b - beta.exp() * (self.log_tokens(design) - self.log_d)
        return torch.stack([floor.expand_as(data), capacity, data]).logsumexp(0)

    def jacobian(self, theta: Tensor, design: Design) -> tuple[Tensor, Tensor]:
        """Log loss (B, R) and its derivative by the free entries (B, m, R), in closed form."""
        if type(self) is not ChinchillaForm:  # forms that build on this one have more entries
            return super().jacobian(theta, design)
        floor, a, b, alpha, beta = (column[:, None] for column in theta.unbind(1))
        by_alpha = -alpha.exp() * (design.params.log() - self.log_n)
        by_beta = -beta.exp() * (design.total.log() - self.log_d)
        parts = torch.stack([floor.expand_as(by_beta), a + by_alpha, b + by_beta])
        value = parts.logsumexp(0)
        first, second, third = torch.exp(parts - value)
        return value, torch.stack([first, second, third, second * by_alpha, third * by_beta], 1)[:, self.free]

    def log_tokens(self, design: Design) -> Tensor:
        """Log of the tokens that count, (R,)."""
        return design.total.log()

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        return self.coefficients(theta, log_scale)

    def coefficients(self, theta: Tensor, log_scale: float) -> Chinchilla:
        """Chinchilla coefficients in natural units from the first five entries."""
        floor, a, b, alpha, beta = theta.tolist()
        alpha, beta = math.exp(alpha), math.exp(beta)
        scale = (math.exp(x + log_scale) for x in (floor, a + alpha * self.log_n, b + beta * self.log_d))
        first, second, third = scale
        return Chinchilla(first, second, alpha, third, beta)


def spread(values: Tensor) -> float:
    """Standard deviation of log values, 0 for a single one."""
    return float(values.detach().log().std(correction=0))


def scale_notes(design: Design) -> tuple[str, ...]:
    """Say in words what sizes and budgets cannot tell."""
    sizes, notes = len(set(design.params.tolist())), []
    if spread(design.params) < 0.01:
        notes.append(
            "Model size never varies: its effect is not identified and comes from the literature (alpha about 0.35)."
        )
    elif sizes == 2:
        notes.append(
            "Two model sizes: alpha is barely identified and leans on the literature (about 0.35, factor 1.35)."
        )
    if spread(design.total) < 0.01:
        notes.append(
            "The token budget never varies: beta leans on the literature (about 0.35) and on what mixtures tell."
        )
    if locked(design):
        notes.append("Size and tokens never vary apart: only mixtures tell the capacity term from the data term.")
    return tuple(notes)


def locked(design: Design) -> bool:
    """Whether log N and log D both vary, but only together."""
    n, d = design.params.detach().log(), design.total.detach().log()
    if spread(design.params) < 0.01 or spread(design.total) < 0.01:
        return False
    return bool(torch.corrcoef(torch.stack([n, d]))[0, 1].abs() > 0.9995)
