"""Capacity competition: domains share the parameters of a model so that their losses sum to the least (2606.08167)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.laws.base import Form, Law, Parameter
from mixlaw.analysis.laws.blocks import BlockForm, mixture, per_domain, softmax_parts
from mixlaw.analysis.laws.chinchilla import EXPONENT_PRIOR, SHAPE_BETWEEN, TERM_PRIOR, spread

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
        a, alpha, worth = (torch.tensor(v, dtype=torch.float64) for v in (self.a, self.alpha, self.worth))
        shares = mixture(design.aligned(design.phases, self.domains))
        capacity = (worth * a * self.capacity(design) ** -alpha).sum(1)
        return self.floor + capacity + self.b * (design.total * (shares @ worth)) ** -self.beta

    def capacity(self, design: Design) -> Tensor:
        """Parameters x that each domain gets, (R, K); they sum to N + (K - 1) shared."""
        a, alpha = (torch.tensor(values, dtype=torch.float64).log()[None] for values in (self.a, self.alpha))
        shared = torch.full((1, 1), math.log(self.shared), dtype=torch.float64)
        shares = mixture(design.aligned(design.phases, self.domains))
        return allocate(a, alpha, shared, shares, design.params.log())[0].exp().T

    @classmethod
    def form(cls, design: Design) -> Form:
        """Shape of the law over the domains of `design`."""
        return CapacityCompetitionForm(design)


def allocate(a: Tensor, alpha: Tensor, shared: Tensor, shares: Tensor, log_n: Tensor, looking: bool = False) -> Tensor:
    """Log capacity of each domain, (B, K, R), at the optimum of the competition; differentiable in every argument.

    Where the multiplier is exp(mu), x_j = max(H, (h_j a_j alpha_j exp(-mu))**(1 / (1 + alpha_j))).

    Args:
        a, alpha: logarithms of scale and exponent by domain, (B, K).
        shared: log H, (B, 1), cut at log N.
        shares: mixtures h, (R, K); a domain with none gets H.
        log_n: log N, (R,).
        looking: stop as soon as all are there; forward mode cannot look at values.
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
        step = _newton(mu, contested, *fixed)
        mu = mu + step
        if looking and float(step.abs().max()) < 1e-13:
            break
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


class CapacityCompetitionForm(BlockForm):
    """theta = (floor, data term, log beta, log shared; capacity terms, log alphas, worths): terms at the centre.

    Capacity is counted in units of the mean size, tokens in those of an equal mixture at the mean budget.
    """

    def __init__(self, design: Design) -> None:
        one_size = spread(design.params) < 0.01
        super().__init__(
            design,
            floor=Parameter("floor", *TERM_PRIOR),
            b=Parameter("data", *TERM_PRIOR),
            beta=Parameter("beta", *EXPONENT_PRIOR, SHAPE_BETWEEN),
            shared=Parameter("shared", math.log(0.1), 1.0, SHAPE_BETWEEN, held=len(design.domains) == 1),
            a=per_domain("a", design, *TERM_PRIOR, 0.5),
            alpha=[Parameter(f"alpha {d}", *EXPONENT_PRIOR, SHAPE_BETWEEN, one_size) for d in design.domains],
            worth=per_domain("worth", design, 0.0, 1.5, 1.0),
        )
        self.log_d -= math.log(len(design.domains))

    def log_loss(self, theta: Tensor, design: Design) -> Tensor:
        """Log loss, (B, R)."""
        a, alpha, worth = (self.block(theta, name) for name in ("a", "alpha", "worth"))
        shares = mixture(design)
        log_x = allocate(a, alpha, self.block(theta, "shared"), shares, design.params.log() - self.log_n)
        weight = worth.log_softmax(1)
        capacity = ((weight + a)[..., None] - alpha.exp()[..., None] * log_x).logsumexp(1)
        tokens = design.total.log() - self.log_d + (weight.exp() @ shares.T).log()
        data = self.block(theta, "b") - self.block(theta, "beta").exp() * tokens
        return torch.stack([self.block(theta, "floor").expand_as(data), capacity, data]).logsumexp(0)

    def slopes(self, theta: Tensor, design: Design) -> tuple[Tensor, dict[str, Tensor]]:
        """Log loss and its derivative by every block."""
        worth, shares = self.block(theta, "worth").softmax(1), mixture(design).T
        capacity, inner = self._capacity(theta, design, worth)
        share, beta = worth @ shares, self.block(theta, "beta").exp()
        by_beta = -beta * (design.total.log() - self.log_d + share.log())
        parts = [self.block(theta, "floor"), capacity, self.block(theta, "b") + by_beta]
        value, (floor, size, data) = softmax_parts(parts)
        own = worth[..., None] * (shares / share[:, None] - 1)
        blocks = {name: size * part for name, part in inner.items()}
        blocks["worth"] = blocks["worth"] - data * beta[..., None] * own
        return value, {**blocks, "floor": floor, "b": data, "beta": data * by_beta[:, None]}

    def _capacity(self, theta: Tensor, design: Design, worth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Log of the capacity term (B, R) and its derivative by its own blocks."""
        a, shared, power = self.block(theta, "a"), self.block(theta, "shared"), self.block(theta, "alpha").exp()
        log_n = design.params.log() - self.log_n
        log_x = allocate(a, self.block(theta, "alpha"), shared, mixture(design), log_n, looking=True)
        power = power[..., None]
        terms = (worth.log() + a)[..., None] - power * log_x
        value = terms.logsumexp(1)
        part = torch.exp(terms - value[:, None])
        above = log_x > torch.minimum(shared, log_n)[:, None]
        # By the multiplier: everything above the shared part gives way, in proportion to x / (1 + alpha).
        bends = torch.where(above, part * power / (1 + power), 0.0)
        gives = torch.where(above, log_x.exp() / (1 + power), 0.0)
        rate = bends.sum(1, keepdim=True) / gives.sum(1, keepdim=True).clamp(min=1e-300)
        through = rate * gives - bends
        floored = torch.where(above, 0.0, part * power).sum(1, keepdim=True)
        freed = (~above).sum(1, keepdim=True) - (len(self.domains) - 1)
        by_shared = torch.where(shared < log_n, 1.0, 0.0)[:, None] * (rate * shared.exp()[..., None] * freed - floored)
        by_alpha = (1 - power * log_x) * through - part * power * log_x
        return value, {
            "shared": by_shared,
            "a": part + through,
            "alpha": by_alpha,
            "worth": part - worth[..., None],
        }

    def law(self, theta: Tensor, log_scale: float) -> Law:
        """The law in natural units."""
        floor, b, beta, shared = theta[:4].tolist()
        alpha, beta = theta[self.at["alpha"]].exp(), math.exp(beta)
        a = (theta[self.at["a"]] + alpha * self.log_n + log_scale).exp()
        worth = theta[self.at["worth"]].softmax(0)
        b, shared = math.exp(b + beta * self.log_d + log_scale), math.exp(shared + self.log_n)
        rows = (tuple(row.tolist()) for row in (a, alpha, worth))
        first, second, third = rows
        return CapacityCompetition(math.exp(floor + log_scale), first, second, b, beta, shared, third, self.domains)
