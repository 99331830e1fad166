"""Verified synthetic code: problems with solutions and tests in several layouts, kept where the tests pass."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from random import Random

from mixlaw.demo.families import FAMILIES, SyntheticProblem, block
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.document import Document, digest
from mixlaw.runner.evaluate.sandbox.run import Status, run_python

BATCH = 250  # programs verified by one process; a process starts in some 20 ms, a program runs in well under one
SECONDS = 20.0  # for a batch
STALE = 50  # batches without a single new problem: the families have nothing more to give

#: Runs programs one after another, each in a namespace of its own and for a second at most, and prints which passed.
_RUNNER = """
import io, json, signal, sys

class TooLong(BaseException):
    pass

def stop(*_):
    raise TooLong

signal.signal(signal.SIGALRM, stop)
passed = []
for program in json.load(open("programs.json", encoding="utf-8")):
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    sys.stdout = io.StringIO()
    try:
        exec(compile(program, "program", "exec"), {"__name__": "program"})
        passed.append(True)
    except (Exception, TooLong):
        passed.append(False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout = sys.__stdout__
print(json.dumps(passed))
"""


def documents(documents: int = 5000, seed: int = 0) -> Iterator[Document]:
    """That many different, verified problems; the same for the same seed, and more are a continuation of fewer.

    Raises:
        InputError: the families cannot give that many different problems.
    """
    rng = Random(seed)
    seen: set[bytes] = set()
    made, stale = 0, 0
    while made < documents:
        fresh = [problem for problem in generate(rng, BATCH) if _is_new(problem, seen)]
        stale = 0 if fresh else stale + 1
        if stale > STALE:
            raise InputError(
                f"only {made} different synthetic problems could be made of {documents}: lower the option documents"
            )
        for problem, right in zip(fresh, verify(fresh), strict=True):
            if right and made < documents:
                made += 1
                yield Document(write(problem, rng).strip() + "\n", f"synthetic {problem.family} seed {seed} {made}")


def _is_new(problem: SyntheticProblem, seen: set[bytes]) -> bool:
    """Whether no earlier problem had the same solution, its statement aside."""
    key = digest(problem.solution)
    fresh = key not in seen
    seen.add(key)
    return fresh


def generate(rng: Random, count: int) -> list[SyntheticProblem]:
    """Problems of all families in turn."""
    return [FAMILIES[number % len(FAMILIES)](rng) for number in range(count)]


def verify(problems: Sequence[SyntheticProblem]) -> list[bool]:
    """Whether each solution passes its own checks, run in another process; a batch that dies is halved."""
    if not problems:
        return []
    programs = json.dumps([problem.program for problem in problems])
    outcome = run_python(_RUNNER, seconds=SECONDS, files={"programs.json": programs})
    passed: list[bool] = json.loads(outcome.stdout or "[]") if outcome.status is Status.DONE else []
    if len(passed) == len(problems):
        return passed
    half = len(problems) // 2
    return [*verify(problems[:half]), *verify(problems[half:])] if half else [False]


def write(problem: SyntheticProblem, rng: Random) -> str:
    """The problem as a text, in one of several layouts."""
    layouts = (_comments, _docstring, _markdown, _test_function)
    return rng.choice(layouts)(problem)


def _wrapped(text: str, indent: str = "", width: int = 88) -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def _comments(problem: SyntheticProblem) -> str:
    checks = "\n".join(problem.checks)
    return f"{_wrapped(problem.statement, '# ')}\n\n{problem.solution}\n\n{checks}\n"


def _docstring(problem: SyntheticProblem) -> str:
    head, _, body = problem.solution.partition(":\n")
    statement = _wrapped(f'"""{problem.statement}', "    ").rstrip()
    ending = "" if "\n" not in statement else "\n    "
    checks = "\n".join(problem.checks)
    return f'{head}:\n{statement}{ending}"""\n{body}\n\n{checks}\n'


def _markdown(problem: SyntheticProblem) -> str:
    checks = "\n".join(problem.checks)
    return (
        f"## Problem\n\n{_wrapped(problem.statement)}\n\n## Solution\n\n```python\n{problem.solution}```\n\n"
        f"## Tests\n\n```python\n{checks}\n```\n"
    )


def _test_function(problem: SyntheticProblem) -> str:
    name = problem.solution.split("(")[0].split(":")[0].split()[-1].lower()
    tests = f"def test_{name}():\n{block(problem.checks)}\n"
    return f'"""{_wrapped(problem.statement)}\n"""\n\n\n{problem.solution}\n\n{tests}'
