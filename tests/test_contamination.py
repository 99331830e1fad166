"""Items planted in a training corpus are found, and no others; the search agrees with a plain one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.runner.batches.manifest import read_manifest
from mixlaw.runner.corpora.contamination import Contamination, Finder, check, size_for, words
from mixlaw.runner.evaluate.items import humaneval
from test_cli import check_document

SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va")


def text(rng: random.Random, count: int) -> list[str]:
    """`count` words out of four thousand: two random texts do not share 8 words in a row."""
    return ["".join(rng.choices(SYLLABLES, k=3)) for _ in range(count)]


ITEMS = [text(random.Random(number), 30) for number in range(40)]
SHORT = [["what", "is", "it"], ["who"]]


def planted(item: list[str], number: int) -> str:
    """An item as a corpus may write it: other case, other punctuation, other line ends."""
    return [" ".join(item).upper(), ", ".join(item) + "!", "\n".join(item), f"({'-'.join(item)})"][number % 4]


def lines(path: Path, seed: int, inside: dict[int, str]) -> None:
    """120 documents; each of the texts is in the middle of six of them, as one of the six may be held out."""
    rng = random.Random(seed)
    places = [f" {part} " for part in inside.values() for _ in range(6)]
    parts = places + [" "] * (120 - len(places))
    rows = (" ".join(text(rng, 50)) + part + " ".join(text(rng, 50)) for part in parts)
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")


STUDY = """
version = 1
name = "contaminated"
domains = { web = { source = "web.jsonl" }, code = { source = "code.jsonl" } }
tokenizer = { vocabulary = 300 }
training = { held_out = 0.1 }
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`web` has items 0..5, `code` 5..8, 13 words of 10, only 12 of 11, and all of 12 in disorder.

    Of the items that come with mixlaw, HumanEval's 7 and 11 are in `web`.
    """
    root = tmp_path_factory.mktemp("contaminated")
    whole = {number: planted(ITEMS[number], number) for number in range(9)}
    known = {
        100 + number: item.context + item.choices[0] for number, item in enumerate(humaneval()) if number in (7, 11)
    }
    lines(root / "web.jsonl", 1001, {**{number: whole[number] for number in range(6)}, **known})
    parts = {10: " ".join(ITEMS[10][9:22]), 11: " ".join(ITEMS[11][3:15]), 12: " ".join(sorted(ITEMS[12]))}
    lines(root / "code.jsonl", 1002, {**{number: whole[number] for number in range(5, 9)}, **parts})
    (root / "study.toml").write_text(STUDY)
    return root


@pytest.fixture(scope="module")
def printed(study: Path) -> dict[str, str]:
    """What the command prints: the data are made by the first call."""
    shown = {}
    for option in ("--json", "--contamination"):
        done = CliRunner().invoke(app, ["prepare", str(study), "--contamination", option], catch_exceptions=False)
        assert done.exit_code == 0
        shown[option] = done.stdout
    return shown


@pytest.fixture(scope="module")
def data(study: Path, printed: dict[str, str]) -> Path:
    assert printed
    return study / "data"


@pytest.fixture(scope="module")
def result(data: Path) -> Contamination:
    return check(data, {"puzzles": [" ".join(item) for item in ITEMS], "riddles": [" ".join(item) for item in SHORT]})


def test_exactly_the_items_that_were_put_in_are_found_in_their_domains(result: Contamination) -> None:
    puzzles, _ = result.tasks
    assert puzzles.size == 13
    assert puzzles.by_domain == {"web": (0, 1, 2, 3, 4, 5), "code": (5, 6, 7, 8, 10)}
    assert puzzles.found == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10)
    assert (puzzles.items, puzzles.short) == (40, 0)


def test_items_too_short_to_check_are_counted_separately(result: Contamination) -> None:
    _, riddles = result.tasks
    assert (riddles.size, riddles.items, riddles.short, riddles.found) == (8, 2, 2, ())


def test_the_report_has_counts_domains_and_examples_as_text_and_json(result: Contamination) -> None:
    shown = str(result)
    assert ["puzzles", "40", "13", "40", "10", "web", "6,", "code", "5"] in [
        line.split() for line in shown.splitlines()
    ]
    assert f"item 0 in web: {' '.join(ITEMS[0][:13])}" in " ".join(shown.split())
    assert shown.endswith("10 of 42 items are in the training text")
    (puzzles, riddles) = json.loads(json.dumps(result.as_json()))["contamination"]
    assert puzzles["by_domain"]["code"] == [5, 6, 7, 8, 10]
    assert [example["item"] for example in puzzles["examples"]] == [0, 1, 2]
    assert riddles["short"] == 2


def test_several_processes_find_the_same(data: Path, result: Contamination) -> None:
    shares: list[float] = []
    items = {"puzzles": [" ".join(item) for item in ITEMS], "riddles": [" ".join(item) for item in SHORT]}
    again = check(data, items, processes=2, progress=lambda share, _: shares.append(share))
    assert again == result
    assert shares[-1] == pytest.approx(1.0)


def test_the_command_looks_for_the_items_of_the_data_folder(
    data: Path, printed: dict[str, str], tmp_path: Path
) -> None:
    stored = {name: known.count for name, known in read_manifest(data).items.items() if known.count}
    answer = json.loads(printed["--json"])
    check_document("prepare", answer)
    assert set(answer["domains"]) == {"web", "code"}
    assert {task["task"]: task["items"] for task in answer["contamination"]} == stored
    assert {task["task"]: task["found"] for task in answer["contamination"] if task["found"]} == {
        "humaneval": [7, 11, 29]  # the statement of 29 begins with 13 words of 7
    }
    rows = [line.split() for line in printed["--contamination"].splitlines()]
    assert ["humaneval", "164", "13", "164", "3", "web", "3"] in rows
    with pytest.raises(InputError, match="there is no data"):
        check(tmp_path)


def test_the_length_of_an_n_gram_is_that_of_the_shortest_items_within_8_and_13() -> None:
    assert size_for([3] * 100) == 8
    assert size_for([40] * 100) == 13
    assert size_for([10] * 6 + [40] * 94) == 10  # more than 5 % have 10 words
    assert size_for([10] * 4 + [40] * 96) == 13


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("Don't  STOP_me: x=[1,2]\n") == ["don", "t", "stop_me", "x", "1", "2"]


@given(st.lists(st.text("ab ", min_size=12, max_size=40), min_size=1, max_size=4), st.text("abc ", max_size=120))
def test_the_search_finds_what_a_plain_comparison_finds(items: list[str], document: str) -> None:
    finder = Finder({"task": items})
    size = finder.sizes["task"]
    there = [tuple(words(document)[start : start + size]) for start in range(len(words(document)) - size + 1)]
    wanted = {
        (number, gram)
        for number, item in enumerate(items)
        for start in range(len(words(item)) - size + 1)
        if (gram := tuple(words(item)[start : start + size])) in there
    }
    assert {(item, gram) for _, item, gram in finder.find(document)} == wanted
