"""What a study holds and what comes next; one run or proposal of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError, did_you_mean
from mixlaw.folder import Folder
from mixlaw.folder.names import LAST
from mixlaw.numbers import percent, size
from mixlaw.optimizer.answers.phase_lines import schedule_table
from mixlaw.printable import Page, Printable
from mixlaw.records import Record
from mixlaw.study.text import page, state, task_table

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.proposal import Proposal


@dataclass(frozen=True)
class State(Printable):
    """A study at one moment.

    Attributes:
        study: its folder.
        next: what is done, and the next step.
        runs: names of the runs that are measured.
        proposals: ids, in the order in which they were frozen.
        content: what is shown.
    """

    study: str
    next: str
    runs: tuple[str, ...]
    proposals: tuple[str, ...]
    content: Page = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        names = {"runs": list(self.runs), "proposals": list(self.proposals)}
        return {"study": self.study, "next": self.next, **names}

    def page(self) -> Page:
        """The parts of the study, and what comes next."""
        return self.content


@dataclass(frozen=True)
class MeasuredRun(Printable):
    """A measured run: its recipe, and its values in the units of the tasks."""

    record: Record
    units: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return self.record.as_json()

    def page(self) -> Page:
        """Its values, and the schedule that it was trained on."""
        record, recipe = self.record, self.record.recipe
        done = "finished" if record.progress == 1 else f"{percent(record.progress)} of it"
        answer = (
            f"run {record.run}: {size(recipe.params)} params, {size(recipe.tokens)} tokens, seed {recipe.seed}, {done}"
        )
        return Page(answer, tables=[task_table(record.values, self.units), schedule_table(recipe)])


def status(study: Folder) -> State:
    """What is there and what comes next; nothing is computed for it."""
    runs = tuple(dict.fromkeys(record.run for record in study.records()))
    proposals = tuple(proposal.id for proposal in study.proposals())
    step = "mixlaw {} " + quote(str(study.path)).replace("{", "{{").replace("}", "}}")
    return State(str(study.path), state(study, step), runs, proposals, page(study, step))


def show(study: Folder, name: str | None = None) -> Proposal | MeasuredRun:
    """A proposal by id or number, the last one where the name is None or `proposal`; or the last measurement of a run.

    Raises:
        InputError: there is none of that name.
    """
    proposals = study.proposals()
    for proposal in proposals:
        if name in (proposal.id, str(proposal.number)):
            return proposal
    records = study.records()
    found = [record for record in records if name in (record.run, record.recipe.lineage)]
    if found:
        return MeasuredRun(max(found, key=lambda record: record.progress), study.units)
    if name in (None, LAST) and proposals:
        return proposals[-1]
    raise InputError(_unknown(study, name, [*{r.run: None for r in records}, *(p.id for p in proposals)]))


def _unknown(study: Folder, name: str | None, known: Sequence[str]) -> str:
    if name is None:
        return "there is no proposal yet; name a run, or run `mixlaw propose`"
    hint = did_you_mean(name, known) or f"`mixlaw status {study.path} --json` lists them"
    return f"{name!r} is neither a run nor a proposal of {study.path}; {hint}"
