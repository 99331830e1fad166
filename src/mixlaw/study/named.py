"""The recipes that a study knows by name or reads from a file, and what they would measure."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.recipe import Recipe
from mixlaw.runner.models.ladder import parse_size
from mixlaw.settings import Settings
from mixlaw.settings.data import parse_tokens

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.compare import WhatIf
    from mixlaw.study import Study

#: A recipe, or what leads to it: a file, the name of a run or its lineage, the id of a proposal.
Named = Recipe | str | Path


def answered(study: Study, recipe: Named | None, against: Named) -> WhatIf:
    """What a recipe would measure, beside another one."""
    surfaces, asked = study.surfaces(), found(study, recipe)
    from mixlaw.optimizer.answers.compare import what_if
    from mixlaw.optimizer.goal.baselines import BASELINES, named

    if isinstance(against, str) and against in BASELINES:
        known = [domain for domain in study.domains if domain.name in surfaces.domains]
        end, phases = asked.phases[-1].lr_end, {phase.name: phase.tokens for phase in asked.phases}
        baseline = named(against)(asked.params, phases, known, 0.0 if end is None else end)
    else:
        baseline = found(study, against, f"a baseline ({', '.join(BASELINES)})")
    name = against.lineage if isinstance(against, Recipe) else str(against)
    return what_if(surfaces, asked, study.described, baseline, against=name)


def found(study: Study, named: Named | None, other: str = "") -> Recipe:
    """The recipe that is meant; that of the last proposal where nothing is.

    Raises:
        InputError: there is none; `other` is what else could have been meant.
    """
    if isinstance(named, Recipe):
        return named
    proposals = study.proposals()
    if named is None and not proposals:
        raise InputError("there is no proposal yet; name a file or a run, or run `mixlaw propose`")
    chosen = [p for p in proposals if named in (None, p.id)]
    if chosen:
        if any(part.mixture is None for part in chosen[-1].begun):
            raise InputError(
                f"proposal {chosen[-1].id} goes on from a checkpoint whose mixture nobody knows; `mixlaw propose` "
                "tells what it will measure, write a whole recipe into a file to ask about that"
            )
        return chosen[-1].recipe
    if Path(str(named)).is_file():
        return read(Path(str(named)), study.settings)
    runs = [r for r in study.records() if named in (r.run, r.recipe.lineage)]
    if not runs:
        raise InputError(
            f"{str(named)!r} is no file, no run of {study.path} and none of its proposals"
            f"{f', nor {other}' if other else ''}; give one of them"
        )
    return max(runs, key=lambda r: r.progress).recipe


def read(path: Path, settings: Settings) -> Recipe:
    """A recipe in a TOML or JSON file: params, and phases with name, tokens and mixture.

    A size may be written as "470M", tokens as "20B" and a mixture as one of study.toml; where a phase says nothing of
    its learning rate, study.toml does.

    Raises:
        InputError: the file is not a recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        _only(data, ("params", "seed", "unique", "data", "schedule", "phases"))
        phases = [_phase(phase, settings) for phase in data["phases"]]
        return Recipe.from_json({**data, "params": parse_size(data["params"]), "phases": phases})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a recipe ({error!r}); it needs params and [[phases]], each with name, tokens and mixture"
        ) from error


def _phase(data: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """A phase as plain data, with what it takes from study.toml."""
    _only(data, ("name", "tokens", "mixture", "lr_end"))
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
