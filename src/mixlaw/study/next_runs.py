"""The next runs: suggest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from mixlaw.files import write_text
from mixlaw.folder import Folder
from mixlaw.folder.names import baselines_of
from mixlaw.progress import Progress, progress_or_bar
from mixlaw.recipe import Domain, Recipe
from mixlaw.records import Record
from mixlaw.settings.recipes import repeated_unique, simulated_unique

if TYPE_CHECKING:
    from mixlaw.analysis.surface.surface import Surfaces
    from mixlaw.optimizer.next_runs.costs import Proxies
    from mixlaw.optimizer.next_runs.suggestion import Suggestion
    from mixlaw.optimizer.target.target import Target

#: Sizes of foreign runs that are suggested again: those with most runs.
SIZES = 3


def suggest(
    study: Folder, budget: float, count: int = 8, *, queue: bool = False, progress: Progress | None = None
) -> Suggestion:
    """Suggest the next proxies to train for the target under a budget.

    Args:
        study: the study; it needs a target, and surfaces if there are runs.
        budget: FLOPs that the runs may cost together.
        count: most runs.
        queue: let `run` train them, and write job lines in suggestions/; nothing is queued where more runs would not
            change the recommendation, or where there is no data to train on.
        progress: called with the share done and the current step.

    Raises:
        InputError: no target, no surfaces though there are runs, or a budget that pays for no run.
    """
    target, domains, records = study.target(), study.domains, study.records()
    from mixlaw.optimizer.next_runs.first_design import short_of_runs
    from mixlaw.optimizer.next_runs.suggest import suggest

    compared, against = baselines_of(study)
    names = [domain.name for domain in domains]
    branches = [target.on(branch) for branch in target.branches] or [target]
    phases = list(dict.fromkeys(phase for branch in branches for phase in branch.all_phases))
    short = short_of_runs([r.recipe for r in records], phases, names)
    surfaces = None if short else _covering(study.surfaces(), phases, names)
    with progress_or_bar("suggest", progress) as report:
        suggestion = suggest(
            surfaces,
            target,
            domains,
            _proxies(study, domains, records, surfaces),
            budget=budget,
            count=count,
            goal=study.goal(surfaces),
            baselines=compared,
            against=against,
            measured=None if surfaces is None else study.design(),
            known=_frozen(study, target),
            progress=report,
        )
    return _queued(study, suggestion) if queue else suggestion


def smaller_sizes(study: Folder, params: int) -> dict[int, int]:
    """Params -> tokens of the proxies that are smaller than a model."""
    return {size: tokens for size, tokens in _sizes(study, study.records()).items() if size < params}


def at_proxies(study: Folder, recipe: Recipe) -> list[Recipe]:
    """A recipe at each smaller size, all phases in proportion."""
    from mixlaw.optimizer.next_runs.candidates import resized

    adopt = _proxies(study, study.domains, study.records(), None).adopt
    return [adopt(resized(recipe, *size)) for size in smaller_sizes(study, recipe.params).items()]


def _frozen(study: Folder, target: Target) -> tuple[Recipe, ...]:
    """The recipe of the last proposal for this target: it may be recommended in the end."""
    return tuple(p.recipe for p in study.proposals()[-1:] if p.target.params == target.params)


def _covering(surfaces: Surfaces, phases: Sequence[str], domains: Sequence[str]) -> Surfaces | None:
    """The surfaces, unless there is a phase or domain of which no run has shown anything."""
    return surfaces if {*phases} <= {*surfaces.phases} and {*domains} <= {*surfaces.domains} else None


def _proxies(study: Folder, domains: list[Domain], records: list[Record], surfaces: Surfaces | None) -> Proxies:
    """Sizes, what is trained and queued, and FLOPs; checkpoints of foreign runs are unknown.

    Runs measured since the surfaces were fitted count as queued: what they show will be known.
    """
    from mixlaw.optimizer.next_runs.costs import Proxies, usual_seed

    fitted = set(surfaces.observed.design.runs) if surfaces else set()
    measured = tuple(dict.fromkeys(r.recipe for r in records if r.progress == 1))
    late = tuple(dict.fromkeys(r.recipe for r in records if surfaces and r.run not in fitted))
    sizes, recipes = _sizes(study, records), study.recipes() if study.has_data else []
    seed = usual_seed(dict.fromkeys([*measured, *recipes]))
    settings = study.settings
    whole = settings.target.nominal[1] if settings.target else 1

    def repeating(recipe: Recipe) -> Recipe:
        """A recipe for a foreign trainer, which repeats each domain as often as the target will."""
        tokens = sizes.get(recipe.params, recipe.tokens)
        return replace(recipe, seed=recipe.seed or seed, unique=repeated_unique(domains, tokens, whole, least=1))

    if not study.has_data:
        return Proxies(sizes, measured, late, adopt=repeating)
    setup = study.setup

    def adopt(recipe: Recipe) -> Recipe:
        """The recipe as it will be trained; all of one size draw from the same unique tokens, or could not share."""
        adopted = setup.adopt(recipe)
        tokens = sizes.get(adopted.params, recipe.tokens)
        return replace(adopted, seed=recipe.seed or seed, unique=simulated_unique(settings, domains, tokens))

    return Proxies(
        sizes=sizes,
        measured=measured,
        queued=(*late, *(recipe for recipe in recipes if recipe not in set(measured))),
        checkpoints=_checkpoints(study, [*recipes, *measured]),
        flops=setup.flops,
        adopt=adopt,
    )


def _sizes(study: Folder, records: list[Record]) -> Mapping[int, int]:
    """Params -> tokens: as study.toml says, else as most runs were."""
    from mixlaw.runner.models.ladder import parse_size, shape

    if study.settings.sizes:
        named = {parse_size(name): tokens for name, tokens in study.settings.sizes.items()}
        return {shape(params).params: tokens for params, tokens in named.items()} if study.has_data else named
    counts = Counter(record.recipe.params for record in records).most_common(SIZES)
    return {size: round(median(r.recipe.tokens for r in records if r.recipe.params == size)) for size, _ in counts}


def _checkpoints(study: Folder, recipes: list[Recipe]) -> tuple[tuple[Recipe, int], ...]:
    """Where training can resume from: ends of segments that left a checkpoint."""
    from mixlaw.runner.plan.tree import plan

    trained = {path.parent.name for path in study.runs.glob("*/checkpoint")}
    return tuple((s.recipe, s.stop) for s in plan(recipes).segments if s.lineage in trained)


def _queued(study: Folder, suggestion: Suggestion) -> Suggestion:
    """The suggestion with its job lines and recipes on disk; none is queued where it says stop."""
    path = study.path / "suggestions" / f"{suggestion.id}.jsonl"
    fitted = (study.path / "surfaces" / "surfaces.json").exists()
    fit = {"fit": study.hashes()[0]} if fitted else {}
    write_text(path, suggestion.lines(**fit, verdict=suggestion.sentence))
    queue = study.has_data and not suggestion.stop
    recipes = tuple(str(study.add_recipe(job.recipe)) for job in suggestion.jobs) if queue else ()
    return replace(suggestion, job_file=str(path), recipe_files=recipes)
