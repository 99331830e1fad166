"""What a study holds and what comes next; one run or proposal of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError, did_you_mean
from mixlaw.folder import Folder
from mixlaw.printable import Printable, text_table
from mixlaw.records import Record
from mixlaw.study.text import state, text

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
        content: the study as text.
    """

    study: str
    next: str
    runs: tuple[str, ...]
    proposals: tuple[str, ...]
    content: str

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        names = {"runs": list(self.runs), "proposals": list(self.proposals)}
        return {"study": self.study, "next": self.next, **names}

    def __str__(self) -> str:
        return self.content


@dataclass(frozen=True)
class MeasuredRun(Printable):
    """A measured run: its recipe, and its values in the units of the tasks."""

    record: Record
    units: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return self.record.as_json()

    def __str__(self) -> str:
        record, recipe = self.record, self.record.recipe
        done = "finished" if record.progress == 1 else f"{record.progress:.0%} of it"
        head = f"run {record.run}: {recipe.params:,} params, {recipe.tokens:,} tokens, seed {recipe.seed}, {done}"
        domains = sorted(recipe.domains, key=lambda name: -recipe.domain_tokens(name))
        phases = [["phase", "tokens", "lr ends at", *domains]]
        for phase in recipe.phases:
            shares = (f"{100 * phase.mixture.get(name, 0.0):.1f}%" for name in domains)
            end = "unknown" if phase.lr_end is None else f"{phase.lr_end:g}"
            phases.append([phase.name, f"{phase.tokens:,}", end, *shares])
        tasks = [["task", "value", "standard error", "unit"]]
        for task, measured in record.values.items():
            error = "" if measured.stderr is None else f"{measured.stderr:.2g}"
            tasks.append([task, f"{measured.value:.4g}", error, self.units.get(task, "")])
        return "\n\n".join([head, text_table(phases, numeric=True), text_table(tasks, numeric=True)])


def status(study: Folder) -> State:
    """What is there and what comes next; nothing is computed for it."""
    runs = tuple(dict.fromkeys(record.run for record in study.records()))
    proposals = tuple(proposal.id for proposal in study.proposals())
    return State(str(study.path), state(study), runs, proposals, text(study))


def show(study: Folder, name: str | None = None) -> Proposal | MeasuredRun:
    """A proposal by id or number, or the last measurement of a run; the last proposal where the name is None.

    Raises:
        InputError: there is none of that name.
    """
    proposals = study.proposals()
    if name is None and proposals:
        return proposals[-1]
    for proposal in proposals:
        if name in (proposal.id, str(proposal.number)):
            return proposal
    records = study.records()
    found = [record for record in records if name in (record.run, record.recipe.lineage)]
    if found:
        return MeasuredRun(max(found, key=lambda record: record.progress), study.units)
    raise InputError(_unknown(study, name, [*{r.run: None for r in records}, *(p.id for p in proposals)]))


def _unknown(study: Folder, name: str | None, known: Sequence[str]) -> str:
    if name is None:
        return "there is no proposal yet; name a run, or run `mixlaw propose`"
    hint = did_you_mean(name, known) or f"`mixlaw status {study.path} --json` lists them"
    return f"{name!r} is neither a run nor a proposal of {study.path}; {hint}"
