"""Synthetic problems are right, checked elsewhere, different from one another, and enough for a million tokens."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from mixlaw.demo.families import FAMILIES, Family, SyntheticProblem
from mixlaw.demo.synthetic import documents, generate, verify, write
from mixlaw.runner.corpora.sources.document import Document


def problem(solution: str, *checks: str) -> SyntheticProblem:
    return SyntheticProblem("test", "A task.", solution, checks)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_problem_of_every_family_passes_its_tests(family: Family) -> None:
    made = [family(Random(number)) for number in range(60)]
    assert verify(made) == [True] * 60
    assert all(one.statement and len(one.checks) >= 2 for one in made)


def test_a_wrong_solution_is_found_out() -> None:
    rng = Random(0)
    made = generate(rng, 2 * len(FAMILIES))
    broken = [replace(one, solution=_with_one_number_changed(one.solution, rng)) for one in made]
    caught = verify(broken).count(False)
    assert caught > 0.6 * len(broken)  # some numbers do not matter for the cases that are asked


def _with_one_number_changed(source: str, rng: Random) -> str:
    found = rng.choice([*re.finditer(r"\d+", source), *re.finditer(r"(?<=return )\b", source)])
    return source[: found.start()] + str(int(found[0] or 0) + 1) + " - " * (not found[0]) + source[found.end() :]


def test_programs_that_hang_crash_or_exit_fail_alone() -> None:
    fine = problem("def f():\n    return 1", "assert f() == 1")
    bad = [
        problem("while True: pass"),
        problem("import os\nos._exit(0)"),
        problem("import ctypes\nctypes.string_at(0)"),
        problem("raise SystemExit(0)"),
        problem("print('[true]')\nimport os\nos._exit(0)"),
        problem("def f(:"),
        problem("x = 'a' * 10**12"),
    ]
    assert verify([fine, *bad, fine]) == [True, *[False] * len(bad), True]


def test_programs_do_not_see_one_another() -> None:
    assert verify([problem("x = 1"), problem("assert 'x' not in globals()")]) == [True, True]


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    return list(documents())


def test_fewer_documents_are_a_prefix_of_more_and_another_seed_gives_others(corpus: list[Document]) -> None:
    assert list(documents(documents=300, seed=0)) == corpus[:300]
    others = {document.text for document in documents(documents=300, seed=1)}
    assert not others & {document.text for document in corpus[:300]}


def test_all_families_contribute_and_none_dominates(corpus: list[Document]) -> None:
    counts = Counter(document.origin.split()[1] for document in corpus)
    assert len(counts) == len(FAMILIES) >= 8
    assert max(counts.values()) < 2.5 * len(corpus) / len(FAMILIES)


def test_a_million_tokens_do_not_repeat(corpus: list[Document]) -> None:
    """2.8 MB, 1.2 million tokens at vocabulary 1,024: every text is new, half of all 12-word spans to the very end."""
    assert sum(len(document.text) for document in corpus) > 2_500_000
    assert len({document.text for document in corpus}) == len(corpus)
    seen: set[int] = set()
    fresh = [_new_spans(document.text, seen) for document in corpus]
    last = fresh[-500:]
    assert sum(new for new, _ in last) > 0.4 * sum(total for _, total in last)


def _new_spans(text: str, seen: set[int], length: int = 12) -> tuple[int, int]:
    words = re.findall(r"\w+|[^\w\s]", text)
    spans = {hash(tuple(words[i : i + length])) for i in range(len(words) - length + 1)}
    new = len(spans - seen)
    seen |= spans
    return new, len(spans)


def test_texts_hold_statement_solution_and_tests_in_every_layout() -> None:
    made = generate(Random(5), 40)
    for number, one in enumerate(made):
        text = write(one, Random(number))
        flat = " ".join(re.sub(r"[#\n]", " ", text).split())
        assert " ".join(one.statement.replace("#", " ").split()) in flat
        assert all(" ".join(line.split()) in flat for line in one.checks if "#" not in line)
