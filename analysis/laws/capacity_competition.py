"""Capacity competition: domains share the parameters of a model so that their losses sum to the least (2606.08167)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, Form, Parameter, per_domain
from mixlaw.analysis.laws.identify import one_size
from mixlaw.analysis.laws.terms import log_sum, row

#: Newton steps to the multiplier. The constraint is convex in its logarithm, so from the left they never overshoot;
#: 64 domains with shares over twenty orders of magnitude took 9 at most.
STEPS = 12


@dataclass(frozen=True)
class CapacityCompetition:
    """Loss of a task on a model whose N parameters the domains of the mixture compete for.

        x = argmin sum_j h_j a_j x_j**-alpha_j    with   sum_j x_j = N + (K - 1) H,   x_j >= H
        L = floor + sum_j worth_j a_j x_j**-alpha_j + b (D sum_j worth_j h_j)**-beta

    The loss of a domain's own held-out text is the paper's L_i: worth 1 for that domain, 0 for the others. Another
    task needs what it needs of each domain: its capacity term is their mean weighted by worth, its tokens are counted
    by worth. With one domain it is the Chinchilla law. Phases are ignored.

    Attributes:
        floor: irreducible loss (the paper's E), in the unit of the task's loss.
        a, alpha: scale and exponent of the capacity term of each domain (c and b), (K,), x in parameters.
        b, beta: scale and exponent of the data term (A and a), D in tokens.
        shared: parameters that serve every domain at once (H), at most N.
        worth: of each domain to this task, (K,), summing to 1.
        domains: names of the axis.

    Source: arXiv:2606.08167.
    """

    floor: float
    a: tuple[float, ...]
    alpha: tuple[float, ...]
    b: float
    beta: float
    shared: float
    worth: tuple[float, ...]
    domains: tuple[str, ...]

    def __call__(self, design: Design) -> Tensor:
        """Loss of every recipe, (R,)."""
        a, alpha, worth = (row(v) for v in (self.a, self.alpha, self.worth))
        shares = design.aligned(design.phases, self.domains).mixture
        capacity = (worth * a * self.capacity(design) ** -alpha).sum(1)
        return self.floor + capacity + self.b * (design.total * (shares @ worth)) ** -self.beta

    def capacity(self, design: Design) -> Tensor:
        """Parameters x that each domain gets, (R, K); they sum to N + (K - 1) shared."""
        a, alpha = (row(values).log()[None] for values in (self.a, self.alpha))
        shared = torch.full((1, 1), math.log(self.shared), dtype=torch.float64)
        shares = design.aligned(design.phases, self.domains).mixture
        return allocate(a, alpha, shared, shares, design.params.log())[0].exp().T

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return CapacityCompetitionForm(design)


def allocate(a: Tensor, alpha: Tensor, shared: Tensor, shares: Tensor, log_n: Tensor) -> Tensor:
    """Log capacity of each domain, (B, K, R), at the optimum of the competition; differentiable in every argument.

    Where the multiplier is exp(mu), x_j = max(H, (h_j a_j alpha_j exp(-mu))**(1 / (1 + alpha_j))).

    Args:
        a, alpha: logarithms of scale and exponent by domain, (B, K).
        shared: log H, (B, 1), cut at log N.
        shares: mixtures h, (R, K); a domain with none gets H.
        log_n: log N, (R,).
    """
    seen, yielding = shares.T > 0, 1 / (1 + alpha.exp()[..., None])
    contested = seen & (shared < log_n)[:, None]  # a model no larger than what is shared leaves nothing to compete for
    pull = torch.where(seen, shares.T, 1.0).log() + (a + alpha)[..., None]
    least = torch.minimum(shared, log_n)[:, None]
    whole = torch.logaddexp(log_n.expand_as(least), least + math.log(max(shares.shape[1] - 1, 1e-300)))
    fixed = [part.detach() for part in (pull, yielding, least, whole)]
    # One domain that takes everything needs the least multiplier, so the largest of those is left of the root.
    mu = torch.where(seen, fixed[0] - fixed[3] / fixed[1], -torch.inf).amax(1, keepdim=True)
    for _ in range(STEPS):
        mu = mu + _newton(mu, contested, *fixed)
    # A last step from the root carries the derivative of the root (implicit function theorem).
    mu = mu + _newton(mu, contested, pull, yielding, least, whole)
    return torch.where(_above(mu, contested, pull, yielding, least), (pull - mu) * yielding, least)


def _above(mu: Tensor, contested: Tensor, pull: Tensor, yielding: Tensor, least: Tensor) -> Tensor:
    """Domains that get more than the shared part."""
    return contested & ((pull - mu) * yielding > least)


def _newton(mu: Tensor, contested: Tensor, pull: Tensor, yielding: Tensor, least: Tensor, whole: Tensor) -> Tensor:
    """Step towards log sum_j x_j = log of the whole."""
    above = _above(mu, contested, pull, yielding, least)
    x = torch.where(above, (pull - mu) * yielding, least).sub(whole).exp()
    total, slope = x.sum(1, keepdim=True), torch.where(above, x * yielding, 0.0).sum(1, keepdim=True)
    return total.log() * (total / slope.clamp(min=1e-12)).detach()


class CapacityCompetitionForm(Form):
    """theta = (floor, data term, log beta, log shared; capacity terms, log alphas, worths): terms at the centre.

    Capacity is counted in units of the mean size, tokens in those of an equal mixture at the mean budget.
    """

    def __init__(self, design: Design) -> None:
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            b=Parameter("data", *TERM_PRIOR),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN),
            shared=Parameter("shared", math.log(0.1), 1.0, SHAPE_BETWEEN, held=len(design.domains) == 1),
            a=per_domain("a", design, *TERM_PRIOR, 0.5),
            alpha=[Parameter(f"alpha {d}", *EXPONENT_PRIOR, SHAPE_BETWEEN, one_size(design)) for d in design.domains],
            worth=per_domain("worth", design, 0.0, 1.5, 1.0),
        )
        self.log_d -= math.log(len(design.domains))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        a, alpha, worth = self.blocks(theta, "a", "alpha", "worth")
        shares = design.mixture
        log_x = allocate(a, alpha, self.block(theta, "shared"), shares, design.params.log() - self.log_n)
        weight = worth.log_softmax(1)
        capacity = ((weight + a)[..., None] - alpha.exp()[..., None] * log_x).logsumexp(1)
        tokens = design.total.log() - self.log_d + (weight.exp() @ shares.T).log()
        data = self.block(theta, "b") - self.block(theta, "beta").exp() * tokens
        return log_sum(self.block(theta, "floor"), capacity, data)

    def law(self, theta: Tensor, log_scale: float) -> CapacityCompetition:
        """The law in natural units."""
        beta = self.natural(theta, "beta")[0]
        alpha = theta[self.at["alpha"]].exp()
        return CapacityCompetition(
            floor=self.natural(theta, "floor", log_scale)[0],
            a=tuple((theta[self.at["a"]] + alpha * self.log_n + log_scale).exp().tolist()),
            alpha=tuple(alpha.tolist()),
            b=self.natural(theta, "b", beta * self.log_d + log_scale)[0],
            beta=beta,
            shared=self.natural(theta, "shared", self.log_n)[0],
            worth=tuple(theta[self.at["worth"]].softmax(0).tolist()),
            domains=self.domains,
        )
