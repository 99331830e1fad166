"""What the next proxies of a study may be, what they cost here, and where they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from mixlaw.files import write_text
from mixlaw.progress import Progress
from mixlaw.recipe import Recipe
from mixlaw.records import Record
from mixlaw.runner.models.ladder import parse_size, shape
from mixlaw.settings.recipes import subset

if TYPE_CHECKING:
    from mixlaw.analysis.surface.surface import Surfaces
    from mixlaw.optimizer.next_runs.costs import Proxies
    from mixlaw.optimizer.next_runs.suggestion import Suggestion
    from mixlaw.study import Study

#: Sizes of foreign runs that are suggested again: those with most runs.
SIZES = 3


def suggested(study: Study, budget: float, count: int, progress: Progress | None) -> Suggestion:
    """The next proxies of a study, written down."""
    return _written(study, considered(study, budget, count, progress))


def considered(study: Study, budget: float, count: int = 8, progress: Progress | None = None) -> Suggestion:
    """The next proxies of a study; nothing is written."""
    from mixlaw.analysis.surface.model import Status
    from mixlaw.optimizer.next_runs.first_design import short_of_runs
    from mixlaw.optimizer.next_runs.suggest import suggest
    from mixlaw.settings.target import goal_of

    target, domains, records = study.target(), study.domains, study.records()
    names = [domain.name for domain in domains]
    branches = [target.on(branch) for branch in target.branches] or [target]
    phases = list(dict.fromkeys(phase for branch in branches for phase in branch.all_phases))
    short = short_of_runs([r.recipe for r in records], phases, names)
    surfaces = None if short else _covering(study.surfaces(), phases, names)
    telling = [t for t, status in surfaces.status.items() if status is not Status.NOISE] if surfaces else []
    return suggest(
        surfaces,
        target,
        domains,
        proxies_of(study, records, surfaces),
        budget=budget,
        count=count,
        goal=goal_of(study.settings, telling),
        progress=progress,
    )


def _covering(surfaces: Surfaces, phases: Sequence[str], domains: Sequence[str]) -> Surfaces | None:
    """The surfaces, unless there is a phase or domain of which no run has shown anything."""
    return surfaces if {*phases} <= {*surfaces.phases} and {*domains} <= {*surfaces.domains} else None


def proxies_of(study: Study, records: list[Record], surfaces: Surfaces | None) -> Proxies:
    """Sizes, what is trained and queued, and FLOPs; of foreign runs nobody knows which checkpoints are left.

    Runs measured since the surfaces were fitted count as queued: what they show will be known.
    """
    from mixlaw.optimizer.next_runs.costs import Proxies

    seen = set(surfaces.observed.design.runs) if surfaces else set()
    measured = tuple(dict.fromkeys(r.recipe for r in records if r.progress == 1))
    late = tuple(dict.fromkeys(r.recipe for r in records if surfaces and r.run not in seen))
    if not _has_data(study):
        return Proxies(_sizes(study, records), measured, late)
    recipes, known, sizes = study.recipes(), set(measured), _sizes(study, records)
    return Proxies(
        sizes=sizes,
        measured=measured,
        queued=(*late, *(recipe for recipe in recipes if recipe not in known)),
        checkpoints=_checkpoints(study, [*recipes, *measured]),
        flops=study.setup.flops,
        adopt=lambda recipe: _adopted(study, recipe, sizes),
    )


def _has_data(study: Study) -> bool:
    return (study.data / "manifest.json").exists()


def _sizes(study: Study, records: list[Record]) -> dict[int, int]:
    """Params -> tokens: as study.toml says, else as most runs were."""
    if study.settings.sizes:
        named = {parse_size(name): tokens for name, tokens in study.settings.sizes.items()}
        return {shape(params).params: tokens for params, tokens in named.items()} if _has_data(study) else named
    counts = Counter(record.recipe.params for record in records).most_common(SIZES)
    return {size: round(median(r.recipe.tokens for r in records if r.recipe.params == size)) for size, _ in counts}


def _adopted(study: Study, recipe: Recipe, sizes: Mapping[int, int]) -> Recipe:
    """The recipe as it will be trained here; all of one size draw from the same unique tokens, or could not share."""
    adopted = study.setup.adopt(recipe)
    return replace(adopted, unique=subset(study.settings, study.domains, sizes.get(adopted.params, recipe.tokens)))


def _checkpoints(study: Study, recipes: list[Recipe]) -> tuple[tuple[Recipe, int], ...]:
    """Where training can go on from: ends of segments that left a checkpoint."""
    from mixlaw.runner.plan.tree import plan

    trained = {path.parent.name for path in study.runs.glob("*/checkpoint")}
    return tuple((s.recipe, s.stop) for s in plan(recipes).segments if s.lineage in trained)


def _written(study: Study, suggestion: Suggestion) -> Suggestion:
    """The suggestion with its job lines and recipes on disk; none is queued where it says stop."""
    path = study.path / "suggestions" / f"{suggestion.id}.jsonl"
    write_text(path, suggestion.lines())
    queue = _has_data(study) and not suggestion.stop
    recipes = tuple(str(study.add_recipe(job.recipe)) for job in suggestion.jobs) if queue else ()
    return replace(suggestion, job_file=str(path), recipe_files=recipes)
