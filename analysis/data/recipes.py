"""Recipes as a design, and a measured run as a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mixlaw.analysis.data.design import SHAPES, TENSORS, WHOLE_COSINE, Design, cosine_ends
from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule


def design_of(
    recipes: Sequence[Recipe], phases: Sequence[str], domains: Sequence[str], unique: Mapping[str, float]
) -> Design:
    """Read recipes as finished runs on the given axes.

    Args:
        recipes: R recipes; each may have phases of its own, as long as all their names are among `phases`.
        phases, domains: axes of the design, phases in order of training; missing ones get zero tokens.
        unique: unique tokens per domain, unlimited where not given; a recipe's own `unique` comes first.

    Raises:
        InputError: a recipe has a phase or domain that is not among the axes.
    """
    rows = [_row(recipe, unique).aligned(tuple(phases), tuple(domains)) for recipe in recipes]
    parts: dict[str, Any] = {name: torch.cat([getattr(row, name) for row in rows]) for name in TENSORS}
    return replace(rows[0], **parts, runs=tuple(recipe.lineage for recipe in recipes))


def largest_run(design: Design) -> Recipe:
    """The finished run of most parameters times tokens."""
    row = int((design.params * design.total * (design.progress >= 1)).argmax())
    names, whole = design.domains, bool((design.decay[row] == WHOLE_COSINE).any())
    shapes = {code: Decay(name) for name, code in SHAPES.items()}
    phases = [
        Phase(
            phase,
            max(1, round(float(design.tokens[row, p].sum()))),
            Mixture.normalised(dict(zip(names, design.tokens[row, p].tolist(), strict=True))),
            float(design.lr_end[row, p]),
            shapes.get(float(design.decay[row, p]), Decay.LINEAR),
        )
        for p, phase in enumerate(design.phases)
        if float(design.tokens[row, p].sum()) > 0
    ]
    schedule = Schedule.COSINE if whole else Schedule.WSD
    return Recipe(round(float(design.params[row])), tuple(phases), schedule=schedule, lr=float(design.lr[row]))


def _row(recipe: Recipe, unique: Mapping[str, float]) -> Design:
    """One recipe on its own phases and domains."""
    domains = recipe.domains
    tokens = [[phase.tokens * phase.mixture.share(d) for d in domains] for phase in recipe.phases]
    # If not given, phases hold their rate and the run ends decayed, as in `Design.from_table`.
    default = [1.0] * (len(recipe.phases) - 1) + [0.0]
    ends = [d if p.lr_end is None else p.lr_end for p, d in zip(recipe.phases, default, strict=True)]
    shapes = [SHAPES[phase.decay.value] for phase in recipe.phases]
    if recipe.schedule is Schedule.COSINE:
        counts = np.array([[float(phase.tokens) for phase in recipe.phases]])
        ends = cosine_ends(counts, np.array([recipe.cosine_end]))[0].tolist()
        shapes = [WHOLE_COSINE] * len(ends)
    pool = [float(recipe.unique.get(d, unique.get(d, float("inf")))) for d in domains]
    return Design(
        torch.tensor([float(recipe.params)], dtype=torch.float64),
        torch.tensor([tokens], dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
        torch.tensor([ends], dtype=torch.float64),
        torch.tensor([pool], dtype=torch.float64),
        tuple(phase.name for phase in recipe.phases),
        domains,
        (recipe.lineage,),
        torch.tensor([recipe.lr], dtype=torch.float64),
        torch.tensor([shapes], dtype=torch.float64),
    )
