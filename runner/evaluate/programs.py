"""pass@1: the share of programming problems that a model's programs solve, run in the sandbox.

`python -m mixlaw.runner.evaluate.programs [PROBLEMS]` prints how many published solutions and
how many empty ones pass.
"""

from __future__ import annotations

import ast
import gzip
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mixlaw.errors import InputError
from mixlaw.machine import cores
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Measure, Measured, Subject, mean
from mixlaw.runner.evaluate.sandbox import jail
from mixlaw.runner.evaluate.sandbox.verdict import SECONDS, Check, passing
from mixlaw.runner.packages import required_folder

#: Chen et al. 2021, arXiv:2107.03374, section 2.1, and a comment at the margin.
HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
#: After the prompt of Fried et al. 2022 (InCoder), arXiv:2204.05999: a docstring of the task and its tests.
MBPP_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif")
MBPP_HUB = "google-research-datasets/mbpp"


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
        temperature: of the sampling; 0 takes the likeliest token each time, for one sample.
        tokens: limit on the tokens of a program.
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
            InputError: one of these fails, or several samples are requested at temperature 0.
        """
        if self.samples > 1 and not self.temperature:
            raise InputError(
                f"{self.samples} samples at temperature 0 are all the same; give a temperature such as 0.2"
            )
        read_problems(self.problems)
        jail.require()

    def measure(self, task: str, subject: Subject) -> Measured:
        """Mean share of right programs; the samples and their verdicts are written to `<task>.jsonl`.

        Deterministic, except for programs that run about as long as the time limit.
        """
        import torch

        self.check()
        problems = read_problems(self.problems)
        repeated = [problem for problem in problems for _ in range(self.samples)]
        answers = self._answers(subject, repeated)
        programs = [problem.prompt + answer for problem, answer in zip(repeated, answers, strict=True)]
        workers = torch.get_num_threads()  # the cores that are ours
        verdicts = passing(programs, [problem.check for problem in repeated], workers, self.seconds)
        rows: list[dict[str, Any]] = [
            {"problem": problem.name, "program": program, "passed": verdict.passed, "reason": verdict.reason}
            for problem, program, verdict in zip(repeated, programs, verdicts, strict=True)
        ]
        subject.keep(task, rows)
        right = np.array([verdict.passed for verdict in verdicts]).reshape(-1, self.samples).sum(1)
        return mean([pass_at_k(self.samples, int(count), 1) for count in right], self._details(right.tolist()))

    def _answers(self, subject: Subject, repeated: Sequence[Problem]) -> list[str]:
        answers = [""] * len(repeated)
        for stops in dict.fromkeys(problem.stops for problem in repeated):
            places = [number for number, problem in enumerate(repeated) if problem.stops == stops]
            prompts, heat = [repeated[number].prompt for number in places], self.temperature
            texts = generate(subject, prompts, tokens=self.tokens, stops=stops, temperature=heat)
            for number, answer in zip(places, texts, strict=True):
                answers[number] = answer
        return answers

    def _details(self, right: Sequence[int]) -> dict[str, Any]:
        ks = [k for k in (1, 10, 100) if k <= self.samples]
        shares = {f"pass@{k}": float(np.mean([pass_at_k(self.samples, c, k) for c in right])) for k in ks}
        return {"problems": self.problems, "samples": self.samples, "temperature": self.temperature, **shares}


@dataclass(frozen=True)
class Problem:
    """A programming problem.

    Attributes:
        name: of the problem in its collection.
        prompt: the beginning of the program, for the model to continue; no white space at its end.
        check: the tests.
        stops: strings that end an answer, not part of it.
        solution: the published continuation of the prompt; empty if there is none.
    """

    name: str
    prompt: str
    check: Check
    stops: tuple[str, ...]
    solution: str = ""


def read_problems(source: str) -> list[Problem]:
    """Problems of HumanEval ("human-eval": the package), MBPP ("mbpp": test split, from the hub) or a JSONL file.

    A file's lines are in the format of either: prompt, entry_point and test; or text (or prompt) and test_list, with
    test_setup_code or test_imports. It may be compressed (.gz).

    Raises:
        InputError: the package is not installed, the hub cannot be reached, no such file, or a line in neither format.
    """
    if source == "human-eval":
        path = required_folder("human_eval", "human-eval") / "data" / "HumanEval.jsonl.gz"
        return _problems(_lines(path), source)
    return _problems(_mbpp() if source == "mbpp" else _lines(Path(source)), source)


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as programming problems: {error}; name human-eval, mbpp or a JSONL file"
        ) from error


def _mbpp() -> Iterable[dict[str, Any]]:
    try:
        from datasets import load_dataset

        return list(load_dataset(MBPP_HUB, "full", split="test"))
    except ImportError as error:
        raise InputError("mbpp comes from the hub by the package datasets; pip install 'mixlaw[train]'") from error
    except Exception as error:  # whatever the hub's client raises where there is no network
        raise InputError(
            f"mbpp cannot be had from the hub ({MBPP_HUB}): {type(error).__name__}: {error}; "
            "fetch it once where there is network, or name a JSONL file"
        ) from error


def _problems(rows: Iterable[Mapping[str, Any]], source: str) -> list[Problem]:
    problems = []
    for number, row in enumerate(rows, 1):
        try:
            problems.append(_humaneval(row) if "entry_point" in row else _of_mbpp(row))
        except (KeyError, TypeError, AttributeError, SyntaxError) as error:
            raise InputError(
                f"{source}, problem {number}: {type(error).__name__}: {error}; a problem has prompt, entry_point and "
                "test, or text and test_list"
            ) from error
    if not problems:
        raise InputError(f"{source} holds no programming problems")
    return problems


def _humaneval(row: Mapping[str, Any]) -> Problem:
    prompt, entry = str(row["prompt"]), str(row["entry_point"])
    check = Check(_complete(prompt), (entry,), f"{row['test']}\ncheck({entry})\n")
    solution = prompt[len(prompt.rstrip()) :] + str(row.get("canonical_solution", ""))
    return Problem(str(row.get("task_id", entry)), prompt.rstrip(), check, HUMANEVAL_STOPS, solution)


def _complete(prompt: str) -> str:
    """The prompt as code of its own, for the helpers that it defines: its last function may still want a body."""
    try:
        ast.parse(prompt)
    except SyntaxError:
        prompt = prompt.rstrip() + "\n    pass\n"
        ast.parse(prompt)
    return prompt


def _of_mbpp(row: Mapping[str, Any]) -> Problem:
    text, tests = str(row.get("text") or row["prompt"]), [str(test) for test in row["test_list"]]
    before = "\n".join([*row.get("test_imports", ()), row.get("test_setup_code") or ""]).replace("\r", "")
    prompt = '"""\n' + "\n".join([text, *tests]) + '\n"""'
    check, solution = Check.of("\n".join([before, *tests])), "\n" + str(row.get("code", ""))
    return Problem(str(row.get("task_id", text)), prompt, check, MBPP_STOPS, solution.replace("\r", ""))


def main(source: str = "human-eval") -> None:
    """Run the published solutions of a collection, and empty ones, and print how many pass."""
    problems, workers = read_problems(source), cores()
    checks = [problem.check for problem in problems]
    solved = passing([problem.prompt + problem.solution for problem in problems], checks, workers)
    empty = passing([problem.prompt + "\n    return None" for problem in problems], checks, workers)
    right, wrong, count = sum(v.passed for v in solved), sum(v.passed for v in empty), len(problems)
    print(f"{source}: {right} of {count} published solutions pass, {wrong} of {count} empty ones")


if __name__ == "__main__":
    main(*sys.argv[1:])
