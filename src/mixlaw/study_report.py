"""The report of a study: everything on disk, gathered for the page."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mixlaw.analysis.plots import Node
from mixlaw.errors import InputError
from mixlaw.optimizer.pareto import Front
from mixlaw.recipe import Domain
from mixlaw.report import ReportData, report
from mixlaw.runner.tree import plan

if TYPE_CHECKING:
    from mixlaw.study import Study

#: Unique tokens where nobody knows them: more than any run takes.
ENDLESS = 10**18


def page(study: Study) -> str:
    """One HTML document of all results of a study.

    Raises:
        InputError: there are no surfaces yet.
    """
    proposals = tuple(study.proposals())
    return report(
        ReportData(
            title=study.settings.name,
            surfaces=study.surfaces(),
            table=study.table(),
            domains=_domains(study),
            proposals=proposals,
            nodes=nodes(study),
            verification=study.verify() if proposals else None,
            front=_front(study),
            reproduce=_reproduce(study),
        )
    )


def _domains(study: Study) -> tuple[Domain, ...]:
    """All domains; where nobody knows the unique tokens, without end, as a fit takes them."""
    endless = dict.fromkeys(study.settings.domains, ENDLESS)
    return tuple(study.settings.domain_values({**endless, **{name: int(n) for name, n in study.unique.items()}}))


def _front(study: Study) -> Front | str | None:
    """The front between the groups of study.toml, or why there is none."""
    if not study.settings.groups:
        return None
    try:
        return study.pareto()
    except InputError as error:
        return f"There is no front: {error}."


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
