"""What to train at the target: propose, what_if, compare, pareto, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike, recipe_of
from mixlaw.progress import Progress, progress_or_bar
from mixlaw.recipe import Recipe

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.compare import Comparison, WhatIf
    from mixlaw.optimizer.answers.front import Front
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.answers.verify import Verification
    from mixlaw.optimizer.goal.goal import Goal
    from mixlaw.optimizer.target.target import Target

Groups = Mapping[str, Sequence[str]]


def propose(
    study: Folder,
    *,
    target: Target | None = None,
    goal: Goal | None = None,
    baselines: Sequence[str] | Mapping[str, Recipe] | None = None,
    queue: bool = False,
    progress: Progress | None = None,
) -> Proposal:
    """Propose a recipe for the target and freeze it, with its predictions, in proposals/.

    Args:
        study: the study, with surfaces.
        target: [target] of study.toml if None.
        goal: what counts as better; the weights of [target] if None, and without any all tasks alike that have a
            signal above seed noise.
        baselines: names, or whole recipes by name, that the proposal has to beat; proportional, text-only and
            balanced->text if None.
        queue: let `run` train the proposal and the best baseline, to verify the predictions.
        progress: called with the share done and the current step.

    Raises:
        InputError: no target, no surfaces, or constraints that cannot be met together.
    """
    target = target or study.target()
    adopt = study.setup.adopt if queue else None  # without data, this is the moment to say so
    if queue:
        _check_size(study, target)
    surfaces = study.surfaces()
    from mixlaw.optimizer.answers.propose import propose
    from mixlaw.optimizer.goal.baselines import DEFAULTS

    with progress_or_bar("propose", progress) as report:
        proposal = propose(
            surfaces,
            target,
            study.domains,
            goal=goal or study.goal(surfaces),
            baselines=DEFAULTS if baselines is None else baselines,
            measured=study.design(),
            progress=report,
        )
    proposal = proposal.freeze(study.proposals_folder)
    if adopt is not None:
        for name in ("proposal", proposal.against):
            study.add_recipe(adopt(proposal.recipes[name]))
    return proposal


def _check_size(study: Folder, target: Target) -> None:
    """Refuse to queue a size that no trained model has: predictions for it could never be compared.

    Raises:
        InputError: the nearest model has another size.
    """
    from mixlaw.optimizer.policy import SAME
    from mixlaw.runner.models.ladder import shape

    if target.sizes is not None:  # free, and found among the models there are
        return
    near = shape(target.params).params if study.setup.start is None else study.setup.start.params
    if abs(near / target.params - 1) >= SAME:
        raise InputError(
            f"the target has {target.params:,} params, the nearest model that is trained here {near:,}: its forecasts "
            f"could not be verified; write params = {near} under [target]"
        )


def what_if(study: Folder, recipe: RecipeLike | None = None, against: RecipeLike = "proportional") -> WhatIf:
    """Predict every task for one recipe, and how each task changes per extra percentage point of a domain.

    Args:
        study: the study, with surfaces.
        recipe: a recipe, its file, the name of a run or the id of a proposal; the last proposal where None.
        against: the same, or a named baseline, the reference of gains: as the last proposal for this size, these tokens
            and phases froze it, else at the recipe's size and phases.

    Raises:
        InputError: there are no surfaces or no such recipe, or it has phases or domains that no run has used.
    """
    surfaces, chosen = study.surfaces(), recipe_of(study, recipe)
    from mixlaw.optimizer.answers.compare import what_if

    return what_if(
        surfaces,
        chosen,
        study.domains_or_unlimited,
        _beside(study, chosen, against, surfaces.domains),
        against=_name(against),
        goal=study.goal(surfaces),
    )


def compare(study: Folder, recipe: RecipeLike, other: RecipeLike = "proportional") -> Comparison:
    """Compare two recipes: gain of the first over the second and the probability that it is better, per task.

    Args:
        study: the study, with surfaces.
        recipe: a recipe, its file, the name of a run or the id of a proposal.
        other: the same, or a named baseline, as in `what_if`.

    Raises:
        InputError: there are no surfaces or no such recipe, or it has phases or domains that no run has used.
    """
    surfaces, first = study.surfaces(), recipe_of(study, recipe)
    from mixlaw.optimizer.answers.compare import compare

    return compare(
        surfaces,
        (first, _beside(study, first, other, surfaces.domains)),
        study.domains_or_unlimited,
        names=(_name(recipe), _name(other)),
        goal=study.goal(surfaces),
    )


def _beside(study: Folder, recipe: Recipe, name: RecipeLike, domains: Sequence[str]) -> Recipe:
    """The recipe of a name, which may be that of a baseline: as the last proposal like the recipe was compared with it.

    A baseline that no such proposal froze has the size and phases of the recipe.
    """
    from mixlaw.optimizer.answers.proposal import frozen_baseline
    from mixlaw.optimizer.goal.baselines import BASELINES, named
    from mixlaw.optimizer.target.rates import Rates

    frozen = frozen_baseline(study.proposals(), recipe, _name(name))
    if frozen is not None:
        return frozen
    if not isinstance(name, str) or name not in BASELINES:
        return recipe_of(study, name, list(BASELINES))
    known = [domain for domain in study.domains if domain.name in domains]
    end, phases = recipe.phases[-1].lr_end, {phase.name: phase.tokens for phase in recipe.phases}
    baseline = named(name)(recipe.params, phases, known, 0.0 if end is None else end)
    return Rates.of(recipe).applied(baseline, len(recipe.phases))


def _name(recipe: RecipeLike) -> str:
    return recipe.lineage if isinstance(recipe, Recipe) else str(recipe)


def pareto(study: Folder, groups: Groups | None = None, *, progress: Progress | None = None) -> Front:
    """Find the Pareto front between groups of tasks, for the target.

    Args:
        study: the study, with surfaces.
        groups: name -> tasks, two or more; [groups] of study.toml where None.
        progress: called with the share done and the current step.

    Raises:
        InputError: no target, surfaces or groups, an unknown task, or constraints that cannot be met together.
    """
    target, surfaces = study.target(), study.surfaces()
    from mixlaw.optimizer.answers.front import pareto

    with progress_or_bar("pareto", progress) as report:
        return pareto(
            surfaces,
            target,
            study.domains,
            study.settings.groups if groups is None else groups,
            measure=study.goal(surfaces).measure,
            measured=study.design(),
            progress=report,
        )


def verify(study: Folder) -> Verification:
    """Compare the frozen predictions of all proposals with what has been measured since."""
    from mixlaw.optimizer.answers.verify import verify

    return verify(study.proposals(), study.table())
