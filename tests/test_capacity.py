from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import CapacityCompetition, Chinchilla, Joint, Law
from mixlaw.analysis.laws.capacity_competition import allocate

Floats = NDArray[np.float64]
DOMAINS = ("web", "code", "math")
# Losses of the domains of one world: every domain has its own coefficients, all compete for the same parameters.
A, ALPHA, B, BETA, FLOOR = (
    (40.0, 90.0, 60.0),
    (0.25, 0.36, 0.3),
    (300.0, 500.0, 900.0),
    (0.28, 0.33, 0.35),
    (1.9, 0.7, 1.2),
)
SHARED = 3e6


def law_of(domain: int) -> CapacityCompetition:
    """The paper's law of one domain's own held-out text."""
    worth = tuple(float(i == domain) for i in range(3))
    return CapacityCompetition(FLOOR[domain], A, ALPHA, B[domain], BETA[domain], SHARED, worth, DOMAINS)


def design(params: Floats, tokens: Floats, shares: Floats) -> Design:
    rows = len(params)
    return Design(
        params=torch.tensor(params),
        tokens=torch.tensor(tokens[:, None, None] * shares[:, None]),
        progress=torch.ones(rows, dtype=torch.float64),
        lr_end=torch.zeros(rows, 1, dtype=torch.float64),
        unique=torch.full((rows, 3), math.inf, dtype=torch.float64),
        phases=("train",),
        domains=DOMAINS,
        runs=tuple(map(str, range(rows))),
    )


def recipes(rows: int, sizes: tuple[float, ...], seed: int) -> Design:
    rng = np.random.default_rng(seed)
    params = np.array([sizes[i % len(sizes)] for i in range(rows)])
    return design(params, params * rng.choice([10.0, 20.0, 60.0], rows), rng.dirichlet(np.full(3, 0.7), rows))


def bisected(params: float, shares: Floats, law: CapacityCompetition) -> Floats:
    """Capacity by bisection on the multiplier, as the paper solves it."""
    pull, power = shares * np.array(law.a) * np.array(law.alpha), 1 + np.array(law.alpha)

    def capacity(log_multiplier: float) -> Floats:
        return np.asarray(np.maximum(law.shared, (pull * math.exp(-log_multiplier)) ** (1 / power)))

    low, high = -200.0, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if capacity(middle).sum() > params + 2 * law.shared else (low, middle)
    return capacity((low + high) / 2)


def test_capacity_is_that_of_the_papers_bisection_and_sums_to_what_there_is() -> None:
    runs, law = recipes(40, (4e6, 3e7, 1e9), 0), law_of(0)
    x = law.capacity(runs).numpy()
    expected = [bisected(n, h, law) for n, h in zip(runs.params.tolist(), runs.shares[:, 0].numpy(), strict=True)]
    assert np.allclose(x, expected, rtol=1e-9)
    assert np.allclose(x.sum(1), runs.params.numpy() + 2 * SHARED, rtol=1e-12)
    assert (x >= SHARED * (1 - 1e-12)).all()


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.9, 0.1, 0.0), (0.2, 0.0, 0.8)])
def test_capacity_is_the_least_loss_that_a_general_optimiser_finds(shares: tuple[float, ...]) -> None:
    h, n = np.array(shares), 2e7
    unit = n  # the optimiser works on x / N
    found = minimize(  # type: ignore[call-overload]
        lambda x: float((h * A * (x * unit) ** -np.array(ALPHA)).sum()),
        np.full(3, (1 + 2 * SHARED / unit) / 3),
        bounds=[(SHARED / unit, 1 + 2 * SHARED / unit)] * 3,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1 - 2 * SHARED / unit},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    x = law_of(0).capacity(design(np.array([n]), np.array([1e9]), h[None])).numpy()[0]
    assert found.success
    assert np.allclose(x / unit, found.x, atol=2e-4)
    assert (h * A * x ** -np.array(ALPHA)).sum() <= found.fun * (1 + 1e-9)


