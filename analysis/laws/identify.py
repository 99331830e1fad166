"""What a design identifies: which effects its recipes vary, and in words those that they do not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design

#: Standard deviation of log tokens below which the budget never varies.
STEADY = 0.01
#: Shares differ between recipes by more than a rounding error.
VARIED_SHARE = 0.02
#: Peak rates closer than this in log are one rate.
SAME_RATE = 0.05
NO_REPEATS = "No domain is repeated: what a repeat is worth comes from the literature (R* about 15)."


def one_size(design: Design) -> bool:
    """Whether all runs have the same model size."""
    return design.sizes == 1


def one_budget(design: Design) -> bool:
    """Whether all runs train on the same number of tokens."""
    return _log_deviation(design.total) < STEADY


def locked(design: Design) -> bool:
    """Whether log N and log D both vary, but only together."""
    if one_size(design) or one_budget(design):
        return False
    both = torch.stack([design.params.detach().log(), design.total.detach().log()])
    return bool(torch.corrcoef(both)[0, 1].abs() > 0.9995)


def repeats(design: Design) -> bool:
    """Whether any run sees more tokens of a domain than are unique."""
    return bool((design.tokens.sum(1) > design.unique).any())


def mixtures_vary(design: Design) -> bool:
    """Whether any domain's share of a recipe differs between recipes."""
    shares = design.mixture.detach()
    return bool((shares.amax(0) - shares.amin(0) > VARIED_SHARE).any())


def mixtures_vary_at_sizes(design: Design) -> bool:
    """Whether mixtures vary at two sizes or more."""
    rows = (torch.nonzero(design.size_index == size).squeeze(1) for size in range(design.sizes))
    return sum(mixtures_vary(design.select(index)) for index in rows) > 1


def phase_differs(design: Design, phase: int) -> bool:
    """Whether runs differ in how the phase's mixture compares with that of the whole run."""
    here = design.tokens[:, phase].detach()
    tokens = here.sum(1, keepdim=True)
    shift = (here / tokens.clamp(min=1e-300) - design.mixture.detach()) * (tokens > 0)
    return bool(shift.std(0, correction=0).max() > 1e-3)


def rate_notes(design: Design) -> tuple[str, ...]:
    """Say in words where sizes, or recipes of one size, differ in their peak learning rate over the rule's."""
    rate, sizes = design.lr.detach().log(), [design.size_index == size for size in range(design.sizes)]
    notes, typical = [], [float(rate[rows].median()) for rows in sizes]
    usual = sorted(typical)[len(typical) // 2]
    odd = [i for i, one in enumerate(typical) if abs(one - usual) > SAME_RATE]
    for i in odd:
        which = "largest" if i == len(sizes) - 1 else "smallest" if i == 0 else "middle"
        notes.append(
            f"The {which} size ({float(design.params[sizes[i]].mean()):,.0f} parameters) was trained at "
            f"{math.exp(typical[i] - usual):.2g} of the others' peak rate: what the rate does cannot be distinguished "
            "from what the size does; train one run of it at their rate."
        )
    within = torch.cat([rate[rows] - middle for rows, middle in zip(sizes, typical, strict=True)])
    if bool((within.abs() > SAME_RATE).any()):
        low, high = float(within.min().exp()), float(within.max().exp())
        notes.append(f"Runs of one size differ in their peak rate, from {low:.2g} to {high:.2g} times its usual one.")
    return tuple(notes)


def scale_notes(design: Design) -> tuple[str, ...]:
    """Say in words what sizes, budgets and peak rates do not identify."""
    notes = list(rate_notes(design))
    if one_size(design):
        notes.append(
            "Model size never varies: its effect is not identified and comes from the literature (alpha about 0.35)."
        )
    elif design.sizes == 2:
        notes.append(
            "Two model sizes: alpha is barely identified and leans on the literature (about 0.35, factor 1.35)."
        )
    if one_budget(design):
        notes.append("The token budget never varies: beta leans on the literature (about 0.35) and on mixtures.")
    if locked(design):
        notes.append("Size and tokens vary only together: only mixtures separate their effects.")
    return tuple(notes)


def _log_deviation(values: Tensor) -> float:
    """Standard deviation of log values, 0 for a single one."""
    return float(values.detach().log().std(correction=0))
