"""Recipes of a study: those of study.toml, those in recipes/, and any other file that holds one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.recipe import Decay, Domain, Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import parse_size
from mixlaw.settings import RecipeSettings, Settings
from mixlaw.settings.data import parse_tokens


def written_recipes(settings: Settings, domains: Sequence[Domain]) -> Iterator[Recipe]:
    """Every recipe of study.toml, once per size and seed."""
    for recipe, size in ((entry, size) for entry in settings.recipes for size in entry.size):
        tokens, params = recipe.tokens or settings.sizes[size], parse_size(size)
        phases, unique = tuple(_phases(settings, recipe, tokens)), simulated_unique(settings, domains, tokens)
        for seed in recipe.seeds:
            yield Recipe(params, phases, seed, unique, "", recipe.schedule, recipe.lr, recipe.warmup)


def _phases(settings: Settings, recipe: RecipeSettings, tokens: int) -> Iterator[Phase]:
    for phase in settings.phases:
        if (use := recipe.phases.get(phase.name)) is not None:
            lr_end = phase.lr_end if use.lr_end is None else use.lr_end
            size = round(tokens * (use.share or phase.share))
            yield Phase(phase.name, size, Mixture(settings.mixtures[use.mixture]), lr_end, use.decay or phase.decay)


def with_decays(settings: Settings, recipe: Recipe) -> Recipe:
    """The recipe, its phases decaying in the shapes that study.toml gives them."""
    shapes = {phase.name: phase.decay for phase in settings.phases if phase.decay is not Decay.LINEAR}
    return replace(recipe, phases=tuple(replace(p, decay=shapes.get(p.name, p.decay)) for p in recipe.phases))


def simulated_unique(settings: Settings, domains: Sequence[Domain], tokens: int) -> dict[str, int]:
    """Unique tokens per domain with which a recipe of `tokens` tokens repeats its data as often as the target will."""
    if not settings.training.simulate_epochs or settings.target is None:
        return {}
    return repeated_unique(domains, tokens, settings.target.nominal[1], settings.training.sequence)


def repeated_unique(domains: Sequence[Domain], tokens: int, target_tokens: int, least: int) -> dict[str, int]:
    """Unique tokens per domain with which `tokens` repeat data as often as `target_tokens` do; all if fewer."""
    scale = tokens / target_tokens
    return {d.name: max(least, round(d.unique_tokens * scale)) for d in domains} if scale < 1 else {}


def read_recipes(folder: Path) -> Iterator[Recipe]:
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
            raise InputError(f"{path} is not a recipe ({error!r}); fix or delete it") from error


def read_recipe(path: Path, settings: Settings) -> Recipe:
    """A recipe in a TOML or JSON file: params, and phases with name, tokens and mixture.

    A size may be written as "470M", tokens as "20B" and a mixture as one of study.toml; where a phase says nothing of
    its learning rate, study.toml does.

    Raises:
        InputError: the file is not a recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        _only(data, ("params", "seed", "unique", "data", "schedule", "lr", "warmup", "phases"))
        phases = [_phase_of(phase, settings) for phase in data["phases"]]
        return Recipe.from_json({**data, "params": parse_size(data["params"]), "phases": phases})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a recipe ({error!r}); it needs params and [[phases]], each with name, tokens and mixture"
        ) from error


def _phase_of(data: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A phase as plain data, with what it takes from study.toml."""
    _only(data, ("name", "tokens", "mixture", "lr_end", "decay"))
    mixture, ends = data["mixture"], {phase.name: phase.lr_end for phase in settings.phases}
    if isinstance(mixture, str):
        if mixture not in settings.mixtures:
            known = ", ".join(settings.mixtures) or "none"
            raise InputError(f"there is no mixture {mixture!r} in study.toml, but {known}; write shares by domain")
        mixture = settings.mixtures[mixture]
    return {"lr_end": ends.get(data["name"]), **data, "tokens": parse_tokens(data["tokens"]), "mixture": mixture}


def _only(data: dict[str, Any], keys: tuple[str, ...]) -> None:
    unknown = [key for key in data if key not in keys]
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; there are {', '.join(keys)}")
