"""Fitting beside what one would use instead, one run, same rows: processor seconds and errors on rows left out.

    python benchmarks/fit_peers.py [ROWS]

RegMix's 512 runs (13 losses, 17 domains) from $MIXLAW_DATA or ../shared/data, else simulated ones: ROWS of them, by
default 128, are learned from, and 128 others predicted. Features of the peers are shares. scipy fits mixlaw's exposure
law to every loss by itself, from the prior's mean: no pooling, no residual process, no posterior. Peers that are not
installed are named.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl
import torch
from engine_speed import Floats, regmix, scipy_fit, tokens_of
from scipy.stats import spearmanr

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fit import fit
from mixlaw.analysis.fitting.engine import Problems
from mixlaw.analysis.laws import Exposure

HELD = 128
#: Log losses (held-out rows, tasks) from shares of rows, their log losses, and shares of the rows left out.
Way = Callable[[Floats, Floats, Floats], Floats]


def table_of(shares: Floats, logs: Floats | None = None) -> pl.DataFrame:
    """Runs of one phase as mixlaw reads them."""
    columns = {"run": [f"r{i}" for i in range(len(shares))], "params": [1e6] * len(shares)}
    columns |= {f"tokens:train:domain{k}": (1e9 * shares[:, k]).tolist() for k in range(shares.shape[1])}
    tasks = {} if logs is None else {f"metric:t{t}": np.exp(logs[:, t]).tolist() for t in range(logs.shape[1])}
    return pl.DataFrame(columns | tasks)


def mixlaw(shares: Floats, logs: Floats, held: Floats, law: type[Exposure] | None = None) -> Floats:
    """`fit` without its audit, which fits five times again: law, residual process and posterior of all tasks."""
    units = {f"t{t}": "nats/token" for t in range(logs.shape[1])}
    surfaces = fit(table_of(shares, logs), units=units, unique={}, audited=False, law=law)
    predicted: Floats = np.log(surfaces.predict(Design.from_table(table_of(held), {})).mean)
    return predicted


def by_scipy(shares: Floats, logs: Floats, held: Floats, closed_form: bool) -> Floats:
    """The exposure law by `scipy.optimize.least_squares`, task by task."""
    design, centre = tokens_of(shares), logs.mean(0)
    form = Exposure.form(design)
    tasks = logs.shape[1]
    mean, spread = (
        torch.tensor([getattr(p, name) for p in form.parameters], dtype=torch.float64).expand(tasks, -1)
        for name in ("mean", "spread")
    )
    target = torch.tensor((logs - centre).T)
    sigma = torch.full((tasks, 1), 0.02, dtype=torch.float64)
    problems = Problems(target, torch.ones_like(target), sigma, mean, mean, spread)
    thetas = [scipy_fit(form, design, problems, task, closed_form).theta for task in range(tasks)]
    predicted: Floats = form.log_loss(torch.stack(thetas), tokens_of(held)).T.numpy() + centre
    return predicted


def by_task(make: Callable[[], object], shares: Floats, logs: Floats, held: Floats) -> Floats:
    """A regressor of scikit-learn's interface for every task."""
    models: list[object] = [make().fit(shares, column) for column in logs.T]  # type: ignore[attr-defined]
    return np.stack([model.predict(held) for model in models], 1)  # type: ignore[attr-defined]


def botorch(shares: Floats, logs: Floats, held: Floats) -> Floats:
    """`SingleTaskGP` of each task, as BoTorch fits it by default."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    columns = []
    for column in logs.T:
        model = SingleTaskGP(
            torch.tensor(shares), torch.tensor(column)[:, None].clone(), outcome_transform=Standardize(1)
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        with torch.no_grad():
            columns.append(model.posterior(torch.tensor(held)).mean[:, 0].numpy())
    return np.stack(columns, 1)


def ways() -> dict[str, Way]:
    """All ways of fitting, ours first."""
    from lightgbm import LGBMRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.linear_model import RidgeCV

    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(1.0, (1e-1, 1e2)) + WhiteKernel(1e-3, (1e-6, 1.0))
    return {
        "mixlaw, laws stacked": mixlaw,
        "mixlaw, exposure law": partial(mixlaw, law=Exposure),
        "the law by scipy, our Jacobian": partial(by_scipy, closed_form=True),
        "the law by scipy, differences": partial(by_scipy, closed_form=False),
        "scikit-learn RidgeCV": partial(by_task, partial(RidgeCV, np.logspace(-6, 2, 17))),
        "scikit-learn boosting": partial(by_task, HistGradientBoostingRegressor),
        "scikit-learn GP": partial(by_task, partial(GaussianProcessRegressor, kernel, normalize_y=True)),
        "LightGBM, as RegMix": partial(
            by_task, partial(LGBMRegressor, n_estimators=1000, learning_rate=0.01, verbose=-1, n_jobs=1)
        ),
        "BoTorch SingleTaskGP": botorch,
    }


def main(rows: int) -> None:
    """Fit by every way in turn and print one table."""
    torch.set_num_threads(1)
    shares, losses = regmix()
    order = np.random.default_rng(0).permutation(len(shares))
    train, held = order[:rows], order[-HELD:]
    logs = np.log(losses)
    print(f"{rows} runs of 13 losses over 17 domains, {HELD} others predicted; one thread")
    print(f"{'':32} {'processor s':>12} {'over mixlaw':>12} {'RMSE, % of loss':>16} {'rank correlation':>17}")
    ours = 0.0
    for name, way in ways().items():
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predicted = way(shares[train], logs[train], shares[held])
        except ImportError as error:
            print(f"{name:32} not installed: {error.name}", flush=True)
            continue
        seconds = time.process_time() - began
        ours = ours or seconds
        off = 100 * np.sqrt(np.mean((predicted - logs[held]) ** 2))
        ranks = np.mean([spearmanr(predicted[:, t], logs[held, t])[0] for t in range(logs.shape[1])])
        print(f"{name:32} {seconds:12.2f} {seconds / ours:12.3f} {off:16.2f} {ranks:17.3f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 128)
