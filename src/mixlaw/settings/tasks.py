"""The tables of study.toml on tasks: their units, what measures them, and the suites that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mixlaw.records import Unit
from mixlaw.runner.evaluate import paper
from mixlaw.settings.data import Strict

SUITES = {"paper": (paper.TASKS, paper.GROUPS)}
Suite = Literal["paper"]


class HarnessSettings(Strict):
    """A task of lm-evaluation-harness: `mixlaw.runner.evaluate.harness.Harness`; a text in its place is its name."""

    task: str
    metric: str | None = None
    shots: int | None = Field(default=None, ge=0)
    limit: int | None = Field(default=None, ge=1)
    include: str | None = None


class ProgramSettings(Strict):
    """Programming problems: `mixlaw.runner.evaluate.programs.Programs`; a text in its place names them."""

    problems: str
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    tokens: int = Field(default=512, ge=1)
    seconds: float = Field(default=10.0, gt=0)


class JudgeSettings(Strict):
    """A judge behind an endpoint, and what a model is compared with: `mixlaw.runner.evaluate.judge.Judged`."""

    url: str
    model: str
    reference: str
    key: str = "OPENAI_API_KEY"
    prompts: str | None = None
    tokens: int = Field(default=256, ge=1)
    parallel: int = Field(default=8, ge=1)
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 512}


#: What measures a task, with the units that it has; any for tasks of the harness.
_UNITS = {
    "items": (Unit.ACCURACY, Unit.CHOICE_PROB, Unit.BITS_PER_BYTE),
    "harness": tuple(Unit),
    "programs": (Unit.PASS_AT_1,),
    "judge": (Unit.WIN_RATE,),
}


class TaskSettings(Strict):
    """A task; a text in its place is its unit.

    Attributes:
        unit: bits/byte, nats/token, accuracy, choice-prob, pass@1 or win-rate; it says which direction is better.
        link: of a score, the loss on the same task that it is predicted through, in place of its own fit.
        chance: of a score, that of guessing.
        items, harness, programs, judge: what measures it, where it is not what the data folder has under its name:
            built-in items by name, a task of lm-evaluation-harness, programming problems, or a judge.
    """

    unit: str
    link: str | None = None
    chance: float | None = Field(default=None, ge=0, lt=1)
    items: str | None = None
    harness: HarnessSettings | None = None
    programs: ProgramSettings | None = None
    judge: JudgeSettings | None = None

    @field_validator("harness", mode="before")
    @classmethod
    def _text_is_a_task(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str) else value

    @field_validator("programs", mode="before")
    @classmethod
    def _text_names_problems(cls, value: Any) -> Any:
        return {"problems": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_measure(self) -> TaskSettings:
        given = [name for name in _UNITS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a task is measured in one way, got {' and '.join(given)}; make two tasks of it")
        for name in given:
            units = [unit.value for unit in _UNITS[name]]
            if self.unit not in units:
                raise ValueError(f"what {name} measures has the unit {' or '.join(units)}, got {self.unit!r}")
        return self

    def measure(self) -> dict[str, Any] | None:
        """What `mixlaw.runner.evaluate.run.read_measure` takes; None where the data folder measures the task."""
        if self.items is not None:
            return {"kind": "items", "items": self.items, "unit": self.unit}
        if self.harness is not None:
            return {"kind": "harness", "unit": self.unit, **self.harness.model_dump()}
        measure = self.programs or self.judge
        return None if measure is None else {"kind": "programs" if self.programs else "judge", **measure.model_dump()}


def expanded(value: Any) -> Any:
    """The content of study.toml with units written out as tables, and tasks and groups of the suites added.

    A task of study.toml replaces the suite's task of that name; groups are the suite's if there are none.
    """
    if not isinstance(value, Mapping):
        return value
    tasks, groups = value.get("tasks", {}), value.get("groups")
    if not isinstance(tasks, Mapping):
        return value
    written = {name: {"unit": task} if isinstance(task, str) else task for name, task in tasks.items()}
    suites = value.get("suites")
    names = [name for name in suites if isinstance(name, str)] if isinstance(suites, list) else []
    known = [SUITES[name] for name in names if name in SUITES]
    for more, named in known:
        written = {**written, **{name: dict(task) for name, task in more.items() if name not in written}}
        groups = groups or {name: list(members) for name, members in named.items()}
    return {**value, "tasks": written, **({} if groups is None else {"groups": groups})}
