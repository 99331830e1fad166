"""Evaluation of a model on the tasks of a study: those of its data folder, and those defined in study.toml."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.errors import InputError
from mixlaw.records import Measurement, Unit
from mixlaw.runner.batches.shards import Shards, open_shards
from mixlaw.runner.evaluate.coding import Coding
from mixlaw.runner.evaluate.harness import Harness
from mixlaw.runner.evaluate.items import TASKS as TASKS
from mixlaw.runner.evaluate.items import Task as Task
from mixlaw.runner.evaluate.items import read_items
from mixlaw.runner.evaluate.judge import Judged
from mixlaw.runner.evaluate.measure import LONGEST, Measure, Subject
from mixlaw.runner.evaluate.programs import Programs
from mixlaw.runner.evaluate.scoring import Floats, Ints, Items, Window, held_out_windows, item_windows, measured, score
from mixlaw.runner.evaluate.team import leading, serve
from mixlaw.runner.plan.setup import HELD_OUT_TOKENS as HELD_OUT_TOKENS
from mixlaw.runner.plan.setup import held_out_rule as held_out_rule

if TYPE_CHECKING:
    from mixlaw.runner.train.parallel import Ranks

Scored = tuple[Unit, list[Window], Floats]  # the unit of a task, its windows, and their nats, shape (windows,)

#: Measures by the name under which they travel to workers. A new kind is a file with a `Measure`, and an entry here.
KINDS: Mapping[str, type[Measure]] = {kind.kind: kind for kind in (Items, Harness, Programs, Judged)}


def read_measure(data: Mapping[str, Any]) -> Measure:
    """The inverse of `Measure.as_json`."""
    return KINDS[data["kind"]](**{name: value for name, value in data.items() if name != "kind"})


def tasks_of(data: Path) -> dict[str, Task]:
    """Tasks that a data folder can measure, by name: its domains (BPB of held-out text), then those with items."""
    return _tasks(open_shards(data))


def _tasks(shards: Shards) -> dict[str, Task]:
    domains = {name: Task(name, Unit.BITS_PER_BYTE, f"held-out documents of {name}") for name in shards.domains}
    built = {name: TASKS[name] for name, items in shards.manifest.items.items() if items.count}
    return {**domains, **built}


def evaluate(
    model: Any,
    data: Path | None,
    tasks: Sequence[str],
    *,
    sequence: int | None = None,
    held_out_tokens: int = HELD_OUT_TOKENS,
    measures: Mapping[str, Measure] | None = None,
    folder: Path = Path("evaluation"),
    failed: dict[str, str] | None = None,
    progress: Callable[[float, str], None] = lambda share, what: None,
    ranks: Ranks | None = None,
) -> dict[str, Measurement]:
    """Measure tasks on a causal language model of transformers, on its device.

    Deterministic: same weights and number of threads, same bits, except where a judge or a time limit decides. A model
    with a tokenizer other than the study's reads the same text in its own tokens.

    Args:
        model: the model, whose training mode is left as it was, or the folder of a checkpoint.
        data: data folder of the study that the model was trained in; None if `measures` has all tasks.
        tasks: names out of `tasks_of(data)` and of `measures`.
        sequence: tokens of context, the training sequence length; by default that of the model's configuration.
        held_out_tokens: tokens of held-out text scored per domain.
        measures: measures of tasks that the data folder does not have, or of its items in another unit.
        folder: for the samples of programs and the transcripts of judges.
        failed: takes the reason for each task that cannot be measured, which is then left out; None raises it.
        progress: called with the share of the tasks done and the name of the task under way.
        ranks: this process among those that share the batches, each with the whole model; all of them call it, and the
            others than the first get no values.

    Raises:
        InputError: a task is unknown, its items could not be built, or something that it needs is missing.
    """
    measures = measures or {}
    shards = None if data is None else open_shards(data)
    subject = _subject(model, shards, sequence, folder, ranks)
    if not subject.ranks.first:
        serve(subject)
        return {}
    with leading(subject):
        return _evaluated(subject, shards, tasks, measures, held_out_tokens, failed, progress)


def _evaluated(
    subject: Subject,
    shards: Shards | None,
    tasks: Sequence[str],
    measures: Mapping[str, Measure],
    held_out_tokens: int,
    failed: dict[str, str] | None,
    progress: Callable[[float, str], None],
) -> dict[str, Measurement]:
    own = [t for t in tasks if t not in measures and _attempt([t], failed, partial(_check, t, shards))]
    values, scored = dict[str, Measurement](), dict[str, Scored]()
    if own and shards is not None:
        progress(0.0, ", ".join(own))
        _attempt(own, failed, lambda: scored.update(_on_data(subject, shards, own, held_out_tokens)))

    def measure(task: str) -> None:
        values[task] = measured(*scored[task]) if task in scored else measures[task].measure(task, subject)

    for task in tasks:
        if task in measures:
            progress(len(values) / len(tasks), task)
        if task in measures or task in scored:
            _attempt([task], failed, partial(measure, task))
    return {task: values[task] for task in tasks if task in values}


def _attempt(tasks: Sequence[str], failed: dict[str, str] | None, step: Callable[[], None]) -> bool:
    """Whether a step succeeds; the reason why not goes to `failed` for every task, or is raised if that is None."""
    try:
        step()
    except Exception as error:  # whatever a judge, the harness or a data set raises
        if failed is None:
            raise
        if not isinstance(error, InputError):
            traceback.print_exc()
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        failed.update(dict.fromkeys(tasks, reason))
        return False
    return True


def _subject(model: Any, shards: Shards | None, sequence: int | None, folder: Path, ranks: Ranks | None) -> Subject:
    if isinstance(model, str | Path):
        subject = Subject.load(model, folder, ranks)
    elif shards is None:
        raise InputError(
            "a model in memory has no tokenizer with it: give its data folder, or the folder of a checkpoint"
        )
    else:
        longest = min(model.config.max_position_embeddings, LONGEST)
        subject = Subject(model, shards.tokenizer, longest, folder)
        subject = replace(subject, ranks=ranks or subject.ranks)
    return replace(subject, length=sequence or subject.length, data=None if shards is None else shards.data)


def _check(task: str, shards: Shards | None) -> None:
    known = {} if shards is None else _tasks(shards)
    if task not in known:
        items = None if shards is None else shards.manifest.items.get(task)
        reason = items.missing if items else f"there are {', '.join(known) or 'none'}"
        where = "without a data folder" if shards is None else f"on {shards.data}"
        raise InputError(f"the task {task!r} cannot be measured {where}: {reason}")


def _on_data(subject: Subject, shards: Shards, tasks: Sequence[str], held_out_tokens: int) -> dict[str, Scored]:
    """Held-out text and items of the data folder, scored in common batches."""
    coding, length = Coding.of(subject, shards), subject.length
    sizes = coding.bytes()
    windows = {task: list(_windows(task, shards, coding, sizes, length, held_out_tokens)) for task in tasks}
    nats = iter(score(subject, [window for task in tasks for window in windows[task]]))
    known = _tasks(shards)
    return {task: (known[task].unit, windows[task], np.array([next(nats) for _ in windows[task]])) for task in tasks}


def _windows(
    task: str, shards: Shards, coding: Coding, sizes: Ints, length: int, held_out_tokens: int
) -> Iterator[Window]:
    if task in shards.domains:
        documents = coding.held_out(shards[task], length, held_out_tokens)
        return held_out_windows(documents, sizes, length, held_out_tokens)
    return item_windows(read_items(shards.data, task), coding.tokenizer, length, coding.end)
