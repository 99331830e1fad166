"""The front of a study between the groups of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mixlaw.errors import InputError

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.front import Front
    from mixlaw.study import Study

Groups = Mapping[str, Sequence[str]]


def front_of(study: Study, groups: Groups | None, progress: Callable[[float, str], None] | None = None) -> Front:
    """The front for the target between groups of tasks, those of study.toml where none are given."""
    target, surfaces, table = study.target(), study.surfaces(), study.table()
    from mixlaw.analysis.data.design import Design
    from mixlaw.optimizer.answers.front import pareto
    from mixlaw.settings.target import goal_of

    return pareto(
        surfaces,
        target,
        study.domains,
        study.settings.groups if groups is None else groups,
        measure=goal_of(study.settings, surfaces.tasks).measure,
        measured=None if table.is_empty() else Design.from_table(table, study.unique),
        progress=progress,
    )


def parsed(told: Sequence[str]) -> Groups | None:
    """Groups from words such as `code=humaneval,mbpp`; None where there are none.

    Raises:
        InputError: a word of another form, or two groups of one name.
    """
    found: dict[str, list[str]] = {}
    for word in told:
        name, _, tasks = word.partition("=")
        if not name or not tasks or name in found:
            raise InputError(f"a group is NAME=TASK,TASK and each name is given once, got {word!r}; mend it")
        found[name] = tasks.split(",")
    return found or None
