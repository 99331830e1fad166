"""What others get to see: plots, report, export, dashboard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike
from mixlaw.study.choosing import freeze, pareto, propose, verify, what_if

if TYPE_CHECKING:
    from mixlaw.dashboard.serve import Listening
    from mixlaw.export.write import Exported
    from mixlaw.optimizer.answers.front import Front
    from mixlaw.optimizer.answers.what_if import Worthwhile
    from mixlaw.study.plots import Plots


def plots(study: Folder) -> Plots:
    """All plots of the study, each a method that returns a plotly figure; print it to list them."""
    from mixlaw.study.plots import Plots

    return Plots(study)


def report(study: Folder, out: str | os.PathLike[str] | None = None) -> Path:
    """Write one offline HTML page with all results, by default report.html in the study; return its path.

    Raises:
        InputError: there are no surfaces yet.
    """
    from mixlaw.report.evidence import curves, nodes, reproduce, suggested
    from mixlaw.report.sections import ReportData, report

    proposals = tuple(study.proposals())
    page = report(
        ReportData(
            title=study.settings.name,
            surfaces=study.surfaces(),
            table=study.table(),
            domains=tuple(study.domains_or_unlimited),
            proposals=proposals,
            worth=_worth(study),
            curves=curves(study),
            nodes=nodes(study),
            verification=verify(study) if proposals else None,
            front=_front(study),
            jobs=suggested(study),
            reproduce=reproduce(study),
        )
    )
    path = study.path / "report.html" if out is None else Path(out)
    write_text(path, page)
    return path


def _front(study: Folder) -> Front | str | None:
    """The front between the groups of study.toml, or why there is none."""
    if not study.settings.groups:
        return None
    try:
        return pareto(study)
    except InputError as error:
        return f"There is no front: {error}."


def _worth(study: Folder) -> tuple[Worthwhile, ...]:
    """Change of every task per extra point of a domain, from the proposal or else the largest run; () if not known."""
    from mixlaw.analysis.data.recipes import largest_run

    last = study.proposals()[-1:]
    if any(part.mixture is None for proposal in last for part in proposal.begun):
        return ()
    reference = None if last else largest_run(study.surfaces().observed.design)
    return what_if(study, reference, against=reference or "proportional").points


def export(
    study: Folder,
    recipe: RecipeLike | None = None,
    trainers: str | Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    *,
    paths: str | os.PathLike[str] | None = None,
) -> Exported:
    """Write a recipe, by default the last proposal's, as mixture configuration for trainers.

    Args:
        study: the study.
        recipe: a recipe, its file, a run or a proposal; the last proposal where None.
        trainers: one or several of torchtitan, megatron, olmo-core, mosaic, datasets; all where empty.
        out: folder; `exports/<lineage>` in the study where None.
        paths: TOML with [paths] and [tokens_per_document] per domain.

    Raises:
        InputError: no such recipe or trainer, a file that is not as described, or the one trainer that was named needs
            something that is not known.
    """
    from mixlaw.export.write import export

    names = [trainers] if isinstance(trainers, str) else trainers
    return export(study, recipe, names, None if out is None else Path(out), None if paths is None else Path(paths))


def dashboard(
    study: Folder, host: str = "127.0.0.1", port: int = 8050, *, ready: Callable[[Listening], object] = print
) -> None:
    """Serve the dashboard until it is interrupted: target, weights and limits by slider, and a proposal to freeze.

    Args:
        study: the study, with surfaces and a target.
        host: address to listen at; by default only this machine can ask.
        port: 0 takes any free one.
        ready: called with the address.

    Raises:
        InputError: Dash is not installed, or the port is taken.
    """
    from mixlaw.dashboard.serve import serve

    serve(study, propose, freeze, host, port, ready)
