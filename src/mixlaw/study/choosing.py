"""What to train at the target: propose, what_if, compare, pareto, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike, baseline_of, baselines_of, recipe_of
from mixlaw.progress import Progress, progress_or_bar
from mixlaw.recipe import Recipe
from mixlaw.study.mixtures import Shares, base_of, is_baseline, is_mixture, recipe_meant
from mixlaw.study.next_runs import at_proxies, smaller_sizes

if TYPE_CHECKING:
    from mixlaw.analysis.surface.surface import Surfaces
    from mixlaw.optimizer.answers.compare import Comparison
    from mixlaw.optimizer.answers.dependence import Dependence
    from mixlaw.optimizer.answers.front import Front
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.answers.verify import Verification
    from mixlaw.optimizer.answers.what_if import WhatIf
    from mixlaw.optimizer.goal.goal import Goal
    from mixlaw.optimizer.goal.references import Compared
    from mixlaw.optimizer.search.problem import Problem
    from mixlaw.optimizer.target.target import Target

Groups = Mapping[str, Sequence[str]]


def propose(
    study: Folder,
    *,
    target: Target | None = None,
    goal: Goal | None = None,
    baselines: Compared | None = None,
    baseline: str | None = None,
    draft: bool = False,
    queue: bool = False,
    ladder: bool = False,
    check: bool = False,
    progress: Progress | None = None,
) -> Proposal:
    """Propose a recipe for the target and freeze it, with its predictions, in proposals/; a draft is not frozen.

    Args:
        study: the study, with surfaces.
        target: [target] of study.toml if None.
        goal: what counts as better; the weights of [target] if None, and without any all groups alike, of the tasks
            that have a signal above seed noise.
        baselines: names, or mixtures and recipes by name, that the proposal has to beat; `proportional`, `text-only`
            and `balanced->text` if None, or `20%-code` as the last where only a cooldown is left to train.
        baseline: what gains refer to: a named baseline, a mixture, a run or a file; [target] baseline if None.
        draft: freeze nothing: predictions of drafts are not verified.
        queue: let `run` train the proposal and the baseline, to verify the predictions.
        ladder: let `run` train both at the sizes between, before the target: see `Proposal.ladder`.
        check: let `run` train both at the sizes of the proxies: an optimum seeks out what is wrong in a fit, and these
            runs show it; then fit and propose again.
        progress: called with the share done and the current step.

    Raises:
        InputError: no target, no surfaces, or constraints that cannot be met together.
    """
    target, _ = target or study.target(), study.proposals()  # a damaged one is found before the search, not after it
    if queue or ladder or check:
        _check_training(study, target, draft, queue, check)
    surfaces = study.surfaces()
    from mixlaw.optimizer.answers.propose import propose

    compared, against = baselines_of(study, baseline)
    with progress_or_bar("propose", progress) as report:
        proposal = propose(
            surfaces,
            target,
            study.domains,
            goal=goal or study.goal(surfaces),
            baselines=compared if baselines is None else baselines,
            against=against if baselines is None else "",
            rungs=_rungs(study, surfaces, target),
            progress=report,
        )
    fit, data = study.hashes()
    proposal = replace(proposal, fit=fit, data=data)
    if draft:
        return proposal
    proposal = replace(proposal, known=_known(study, proposal)).freeze(study.proposals_folder)
    _queue(study, proposal, queue, ladder, check)
    return proposal


def freeze(study: Folder, problem: Problem, recipe: Recipe) -> Proposal:
    """Freeze just this recipe as a proposal, with what it is predicted to gain; nothing is searched for."""
    from mixlaw.optimizer.answers.quick import as_proposal

    fit, data = study.hashes()
    proposal = replace(as_proposal(problem, recipe), fit=fit, data=data)
    return replace(proposal, known=_known(study, proposal)).freeze(study.proposals_folder)


def _rungs(study: Folder, surfaces: Surfaces, target: Target) -> list[int] | None:
    """Sizes of the ladder of validation that models have here; None where runs are trained elsewhere."""
    if not study.has_data or study.setup.start is not None:
        return None
    from mixlaw.optimizer.answers.ladder import rung_sizes
    from mixlaw.runner.models.ladder import shape

    largest = float(surfaces.observed.design.params.max())
    sizes = {shape(size).params for size in rung_sizes(largest, target.params)}
    return sorted(size for size in sizes if 1.2 * largest < size < target.params / 1.2)


def _queue(study: Folder, proposal: Proposal, queue: bool, ladder: bool, check: bool) -> None:
    """Put a proposal and its baseline among the recipes to train: at the target, between, and at the proxies' sizes."""
    at_target = [proposal.recipes[name] for name in ("proposal", proposal.against)] if queue else []
    between = [one for rung in proposal.ladder for one in (rung.recipe, rung.baseline)] if ladder else []
    for recipe in (*at_target, *between):
        study.add_recipe(study.setup.adopt(recipe))
    if check:
        queue_checks(study, proposal)


