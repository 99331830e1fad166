"""Requests to a teacher: its settings, the problems, and the attempts that follow from them."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mixlaw.errors import InputError, key_of
from mixlaw.files import read_text
from mixlaw.runner.corpora.sources.address import at_home
from mixlaw.runner.evaluate.chat import Request

STATEMENT = "{statement}"
PROMPT = """Solve this problem in Python, with the standard library alone.

{statement}

Answer with two code blocks. The first holds the solution: functions or classes with docstrings, no input and no
output. The second holds tests: at least three assert statements that use the solution and fail where it is wrong.
"""


class TeacherSettings(BaseModel):
    """A TOML file that describes a teacher.

    Attributes:
        endpoint: address of an endpoint that speaks OpenAI's protocol, up to the version: http://localhost:8000/v1.
        model: name of the model there.
        problems: JSONL beside the TOML file; a row has a `statement`, and may have `tests`: Python that every solution
            must pass besides its own tests, which names the functions that the statement asks for.
        samples: answers to each problem; they differ in their seed.
        temperature, top_p, max_tokens, seed: of the sampling.
        prompt: of the request; {statement} is replaced by the problem.
        key: environment variable that holds the API key, where the endpoint wants one.
        parallel: concurrent requests.
        seconds: limit on the tests of a solution.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str
    model: str
    problems: str
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, ge=1)
    seed: int = Field(default=0, ge=0)
    prompt: str = PROMPT
    key: str = "OPENAI_API_KEY"
    parallel: int = Field(default=8, ge=1)
    seconds: float = Field(default=10.0, gt=0)

    @field_validator("prompt")
    @classmethod
    def _has_place(cls, prompt: str) -> str:
        if STATEMENT not in prompt:
            raise ValueError("the prompt lacks {statement}, the place of the problem")
        return prompt

    def problems_of(self, file: Path) -> Path:
        """The file of the problems, for settings read from `file`."""
        return file.parent / at_home(self.problems)

    @property
    def sampling(self) -> dict[str, float]:
        """The settings of the sampling but for the seed."""
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}


def read_settings(file: Path) -> TeacherSettings:
    """Read the settings of a teacher.

    Raises:
        InputError: there is no such file, or a key is missing, unknown or wrong.
    """
    try:
        return TeacherSettings.model_validate(tomllib.loads(read_text(file)))
    except FileNotFoundError as error:
        raise InputError(f"there are no settings of a teacher at {file}: write endpoint, model and problems") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not TOML ({error}): correct that line") from error
    except ValidationError as error:
        first = error.errors()[0]
        key, seen = key_of(first["loc"]), "" if first["type"] == "missing" else f" (is {first['input']!r})"
        raise InputError(
            f"{file}: {key}{seen}: {first['msg']}; keys are {', '.join(TeacherSettings.model_fields)}"
        ) from error


@dataclass(frozen=True)
class TeacherProblem:
    """A problem: its place in the file, its statement, and tests that every solution must pass, if any."""

    number: int
    statement: str
    tests: str = ""


@dataclass(frozen=True)
class Attempt:
    """A request for one problem, with the seed of the sample; `key` identifies it."""

    problem: TeacherProblem
    sample: int
    request: Request
    key: str

    def provenance(self, settings: TeacherSettings) -> dict[str, Any]:
        """All that an answer comes from, but for the date."""
        return {
            "key": self.key,
            "problem": self.problem.number,
            "sample": self.sample,
            "endpoint": settings.endpoint,
            "model": settings.model,
            "prompt": self.request.messages[-1][1],
            "sampling": settings.sampling,
            "seed": self.request.options["seed"],
            "given_tests": self.problem.tests,
        }


def plan_attempts(settings: TeacherSettings, file: Path) -> list[Attempt]:
    """All attempts, problem by problem.

    Raises:
        InputError: the file of the problems is missing, empty or damaged.
    """
    problems = read_teacher_problems(settings.problems_of(file))
    return [_attempt(settings, problem, sample) for problem in problems for sample in range(settings.samples)]


def _attempt(settings: TeacherSettings, problem: TeacherProblem, sample: int) -> Attempt:
    options = {**settings.sampling, "seed": settings.seed + sample}
    request = Request((("user", settings.prompt.replace(STATEMENT, problem.statement)),), options)
    known = [settings.endpoint, request.body(settings.model), problem.statement, problem.tests]
    return Attempt(
        problem, sample, request, hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]
    )


def read_teacher_problems(path: Path) -> list[TeacherProblem]:
    """Problems of a JSONL file, a statement once.

    Raises:
        InputError: the file is missing, a row has no statement, or there is none.
    """
    try:
        lines = read_text(path).split("\n")
    except (OSError, InputError) as error:
        raise InputError(
            f"{path} cannot be read as problems ({error}): write a JSON object with a statement a line"
        ) from error
    problems: dict[str, TeacherProblem] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            problem = _problem(number, line, path)
            problems.setdefault(problem.statement, problem)
    if not problems:
        raise InputError(f"{path} holds no problem: write a JSON object with a statement a line")
    return list(problems.values())


def _problem(number: int, line: str, path: Path) -> TeacherProblem:
    try:
        row = json.loads(line)
        statement, tests = row["statement"], row.get("tests") or ""
        tests = tests if isinstance(tests, str) else "\n".join(tests)
        compile(tests, "tests", "exec")
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise InputError(
            f'{path} line {number} is no problem ({error!r}): write {{"statement": "...", "tests": "assert ..."}}, the '
            "tests in Python, or leave them out"
        ) from error
    if not isinstance(statement, str) or not statement.strip():
        raise InputError(f"{path} line {number}: the statement is {statement!r:.40} instead of text")
    return TeacherProblem(number, statement.strip(), tests)
