"""A recipe by name: the many ways to say which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixlaw.errors import InputError, did_you_mean
from mixlaw.folder import Folder
from mixlaw.recipe import Recipe
from mixlaw.settings.recipes import read_recipe

#: A recipe, or what leads to it: a file, the name of a run or its lineage, the id of a proposal.
RecipeLike = Recipe | str | Path


def recipe_of(folder: Folder, name: RecipeLike | None, also: Sequence[str] = ()) -> Recipe:
    """The recipe that is meant; that of the last proposal where the name is None.

    Raises:
        InputError: there is none; `also` are names of baselines that would have been understood.
    """
    if isinstance(name, Recipe):
        return name
    proposals = folder.proposals()
    if name is None and not proposals:
        raise InputError("there is no proposal yet; name a file or a run, or run `mixlaw propose`")
    chosen = [p for p in proposals if name in (None, p.id)]
    if chosen:
        if any(part.mixture is None for part in chosen[-1].begun):
            raise InputError(
                f"proposal {chosen[-1].id} resumes from a checkpoint of unknown mixture; `mixlaw propose` prints its "
                "predictions, write a whole recipe into a file to ask about that"
            )
        return chosen[-1].recipe
    if Path(str(name)).is_file():
        return read_recipe(Path(str(name)), folder.settings)
    records = folder.records()
    runs = [r for r in records if name in (r.run, r.recipe.lineage)]
    if not runs:
        question = did_you_mean(str(name), [*{r.run: None for r in records}, *(p.id for p in proposals), *also])
        known = f", or a baseline ({', '.join(also)})" if also else ""
        raise InputError(
            f"{str(name)!r} is not a file, a run or proposal of {folder.path}{known}; {question or 'give one of them'}"
        )
    return max(runs, key=lambda r: r.progress).recipe
