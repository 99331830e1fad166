"""Tasks of a study: what study.toml may say of them, what is refused before training, and what a run records."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from chat_server import memorised
from mixlaw.errors import InputError
from mixlaw.records import Unit
from mixlaw.runner.tasks import paper
from mixlaw.runner.tasks.judge import QUESTION
from mixlaw.runner.tasks.registry import KINDS, read
from mixlaw.settings import Settings, validate
from mixlaw.study import Study, open_study
from small_study import SETTINGS, copy, prepare
from test_harness import CHOICE, rows
from test_jail import needs_bubblewrap
from test_programs import HUMANEVAL

HEAD, _, _ = SETTINGS.partition("[[recipes]]")
PLAIN = f'{HEAD}[[recipes]]\nsize = "0.025M"\nphases = {{ init = "half", continue = "half", cooldown = "text" }}\n'
PLAIN = PLAIN.replace("[tasks]\n", '[tasks]\ncapitals = "accuracy"\n')
MORE = """
[tasks.capitals_probability]
unit = "choice-prob"
items = "capitals"
[tasks.colours]
unit = "accuracy"
harness = { task = "colours", include = "." }
[tasks.coding]
unit = "pass@1"
programs = { problems = "problems.jsonl", tokens = 8 }
[tasks.chat]
unit = "win-rate"
[tasks.chat.judge]
url = "URL"
model = "judge"
reference = "judge"
prompts = "prompts.jsonl"
tokens = 8
options = { temperature = 0, max_tokens = 8 }
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepare(tmp_path_factory.mktemp("tasks") / "study", PLAIN)
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "colours.yaml").write_text(CHOICE.format(folder=folder))
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in HUMANEVAL))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("One", "Two")))
    shown = [QUESTION.format(prompt=n, first=n * 5, second=n + 9) for n in range(4)]
    chats = [([("user", text)], "[[A]]") for text in shown]
    memorised(folder / "judge", chats)
    return folder


def told(study: Study, text: str) -> Study:
    """The study with more in its study.toml."""
    (study.path / "study.toml").write_text((study.path / "study.toml").read_text() + text)
    return open_study(study.path)


@needs_bubblewrap
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tasks.coding]\nunit = "pass@1"\nprograms = "none.jsonl"\n', "tasks.coding: .*none.jsonl cannot be read"),
        ('[tasks.chat]\nunit = "win-rate"\njudge = { url = "http://127.0.0.1:9/v1", model = "x", reference = "y" }\n',
         "tasks.chat: there is no checkpoint at .*/y to compare with"),
        ('[tasks.where]\nunit = "accuracy"\nitems = "places"\n', "tasks.where: there are no items 'places'"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_before_anything_is_trained(
    prepared: Path, tmp_path: Path, text: str, message: str
) -> None:
    study = told(copy(prepared, tmp_path / "study"), text)
    with pytest.raises(InputError, match=message):
        study.run(workers=1)
    assert not list(study.runs.glob("*/checkpoint"))


def test_held_out_text_has_no_accuracy(prepared: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    wrong = (study.path / "study.toml").read_text().replace('code = "bits/byte"', 'code = "nats/token"')
    (study.path / "study.toml").write_text(wrong)
    with pytest.raises(InputError, match="code is held-out text, which is measured in bits/byte"):
        _ = open_study(study.path).setup


def test_the_papers_suite_is_one_word_and_ones_own_words_go_before_it(tmp_path: Path) -> None:
    own = {"boolq": {"unit": "accuracy", "harness": {"task": "boolq", "limit": 100}}}
    settings = validate({"suites": ["paper"], "tasks": {"prose": "bits/byte", **own}}, tmp_path / "study.toml")
    assert set(settings.tasks) == {"prose", *paper.TASKS}
    assert settings.tasks["boolq"].harness is not None
    assert settings.tasks["boolq"].harness.limit == 100
    assert settings.chance()["hellaswag"] == 0.25
    assert settings.groups["code"] == ["humaneval_pass", "mbpp_pass"]
    assert validate({"suites": ["paper"], "groups": {"a": ["copa"], "b": ["cb"]}}, tmp_path).groups.keys() == {"a", "b"}
    assert all(Unit(unit) for unit in settings.units().values())
    with pytest.raises(InputError, match=r"suites.0 = 'papers'"):
        validate({"suites": ["papers"]}, tmp_path / "study.toml")


def test_a_suite_alone_leaves_the_tasks_of_the_data(prepared: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    head, _, rest = PLAIN.partition("[tasks]")
    (study.path / "study.toml").write_text('suites = ["paper"]\n' + head + rest[rest.index("[tokenizer]") :])
    study = open_study(study.path)
    assert {"text", "code", "capitals", "humaneval"} <= set(study.units)
    assert set(paper.TASKS) <= set(study.units)
    assert study.units["humaneval"] == "bits/byte"
    assert set(study.setup.measures) == set(paper.TASKS)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"unit": "accuracy", "programs": "mbpp"},
            r"tasks.x.*what programs measures has the unit pass@1, got 'accuracy'",
        ),
        ({"unit": "accuracy", "items": "a", "harness": "b"}, r"measured in one way, got items and harness"),
        ({"unit": "win-rate", "judge": {"url": "u", "model": "m"}}, r"tasks.x.judge.reference is missing"),
        ({"unit": "accuracy", "harness": {"task": "b", "shot": 1}}, r"unknown key 'tasks.x.harness.shot'"),
    ],
)
def test_wrong_tasks_are_named_with_the_fix(task: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        validate({"tasks": {"x": task}}, tmp_path / "study.toml")


def test_the_study_of_the_page_on_evaluation_is_a_study(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "evaluation.md"
    text = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    settings = validate(tomllib.loads(text), tmp_path / "study.toml")
    assert {told["kind"] for task in settings.tasks.values() if (told := task.measure())} == set(KINDS)
    assert settings.suites == ["paper"]


def test_measures_travel_as_json() -> None:
    settings = Settings.model_validate({
        "tasks": {
            "a": {"unit": "accuracy", "items": "capitals"},
            "b": {"unit": "accuracy", "harness": "boolq"},
            "c": {"unit": "pass@1", "programs": "human-eval"},
            "d": {"unit": "win-rate", "judge": {"url": "u", "model": "m", "reference": "r"}},
        }
    })  # fmt: skip
    for task in settings.tasks.values():
        measure = read(json.loads(json.dumps(task.measure())))
        assert read(json.loads(json.dumps(measure.as_json()))) == measure
        assert measure.as_json() == task.measure()
    assert [task.measure()["kind"] for task in settings.tasks.values()] == list(KINDS)  # type: ignore[index]
