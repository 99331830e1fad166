"""Folds: which rows an audit holds out, by mixture, by size and by phase order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mixlaw.analysis.audit.held import LARGEST, MIXTURES, RUNS, Fold
from mixlaw.analysis.data.design import SAME_SHARE, Design, same_shares

#: Folds of mixtures.
PARTS = 5
#: Least rows to learn from and to predict; smaller folds are dropped.
LEAST_TRAIN, LEAST_TEST = 8, 3


def folds(design: Design, seed: int) -> list[Fold]:
    """All folds that the data allow; extrapolating ones first."""
    candidates = [*_largest_size(design), *_phase_order(design), *_mixtures(design, seed)]
    return [f for f in candidates if len(f.train) >= LEAST_TRAIN and len(f.test) >= LEAST_TEST]


def mixture_groups(design: Design) -> Tensor:
    """Number of the group of each row, (R,): rows of one run or of one mixture by phase are one group."""
    run, mixture = design.run_index.numpy(), design.mixture_index.numpy()
    runs, mixtures = int(run.max()) + 1, int(mixture.max()) + 1
    # Checkpoints of one run may differ in mixture, so runs and mixtures are joined as a graph.
    edges = coo_array((np.ones(len(run)), (run, runs + mixture)), shape=(runs + mixtures, runs + mixtures))
    return torch.tensor(connected_components(edges, directed=False)[1][run], dtype=torch.long)


def _mixtures(design: Design, seed: int) -> list[Fold]:
    kind, group = MIXTURES, mixture_groups(design)
    if int(group.max()) + 1 < PARTS:  # one mixture throughout
        kind, group = RUNS, design.run_index
    parts = min(PARTS, int(group.max()) + 1)
    if parts < 2:
        return []
    from sklearn.model_selection import GroupKFold  # half a second, which only fits take

    split = GroupKFold(parts, shuffle=True, random_state=seed).split(group, groups=group)
    return [Fold(kind, torch.tensor(train), torch.tensor(test)) for train, test in split]


def _largest_size(design: Design) -> list[Fold]:
    if design.sizes < 2:
        return []
    return [replace(_fold(LARGEST, design.at_largest), extrapolates=design.sizes > 2)]


def _phase_order(design: Design) -> list[Fold]:
    """Of runs with equal totals in different orders of phases, every second order is held out.

    One mixture in all phases is one order, however long they are.
    """
    if len(design.phases) < 2:
        return []
    mixture = same_shares(design.mixture)
    same = mixture * design.sizes + design.size_index
    changes = design.shares - design.shares.sum(2, keepdim=True) * design.mixture[:, None]
    steady = changes.detach().abs().amax((1, 2)) < SAME_SHARE
    ordered = torch.where(steady, -1 - mixture, mixture_groups(design))
    held = torch.zeros(len(design), dtype=torch.bool)
    for value in sorted(set(same.tolist())):
        orders = sorted(set(ordered[same == value].tolist()))
        for order in orders[1::2]:
            held |= ordered == order
    return [_fold("phase order", held)] if bool(held.any()) else []


def _fold(kind: str, held: Tensor) -> Fold:
    return Fold(kind, torch.nonzero(~held).squeeze(1), torch.nonzero(held).squeeze(1))
