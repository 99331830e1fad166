"""A user's own law and regressors of scikit-learn: fitted, audited, stacked, saved and shown like ours."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import BayesianRidge, RidgeCV
from sklearn.pipeline import make_pipeline
from torch import Tensor

from mixlaw import RecipeFeatures, Surfaces
from mixlaw.analysis.audit.peers import peers
from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.laws import Chinchilla, Law, ParametricLaw, by_domain, exponent, loss_term
from mixlaw.analysis.laws.named import law_named, name_of
from mixlaw.analysis.surface.regressors import Regressors
from mixlaw.errors import InputError
from test_laws import designs, thetas

SHARES = ("web", "code", "math")


@dataclass(frozen=True, eq=False)
class TwoTerms(ParametricLaw):
    """Chinchilla's law, written again."""

    floor: float = loss_term()
    a: float = loss_term()
    b: float = loss_term()
    alpha: float = exponent()
    beta: float = exponent()

    def loss(self, design: Design) -> Tensor:
        return self.floor + self.a * design.params**-self.alpha + self.b * design.total**-self.beta


@dataclass(frozen=True, eq=False)
class Weighted(ParametricLaw):
    """L = floor + a (sum_j worth_j t_j)**-beta."""

    floor: float = loss_term()
    a: float = loss_term()
    beta: float = exponent()
    worth: Tensor = by_domain()  # noqa: RUF009

    def loss(self, design: Design) -> Tensor:
        return self.floor + self.a * (design.tokens.sum(1) @ self.worth) ** -self.beta


def mixed(rows: int, seed: int = 0) -> pl.DataFrame:
    """Recipes of one size and phase that differ in mixture and, a little, in tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.dirichlet(np.ones(3), rows) * rng.uniform(5e8, 2e9, (rows, 1))
    columns = {f"tokens:init:{name}": tokens[:, i] for i, name in enumerate(SHARES)}
    return pl.DataFrame({"run": [str(i) for i in range(rows)], "params": np.full(rows, 1e8), **columns})


def measured(table: pl.DataFrame, law: Law, noise: float = 1e-3) -> pl.DataFrame:
    loss = law(Design.from_table(table, {})).numpy()
    noisy = loss * np.exp(noise * np.random.default_rng(1).standard_normal(len(loss)))
    return table.with_columns(pl.Series("metric:loss", noisy))


def test_a_law_written_again_is_the_same_function() -> None:
    design = designs()
    ours, own = Chinchilla.form(design), TwoTerms.form(design)
    theta = thetas(ours)
    order = torch.cat([torch.arange(ours.at[name].start, ours.at[name].stop) for name in own.at])
    assert torch.allclose(own.log_loss(theta[:, order], design), ours.log_loss(theta, design), rtol=1e-12)
    law, again = ours.law(theta[0], 0.3), own.law(theta[0, order], 0.3)
    assert torch.allclose(again(design), law(design), rtol=1e-12)
    slopes = own.jacobian(theta[:, order], design)[1]
    expected = ours.jacobian(theta, design)[1]
    assert torch.allclose(slopes, expected[:, torch.argsort(torch.argsort(order))][:, order], atol=1e-10)


def test_an_own_law_finds_the_coefficients_that_made_the_runs(tmp_path: Path) -> None:
    truth = Weighted(2.0, 0.8, 0.4, torch.tensor([1.0, 0.2, 3.0]), domains=SHARES, typical_tokens=1e9)
    surfaces = fit(measured(mixed(60), truth), units={"loss": "nats/token"}, unique={}, law=Weighted, resamples=8)
    new = Design.from_table(mixed(20, seed=5), {})
    assert np.abs(np.log(surfaces.predict(new).mean[:, 0] / truth(new).numpy())).mean() < 1e-3
    assert "worth" in str(surfaces)
    assert "beta" in str(surfaces)
    surfaces.save(tmp_path / "surfaces")
    again = Surfaces.load(tmp_path / "surfaces")
    assert np.array_equal(again.predict(new).mean, surfaces.predict(new).mean)
    assert str(again) == str(surfaces)


FILE = """
from dataclasses import dataclass
from mixlaw.analysis.laws import ParametricLaw, loss_term

@dataclass(frozen=True, eq=False)
class Flat(ParametricLaw):
    floor: float = loss_term()

    def loss(self, design):
        return self.floor + 0 * design.params
