"""Recipes of a study: those of study.toml, those in recipes/, and any other file that holds one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from mixlaw.errors import InputError, did_you_mean
from mixlaw.files import read_text
from mixlaw.recipe import Context, Decay, Domain, Mixture, Phase, Recipe, Schedule
from mixlaw.runner.models.ladder import parse_size
from mixlaw.settings import RecipeSettings, Settings, sentence
from mixlaw.settings.data import Number, Share, Strict, Tokens


def written_recipes(settings: Settings, domains: Sequence[Domain]) -> Iterator[Recipe]:
    """Every recipe of study.toml, once per size and seed."""
    for recipe, size in ((entry, size) for entry in settings.recipes for size in entry.size):
        tokens, params = recipe.tokens or settings.sizes[size], parse_size(size)
        phases = tuple(_phases(settings, recipe, tokens))
        own = {name for phase in phases for name in phase.mixture}
        unique = simulated_unique(settings, [domain for domain in domains if domain.name in own], tokens)
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


class PhaseFile(Strict):
    """A phase in a file of a recipe; a mixture may be the name of one of study.toml."""

    name: str
    tokens: Tokens
    mixture: str | dict[str, Number]
    lr_end: Share | None = 1.0
    decay: Decay = Decay.LINEAR
    context: Context | None = None


class RecipeFile(Strict):
    """A file of a recipe, as people or `Recipe.as_json` write it."""

    params: str | int
    phases: list[PhaseFile]
    seed: int = 0
    unique: dict[str, Tokens] = {}
    data: str = ""
    schedule: Schedule = Schedule.WSD
    lr: float = 1.0
    warmup: int | None = None
    shards: dict[str, str] = {}

    def recipe(self, mixtures: Mapping[str, Mapping[str, float]], ends: Mapping[str, float]) -> Recipe:
        """The recipe.

        Args:
            mixtures: those that have a name.
            ends: learning rate over the peak at the end of a phase whose file does not say; not known for others.
        """
        phases = []
        for phase in self.phases:
            lr_end = phase.lr_end if "lr_end" in phase.model_fields_set else ends.get(phase.name)
            mixture = _mixture(phase.mixture, mixtures)
            phases.append(Phase(phase.name, phase.tokens, mixture, lr_end, phase.decay, phase.context))
        rate = self.schedule, self.lr, self.warmup
        return Recipe(parse_size(self.params), tuple(phases), self.seed, self.unique, self.data, *rate, self.shards)


def _mixture(mixture: str | dict[str, float], known: Mapping[str, Mapping[str, float]]) -> Mixture:
    if not isinstance(mixture, str):
        return Mixture(mixture)
    if mixture not in known:
        likely = did_you_mean(mixture, known)
        raise InputError(
            f"there is no mixture {mixture!r} in study.toml, but {', '.join(known) or 'none'}; "
            f"{likely}{' ' * bool(likely)}write shares by domain"
        )
    return Mixture(known[mixture])


def read_recipes(folder: Path) -> Iterator[Recipe]:
    """Every recipe of a folder of JSON files, by name of the file.

    Raises:
        InputError: a file is not a recipe.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            read = _file(path)
            yield read.recipe({}, {phase.name: 1.0 for phase in read.phases})
        except InputError as error:
            raise InputError(f"{path} is not a recipe: {error}; fix or delete it") from error


def read_recipe(path: Path, settings: Settings) -> Recipe:
    """A recipe in a TOML or JSON file: params, and phases with name, tokens and mixture.

    A size may be written as "470M", tokens as "20B" and a mixture as one of study.toml; where a phase says nothing of
    its learning rate, study.toml does.

    Raises:
        InputError: the file is not a recipe.
    """
    try:
        return _file(path).recipe(settings.mixtures, {phase.name: phase.lr_end for phase in settings.phases})
    except InputError as error:
        raise InputError(
            f"{path} is not a recipe: {error}; it needs params and [[phases]], each with name, tokens and mixture"
        ) from error


def _file(path: Path) -> RecipeFile:
    try:
        text = read_text(path)
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        if not isinstance(data, dict):
            raise InputError(f"it holds {data!r:.40} instead of a table")
        return RecipeFile.model_validate(data)
    except ValidationError as error:
        raise InputError(sentence(error, RecipeFile)) from error
    except (FileNotFoundError, RecursionError) as error:
        raise InputError(f"it cannot be read ({error})") from error
    except InputError as error:
        raise InputError(str(error).removeprefix(f"{path} ")) from error
    except ValueError as error:  # of json and tomllib
        raise InputError(f"it is not {'JSON' if path.suffix.lower() == '.json' else 'TOML'} ({error})") from error
