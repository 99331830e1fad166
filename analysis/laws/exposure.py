"""The exposure law: what every domain's tokens are worth to a task, by phase, size and repetition."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixlaw.analysis.design import Design
from mixlaw.analysis.laws.base import Form
from mixlaw.analysis.laws.data_constrained import saturate


@dataclass(frozen=True)
class Exposure:
    """Loss of a recipe with N parameters and t_pj tokens of domain j in phase p.

        z_j   = sum_p retention_p t_pj                        exposure; the last phase is retained in full
        d_j   = saturate(z_j, U_j, repeats)                   U_j unique tokens, see `saturate`
        D_eff = (sum_j worth_j d_j**g)**(1/g)                 g = elasticity; a domain never seen adds exactly 0
        N_eff = N sum_j efficiency_j z_j / sum_j z_j
        L     = (floor + a N_eff**-alpha + b D_eff**-beta)
                x (1 + undecayed (1 - progress)**bend) x (1 + constant_lr lr_end)
              x exp(sum_j overload_j excess(sum_p t_pj / U_j))          forgetting does not undo overdone repeats
        excess(e) = softplus(log((1 + e) / onset))**2, less its value at e = 0

    With one phase, one domain, no repeats, progress 1 and a decayed rate it is the Chinchilla law.

    Attributes:
        floor: irreducible loss, in the unit of the task's loss.
        a, alpha: scale and exponent of the capacity term, N in parameters.
        b, beta: scale and exponent of the data term, D in tokens.
        elasticity: g of the CES aggregate; 1 = domains replace each other, towards 0 = each is needed.
        worth: of a token of each domain to this task, (K,), summing to 1.
        efficiency: of capacity on each domain, (K,), 1 = neutral.
        retention: of tokens seen in each phase, (P,); the last is 1.
        repeats: epochs beyond the first that make repeats worth 1 - 1/e of their limit.
        undecayed, bend: excess loss before the schedule is done, as a share, and its exponent.
        constant_lr: excess loss, as a share, of ending at the peak learning rate.
        onset: epochs (plus one) from which repeats begin to harm.
        overload: how much they harm, per domain, (K,).
        phases, domains: names of the axes.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    elasticity: float
    worth: tuple[float, ...]
    efficiency: tuple[float, ...]
    retention: tuple[float, ...]
    repeats: float
    undecayed: float
    bend: float
    constant_lr: float
    onset: float
    overload: tuple[float, ...]
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        design = design.aligned(self.phases, self.domains)
        z = torch.einsum("p,rpk->rk", _row(self.retention), design.tokens)
        d = saturate(z, design.unique, self.repeats)
        log_d_eff = ces(_row(self.worth).log(), d, self.elasticity) / self.elasticity
        n_eff = design.params * (z @ _row(self.efficiency)) / z.sum(1)
        loss = self.floor + self.a * n_eff**-self.alpha + self.b * torch.exp(-self.beta * log_d_eff)
        undone = (1 - design.progress).clamp(min=0)
        harm = overload_excess(design.tokens.sum(1) / design.unique, math.log(self.onset)) @ _row(self.overload)
        return loss * harm.exp() * (1 + self.undecayed * undone**self.bend) * (1 + self.constant_lr * design.final_lr)

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`; what it never varies is held."""
        from mixlaw.analysis.laws.exposure_form import ExposureForm  # the form builds laws of this class

        return ExposureForm(design)


def overload_excess(epochs: Tensor, log_onset: Tensor | float) -> Tensor:
    """softplus(log(1 + epochs) - log_onset)**2 less its value without any epoch; 0 at 0, rising."""
    rest = softplus(torch.as_tensor(-log_onset, dtype=epochs.dtype)) ** 2
    return softplus(torch.log1p(epochs) - log_onset) ** 2 - rest


def ces(log_worth: Tensor, amounts: Tensor, elasticity: Tensor | float) -> Tensor:
    """log sum_j worth_j amounts_j**elasticity over the last axis; an amount of zero adds exactly zero."""
    seen = amounts > 0
    powers = log_worth + elasticity * torch.where(seen, amounts, torch.ones_like(amounts)).log()
    return powers.masked_fill(~seen, -torch.inf).logsumexp(-1)


def _row(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
