"""The recipe inside the limits of a target that is nearest to one outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from mixlaw.optimizer.target.feasible import Feasible
from mixlaw.recipe import Recipe

Floats = NDArray[np.float64]

#: Share of a phase that a domain without tokens counts as, so that it may get some where the limits ask for it.
LITTLE = 1e-3
STEPS = 200


def nearest(allowed: Feasible, recipe: Recipe) -> Recipe:
    """The recipe of the same size and lengths, as far as these are allowed, with the least Kullback-Leibler divergence.

    So what no limit is about keeps its proportions: a cap on code scales code down and all else up.
    """
    point = allowed.read([recipe])
    middle = allowed.project(point)
    free = list(allowed.affine.free)
    g = point.lengths[0, free].numpy()
    g = np.array([min(max(v, low), high) for v, (low, high) in zip(g.tolist(), allowed.ranges, strict=True)])
    lengths = np.asarray(allowed.affine(g))
    x = _divergence_optimum(allowed, point.shares[0].numpy(), lengths, g, float(point.params[0]))
    if x is None:
        return allowed.recipe(middle)
    shares, fixed = torch.tensor(x / x.sum(1, keepdims=True))[None], torch.tensor(lengths)[None]
    return allowed.recipe(replace(middle, shares=shares, lengths=fixed, lr_end=point.lr_end, params=point.params))


def _divergence_optimum(allowed: Feasible, shares: Floats, lengths: Floats, g: Floats, params: float) -> Floats | None:
    """Token shares (P, K) within the limits, nearest to `shares` of phases of these lengths; None without one."""
    wanted = ((shares + LITTLE / shares.shape[1]) / (1 + LITTLE) * lengths[:, None]).ravel()
    tokens = float(allowed.tokens(torch.tensor([params], dtype=torch.float64))[0])
    rows = np.array([limit.row[: wanted.size] for limit in allowed.limits]).reshape(-1, wanted.size)
    most = np.array([limit.most(tokens) - limit.row[wanted.size :] @ g for limit in allowed.limits])
    sums = np.kron(np.eye(len(lengths)), np.ones(shares.shape[1]))

    def divergence(x: Floats) -> tuple[float, Floats]:
        logs = np.log(np.maximum(x, 1e-12) / wanted)
        return float(x @ logs - x.sum()), logs

    solution = minimize(  # type: ignore[call-overload]
        divergence,
        wanted,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * wanted.size,
        constraints=[
            {"type": "eq", "fun": lambda x: sums @ x - lengths, "jac": lambda _: sums},
            {"type": "ineq", "fun": lambda x: most - rows @ x, "jac": lambda _: -rows},
        ],
        options={"maxiter": STEPS, "ftol": 1e-10},
    )
    x = np.maximum(np.asarray(solution.x, dtype=np.float64), 0.0)
    return x.reshape(shares.shape) if solution.success and bool((rows @ x <= most + 1e-6).all()) else None
