"""The proposal of a study, frozen, and queued where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.proposal import Proposal
    from mixlaw.optimizer.goal.goal import Goal
    from mixlaw.optimizer.target.target import Target
    from mixlaw.study import Study


def proposed(
    study: Study,
    progress: Callable[[float, str], None] | None,
    queue: bool,
    target: Target | None = None,
    goal: Goal | None = None,
) -> Proposal:
    """Propose for a target, that of the study where none is given; by default as its study.toml says what is better."""
    adopt = study.setup.adopt if queue else None  # without data, this is the moment to say so
    if queue:
        _trainable(study, target or study.target())
    target, surfaces, table = target or study.target(), study.surfaces(), study.table()
    from mixlaw.analysis.data.design import Design
    from mixlaw.optimizer.answers.propose import propose

    proposal = propose(
        surfaces,
        target,
        study.domains,
        goal=goal or telling_goal(study),
        measured=None if table.is_empty() else Design.from_table(table, study.unique),
        progress=progress,
    )
    proposal.freeze(study.proposals_folder)
    if adopt is not None:
        for name in ("proposal", proposal.against):
            study.add_recipe(adopt(proposal.recipes[name]))
    return proposal


def telling_goal(study: Study) -> Goal:
    """What counts as better: what is hardly more than noise counts only where it has a weight."""
    from mixlaw.analysis.surface.model import Status
    from mixlaw.settings.target import goal_of

    status = study.surfaces().status
    return goal_of(study.settings, [task for task, told in status.items() if told is not Status.NOISE])


def _trainable(study: Study, target: Target) -> None:
    """Refuse to queue a size of which no model is trained: what is foretold for it could never be compared.

    Raises:
        InputError: the nearest model has another size.
    """
    from mixlaw.errors import InputError
    from mixlaw.optimizer.answers.verify import SAME
    from mixlaw.runner.models.ladder import shape

    if target.sizes is not None:  # free, and found among the models there are
        return
    near = shape(target.params).params if study.setup.start is None else study.setup.start.params
    if abs(near / target.params - 1) >= SAME:
        raise InputError(
            f"the target has {target.params:,} params, the nearest model that is trained here {near:,}: its forecasts "
            f"could not be verified; write params = {near} under [target]"
        )
