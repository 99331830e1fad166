"""The code share of a phase as one number, changed while the proportions within code and within text stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixlaw.analysis.data.design import Design
from mixlaw.recipe import Domain, Mixture, Recipe


def code_share(mixture: Mixture, domains: Sequence[Domain]) -> float:
    """Share of code-like domains in a mixture."""
    return sum(mixture.share(domain.name) for domain in domains if domain.kind.is_code)


def with_code_share(recipe: Recipe, phase: str, share: float, domains: Sequence[Domain]) -> Recipe:
    """The recipe with another code share in one phase, everything else in proportion.

    Where the phase has no code (or no text) yet, the proportions are those of the whole recipe, else of unique tokens.
    """
    mixture = next(p.mixture for p in recipe.phases if p.name == phase)
    code = _within([d for d in domains if d.kind.is_code], mixture, recipe.mixture)
    text = _within([d for d in domains if not d.kind.is_code], mixture, recipe.mixture)
    weights = {name: share * part for name, part in code.items()}
    weights |= {name: (1 - share) * part for name, part in text.items()}
    return recipe.with_mixture(phase, Mixture.normalised(weights))


def _within(group: Sequence[Domain], *mixtures: Mixture) -> dict[str, float]:
    """Proportions inside a group of domains, by the first mixture that has any of them."""
    for mixture in mixtures:
        whole = sum(mixture.share(d.name) for d in group)
        if whole > 0:
            return {d.name: mixture.share(d.name) / whole for d in group}
    whole = sum(d.unique_tokens for d in group)
    return {d.name: d.unique_tokens / whole for d in group}


def code_shares(design: Design, domains: Sequence[Domain]) -> Tensor:
    """Code share of every phase of every run, NaN in phases without tokens, (R, P)."""
    names = {domain.name for domain in domains if domain.kind.is_code}
    code = torch.tensor([name in names for name in design.domains])
    return design.tokens[:, :, code].sum(2) / design.tokens.sum(2)
