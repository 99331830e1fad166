"""The exposure law: what every domain's tokens are worth to a task, by phase, size and repetition."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form
from mixlaw.analysis.laws.data_constrained import saturate

#: Unique tokens at which `crowding` is stated.
POOL = 1e9


@dataclass(frozen=True)
class Exposure:
    """Loss of a recipe with N parameters and t_pj tokens of domain j in phase p.

        z_j   = sum_p retention_p t_pj                        exposure; the last phase is retained in full
        d_j   = saturate(z_j, U_j, repeats)                   U_j unique tokens, see `saturate`
        D     = sum_j d_j
        q     = (sum_j worth_j (d_j / D)**g)**(1/g) / typical g = elasticity; a domain never seen adds exactly 0
        D_eff = D typical q**(contrast**log10(N / home))
        N_eff = N sum_j efficiency_j z_j / sum_j z_j
        short = ((a N_eff**-alpha)**s + (b D_eff**-beta)**s)**(1/s)       s = bottleneck
        L     = (floor + short) x (1 + undecayed (1 - progress)**bend) x (1 + constant_lr lr_end)
              x exp(sum_j overload_j rise(epochs_j / onset) rise(N / full_j))
        epochs_j = sum_p t_pj / U_j                           forgetting does not undo overdone repeats
        full_j   = crowding (U_j / 1e9)**memory               size from which a model overfits U_j unique tokens
        rise(x)  = log(1 + x**2) / 2                          0 at 0, log x beyond 1

    At the home size, or with contrast 1, D_eff is the CES aggregate (sum_j worth_j d_j**g)**(1/g) itself.
    With one phase, one domain, no repeats, progress 1, a decayed rate and bottleneck 1 it is the Chinchilla law; with
    no floor and bottleneck 1 / beta it is that of Kaplan et al. 2020 (arXiv:2001.08361, equation 1.5).

    Attributes:
        floor: irreducible loss, in the unit of the task's loss.
        a, alpha: scale and exponent of the capacity term, N in parameters.
        b, beta: scale and exponent of the data term, D in tokens.
        bottleneck: s; 1 = short capacity and short data add up, infinite = the shorter one alone counts.
        elasticity: g of the CES aggregate; 1 = domains replace each other, towards 0 = each is needed.
        worth: of a token of each domain to this task, (K,), summing to 1.
        contrast: factor on what mixtures differ by, in log D_eff, for every tenfold of the size.
        home: size at which worths are stated, in parameters.
        typical: worth of a token of the mixture that is as good at every size.
        efficiency: of capacity on each domain, (K,), 1 = neutral.
        retention: of tokens seen in each phase, (P,); the last is 1.
        repeats: epochs beyond the first that make repeats worth 1 - 1/e of their limit.
        undecayed, bend: excess loss before the schedule is done, as a share, and its exponent.
        constant_lr: excess loss, as a share, of ending at the peak learning rate.
        onset: epochs from which repeats begin to harm.
        crowding: parameters from which 1e9 unique tokens begin to be overfitted.
        memory: exponent with which that size grows with the unique tokens.
        overload: how much they harm, per domain, (K,).
        phases, domains: names of the axes.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    bottleneck: float
    elasticity: float
    worth: tuple[float, ...]
    contrast: float
    home: float
    typical: float
    efficiency: tuple[float, ...]
    retention: tuple[float, ...]
    repeats: float
    undecayed: float
    bend: float
    constant_lr: float
    onset: float
    crowding: float
    memory: float
    overload: tuple[float, ...]
    phases: tuple[str, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        design = design.aligned(self.phases, self.domains)
        z = torch.einsum("p,rpk->rk", _row(self.retention), design.tokens)
        d = saturate(z, design.unique, self.repeats)
        typical = (self.typical * d.sum(1)).log()
        quality = ces(_row(self.worth).log(), d, self.elasticity) / self.elasticity - typical
        log_d_eff = typical + quality * self.contrast ** (design.params / self.home).log10()
        n_eff = design.params * (z @ _row(self.efficiency)) / z.sum(1)
        capacity, data = math.log(self.a) - self.alpha * n_eff.log(), math.log(self.b) - self.beta * log_d_eff
        short = torch.logaddexp(self.bottleneck * capacity, self.bottleneck * data) / self.bottleneck
        loss = self.floor + short.exp()
        undone = (1 - design.progress).clamp(min=0)
        full = self.crowding * (design.unique / POOL) ** self.memory
        epochs = design.tokens.sum(1) / design.unique
        harm = (rise(epochs / self.onset) * rise(design.params[:, None] / full)) @ _row(self.overload)
        return loss * harm.exp() * (1 + self.undecayed * undone**self.bend) * (1 + self.constant_lr * design.final_lr)

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the phases and domains of `design`; what it never varies is held."""
        from mixlaw.analysis.laws.exposure_form import ExposureForm  # the form builds laws of this class

        return ExposureForm(design)


def rise(ratio: Tensor) -> Tensor:
    """log(1 + ratio**2) / 2: 0 at 0, flat far below 1, the logarithm far above."""
    return 0.5 * torch.log1p(ratio**2)


def ces(log_worth: Tensor, amounts: Tensor, elasticity: Tensor | float) -> Tensor:
    """log sum_j worth_j amounts_j**elasticity over the last axis; an amount of zero adds exactly zero."""
    seen = amounts > 0
    powers = log_worth + elasticity * torch.where(seen, amounts, torch.ones_like(amounts)).log()
    return powers.masked_fill(~seen, -torch.inf).logsumexp(-1)


def _row(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
