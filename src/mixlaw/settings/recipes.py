"""The recipes of a study: those its study.toml spells out, and those that lie in recipes/ as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.recipe import Decay, Domain, Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import parse_size
from mixlaw.settings import RecipeSettings, Settings


def written(settings: Settings, domains: Sequence[Domain]) -> Iterator[Recipe]:
    """Every recipe of study.toml, once per seed."""
    for recipe in settings.recipes:
        tokens = recipe.tokens or settings.sizes[recipe.size]
        phases, unique = tuple(_phases(settings, recipe, tokens)), subset(settings, domains, tokens)
        for seed in recipe.seeds:
            yield Recipe(parse_size(recipe.size), phases, seed, unique, schedule=recipe.schedule)


def _phases(settings: Settings, recipe: RecipeSettings, tokens: int) -> Iterator[Phase]:
    for phase in settings.phases:
        if (use := recipe.phases.get(phase.name)) is not None:
            lr_end = phase.lr_end if use.lr_end is None else use.lr_end
            size = round(tokens * (use.share or phase.share))
            yield Phase(phase.name, size, Mixture(settings.mixtures[use.mixture]), lr_end, use.decay or phase.decay)


def shaped(settings: Settings, recipe: Recipe) -> Recipe:
    """A recipe that nobody gave shapes of decay, with those of the study's phases."""
    shapes = {phase.name: phase.decay for phase in settings.phases if phase.decay is not Decay.LINEAR}
    return replace(recipe, phases=tuple(replace(p, decay=shapes.get(p.name, p.decay)) for p in recipe.phases))


def subset(settings: Settings, domains: Sequence[Domain], tokens: int) -> dict[str, int]:
    """Unique tokens per domain with which a recipe of so many tokens repeats as often as the target will."""
    if not settings.training.simulate_epochs or settings.target is None:
        return {}
    scale, least = tokens / settings.target.nominal[1], settings.training.sequence
    return {d.name: max(least, round(d.unique_tokens * scale)) for d in domains} if scale < 1 else {}


def filed(folder: Path) -> Iterator[Recipe]:
    """Every recipe of a folder of JSON files, by name of the file.

    Raises:
        InputError: a file is not a recipe.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            yield Recipe.from_json(json.loads(path.read_text(encoding="utf-8")))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a recipe ({error!r}); mend or delete it") from error
