"""What of a recipe is still to be trained: phases that are over need no files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike, proposal_of, recipe_of
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.recipe import Phase, Recipe


@dataclass(frozen=True)
class Remaining:
    """A recipe, and where its training stands.

    Attributes:
        recipe: all its phases; one whose mixture is not known has that of the next.
        over: how many first phases are over.
        unknown: names of those whose mixture is not known: nothing of the unique tokens was drawn in them.
        under_way: what has been trained of the phase after them.
        rest: what is left of that phase, None where it has not begun.
    """

    recipe: Recipe
    over: int = 0
    unknown: frozenset[str] = frozenset()
    under_way: Trained | None = None
    rest: Phase | None = None

    @property
    def asked(self) -> Recipe:
        """The recipe as it was asked for: only what is still to be trained, where the mixture before is not known."""
        return replace(self.recipe, phases=self.recipe.phases[self.over :]) if self.unknown else self.recipe

    def __str__(self) -> str:
        """What is over, in words; empty where nothing is."""
        parts = [f"{p.tokens:,} tokens of {p.name}" for p in self.recipe.phases[: self.over]]
        if self.under_way is not None:
            parts.append(f"{self.under_way.tokens:,} tokens of {self.under_way.phase}")
        return ", ".join(parts)


def remaining_of(study: Folder, name: RecipeLike | None) -> Remaining:
    """What a name means, and what is over of it: as its proposal knows, else as the target of the study does.

    Raises:
        InputError: there is nothing of that name.
    """
    proposal, recipe = proposal_of(study, name), recipe_of(study, name, rest=True)
    if proposal is not None:
        target = proposal.target.on(proposal.begun) if proposal.target.branches else proposal.target
        return _after(recipe, target)
    if study.settings.target is None:
        return Remaining(recipe)
    target = study.target()
    branches = [target.on(branch) for branch in target.branches] or [target]
    return next((_after(recipe, one) for one in branches if _continues(recipe, one)), Remaining(recipe))


def _continues(recipe: Recipe, target: Target) -> bool:
    """Whether a recipe is one for the target, with its prefix before it where that is known."""
    phases, tokens = (target.all_phases, target.tokens) if target.known else (target.phases, target.rest)
    done = tuple(part.as_phase() for part in target.prefix) if target.known else ()
    same = (tuple(phase.name for phase in recipe.phases), recipe.tokens, recipe.params) == (
        phases,
        tokens,
        target.params,
    )
    return same and recipe.phases[: len(done)] == done


def _after(recipe: Recipe, target: Target) -> Remaining:
    """The recipe after what the target has been trained on."""
    rest, begun = target.to_come(recipe), target.under_way
    unknown = frozenset(part.phase for part in target.prefix if part.mixture is None)
    if unknown:
        like = recipe.phases[0].mixture
        done = (Phase(p.phase, p.tokens, p.mixture or like, p.lr_end) for p in target.prefix)
        recipe = replace(recipe, phases=(*done, *recipe.phases))
    over = len(target.prefix) + (begun is not None and rest is None)  # a phase of which nothing is left is over
    return Remaining(recipe, over, unknown, begun if rest else None, rest)
