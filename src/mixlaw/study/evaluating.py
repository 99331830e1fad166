"""Evaluation of one checkpoint on the tasks of a study: evaluate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError, packages_of_extras, unknown
from mixlaw.folder import Folder
from mixlaw.folder.names import RecipeLike, recipe_of
from mixlaw.folder.tasks import measured_on, measures_of
from mixlaw.printable import Page, Printable
from mixlaw.progress import Progress, progress_or_bar
from mixlaw.records import MEASURED_ON, Measurement, Record, write_record
from mixlaw.study.text import task_table

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Evaluated(Printable):
    """What a checkpoint measured.

    Attributes:
        checkpoint: its folder.
        values: by task.
        units: of the tasks.
        unmeasured: why other tasks have no value.
        run: whose record has the values; None if they are in no record.
    """

    checkpoint: str
    values: Mapping[str, Measurement]
    units: Mapping[str, str]
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    run: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        values = {
            task: {"value": m.value, "stderr": m.stderr, "count": m.count, "smallest_effect": m.smallest_effect}
            for task, m in self.values.items()
        }
        about = {"checkpoint": self.checkpoint, "units": {task: self.units[task] for task in self.values}}
        return {**about, "values": values, "unmeasured": dict(self.unmeasured), "run": self.run}

    def page(self) -> Page:
        """The values, and why others are missing."""
        answer = f"{len(self.values)} tasks measured of {self.checkpoint}"
        answer += "" if self.run is None else f", recorded as run {self.run}"
        notes = [f"{task} has no value: {reason}" for task, reason in self.unmeasured.items()]
        return Page(answer, notes=notes, tables=[task_table(self.values, self.units)])


@packages_of_extras()
def evaluate(
    study: Folder,
    checkpoint: str | os.PathLike[str],
    *,
    tasks: Sequence[str] = (),
    into: RecipeLike | None = None,
    replace_values: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Measure a checkpoint on the study's tasks.

    Under torchrun all ranks call it and share the batches; only the first one's values are complete.

    Args:
        study: the study.
        checkpoint: a run of the study, or the folder of any causal language model in the layout of Hugging Face. A
            model with another tokenizer reads the same held-out text in its own tokens.
        tasks: some of the study's; all where empty.
        into: record the values: in this run, or as a run with the recipe of this proposal or file.
        replace_values: whether values that the record has already may be replaced.
        device: as torch names it; by default a GPU if there is one.
        progress: called with the share of the tasks done and the task under way.

    Raises:
        InputError: no such checkpoint, task, device or recipe, or the record has values already.
    """
    from mixlaw.runner.evaluate.run import HELD_OUT_TOKENS, held_out_rule, read_measure, tasks_of
    from mixlaw.runner.evaluate.run import evaluate as measure
    from mixlaw.runner.models.foreign import params_of

    folder, units, settings = _checkpoint(study, str(checkpoint)), study.units, study.settings
    chosen = list(tasks or units)
    for task in chosen:
        if task not in units:
            raise unknown("task", task, units)
    known = tasks_of(study.data) if study.has_data else {}
    measures = {n: read_measure(m) for n, m in measures_of(study.path, settings, known).items() if n in chosen}
    record = None if into is None else _record(study, folder, into)
    if record is not None and not replace_values and (old := [task for task in chosen if task in record.values]):
        have = f"run {record.run} has values of {', '.join(old)} already"
        raise InputError(f"{have}; name other tasks with --task, or pass --replace")
    params, most = params_of(folder), settings.training.held_out_tokens
    failed: dict[str, str] = {}
    with _ranks(device) as ranks, progress_or_bar("evaluation", progress if ranks.first else _silent) as report:
        values = measure(
            folder,
            study.data if study.has_data else None,
            chosen,
            sequence=settings.training.sequence,
            held_out_tokens=most or (held_out_rule(params) if params else HELD_OUT_TOKENS),
            measures=measures,
            folder=_samples(study, folder, record),
            failed=failed,
            progress=report,
            ranks=ranks,
        )
        if record is not None and values:
            _add(study, record, values)
    return Evaluated(str(folder), values, units, failed, None if record is None or not values else record.run)


def _add(study: Folder, record: Record, values: Mapping[str, Measurement]) -> None:
    """Write a record with more values, and their details."""
    from mixlaw.runner.evaluate.measure import Measured

    plain = {task: Measurement(m.value, m.stderr, m.count) for task, m in values.items()}
    details = {task: dict(m.details) for task, m in values.items() if isinstance(m, Measured) and m.details}
    about = {**record.details, "tasks": {**record.details.get("tasks", {}), **details}}
    now = measured_on(study.data, study.settings) if study.has_data else {}
    about[MEASURED_ON] = {**about.get(MEASURED_ON, {}), **{task: now[task] for task in plain if task in now}}
    write_record(study.runs, replace(record, values={**record.values, **plain}, details=about))


def _samples(study: Folder, checkpoint: Path, record: Record | None) -> Path:
    """Folder for samples and transcripts."""
    if record is None:
        return study.path / "evaluations" / _name(study, checkpoint)
    return study.runs / record.key / "evaluation"


def _silent(share: float, what: str) -> None:
    """Progress of a rank that does not report."""


def _checkpoint(study: Folder, name: str) -> Path:
    """Folder of a checkpoint: of a run by its name or lineage, else that of a path."""
    lineages = {name, *(record.recipe.lineage for record in study.records() if record.run == name)}
    for lineage in lineages if "/" not in name else ():
        if (run := study.runs / lineage / "checkpoint" / "config.json").exists():
            return run.parent
    path = Path(name)
    if not (path / "config.json").exists():
        raise InputError(
            f"there is no checkpoint at {path} (no config.json), and no trained run of that name; name the folder of "
            "a model in the layout of Hugging Face, or a run"
        )
    return path.resolve()


def _name(study: Folder, folder: Path) -> str:
    """Name of a checkpoint: of the run it belongs to, else of its folder."""
    return folder.parent.name if folder.parent.parent == study.runs.resolve() else folder.name


def _record(study: Folder, folder: Path, into: RecipeLike) -> Record:
    """The record that takes the values: the last one of a run, or a new one with the recipe that is named."""
    records = study.records()
    runs = [record for record in records if str(into) in (record.run, record.recipe.lineage)]
    if runs:
        return max(runs, key=lambda record: record.progress)
    new = Record(_name(study, folder), recipe_of(study, into), {})
    return next((record for record in records if record.key == new.key), new)


def _ranks(device: str | None) -> Any:
    """This process among those of torchrun, or alone on a device."""
    from contextlib import nullcontext

    import torch

    from mixlaw.runner.train.parallel import Ranks, joined

    if "RANK" in os.environ:
        return joined()
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"there is no device {name!r} here ({reason}); take cpu, or one that torch knows") from error
    return nullcontext(Ranks(device=torch.device(name)))