"""


def test_a_law_is_found_beside_the_study_and_its_absence_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "law_of_mine.py"
    file.write_text(FILE)
    flat = law_named("law_of_mine:Flat", (tmp_path,))
    assert name_of(flat) == "law_of_mine:Flat"
    assert law_named("Chinchilla") is Chinchilla
    table = mixed(12).with_columns(pl.Series("metric:loss", np.full(12, 2.0)))
    fit(table, units={"loss": "nats/token"}, unique={}, law=flat, resamples=2).save(tmp_path / "surfaces")
    del sys.modules["law_of_mine"]
    assert Surfaces.load(tmp_path / "surfaces").members[0].name == "Flat"
    del sys.modules["law_of_mine"]
    with monkeypatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path / "somebody"))
        with pytest.raises(InputError, match=r'other modules, \["law_of_mine:Flat"\], and were fitted by another user'):
            Surfaces.load(tmp_path / "surfaces")
    assert "law_of_mine" not in sys.modules, "it was not run"
    file.unlink()
    with pytest.raises(InputError, match=r"'law_of_mine:Flat' cannot be imported.*put the file law_of_mine.py into"):
        Surfaces.load(tmp_path / "surfaces")
    with pytest.raises(InputError, match="did you mean 'Chinchilla'"):
        law_named("Chinchila")
    with pytest.raises(InputError, match="is no law"):
        law_named("pathlib:Path")


@pytest.fixture(scope="module")
def rough() -> pl.DataFrame:
    """Runs whose log loss is linear in square roots of shares."""
    table = mixed(70)
    root = np.sqrt(Design.from_table(table, {}).mixture.numpy())
    loss = np.exp(0.5 + root @ np.array([-0.6, 0.9, 0.3]))
    noise = np.exp(2e-3 * np.random.default_rng(2).standard_normal(70))
    return table.with_columns(pl.Series("metric:loss", loss * noise), pl.Series("metric:other", 1 / loss))


@pytest.fixture(scope="module")
def beside(rough: pl.DataFrame) -> Surfaces:
    others = {"two": TwoTerms, "ridge": make_pipeline(RecipeFeatures("root"), BayesianRidge())}
    units = {"loss": "nats/token", "other": "nats/token"}
    return fit(rough, units=units, unique={}, law=Weighted, beside=others, resamples=4)


def test_the_better_regressor_gets_the_weight_of_the_prediction(beside: Surfaces, rough: pl.DataFrame) -> None:
    assert beside.audit is not None
    table = beside.audit.table.filter(pl.col("task") == "loss", pl.col("fold") == "mixtures")
    error = dict(zip(table["method"], table["error"], strict=True))
    assert {"Weighted", "two", "ridge"} <= set(error)
    assert error["ridge"] < 0.7 * error["Weighted"]
    assert error["surfaces"] < 1.1 * error["ridge"]
    assert beside.beside is not None
    assert float(beside.beside.shares[0].sum()) > 0.5
    assert "ridge" in str(beside)
    found = beside.predict(beside.observed.design)
    inside = (rough["metric:loss"].to_numpy() >= found.lo90[:, 0]) & (
        rough["metric:loss"].to_numpy() <= found.hi90[:, 0]
    )
    assert inside.mean() > 0.8


def test_derivatives_and_samples_are_those_of_the_laws(beside: Surfaces) -> None:
    design = beside.observed.design
    tokens = design.tokens.clone().requires_grad_()
    beside.mean(replace(design, tokens=tokens)).sum().backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(tokens.grad).all())  # type: ignore[arg-type]
    assert torch.allclose(beside.weights.sum(1), torch.ones(2, dtype=torch.float64))
    assert beside.draws(design, 4).shape == (4, 70, 2)


def test_regressors_are_saved_and_loaded(beside: Surfaces, tmp_path: Path) -> None:
    beside.save(tmp_path)
    again, new = Surfaces.load(tmp_path), Design.from_table(mixed(5, seed=9), {})
    assert np.array_equal(again.predict(new).mean, beside.predict(new).mean)
    assert np.array_equal(again.predict(new).hi90, beside.predict(new).hi90)
    assert str(again) == str(beside)


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_of_somebody_else_is_refused_and_not_loaded(
    beside: Surfaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "theirs"))
    evil = Regressors("ridge", (Evil(tmp_path / "harm"),) * 2, beside.regressors[0].spread)
    replace(beside, regressors=(evil,)).save(tmp_path / "surfaces")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "mine"))
    with pytest.raises(InputError, match=r"pickled by another user or elsewhere.* fit them here"):
        Surfaces.load(tmp_path / "surfaces")
    assert not (tmp_path / "harm").exists()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "theirs"))
    with suppress(Exception):  # it is no regressor
        Surfaces.load(tmp_path / "surfaces")
    assert (tmp_path / "harm").exists(), "the test shows nothing"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Weighted": TwoTerms}, "fitted anyway; give it another name"),
        ({"x": 3}, "give the class of a law, or a scikit-learn regressor"),
        ({"x": RidgeCV()}, r"the regressor 'x' cannot be fitted .*RecipeFeatures"),
    ],
)
def test_what_cannot_be_put_beside_is_said(rough: pl.DataFrame, given: dict[str, object], message: str) -> None:
    units = {"loss": "nats/token", "other": "nats/token"}
    with pytest.raises(InputError, match=message):
        fit(rough, units=units, unique={}, law=Weighted, beside=given, resamples=2)


@pytest.mark.parametrize("name", ["linear", "linear in roots", "linear in logs"])
def test_token_counts_that_differ_by_rounding_get_no_slope(name: str) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), 40)
    tokens = shares * (1e9 + rng.integers(0, 50, (40, 1)))
    columns = {f"tokens:init:{domain}": tokens[:, i] for i, domain in enumerate(SHARES)}
    table = pl.DataFrame({"params": np.full(40, 1e8), **columns})
    larger = table.with_columns([pl.col(f"tokens:init:{domain}") * 2 for domain in SHARES])
    values = shares @ np.array([0.1, -0.2, 0.1]) + 1e-3 * rng.standard_normal(40)
    peer = peers(40)[name].fit(Design.from_table(table, {}), values)
    assert np.allclose(peer.predict(Design.from_table(larger, {})), peer.predict(Design.from_table(table, {})))
