"""Tasks of a study: what study.toml may say of them, what is refused before training, and what a run records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat_server import continuing, memorised, refusing, serve
from mixlaw.errors import InputError
from mixlaw.folder.tasks import measures_of
from mixlaw.records import Unit, write_record
from mixlaw.runner.evaluate import paper
from mixlaw.runner.evaluate.programs import read_problems
from mixlaw.runner.evaluate.run import KINDS, read_measure
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.machines import Local
from mixlaw.runner.execute.queue import RunOutcome
from mixlaw.runner.plan.devices import Machine
from mixlaw.runner.plan.tree import plan
from mixlaw.settings import Settings, validate
from mixlaw.study import Study, open_study
from small_study import SETTINGS, copy, prepare
from test_harness import CHOICE, COLOURS, rows
from test_jail import needs_bubblewrap
from test_judge import CASES, verdicts
from test_programs import ANSWERS, HUMANEVAL

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
programs = { problems = "problems.jsonl", tokens = 64 }
[tasks.chat]
unit = "win-rate"
[tasks.chat.judge]
url = "URL"
model = "judge"
reference = "theirs"
prompts = "prompts.jsonl"
tokens = 32
options = { temperature = 0, max_tokens = 16 }
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("tasks") / "study", PLAIN)


def told(study: Study, text: str) -> Study:
    """The study with more in its study.toml."""
    (study.path / "study.toml").write_text((study.path / "study.toml").read_text() + text)
    return open_study(study.path)


#: What the model of a run has learnt before it: colours, programs (the second one is wrong), answers.
COLOURED = [(f"The colour of {thing} is", f" {colour}.") for thing, colour in COLOURS.items()]
CHATS = [case for case in CASES if case[3:] in (("A", "B"), ("A", "A"), (None, None))]  # a win, a bias, one answer


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a model that knows things and learns next to nothing more, with its reference and its judge."""
    folder = tmp_path_factory.mktemp("knowing")
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in HUMANEVAL))
    prompts = [problem.prompt for problem in read_problems(str(folder / "problems.jsonl"))]
    ours = [(prompt, f" {answer}") for prompt, answer, *_ in CHATS]
    continuing(folder / "start", [*zip(prompts, ANSWERS, strict=False), *COLOURED, *ours])
    settings = PLAIN.replace("0.025M", "0.08M").replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 300")
    settings = settings.replace("vocabulary = 300", f'file = "{folder / "start"}"')
    training = f'sinks = ["tensorboard", "wandb"]\nsequence = 256\nstart = "{folder / "start"}"\nlearning_rate = 1e-12'
    study = prepare(folder / "study", settings.replace("sequence = 32", training))
    (folder / "problems.jsonl").rename(study / "problems.jsonl")
    (study / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (study / "colours.yaml").write_text(CHOICE.format(folder=study))
    (study / "prompts.jsonl").write_text("".join(json.dumps({"prompt": case[0]}) + "\n" for case in CHATS))
    continuing(study / "theirs", [(prompt, f" {theirs}") for prompt, _, theirs, *_ in CHATS])
    memorised(study / "judge", verdicts(CHATS))
    return study


@needs_bubblewrap
def test_the_command_records_what_harness_sandbox_and_judge_find(knowing: Path) -> None:
    study = open_study(knowing)
    before = study.setup.identity
    with serve(knowing / "judge") as server:
        study = told(study, MORE.replace("URL", server.url))
        assert study.setup.identity == before, "tasks do not change what a recipe trains to"
        command = [sys.executable, "-m", "mixlaw", "run", str(knowing), "--workers", "1", "--json"]
        environment = {**os.environ, "WANDB_MODE": "offline"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        asked = len(server.requests)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == {}, "and nothing else on stdout"
    assert len(list((study.path / "tensorboard").iterdir())) == len(list(study.path.glob("wandb/offline-run-*"))) == 3
    (record,) = study.records()
    assert list(record.values) == ["capitals", "text", "code", "capitals_probability", "colours", "coding", "chat"]
    assert all(m.stderr is not None and m.stderr > 0 for m in record.values.values())
    known = {task: (record.values[task].value, record.values[task].count) for task in ("colours", "coding", "chat")}
    assert known == {"colours": (4 / 6, 6), "coding": (1 / 2, 2), "chat": (pytest.approx((1 + 0.5 + 0.5) / 3), 3)}
    details = record.details["tasks"]
    assert asked == 1 + details["chat"]["judgements"] == 1 + 4, "once to see whether it is there"
    assert details["chat"]["first wins"] == 3 / 4
    assert details["colours"]["version"] == 1.5
    assert details["coding"]["problems"] == str(study.path / "problems.jsonl")
    assert details["capitals"]["chance"] == study.chance["capitals"] == pytest.approx(0.2)
    kept = study.runs / record.run / "evaluation"
    assert {path.name for path in kept.iterdir()} == {"coding.jsonl", "chat.jsonl", "chat.chat.jsonl"}
    assert study.table()["metric:colours"].to_list() == [record.values["colours"].value]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tasks.coding]\nunit = "pass@1"\nprograms = "none.jsonl"\n', "tasks.coding: .*none.jsonl cannot be read"),
        ('[tasks.chat]\nunit = "win-rate"\njudge = { url = "http://127.0.0.1:9/v1", model = "x", reference = "y" }\n',
         "tasks.chat: there is no checkpoint at .*/runs/y/checkpoint to compare with"),
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
        measure = read_measure(json.loads(json.dumps(task.measure())))
        assert read_measure(json.loads(json.dumps(measure.as_json()))) == measure
        where = {"store": None} if task.judge else {}  # which the machines that train decide
        assert measure.as_json() == {**(task.measure() or {}), **where}
    assert [task.measure()["kind"] for task in settings.tasks.values()] == list(KINDS)  # type: ignore[index]


def test_a_reference_is_a_folder_of_the_study_or_a_run_wherever_that_is(tmp_path: Path) -> None:
    def found(reference: str) -> Path:
        task = {"unit": "win-rate", "judge": {"url": "u", "model": "m", "reference": reference}}
        settings = Settings.model_validate({"tasks": {"d": task}})
        return Path(measures_of(tmp_path, settings, {})["d"]["reference"]).relative_to(tmp_path)

    assert found("baseline") == Path("runs", "baseline", "checkpoint")
    assert found("models/baseline") == Path("models", "baseline")
    (tmp_path / "baseline").mkdir()
    assert found("baseline") == Path("baseline")
    (tmp_path / "runs" / "baseline" / "checkpoint").mkdir(parents=True)
    assert found("baseline") == Path("runs", "baseline", "checkpoint")


def test_a_task_that_cannot_be_measured_is_left_out_and_measured_by_the_next_run(tmp_path: Path) -> None:
    study = open_study(prepare(tmp_path / "study", SETTINGS.replace("24_000", "2_000")))
    tree = plan([study.recipes()[0], study.recipes()[2]])
    one, other = (recipe.lineage for recipe in tree.recipes)

    def run(reference: Path, url: str) -> RunOutcome:
        judge = {"kind": "judge", "url": url, "model": "judge", "reference": str(reference)}
        setup = replace(study.setup, tasks=("text", "win", "code"), measures={"win": {**judge, "tokens": 4}})
        pending = tree.needed(study.measured, Local().trained(study.runs))
        return LocalExecutor(setup, study.runs, Machine("local", 1)).run(tree, pending)

    with refusing() as url:
        first = run(tmp_path / "nowhere", url)
        assert (len(first.done), first.failed, first.blocked) == (6, {}, ())
        assert {lineage: list(tasks) for lineage, tasks in first.unmeasured.items()} == {one: ["win"], other: ["win"]}
        assert f"{one} has no value of win: there is no checkpoint at {tmp_path / 'nowhere'}" in str(first)
        for record in study.records():
            marked = replace(record.values["text"], value=9.0)
            write_record(study.runs, replace(record, values={**record.values, "text": marked}))
        before = {record.run: dict(record.values) for record in study.records()}
        assert [set(values) for values in before.values()] == [{"text", "code"}] * 2
        assert study.measured == frozenset()

        # A model against itself wins half, and no judge is asked; against the other one the judge refuses.
        second = run(study.runs / one / "checkpoint", url)
    assert set(second.done) == {one, other}, "evaluated, not trained again"
    assert list(second.unmeasured) == [other]
    assert "refuses a request" in second.unmeasured[other]["win"]
    assert study.measured == {one}
    after = {record.run: dict(record.values) for record in study.records()}
    assert after[one].pop("win").value == 0.5
    assert after == before, "what was measured is not measured again"
