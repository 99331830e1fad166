"""Hover text: size, tokens and mixtures of runs and recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from textwrap import wrap

from mixlaw.analysis.data.design import Design
from mixlaw.numbers import percent
from mixlaw.plots.style import count
from mixlaw.recipe import Recipe

MOST = 6  # domains of a phase that are named
WIDE = 48  # characters of a line: they fit a phone
NO_BREAK = "\N{NO-BREAK SPACE}"


def recipe_words(recipe: Recipe) -> str:
    """Size and tokens of a recipe, and a line for the mixture of each phase."""
    return _words(recipe.params, ((p.name, p.tokens, p.mixture) for p in recipe.phases))


@lru_cache(maxsize=8)  # measured runs are in many plots, and the dashboard redraws often
def run_words(design: Design) -> tuple[str, ...]:
    """The same for every row of a design."""
    rows = zip(design.params.tolist(), design.tokens.tolist(), strict=True)
    return tuple(_words(params, _phases(design, tokens)) for params, tokens in rows)


def _phases(design: Design, tokens: list[list[float]]) -> Iterable[tuple[str, float, Mapping[str, float]]]:
    for phase, by_domain in zip(design.phases, tokens, strict=True):
        if total := sum(by_domain):
            yield phase, total, {name: n / total for name, n in zip(design.domains, by_domain, strict=True)}


def _words(params: float, phases: Iterable[tuple[str, float, Mapping[str, float]]]) -> str:
    rows = list(phases)
    head = f"{count(params)} params, {count(sum(tokens for _, tokens, _ in rows))} tokens"
    lines = (
        wrap(f"{name} {count(tokens)}: {_shares(shares)}", WIDE, subsequent_indent="   ")
        for name, tokens, shares in rows
    )
    return "<br>".join([head, *(line for phase in lines for line in phase)]).replace(NO_BREAK, " ")


def _shares(shares: Mapping[str, float]) -> str:
    """The domains with most of a mixture by name, the others together."""
    order = sorted((pair for pair in shares.items() if pair[1] >= 0.005), key=lambda pair: -pair[1])
    named = [f"{name}{NO_BREAK}{percent(share)}" for name, share in order[:MOST]]
    if len(order) > MOST:
        named.append(f"{len(order) - MOST}{NO_BREAK}more{NO_BREAK}{percent(sum(share for _, share in order[MOST:]))}")
    return ", ".join(named).replace(" %", f"{NO_BREAK}%")
