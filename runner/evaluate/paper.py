"""The suite of Aryabumi et al. 2024 (arXiv:2408.10914), as tasks of today's tools; no examples in any prompt.

Two of its tasks cannot be taken as they were: the harness has no QuAC, CoQA stands in its place (conversations about a
text as well); StoryCloze is given out on request only, its English half in XStoryCloze (Lin et al. 2022) is public.
Answers judged by a model want a judge: add a task with the unit win-rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _choice(task: str, metric: str, choices: float) -> dict[str, Any]:
    return {"unit": "accuracy", "harness": {"task": task, "metric": metric}, "chance": 1 / choices}


def _answer(task: str, metric: str) -> dict[str, Any]:
    return {"unit": "accuracy", "harness": {"task": task, "metric": metric}}


def _programs(problems: str) -> dict[str, Any]:
    return {"unit": "pass@1", "programs": problems}


#: Tasks by name, as they would be written under [tasks] of study.toml.
TASKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "boolq": _choice("boolq", "acc", 2),
        "piqa": _choice("piqa", "acc_norm", 2),
        "sciq": _choice("sciq", "acc_norm", 4),
        "social_iqa": _choice("social_iqa", "acc", 3),
        "coqa": _answer("coqa", "f1"),
        "cb": _choice("cb", "acc", 3),
        "copa": _choice("copa", "acc", 2),
        "storycloze": _choice("xstorycloze_en", "acc", 2),
        "hellaswag": _choice("hellaswag", "acc_norm", 4),
        "winogrande": _choice("winogrande", "acc", 2),
        "arc_easy": _choice("arc_easy", "acc_norm", 4),
        "triviaqa": _answer("triviaqa", "exact_match"),
        "natural_questions": _answer("nq_open", "exact_match"),
        "humaneval_pass": _programs("human-eval"),
        "mbpp_pass": _programs("mbpp"),
    }
)

#: The groups that the paper averages over.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "natural language": tuple(TASKS)[:11],
        "knowledge": ("triviaqa", "natural_questions"),
        "code": ("humaneval_pass", "mbpp_pass"),
    }
)
