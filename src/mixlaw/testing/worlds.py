"""Worlds whose law is known: they make tables like a study's, and know the optimum that a proposal should find.

Ranges of what is drawn lie inside what public runs show; tests/test_simulate.py holds them against the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.data.observed import Z90
from mixlaw.analysis.data.recipes import design_of
from mixlaw.recipe import Domain, Mixture, Phase, Recipe

Floats = NDArray[np.float64]

#: Log-linear worlds: how far the loss falls from a worthless domain to the best one, as a power of e. The slopes that a
#: log-linear fit gives RegMix's 17 domains differ by about as much.
PULL = 2.5
#: Additive worlds: bits/byte that the uniform mixture adds, whatever the size.
ADDED = 0.4
#: Saturating worlds: share of a domain that brings 63 % of what it can bring; its weight; epochs that begin to hurt.
ENOUGH, DEPTH, WEARY = 0.1, 1.5, 6.0
#: Rise of the noise with the loss: a power of 2.2 over the ten mixtures that Marin repeated five times, code BPB.
RISE = 2.2
#: Size at which the worth of a domain is what it says; elsewhere it drifts.
HERE = 1e5


class Family(Enum):
    """Form of a world's law; the value tells how the mixture enters it."""

    EXPOSURE = "b (sum_j worth_j d_j**g)**(-beta / g)"  # what is fitted, without its residual process
    LOG_LINEAR = "b D**-beta exp(-sum_j pull_j h_j)"  # Ye et al. 2024, arXiv:2403.16952
    ADDITIVE = "b D**-beta + c / sum_j worth_j h_j**g"  # Shukor et al. 2025, arXiv:2507.09404: no size shrinks it
    SATURATING = "b D**-beta (1 + sum_j worth_j exp(-h_j / s)) + overload"  # what is enough is enough; epochs hurt


@dataclass(frozen=True)
class Known:
    """Predictions of a world that is known up to its noise; (R, T) each, distance (R,)."""

    mean: Floats
    lo90: Floats
    hi90: Floats
    law_only: Floats
    distance: Floats