def queue_checks(study: Folder, proposal: Proposal) -> None:
    """Put a proposal and its baseline at the proxies' sizes among the recipes to train."""
    for name in ("proposal", proposal.against):
        for recipe in at_proxies(study, proposal.recipes[name]):
            study.add_recipe(recipe)


def _known(study: Folder, proposal: Proposal) -> tuple[str, ...]:
    """Runs of the recipes of a proposal that are measured already: what they verify was no prediction."""
    from mixlaw.optimizer.answers.verify import runs_in, runs_of

    table = study.table()
    measured = runs_in(table)
    rows = {row for recipe in proposal.recipes.values() for row in runs_of(recipe, measured)}
    return tuple(sorted({str(table["run"][row]) for row in rows}))


def _check_training(study: Folder, target: Target, draft: bool, queue: bool, check: bool) -> None:
    """Refuse to queue what could verify nothing: runs of a draft, or of a size that no trained model has.

    Raises:
        InputError: it is a draft, there is no data to train on, no size is smaller than the target, or the nearest
            model has another size.
    """
    if draft:
        raise InputError(
            "a draft is not frozen, so nothing could verify its runs; leave out draft, or queue, ladder and check"
        )
    start = study.setup.start  # without data, this is the moment to say so
    if check and not smaller_sizes(study, target.params):
        raise InputError(
            f"no proxies are smaller than the target of {target.params:,} params, so none can check a proposal; name a "
            "smaller size under [sizes], or leave out check"
        )
    if not queue or target.sizes is not None:  # a free size is found among the models there are
        return
    from mixlaw.optimizer.policy import SAME
    from mixlaw.runner.models.ladder import shape

    near = shape(target.params).params if start is None else start.params
    if abs(near / target.params - 1) >= SAME:
        raise InputError(
            f"the target has {target.params:,} params, the nearest model that is trained here {near:,}: its forecasts "
            f"could not be verified; write params = {near} under [target]"
        )


def what_if(study: Folder, recipe: RecipeLike | Shares | None = None, against: RecipeLike | None = None) -> WhatIf:
    """Predict every task for one recipe, and how each task changes per extra percentage point of a domain.

    Args:
        study: the study, with surfaces.
        recipe: a recipe, its file, the name of a run or the id of a proposal; the last proposal where None; or shares
            by domain, or by phase and domain, or a baseline, at the target: see `mixlaw.study.mixtures`.
        against: the reference of gains: a recipe, its file, a run, a proposal, a named baseline or a mixture of
            study.toml, as the last proposal for this size and schedule froze it, else at the recipe's size and
            schedule, after the target's prefix; where None [target] baseline, else that of the last proposal, else
            proportional.

    Raises:
        InputError: there are no surfaces or no such recipe, or it has phases or domains that no run has used.
    """
    surfaces = study.surfaces()
    chosen = _meant(study, recipe, surfaces.domains)
    from mixlaw.optimizer.answers.what_if import what_if

    name = _usual(study) if against is None else against
    return what_if(
        surfaces,
        chosen,
        study.domains_or_unlimited,
        _beside(study, chosen, name, surfaces.domains),
        against=_name(name),
        goal=study.goal(surfaces),
        over=_over(study, chosen),
        problem=_problem(study, surfaces),
    )


def _over(study: Folder, recipe: Recipe) -> int:
    """How many first phases of a recipe the target's checkpoint, or that of a branch, has been trained in."""
    if study.settings.target is None:
        return 0
    target = study.target()
    for one in [target.on(branch) for branch in target.branches] or [target]:
        done = tuple(part.as_phase() for part in one.prefix) if one.known else ()
        if recipe.phases[: len(done)] == done:
            return len(done)
    return 0


def compare(study: Folder, recipe: RecipeLike | Shares, other: RecipeLike | Shares | None = None) -> Comparison:
    """Compare two recipes: gain of the first over the second and the probability that it is better, per task.

    Args:
        study: the study, with surfaces.
        recipe: a recipe, its file, the name of a run, the id of a proposal, or shares, as in `what_if`; or a baseline,
            at the size and schedule of the other.
        other: the same.

    Raises:
        InputError: there are no surfaces or no such recipe, or it has phases or domains that no run has used.
    """
    surfaces, name = study.surfaces(), _usual(study) if other is None else other
    from mixlaw.optimizer.answers.compare import compare

    if is_baseline(recipe, study):
        like = _meant(study, name, surfaces.domains)
        first = _beside(study, like, recipe, surfaces.domains)
    else:
        first = recipe_meant(study, recipe)
    return compare(
        surfaces,
        (first, _beside(study, first, name, surfaces.domains)),
        study.domains_or_unlimited,
        names=(_name(recipe), _name(name)),
        goal=study.goal(surfaces),
        problem=_problem(study, surfaces),
    )


