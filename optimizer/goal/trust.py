"""How far measured recipes reach: the runs near a target, and the radius within which they speak for each other."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.optimizer.goal.gains import apart
from mixlaw.optimizer.target.feasible import Feasible

#: Recipes that share this much of their tokens are taken to speak for each other, however dense the design is.
LEAST_RADIUS = 0.2


def radius_of(near: Tensor) -> float:
    """Distance up to which measured recipes (M, P, K) speak for each other: the widest gap between neighbours."""
    if not len(near):
        return math.inf
    gaps = apart(near, near) + torch.eye(len(near))
    return max(LEAST_RADIUS, float(gaps.min(1).values.max())) if len(near) > 1 else LEAST_RADIUS


def near_runs(allowed: Feasible, measured: Design | None) -> tuple[Tensor, list[str]]:
    """Token shares of the finished, distinct measured recipes on the target's axes (M, P, K), and their runs.

    A run that used a phase or domain that the target does not have is no neighbour.
    """
    phases, names = allowed.target.all_phases, [d.name for d in allowed.domains]
    if measured is None:
        return torch.zeros(0, len(phases), len(names), dtype=torch.float64), []
    x = torch.zeros(len(measured), len(phases), len(names), dtype=torch.float64)
    for p, phase in enumerate(phases):
        for j, name in enumerate(names):
            if phase in measured.phases and name in measured.domains:
                x[:, p, j] = measured.shares[:, measured.phases.index(phase), measured.domains.index(name)]
    kept = torch.nonzero((x.sum((1, 2)) > 1 - 1e-3) & (measured.progress >= 1)).flatten()
    _, first = np.unique(x[kept].round(decimals=3).flatten(1).numpy(), axis=0, return_index=True)
    rows = kept[torch.as_tensor(np.sort(first), dtype=torch.long)]
    return x[rows], [measured.runs[i] for i in rows.tolist()]