@dataclass(frozen=True, eq=False)
class World:
    """T tasks over P phases and K domains, all in bits/byte.

        z_j = sum_p retention_pj t_pj                     exposure, t in tokens
        d_j = U_j + U_j r (1 - exp(-(z_j / U_j - 1) / r)) for z_j > U_j, else z_j: repeats fade (Muennighoff 2023)
        L   = floor + a N**-alpha + what the family makes of d, of D = sum_j d_j and of h_j = d_j / D

    Attributes:
        floor, a, alpha, b, beta: coefficients, (T,).
        worth: of a token of each domain to each task, (T, K), rows sum to 1.
        elasticity: g, (T,).
        retention: of each phase, (T, P), or of each domain in it, (T, P, K).
        repeats: r.
        noise: standard deviation of log values over seeds, at the loss of the uniform mixture, (T,).
        doubt: standard deviation of log coefficients between draws: what is not known about the world.
        seed: of the draws.
        family: form of the law.
        drift: power of the size by which the worth of each domain grows, (T, K): what the optimum moves with.
        rise: power of the loss by which the noise grows.
    """

    tasks: tuple[str, ...]
    phases: tuple[str, ...]
    sources: tuple[Domain, ...]
    floor: Tensor
    a: Tensor
    alpha: Tensor
    b: Tensor
    beta: Tensor
    worth: Tensor
    elasticity: Tensor
    retention: Tensor
    repeats: float
    noise: Tensor
    doubt: float = 0.0
    seed: int = 0
    family: Family = Family.EXPOSURE
    drift: Tensor | None = None
    rise: float = 0.0

    @property
    def units(self) -> dict[str, str]:
        """Every task is measured in bits/byte."""
        return dict.fromkeys(self.tasks, "bits/byte")

    @property
    def calibration(self) -> Tensor:
        """A known world's doubt is what it is, (T,)."""
        return torch.ones(len(self.tasks), dtype=torch.float64)

    @property
    def log_noise(self) -> Tensor:
        """Noise of a run in log losses, (T,)."""
        return self.noise

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return tuple(domain.name for domain in self.sources)

    def mean(self, design: Design) -> Tensor:
        """True values, (R, T)."""
        return self._values(design, self.worth.log()[None], self.b[None])[0]

    def draws(self, design: Design, count: int) -> Tensor:
        """Values in `count` worlds like this one, differing by `doubt`, (S, R, T)."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (count, *self.worth.shape)
        shift = self.doubt * torch.randn(shape, generator=generator, dtype=torch.float64)
        scale = torch.exp(self.doubt * torch.randn((count, len(self.tasks)), generator=generator, dtype=torch.float64))
        return self._values(design, self.worth.log() + shift, self.b * scale)

    def _values(self, design: Design, log_worth: Tensor, b: Tensor) -> Tensor:
        """Law for S worlds: log_worth (S, T, K), b (S, T) -> (S, R, T)."""
        design = design.aligned(self.phases, self.domains)
        retention = self.retention if self.retention.dim() == 3 else self.retention[..., None]
        z = torch.einsum("tpk,rpk->rtk", retention.expand(-1, -1, len(self.sources)), design.tokens)
        unique = design.unique[:, None, :]
        faded = unique * (1 + self.repeats * -torch.expm1(-((z / unique - 1) / self.repeats).clamp_min(0)))
        d = torch.where(z > unique, faded, z).clamp_min(1e-6)
        log_worth = log_worth[:, None]
        if self.drift is not None:
            log_worth = log_worth + self.drift * (design.params / HERE).log()[:, None, None]
        capacity = self.a * design.params[:, None] ** -self.alpha
        return self.floor + capacity + self._of_mixture(torch.log_softmax(log_worth, -1), b[:, None], d, z / unique)

    def _of_mixture(self, log_worth: Tensor, b: Tensor, d: Tensor, epochs: Tensor) -> Tensor:
        """What the family makes of effective tokens d and epochs (R, T, K), for worths (S, R, T, K): (S, R, T)."""
        if self.family is Family.EXPOSURE:
            inner = torch.logsumexp(log_worth + self.elasticity[:, None] * d.log(), -1) / self.elasticity
            return b * torch.exp(-self.beta * inner)
        total, worth = d.sum(-1), log_worth.exp()
        share, amount = d / total[..., None], b * total**-self.beta
        if self.family is Family.LOG_LINEAR:
            pull = PULL * worth / worth.amax(-1, keepdim=True)
            return amount * torch.exp(-(pull * share).sum(-1))
        if self.family is Family.ADDITIVE:
            even = len(self.sources) ** -self.elasticity
            return amount + ADDED * even / (worth * share ** self.elasticity[:, None]).sum(-1)
        overload = torch.nn.functional.softplus(torch.log1p(epochs) - np.log1p(WEARY)).square().sum(-1)
        return amount * (1 + DEPTH * (worth * torch.exp(-share / ENOUGH)).sum(-1)) + 0.02 * overload

    def spread(self, design: Design) -> Tensor:
        """Standard deviation of log values over seeds, (R, T)."""
        if not self.rise:
            return self.noise.expand(len(design), -1)
        even = replace(design, tokens=design.tokens.mean(2, keepdim=True).expand_as(design.tokens))
        return self.noise * (self.mean(design) / self.mean(even)) ** self.rise

    def predict(self, design: Design) -> Known:
        """The truth with the spread of noise and doubt; a known world is near everywhere."""
        mean = self.mean(design).detach().numpy()
        spread = torch.sqrt(self.draws(design, 64).log().var(0) + self.spread(design) ** 2).detach().numpy()
        ends = np.exp(np.log(mean) - Z90 * spread), np.exp(np.log(mean) + Z90 * spread)
        return Known(mean, *ends, mean, np.zeros(len(mean)))

    def measure(self, recipes: Sequence[Recipe], seed: int = 0) -> pl.DataFrame:
        """Train and evaluate: the table of these recipes, noise included, one row per recipe."""
        unique = {domain.name: float(domain.unique_tokens) for domain in self.sources}
        design = design_of(recipes, self.phases, self.domains, unique)
        noise = np.random.default_rng(seed).normal(size=(len(recipes), len(self.tasks))) * self.spread(design).numpy()
        values = self.mean(design).numpy() * np.exp(noise)
        columns: dict[str, object] = {
            "run": [f"{recipe.lineage}-{i}" for i, recipe in enumerate(recipes)],
            "params": [recipe.params for recipe in recipes],
            "seed": [recipe.seed for recipe in recipes],
        }
        for p, phase in enumerate(self.phases):
            columns |= {f"tokens:{phase}:{d}": design.tokens[:, p, j].numpy() for j, d in enumerate(self.domains)}
            columns[f"lr_end:{phase}"] = design.lr_end[:, p].numpy()
        pools = {name: [recipe.unique.get(name) for recipe in recipes] for name in self.domains}
        columns |= {f"unique:{name}": counts for name, counts in pools.items() if any(counts)}
        columns |= {f"metric:{task}": values[:, t] for t, task in enumerate(self.tasks)}
        return pl.DataFrame(columns)

    def uncertain(self, doubt: float, seed: int = 0) -> World:
        """The same world, less well known."""
        return replace(self, doubt=doubt, seed=seed)


def random_world(
    domains: Sequence[Domain], phases: Sequence[str] = ("init", "continue", "cooldown"), tasks: int = 4, seed: int = 0
) -> World:
    """Draw a world: each task wants a few domains most, later phases count for more.

    Exponents lie around Hoffmann et al. 2022 (arXiv:2203.15556). Levels are those of byte-level models on 20 tokens per
    parameter: about 2.2 bits/byte at 0.024M parameters, 1.9 at 0.094M, 1.65 at 0.33M.
    """
    draw = np.random.default_rng(seed)
    forget = np.sort(draw.uniform(0.3, 1.0, (tasks, len(phases))), 1)
    forget[:, -1] = 1.0

    def tensor(values: object) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float64)

    return World(
        tasks=tuple(f"task{t}" for t in range(tasks)),
        phases=tuple(phases),
        sources=tuple(domains),
        floor=tensor(draw.uniform(0.8, 1.2, tasks)),
        a=tensor(draw.uniform(4, 10, tasks)),
        alpha=tensor(draw.uniform(0.3, 0.36, tasks)),
        b=tensor(draw.uniform(14, 26, tasks)),
        beta=tensor(draw.uniform(0.26, 0.32, tasks)),
        worth=tensor(draw.dirichlet(np.full(len(domains), 0.4), tasks) * 0.95 + 0.05 / len(domains)),
        elasticity=tensor(draw.uniform(0.3, 0.6, tasks)),
        retention=tensor(forget),
        repeats=15.39,
        noise=tensor(draw.uniform(0.001, 0.004, tasks)),
    )


def wild_world(
    family: Family,
    domains: Sequence[Domain],
    phases: Sequence[str] = ("init", "continue", "cooldown"),
    tasks: int = 4,
    seed: int = 0,
) -> World:
    """Draw a world of any family, in which noise grows with the loss, every domain is forgotten at its own pace, and
    what domains are worth drifts with size, so that the optimum of small models is not that of large ones.
    """
    world, draw = random_world(domains, phases, tasks, seed), np.random.default_rng([seed, 1])
    shape = tasks, len(phases), len(domains)
    apart = torch.tensor(np.exp(0.2 * draw.normal(size=shape)))
    apart[:, -1] = 1.0
    drift = torch.tensor(draw.normal(0, 0.1, (tasks, len(domains))))
    return replace(world, family=family, retention=world.retention[..., None] * apart, drift=drift, rise=RISE)


def random_recipes(
    params: Sequence[int],
    tokens_per_param: float,
    domains: Sequence[Domain],
    phases: Sequence[str] = ("init", "continue", "cooldown"),
    count: int = 24,
    seed: int = 0,
) -> list[Recipe]:
    """Draw `count` recipes at each size: uniform over the simplex of each phase, cooldown of 10 to 30 %."""
    draw = np.random.default_rng(seed)
    return [_random_recipe(size, tokens_per_param, domains, phases, draw) for size in params for _ in range(count)]


def _random_recipe(
    size: int, tokens_per_param: float, domains: Sequence[Domain], phases: Sequence[str], draw: np.random.Generator
) -> Recipe:
    last = draw.uniform(0.1, 0.3) if len(phases) > 1 else 1.0
    lengths = [(1 - last) / max(len(phases) - 1, 1)] * (len(phases) - 1) + [last]
    shares = draw.dirichlet(np.ones(len(domains)), len(phases)).tolist()
    mixtures = [Mixture.normalised({d.name: s for d, s in zip(domains, row, strict=True)}) for row in shares]
    sizes = [int(size * tokens_per_param * length) for length in lengths]
    return Recipe(size, tuple(map(Phase, phases, sizes, mixtures, [1.0] * (len(phases) - 1) + [0.0])))
