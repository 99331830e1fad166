"""What is said of a dot: size, tokens, and the mixture of every phase, in lines that fit a phone."""

from __future__ import annotations

from mixlaw.analysis.data.recipes import design_of
from mixlaw.plots.hover import recipe_words, run_words
from mixlaw.recipe import Mixture, Phase, Recipe

WIDE = Mixture({**{f"corpus{i}": 0.14 for i in range(7)}, "rare": 0.02})
RECIPE = Recipe(
    94_000,
    (
        Phase("init", 1_000_000, Mixture({"web": 0.75, "python": 0.246, "books": 0.004})),
        Phase("cooldown", 250_000, WIDE, 0.0),
    ),
)


def test_a_recipe_is_its_size_its_tokens_and_a_mixture_for_each_phase() -> None:
    assert recipe_words(RECIPE).split("<br>") == [
        "94K params, 1.25M tokens",
        "init 1M: web 75 %, python 25 %",
        "cooldown 250K: corpus0 14 %, corpus1 14 %,",
        "   corpus2 14 %, corpus3 14 %, corpus4 14 %,",
        "   corpus5 14 %, 2 more 16 %",
    ]


def test_a_run_is_described_as_its_recipe_without_phases_it_lacks() -> None:
    phases, domains = ("init", "continue", "cooldown"), ("web", "python", "books", *WIDE)
    assert run_words(design_of([RECIPE], phases, domains, {})) == (recipe_words(RECIPE),)