def test_a_domain_that_is_not_in_the_mixture_keeps_what_all_share() -> None:
    x = law_of(1).capacity(design(np.array([2e7]), np.array([1e9]), np.array([[1.0, 0.0, 0.0]])))[0]
    assert torch.allclose(x, torch.tensor([2e7, SHARED, SHARED], dtype=torch.float64), rtol=1e-12)


def test_a_domain_alone_has_the_chinchilla_law() -> None:
    alone = design(np.array([1e7, 3e8]), np.array([1e9, 1e10]), np.array([[0.0, 1.0, 0.0]] * 2))
    chinchilla = Chinchilla(FLOOR[1], A[1], ALPHA[1], B[1], BETA[1])
    assert torch.allclose(law_of(1)(alone), chinchilla(alone), rtol=1e-12)


def test_more_of_another_domain_costs_capacity_and_tokens() -> None:
    code = np.linspace(0, 0.9, 10)
    shares = np.stack([1 - code, code, 0 * code], 1)
    runs = design(np.full(10, 3e7), np.full(10, 6e8), shares)
    assert bool((law_of(0)(runs).diff() > 0).all())
    assert bool((law_of(1)(replace(runs, tokens=runs.tokens.clamp(min=1.0))).diff() < 0).all())


def test_the_optimum_is_differentiable_in_sizes_tokens_and_shares() -> None:
    runs = recipes(6, (5e6, 8e7), 3)
    form = CapacityCompetition.form(runs)
    theta = torch.tensor([[p.mean for p in form.parameters]], dtype=torch.float64) + torch.linspace(-0.4, 0.4, 13)

    def loss(log_params: torch.Tensor, log_tokens: torch.Tensor) -> torch.Tensor:
        return form.log_loss(theta, replace(runs, params=log_params.exp(), tokens=log_tokens.exp()))

    at = [runs.params.log().requires_grad_(), runs.tokens.log().requires_grad_()]
    assert torch.autograd.gradcheck(loss, at, eps=1e-6, atol=1e-7)


def test_a_model_no_larger_than_what_is_shared_gives_every_domain_all_of_itself() -> None:
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    a, alpha = torch.tensor([[0.0, 1.0]]).double(), torch.zeros(1, 2).double()
    x = allocate(a, alpha, torch.tensor([[2.0]]).double(), half, torch.tensor([1.0]).double())
    assert torch.allclose(x, torch.ones_like(x), atol=1e-12)


@cache
def _held_out_error(law: type[Law]) -> float:
    """Relative error on new mixtures at four times the largest size, fitted to 45 runs with 0.3 % noise."""
    rng = np.random.default_rng(5)

    def table(runs: Design, noise: float) -> pl.DataFrame:
        values = {
            d: law_of(i)(runs).numpy() * np.exp(noise * rng.normal(size=len(runs))) for i, d in enumerate(DOMAINS)
        }
        columns = {"run": list(runs.runs), "params": runs.params.numpy()}
        columns |= {f"tokens:train:{d}": runs.tokens[:, 0, i].numpy() for i, d in enumerate(DOMAINS)}
        return pl.DataFrame(columns | {f"metric:{d}": v for d, v in values.items()})

    train = table(recipes(45, (4e6, 1.6e7, 6.4e7), 1), 0.003)
    units = dict.fromkeys(DOMAINS, "nats/token")
    surfaces = fit(train, units=units, unique={}, law=law, resamples=2, audited=False)
    new = recipes(60, (2.56e8,), 2)
    truth = np.stack([law_of(i)(new).numpy() for i in range(3)], 1)
    return float(np.sqrt(np.mean(np.log(surfaces.predict(new).law_only / truth) ** 2)))


def test_fitted_to_a_world_of_competition_it_extrapolates_better_than_a_law_without() -> None:
    assert _held_out_error(CapacityCompetition) < 0.01
    assert _held_out_error(CapacityCompetition) < 0.5 * _held_out_error(Joint)
