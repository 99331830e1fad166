"""Verified synthetic code: problems of two dozen families with solutions and tests, kept where the tests pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random

from mixlaw.demo import problems_lists, problems_numbers, problems_objects, problems_text
from mixlaw.demo.problems import Family, Problem, write
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.document import Document, digest
from mixlaw.runner.evaluate.sandbox.run import Status, run_python

#: Every generator of problems.
FAMILIES: tuple[Family, ...] = (
    *problems_lists.FAMILIES,
    *problems_text.FAMILIES,
    *problems_numbers.FAMILIES,
    *problems_objects.FAMILIES,
)
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
        InputError: the families cannot give so many different problems.
    """
    rng = Random(seed)
    seen: set[bytes] = set()
    made, stale = 0, 0
    while made < documents:
        fresh = [problem for problem in generate(rng, BATCH) if _is_new(problem, seen)]
        stale = 0 if fresh else stale + 1
        if stale > STALE:
            raise InputError(f"only {made} different synthetic problems could be made, {documents} were asked for")
        for problem, right in zip(fresh, verify(fresh), strict=True):
            if right and made < documents:
                made += 1
                yield Document(write(problem, rng).strip() + "\n", f"synthetic {problem.family} seed {seed} {made}")


def _is_new(problem: Problem, seen: set[bytes]) -> bool:
    """Whether no earlier problem had the same solution, its statement aside."""
    key = digest(problem.solution)
    fresh = key not in seen
    seen.add(key)
    return fresh


def generate(rng: Random, count: int) -> list[Problem]:
    """Problems of all families in turn."""
    return [FAMILIES[number % len(FAMILIES)](rng) for number in range(count)]


def verify(problems: Sequence[Problem]) -> list[bool]:
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
