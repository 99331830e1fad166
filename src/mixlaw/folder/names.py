"""A recipe by name: the many ways to say which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.errors import InputError, did_you_mean
from mixlaw.folder import Folder
from mixlaw.recipe import Mixture, Recipe
from mixlaw.settings.recipes import read_recipe

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.goal.baselines import Baseline

#: A recipe, or what leads to it: a file, the name of a run or its lineage, the id of a proposal (`proposal`: the last).
RecipeLike = Recipe | str | Path
LAST = "proposal"  # as tables and plots call the last one


def recipe_of(folder: Folder, name: RecipeLike | None, also: Sequence[str] = (), rest: bool = False) -> Recipe:
    """The recipe that is meant; that of the last proposal where the name is None.

    Args:
        folder: the study.
        name: see `RecipeLike`.
        also: names of baselines that would have been understood.
        rest: whether the phases still to be trained will do, where the mixture of those before them is not known.

    Raises:
        InputError: there is none.
    """
    if isinstance(name, Recipe):
        return name
    if (proposal := proposal_of(folder, name)) is not None:
        return proposal.recipe if rest else _whole_recipe(proposal)
    assert name is not None
    if _is_file(name):
        return read_recipe(Path(name), folder.settings)
    records = folder.records()
    runs = [r for r in records if str(name) in (r.run, r.recipe.lineage)]
    if not runs:
        frozen = [path.stem for path in folder.proposals_folder.glob("*.json")]
        question = did_you_mean(str(name), [*{r.run: None for r in records}, *frozen, *also])
        known = f", or a baseline ({', '.join(also)})" if also else ""
        raise InputError(
            f"{str(name)!r} is not a file, a run or proposal of {folder.path}{known}; "
            f"{question or 'give one of them, or `proposal` for the last'}"
        )
    return max(runs, key=lambda r: r.progress).recipe


def proposal_of(folder: Folder, name: RecipeLike | None) -> Proposal | None:
    """The proposal that is meant, by id, number or `proposal`; the last one where the name is None.

    Only what is meant is read, so that a damaged proposal does not stop other verbs.

    Raises:
        InputError: there is no proposal, and no name.
    """
    from mixlaw.optimizer.answers.proposal import load_proposal

    if isinstance(name, Recipe):
        return None
    if name is None:
        if not (proposals := folder.proposals()):
            raise InputError("there is no proposal yet; name a file or a run, or run `mixlaw propose`")
        return proposals[-1]
    frozen = {path.stem: path for path in folder.proposals_folder.glob("*.json")}
    if str(name) in frozen:
        return load_proposal(frozen[str(name)])
    if _is_file(name) or not (str(name).isdecimal() or name == LAST):
        return None
    if any(str(name) in (r.run, r.recipe.lineage) for r in folder.records()):
        return None
    return next((p for p in reversed(folder.proposals()) if name == LAST or str(p.number) == str(name)), None)


def _whole_recipe(proposal: Proposal) -> Recipe:
    if any(part.mixture is None for part in proposal.begun):
        raise InputError(
            f"proposal {proposal.id} resumes from a checkpoint of unknown mixture, so its whole recipe is not known; "
            "`mixlaw propose` prints its predictions, what-if, compare and export take it; write a whole recipe into a "
            "file to ask more"
        )
    return proposal.recipe


def _is_file(name: str | Path) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long, a zero byte
        return False


def baselines_of(folder: Folder, name: str | None = None) -> tuple[dict[str, Baseline | Mixture | Recipe], str]:
    """Baselines to compare with, by name, and which of them gains refer to: "" for the best one.

    Args:
        folder: the study.
        name: a named baseline, a mixture of study.toml, or what `recipe_of` understands; [target] baseline where None,
            and that of the guard.

    Raises:
        InputError: there is nothing of that name.
    """
    from mixlaw.optimizer.goal.baselines import BASELINES, DEFAULTS, defaults_of

    target = folder.settings.target
    own = (target.baseline if target else None) if name is None else name
    guard = target.guard.than if target and target.guard else ""
    compared: dict[str, Baseline | Mixture | Recipe] = {
        name: BASELINES[name] for name in (defaults_of(folder.target()) if target else DEFAULTS)
    }
    for wanted in filter(None, (own, guard)):
        compared[wanted] = baseline_of(folder, wanted)
    return compared, own or ""


def baseline_of(folder: Folder, name: RecipeLike) -> Baseline | Mixture | Recipe:
    """A baseline by name: of its name, of a mixture of study.toml, or of what `recipe_of` understands.

    Raises:
        InputError: there is nothing of that name.
    """
    from mixlaw.optimizer.goal.baselines import BASELINES

    if isinstance(name, str) and name in BASELINES:
        return BASELINES[name]
    mixtures = folder.settings.mixtures
    if isinstance(name, str) and name in mixtures:
        return Mixture(mixtures[name])
    return recipe_of(folder, name, [*mixtures, *BASELINES])
