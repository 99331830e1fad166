"""The proposal of a study, frozen, and queued where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixlaw.optimizer.proposal import Proposal
    from mixlaw.study import Study


def proposed(study: Study, progress: Callable[[float, str], None] | None, queue: bool) -> Proposal:
    """Propose for the target of a study; what is hardly more than noise counts only where it has a weight."""
    from mixlaw.analysis.design import Design
    from mixlaw.analysis.surface import Status
    from mixlaw.optimizer.propose import propose
    from mixlaw.study_target import goal_of

    adopt = study.setup.adopt if queue else None  # without data, this is the moment to say so
    target, surfaces, table = study.target(), study.surfaces(), study.table()
    telling = [task for task, status in surfaces.status.items() if status is not Status.NOISE]
    proposal = propose(
        surfaces,
        target,
        study.domains,
        goal=goal_of(study.settings, telling),
        measured=None if table.is_empty() else Design.from_table(table, study.unique),
        progress=progress,
    )
    proposal.freeze(study.proposals_folder)
    if adopt is not None:
        for name in ("proposal", proposal.against):
            study.add_recipe(adopt(proposal.recipes[name]))
    return proposal