def _problem(study: Folder, surfaces: Surfaces) -> Problem | None:
    """What recipes for the target are measured against; None without a target."""
    if study.settings.target is None:
        return None
    from mixlaw.optimizer.search.problem import problem_of

    compared, against = baselines_of(study)
    goal, target = study.goal(surfaces), study.target()
    return problem_of(surfaces, target, study.domains, goal=goal, baselines=compared, against=against)


def _usual(study: Folder) -> str:
    """What gains refer to where nothing is said: the [target] baseline, else that of the last proposal."""
    target = study.settings.target
    if target and target.baseline:
        return target.baseline
    return next((proposal.against for proposal in reversed(study.proposals())), "proportional")


def _meant(study: Folder, recipe: RecipeLike | Shares | None, domains: Sequence[str]) -> Recipe:
    """What `recipe_meant` understands, or a baseline at the size and schedule of the target."""
    if recipe is not None and is_baseline(recipe, study):
        return _beside(study, base_of(study)[0], recipe, domains)
    return recipe_meant(study, recipe)


def _beside(study: Folder, recipe: Recipe, name: RecipeLike | Shares, domains: Sequence[str]) -> Recipe:
    """The recipe of a name, which may be that of a baseline: as the last proposal like the recipe was compared with it.

    A baseline that no such proposal froze has the size and schedule of the recipe.
    """
    from mixlaw.optimizer.answers.proposal import frozen_baseline
    from mixlaw.optimizer.goal.references import beside

    if isinstance(name, Mapping) or is_mixture(name, study):
        return recipe_meant(study, name)
    frozen = frozen_baseline(study.proposals(), recipe, _name(name))
    if frozen is not None:
        return frozen
    target = study.settings.target
    baseline = baseline_of(study, name)
    if isinstance(baseline, Recipe) and name != (target.baseline if target else None):
        return baseline
    known = [domain for domain in study.domains if domain.name in domains]
    return beside(recipe, baseline, study.target() if target else None, known)


def _name(recipe: RecipeLike | Shares) -> str:
    if isinstance(recipe, Mapping):
        return ",".join(f"{name}={share}" for name, share in recipe.items())
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

    goal = study.goal(surfaces)
    wanted = {n: [*tasks] for n, tasks in (study.settings.groups if groups is None else groups).items()}
    signal = {n: [task for task in tasks if task not in goal.without_signal] for n, tasks in wanted.items()}
    compared, against = baselines_of(study)
    with progress_or_bar("pareto", progress) as report:
        return pareto(
            surfaces,
            target,
            study.domains,
            {name: tasks or wanted[name] for name, tasks in signal.items()},
            baselines=compared,
            against=against,
            measure=goal.measure,
            recipes=[proposal.recipe for proposal in study.proposals()],
            progress=report,
        )


def dependence(study: Folder, proposal: str | None = None, more: Mapping[str, int] | None = None) -> Dependence:
    """What a proposal depends on: how far weights may move, and what more unique tokens would bring.

    Args:
        study: the study, with surfaces and a proposal.
        proposal: id of a proposal; the last one where None.
        more: unique tokens to add by domain; as many as there are, of domains that are seen about once, where None.

    Raises:
        InputError: no such proposal or domain.
    """
    from mixlaw.optimizer.answers.dependence import dependence_of
    from mixlaw.optimizer.search.problem import problem_of

    recipe, surfaces = recipe_of(study, proposal, rest=True), study.surfaces()
    frozen = [p for p in study.proposals() if p.recipe == recipe]
    if not frozen:
        raise InputError(f"{proposal!r} is no proposal of {study.path}; run `mixlaw propose` first, or name one")
    problem = problem_of(
        surfaces,
        frozen[-1].target,
        study.domains,
        goal=study.goal(surfaces),
        baselines=frozen[-1].baselines,
        against=frozen[-1].against,
    )
    return dependence_of(problem, recipe, more)


def verify(study: Folder, baseline: str | None = None) -> Verification:
    """Compare the gains that frozen proposals predicted, and the levels, with what has been measured since.

    Args:
        study: the study.
        baseline: gains over this one alone; over every baseline that is trained where None.

    Raises:
        InputError: no proposal was compared with a baseline of that name.
    """
    from mixlaw.optimizer.answers.verify import verify

    proposals = study.proposals()
    names = {name for proposal in proposals for name in proposal.baselines}
    if baseline is not None and proposals and baseline not in names:
        raise InputError(f"no proposal was compared with {baseline!r}, but with {', '.join(sorted(names))}; name one")
    return verify(proposals, study.table(), baseline=baseline, unique=study.unique)
