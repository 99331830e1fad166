"""The report of a study: everything on disk, gathered for the page."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.optimizer.answers.compare import Worthwhile
from mixlaw.optimizer.answers.front import Front
from mixlaw.plots import Node
from mixlaw.report.sections import ReportData, report
from mixlaw.runner.plan.tree import plan

if TYPE_CHECKING:
    from mixlaw.study import Study


def page(study: Study) -> str:
    """One HTML document of all results of a study.

    Raises:
        InputError: there are no surfaces yet.
    """
    from mixlaw.report.losses import curves

    proposals = tuple(study.proposals())
    return report(
        ReportData(
            title=study.settings.name,
            surfaces=study.surfaces(),
            table=study.table(),
            domains=tuple(study.described),
            proposals=proposals,
            worth=_worth(study),
            curves=curves(study),
            nodes=nodes(study),
            verification=study.verify() if proposals else None,
            front=_front(study),
            reproduce=_reproduce(study),
        )
    )


def _front(study: Study) -> Front | str | None:
    """The front between the groups of study.toml, or why there is none."""
    if not study.settings.groups:
        return None
    try:
        return study.pareto()
    except InputError as error:
        return f"There is no front: {error}."


def _worth(study: Study) -> tuple[Worthwhile, ...]:
    """What one more point of each domain is worth to the proposal, or else to the largest run; nothing if not known."""
    from mixlaw.analysis.data.recipes import largest_run

    known = all(part.mixture is not None for p in study.proposals()[-1:] for part in p.begun)
    reference = None if study.proposals() else largest_run(study.surfaces().observed.design)
    return study.what_if(reference, reference or "proportional").points if known else ()


def _has_data(study: Study) -> bool:
    return (study.data / "manifest.json").exists()


def nodes(study: Study) -> tuple[Node, ...]:
    """The segment tree as the plot needs it; nothing where all runs are foreign."""
    if not _has_data(study):
        return ()
    return tuple(
        Node(
            name=segment.lineage,
            parent=segment.parent,
            start=segment.start,
            stop=segment.stop,
            phase=segment.phase,
            params=segment.recipe.params,
            done=(study.runs / segment.lineage / "checkpoint").exists(),
            runs=segment.runs,
            label=segment.lineage if segment.is_run else "",
            mixture=str(next(p.mixture for p in segment.recipe.phases if p.name == segment.phase)),
        )
        for segment in plan(study.recipes()).segments
    )


def _reproduce(study: Study) -> tuple[str, ...]:
    """Hashes and commands that lead to the same results."""
    toml = hashlib.sha256((study.path / "study.toml").read_bytes()).hexdigest()[:12]
    own = _has_data(study)
    data = [f"data and training settings: {study.setup.identity}"] if own else []
    commands = ["mixlaw data", "mixlaw run"] if own else ["mixlaw import RUNS.csv"]
    verbs = [*commands, "mixlaw fit", "mixlaw propose", "mixlaw verify", "mixlaw report"]
    return (f"study.toml: sha256 {toml}", *data, *(f"{verb} STUDY" for verb in verbs))
