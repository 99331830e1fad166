"""Fits per second of the engine against a one-core scipy least_squares loop: same law, starts and tolerance.

    python benchmarks/engine_speed.py [RESAMPLES [FITS_COMPARED]]

The loop runs twice, with the engine's own closed-form Jacobian and with numerical derivatives.

Uses RegMix (13 losses, 512 mixtures, 17 domains) from $MIXLAW_DATA or ../shared/data, else simulates its size.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.fitting.engine import HUBER, Problems, solve
from mixlaw.analysis.laws import Exposure
from mixlaw.analysis.laws.base import Form

TOLERANCE = 1e-6
Floats = NDArray[np.float64]


def regmix() -> tuple[Floats, Floats]:
    """Shares (rows, domains) and losses (rows, tasks); simulated where the public table is absent."""
    folder = Path(os.environ.get("MIXLAW_DATA", Path(__file__).parents[2] / "shared" / "data")) / "regmix"
    if folder.exists():
        names = ("train_mixture_1m.csv", "train_pile_loss_1m.csv")
        shares, losses = (np.loadtxt(folder / n, delimiter=",", skiprows=1)[:, 1:] for n in names)
        return shares / shares.sum(1, keepdims=True), losses
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(17, 0.3), 512)
    worth = rng.dirichlet(np.full(17, 0.5), 13)
    return shares, 3 + 2 * (np.sqrt(shares) @ worth.T) ** -0.5 * np.exp(0.01 * rng.normal(size=(512, 13)))


def tokens_of(shares: Floats) -> Design:
    """One phase of 1e9 tokens at 1e6 parameters."""
    rows, k = shares.shape
    return Design(
        params=torch.full((rows,), 1e6, dtype=torch.float64),
        tokens=torch.tensor(shares[:, None, :] * 1e9),
        progress=torch.ones(rows, dtype=torch.float64),
        lr_end=torch.zeros(rows, 1, dtype=torch.float64),
        unique=torch.full((rows, k), torch.inf, dtype=torch.float64),
        phases=("train",),
        domains=tuple(f"domain{i}" for i in range(k)),
        runs=tuple(map(str, range(rows))),
    )


def warm_problems(form: Form, design: Design, losses: Floats, resamples: int) -> Problems:
    """Bootstrap resamples of every task, started from the task's fit to all rows."""
    target = torch.tensor(np.log(losses / np.exp(np.log(losses).mean(0))).T)
    tasks, rows = target.shape
    mean = torch.tensor([p.mean for p in form.parameters], dtype=torch.float64)
    spread = torch.tensor([p.spread for p in form.parameters], dtype=torch.float64)
    sigma = torch.full((tasks, 1), 0.02, dtype=torch.float64)
    mean, spread = mean.expand(tasks, -1), spread.expand(tasks, -1)
    first = solve(form, design, Problems(target, torch.ones_like(target), sigma, mean, mean, spread))
    weight = torch.empty(resamples, rows, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(0))
    return Problems(
        target=target.repeat(resamples, 1),
        weight=weight.repeat_interleave(tasks, 0),
        sigma=sigma.repeat(resamples, 1),
        start=first.theta.repeat(resamples, 1),
        mean=mean.repeat(resamples, 1),
        spread=spread.repeat(resamples, 1),
    )


class Fitted(NamedTuple):
    """Cost that scipy reaches, and where."""

    cost: float
    theta: Tensor


def scipy_fit(form: Form, design: Design, problems: Problems, i: int, closed_form: bool) -> Fitted:
    """One problem by scipy: same robust cost, prior and start; derivatives by differences or ours."""
    free = form.free.numpy()
    theta, sigma = problems.start[i].clone(), float(problems.sigma[i])
    target, root = problems.target[i], problems.weight[i].sqrt()
    mean, spread = problems.mean[i, form.free].numpy(), problems.spread[i, form.free].numpy()

    def residuals(entries: Floats) -> Floats:
        """Signed roots of the cost's terms, those of rows first, then those of the prior."""
        theta[form.free] = torch.from_numpy(entries)
        left = (form.log_loss(theta[None], design)[0] - target) / sigma
        size = left.abs()
        rho = torch.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER))
        return np.concatenate([(root * left.sign() * (2 * rho).sqrt()).numpy(), (entries - mean) / spread])

    def jacobian(entries: Floats) -> Floats:
        """Slopes of `residuals` by the free entries."""
        theta[form.free] = torch.from_numpy(entries)
        value, rows = form.jacobian(theta[None], design)
        size = ((value[0] - target) / sigma).abs()
        steep = torch.where(size <= HUBER, 1.0, HUBER / (2 * HUBER * size - HUBER**2).clamp(min=HUBER**2).sqrt())
        return np.concatenate([(rows[0] * root * steep / sigma).T.numpy(), np.diag(1 / spread)])

    with torch.no_grad():
        found = least_squares(
            residuals,
            problems.start[i].numpy()[free],
            jac=jacobian if closed_form else "2-point",
            ftol=TOLERANCE,
            xtol=TOLERANCE,
            gtol=TOLERANCE,
        )
        theta[form.free] = torch.from_numpy(found.x)
    return Fitted(float(found.cost), theta)


def scipy_loop(
    form: Form, design: Design, problems: Problems, chosen: NDArray[np.int64], closed_form: bool
) -> tuple[Floats, float]:
    """Costs of the chosen fits one after the other, and fits per second on one core."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    costs = np.array([scipy_fit(form, design, problems, int(i), closed_form).cost for i in chosen])
    return costs, len(chosen) / (time.perf_counter() - began)


def main() -> None:
    """Time the engine and both loops in one run, and compare the costs they reach."""
    resamples = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    compared = int(sys.argv[2]) if len(sys.argv) > 2 else 130
    shares, losses = regmix()
    design = tokens_of(shares)
    form = Exposure.form(design)
    problems = warm_problems(form, design, losses, resamples)
    workers = torch.get_num_threads()
    began = time.perf_counter()
    found = solve(form, design, problems, tolerance=TOLERANCE)
    ours = len(found.cost) / (seconds := time.perf_counter() - began)
    print(f"engine: {len(found.cost)} fits in {seconds:.1f} s, {ours:.1f} fits/s on {workers} threads, "
          f"{float(found.converged.double().mean()):.1%} converged", flush=True)  # fmt: skip
    # A stride of 1 modulo the 13 tasks: neighbours are of different tasks and far apart in the resamples.
    spread = np.arange(compared) * (len(found.cost) // compared // 13 * 13 + 1) % len(found.cost)
    for closed_form, chosen in ((True, spread), (False, spread[: max(1, compared // 3)])):
        costs, theirs = scipy_loop(form, design, problems, chosen, closed_form)
        excess = found.cost[chosen].numpy() / costs - 1
        how = "our closed-form Jacobian" if closed_form else "numerical derivatives"
        print(f"scipy with {how}: {len(chosen)} fits, {theirs:.2f} fits/s on one core; engine {ours / theirs:.0f}x, "
              f"its cost the same (to 1e-5) or lower in {np.mean(excess <= 1e-5):.1%}, "
              f"at most {excess.max():+.1e} of scipy's", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
