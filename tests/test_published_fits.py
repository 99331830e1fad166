"""Laws of the literature, fitted by name, give what their authors' own procedure gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from mixlaw.analysis.data.design import Design, Floats
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import BESIROGLU_2024, DCPT, MUENNIGHOFF_2023, Chinchilla, DataConstrained, DataMixing, Law
from mixlaw.analysis.surface.surface import Surfaces

#: Noise of a run at which bootstrapped errors are those that Besiroglu et al. publish: .03, .02 and .02.
NOISE = 0.006


def tokens_and_params(rows: int, seed: int) -> tuple[Floats, Floats]:
    """Parameters and tokens as those of Hoffmann et al.: 9e18 to 1e22 FLOPs around 20 tokens per parameter."""
    rng = np.random.default_rng(seed)
    flops, ratio = 10 ** rng.uniform(np.log10(9e18), 22, rows), np.exp(rng.normal(np.log(20), 1.2, rows))
    params = np.clip(np.sqrt(flops / 6 / ratio), 44e6, 16e9)
    return params, flops / 6 / params


def fitted(law: type[Law], table: pl.DataFrame, **unique: float) -> Surfaces:
    units = {name.removeprefix("metric:"): "nats/token" for name in table.columns if name.startswith("metric:")}
    return fit(table, units=units, unique=unique, law=law, audited=False, resamples=4)


def values(surfaces: Surfaces, task: int, *names: str) -> Floats:
    member = surfaces.members[0]
    law = member.form.law(member.theta[task], float(member.observed.centre[task]))
    return np.array([getattr(law, name) for name in names])


def hoffmann(params: Floats, tokens: Floats, loss: Floats) -> Floats:
    """E, alpha and beta by equation 3 of Hoffmann et al.: L-BFGS from a grid, Huber loss with delta 1e-3."""
    x, y, z = np.log(params), np.log(tokens), np.log(loss)

    def cost(p: Any) -> Any:
        terms = np.stack([p[0] - p[3] * x, p[1] - p[4] * y, np.full_like(z, p[2])])
        value = logsumexp(terms, axis=0)
        part, off = np.exp(terms - value), value - z
        size, pull = np.abs(off), np.clip(off, -1e-3, 1e-3)
        slopes = [*(pull * part).sum(1), -(pull * part[0] * x).sum(), -(pull * part[1] * y).sum()]
        huber = np.where(size <= 1e-3, off**2 / 2, 1e-3 * (size - 5e-4))
        return 1e6 * float(huber.sum()), 1e6 * np.array(slopes)

    grid = [(a, b, 0.5, alpha, beta) for a in (5, 15) for b in (5, 15) for alpha in (0.2, 0.5) for beta in (0.2, 0.5)]
    options: Any = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-8}
    ends = [minimize(cost, np.array(start), jac=True, method="L-BFGS-B", options=options) for start in grid]
    best = min(ends, key=lambda end: end.fun).x
    return np.array([np.exp(best[2]), best[3], best[4]])


def test_chinchilla_on_points_of_the_published_law_is_what_hoffmanns_procedure_gives(tmp_path: Path) -> None:
    params, tokens = tokens_and_params(245, 0)
    truth, rng = BESIROGLU_2024.at(torch.tensor(params), torch.tensor(tokens)).numpy(), np.random.default_rng(1)
    losses = {f"metric:{i}": truth * np.exp(NOISE * rng.standard_normal(245)) for i in range(6)}
    surfaces = fitted(Chinchilla, pl.DataFrame({"params": params, "tokens:init:web": tokens, **losses}))
    found = np.stack([values(surfaces, i, "floor", "alpha", "beta") for i in range(6)])
    # Tasks are not pooled: each is what its own 245 points give.
    for i in range(2):
        assert np.allclose(found[i], hoffmann(params, tokens, losses[f"metric:{i}"]), atol=5e-4)
    assert np.allclose(found.mean(0), [1.8172, 0.3478, 0.3658], atol=0.01)
    surfaces.save(tmp_path)
    assert Surfaces.load(tmp_path).members[0].procedure == Chinchilla.procedure


def test_the_data_constrained_law_is_fitted_in_two_steps_with_equal_exponents() -> None:
    params, tokens = tokens_and_params(120, 2)
    rng, once = np.random.default_rng(3), np.arange(120) < 60
    tokens = np.where(once, np.maximum(tokens, 22 * params), tokens)  # else the law bends also without repeats
    unique = tokens / np.where(once, 1, np.exp(rng.uniform(0.5, 4, 120)))
    loss = MUENNIGHOFF_2023.at(*map(torch.tensor, (params, tokens, unique))).numpy() * np.exp(
        2e-4 * rng.standard_normal(120)
    )
    columns = {"params": params, "tokens:init:c4": tokens, "unique:c4": unique}
    surfaces = fitted(DataConstrained, pl.DataFrame({**columns, "metric:c4": loss}))
    floor, alpha, beta, repeats, excess = values(surfaces, 0, "floor", "alpha", "beta", "repeats", "excess")
    assert alpha == beta
    assert np.allclose([floor, alpha], [1.87, 0.353], atol=0.01)
    assert np.allclose([repeats, excess], [15.4, 5.3], rtol=0.05)
    # Runs that repeat do not move the terms of scale.
    worse = np.where(once, 1, 1.3) * loss
    again = fitted(DataConstrained, pl.DataFrame({**columns, "metric:c4": worse}))
    assert np.allclose(values(again, 0, "floor", "alpha"), [floor, alpha], atol=1e-6)


MIXED = {
    "web": DataMixing(2.1, 0.8, (-0.9, 0.4, 0.5), ("web", "code", "math")),
    "code": DataMixing(0.9, 1.1, (0.5, -1.2, 0.7), ("web", "code", "math")),
}
SHARED = DCPT(1.2, 300.0, 0.34, 900.0, 0.3, 0.15, 0.2, 0.4, 0.1, (0.999, 0.001), ("code", "web"))


@pytest.mark.parametrize("laws", [MIXED, {"code": SHARED}], ids=["DataMixing", "DCPT"])
def test_mixing_laws_predict_unseen_mixtures_of_their_own_points(laws: dict[str, Law]) -> None:
    rng, domains = np.random.default_rng(4), next(iter(laws.values())).domains  # type: ignore[attr-defined]
    shares = rng.dirichlet(np.ones(len(domains)), 120)
    params = np.full(120, 1e8) if len(laws) > 1 else 10 ** rng.uniform(8, 9.5, 120)
    budget = np.full(120, 1e10) if len(laws) > 1 else 10 ** rng.uniform(9, 10.5, 120)
    columns = {f"tokens:init:{name}": share * budget for name, share in zip(domains, shares.T, strict=True)}
    table = pl.DataFrame({"params": params, **columns})
    design = Design.from_table(table, {})
    truth = {f"metric:{name}": law(design).numpy() for name, law in laws.items()}
    train = table.with_columns(**{k: pl.Series(v) for k, v in truth.items()})[:80]
    surfaces = fitted(type(next(iter(laws.values()))), train)
    predicted = surfaces.predict(design.select(torch.arange(80, 120))).law_only
    assert np.allclose(predicted, np.stack(list(truth.values()), 1)[80:], rtol=2e-3)
    if len(laws) > 1:
        assert np.allclose(values(surfaces, 1, "t")[0], MIXED["code"].t, atol=0.02)
