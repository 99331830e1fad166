"""The measured runs as a table of the report."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.numbers import percent
from mixlaw.plots.style import count
from mixlaw.report.page import table

MOST_RUNS, MOST_VALUES = 200, 8  # rows, and columns of values, that a page takes


def runs_table(surfaces: Surfaces, tasks: Sequence[str]) -> str:
    """Finished runs by size, with the mixture of each phase and the first tasks, folded."""
    observed, design = surfaces.observed, surfaces.observed.design
    shown = list(tasks[:MOST_VALUES])
    finished = torch.nonzero(design.progress >= 1).flatten().tolist()
    order = sorted(finished, key=lambda i: (-float(design.params[i]), design.runs[i]))
    rows = [["run", "params", "tokens", *design.phases, *shown]]
    for i in order[:MOST_RUNS]:
        mixtures = [_mixture(design.domains, phase) for phase in design.tokens[i].tolist()]
        values = [float(observed.value[surfaces.tasks.index(task), i]) for task in shown]
        size = [count(float(design.params[i])), count(float(design.tokens[i].sum()))]
        rows.append([design.runs[i], *size, *mixtures, *(f"{v:.4g}" if v == v else "" for v in values)])
    styles = [["", "", "extra", *["words extra"] * len(design.phases), *[""] * len(shown)]] * (len(rows) - 1)
    which = f"The {MOST_RUNS} largest of" if len(order) > MOST_RUNS else "All"
    return f"<details><summary>{which} {len(order)} finished runs</summary>{table(rows, styles)}</details>"


def _mixture(domains: Sequence[str], tokens: Sequence[float]) -> str:
    """Shares of a phase in words, the largest first; empty where the run does not have it."""
    whole = sum(tokens)
    pairs = sorted(zip(domains, tokens, strict=True), key=lambda pair: -pair[1])
    return " ".join(f"{name} {percent(part / whole)}" for name, part in pairs if part >= 0.005 * whole) if whole else ""
