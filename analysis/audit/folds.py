"""Folds: which rows an audit holds out, by mixture, by size and by phase order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design, same_shares

#: Folds of mixtures.
PARTS = 5
#: Fewer rows than this left to learn from, or this many to judge by, make no fold.
ENOUGH, JUDGED = 8, 3


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to learn from and rows to predict.

    Attributes:
        kind: "mixtures", "largest size" or "phase order".
        train, test: row numbers; no run and no mixture is in both.
        extrapolates: whether it shows how the law goes on beyond what was measured: a larger size, from at least two.
    """

    kind: str
    train: Tensor
    test: Tensor
    extrapolates: bool = False


def folds(design: Design, seed: int) -> list[Fold]:
    """All folds that the data allow; extrapolating ones first."""
    made = [*_largest_size(design), *_phase_order(design), *_mixtures(design, seed)]
    return [f for f in made if len(f.train) >= ENOUGH and len(f.test) >= JUDGED]


def mixture_groups(design: Design) -> Tensor:
    """Number of the group of each row, (R,): rows of one run or of one mixture by phase are one group."""
    group = design.mixture_index.tolist()
    first: dict[str, int] = {}
    merged = {g: g for g in group}
    for g, run in zip(group, design.runs, strict=True):  # checkpoints of one run may differ in mixture
        root = merged[first.setdefault(run, g)]
        merged = {k: root if v == merged[g] else v for k, v in merged.items()} if merged[g] != root else merged
    number = {g: i for i, g in enumerate(dict.fromkeys(merged[g] for g in group))}
    return torch.tensor([number[merged[g]] for g in group])


def _mixtures(design: Design, seed: int) -> list[Fold]:
    group = mixture_groups(design)
    if int(group.max()) + 1 < PARTS:  # one mixture throughout: hold out runs
        group = design.run_index
    count = int(group.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    part = torch.empty(count, dtype=torch.long)
    part[order] = torch.arange(count) % PARTS
    return [_fold("mixtures", part[group] == i) for i in range(min(PARTS, count))]


def _largest_size(design: Design) -> list[Fold]:
    if design.sizes < 2:
        return []
    return [replace(_fold("largest size", design.at_largest), extrapolates=design.sizes > 2)]


def _phase_order(design: Design) -> list[Fold]:
    """Runs whose totals another run has too, in another order of phases: every second of them is held out."""
    if len(design.phases) < 2:
        return []
    same = same_shares(design.mixture) * design.sizes + design.size_index
    ordered = mixture_groups(design)
    held = torch.zeros(len(design), dtype=torch.bool)
    for value in sorted(set(same.tolist())):
        orders = sorted(set(ordered[same == value].tolist()))
        for order in orders[1::2]:
            held |= ordered == order
    return [_fold("phase order", held)] if bool(held.any()) else []


def _fold(kind: str, held: Tensor) -> Fold:
    return Fold(kind, torch.nonzero(~held).squeeze(1), torch.nonzero(held).squeeze(1))
