"""The harness on local YAML tasks: values and errors are those of a plain loop; what cannot be run is said first."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chat_server import continuing
from mixlaw.errors import InputError
from mixlaw.runner.evaluate import paper
from mixlaw.runner.evaluate.harness import Harness, _folders_with, _index, _manager
from mixlaw.runner.evaluate.measure import Subject
from mixlaw.runner.evaluate.team import leading, serve
from mixlaw.runner.train.parallel import Ranks
from ranks import together

COLOURS = {"grass": "green", "snow": "white", "coal": "black", "blood": "red", "gold": "yellow", "the sky": "blue"}
CHOICE = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/colours.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The colour of {{{{thing}}}} is"
doc_to_target: "{{{{right}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.5}}
"""
ANSWER = """
task: colours_said
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/colours.jsonl}}}}
test_split: test
output_type: generate_until
num_fewshot: 0
doc_to_text: "The colour of {{{{thing}}}} is"
doc_to_target: "{{{{choices[right]}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 8, do_sample: false}}
filter_list: [{{name: bare, filter: [{{function: remove_whitespace}}]}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""
PERPLEXITY = """
task: colours_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/colours.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "The colour of {{{{thing}}}} is {{{{choices[right]}}}}."
metric_list:
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
metadata: {{version: 0.0}}
"""


def rows() -> list[dict[str, Any]]:
    """Colours against longer wrong ones; of two things the file says the wrong colour."""
    found = []
    for number, (thing, colour) in enumerate(COLOURS.items()):
        wrong = "a colour that nobody has seen"
        choices = [wrong, colour] if number % 2 else [colour, wrong]
        found.append({"thing": thing, "choices": choices, "right": number % 2 if number < 4 else 1 - number % 2})
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    for name, text in (("colours", CHOICE), ("said", ANSWER), ("text", PERPLEXITY)):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("model")
    pairs = [(f"The colour of {thing} is", f" {colour}.") for thing, colour in COLOURS.items()]
    loaded = Subject.load(continuing(folder / "model", pairs), folder)
    return Subject(loaded.model, loaded.tokens, 128, folder)


def nats(subject: Subject, context: str, answer: str) -> float:
    """By transformers' own loss; the harness gives no end of text before a context."""
    begin = subject.tokenizer(context)["input_ids"] or [0]
    ids = torch.tensor([begin + subject.tokenizer(answer)["input_ids"]])
    labels = ids.clone()
    labels[:, : len(begin)] = -100
    with torch.no_grad():
        return float(subject.model(input_ids=ids, labels=labels).loss) * (ids.shape[1] - len(begin))


@pytest.mark.parametrize(("metric", "by_length"), [("acc", False), ("acc_norm", True)])
def test_accuracy_and_its_error_are_those_of_a_plain_loop(
    subject: Subject, tasks: Path, metric: str, by_length: bool
) -> None:
    right = []
    for row in rows():
        context = f"The colour of {row['thing']} is"
        scores = [
            -nats(subject, context, f" {choice}") / (len(choice) if by_length else 1) for choice in row["choices"]
        ]
        right.append(int(np.argmax(scores)) == row["right"])
    found = Harness("colours", metric=metric, include=str(tasks)).measure("colours", subject)
    assert 0 < np.mean(right) < 1
    assert found.value == pytest.approx(np.mean(right))
    assert found.stderr == pytest.approx(np.std(right, ddof=1) / math.sqrt(len(right)))
    assert found.count == 6
    assert found.details["version"] == 1.5
    assert found.details["metric"] == f"{metric},none"
    assert found.details["harness"].startswith("0.4")


def test_the_usual_metric_is_taken_and_twice_the_same(subject: Subject, tasks: Path) -> None:
    harness = Harness("colours", include=str(tasks))
    state = torch.get_rng_state()
    subject.model.train()
    found = harness.measure("colours", subject)
    assert found == harness.measure("colours", subject)
    assert found.details["metric"] == "acc_norm,none"
    assert subject.model.training
    assert torch.equal(torch.get_rng_state(), state), "the harness seeds everything: a worker trains on as before"
    subject.model.eval()


def test_generated_answers_are_compared_and_limits_and_stdout_are_kept(
    subject: Subject, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for row in rows()[:5]:
        ids = subject.tokenizer(f"The colour of {row['thing']} is", return_tensors="pt")
        made = subject.model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        said.append(subject.tokenizer.decode(made).partition(".")[0].strip() == row["choices"][row["right"]])
    found = Harness("colours_said", include=str(tasks), limit=5).measure("said", subject)
    assert 0 < np.mean(said) < 1
    assert (found.value, found.count, found.details["limit"]) == (np.mean(said), 5, 5)
    assert found.details["metric"] == "exact_match,bare"
    assert capsys.readouterr() == ("", ""), "stdout of a worker belongs to its protocol, stderr to the run's progress"


def test_bits_per_byte_of_the_harness_are_a_loss(subject: Subject, tasks: Path) -> None:
    texts = [f"The colour of {row['thing']} is {row['choices'][row['right']]}." for row in rows()]
    expected = sum(nats(subject, "", text) for text in texts) / sum(map(len, texts)) / math.log(2)
    found = Harness("colours_text", unit="bits/byte", include=str(tasks)).measure("text", subject)
    assert found.value == pytest.approx(expected, rel=1e-5)
    with pytest.raises(
        InputError, match="bits_per_byte of colours_text is better when it is lower, and accuracy is not"
    ):
        Harness("colours_text", include=str(tasks)).measure("text", subject)


@pytest.mark.parametrize("task", ["colours", "colours_said"])
def test_what_does_not_fit_is_asked_in_halves(task: str, subject: Subject, tasks: Path) -> None:
    harness, sizes = Harness(task, include=str(tasks)), list[int]()
    expected = harness.measure(task, subject)

    def limited(_: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        sizes.append(len(args[0] if args else kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("no room")

    hook = subject.model.register_forward_pre_hook(limited, with_kwargs=True)
    found = harness.measure(task, subject)
    hook.remove()
    assert max(sizes) > 2 >= sizes[-1]
    assert found.value == expected.value


def _together(ranks: Ranks, folder: Path, tasks: Path, length: int) -> None:
    subject = replace(Subject.load(folder, folder, ranks), length=length)
    if not ranks.first:
        serve(subject)
        return
    with leading(subject):
        measured = [
            Harness(name, unit=unit, include=str(tasks)).measure(name, subject)
            for name, unit in (("colours", "accuracy"), ("colours_said", "accuracy"), ("colours_text", "bits/byte"))
        ]
    (folder / f"{ranks.world}.json").write_text(json.dumps([[one.value, one.stderr, one.count] for one in measured]))


def test_ranks_share_the_requests_of_a_task(subject: Subject, tasks: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(subject.tokens, tmp_path / "model"))
    for world in (1, 2):
        together(world, _together, folder, tasks, subject.length)
    alone, both = (json.loads((folder / f"{world}.json").read_text()) for world in (1, 2))
    assert np.allclose(np.array(alone[:2], float), np.array(both[:2], float))
    assert alone[2][0] == pytest.approx(both[2][0], rel=1e-5)


def test_what_the_harness_does_not_have_is_told_before_anything_is_trained(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colours_said of the harness is fixed to 0 examples; take out shots = 5"):
        Harness("colours_said", include=str(tasks), shots=5).check()
    broken = CHOICE.format(folder=tmp_path).replace("task: colours", "task: broken")
    (tmp_path / "broken.yaml").write_text(broken)
    with pytest.raises(InputError, match=r"'broken' of lm-evaluation-harness cannot be loaded \(FileNotFoundError"):
        Harness("broken", include=str(tmp_path)).check()


def test_an_unknown_metric_names_those_there_are(subject: Subject, tasks: Path) -> None:
    with pytest.raises(InputError, match=r"has no metric 'f1'; choose one of acc,none, acc_norm,none"):
        Harness("colours", metric="f1", include=str(tasks)).measure("colours", subject)


def test_every_task_of_the_papers_suite_is_one_of_the_installed_harness() -> None:
    asked = {task["harness"]["task"] for task in paper.TASKS.values() if "harness" in task}
    assert [task for task in asked if task not in _manager(None, task).all_tasks] == []
    assert _folders_with("quac") == (), "the harness has it now: take it in place of coqa"
    assert sorted(task for group in paper.GROUPS.values() for task in group) == sorted(paper.TASKS)
    assert [len(group) for group in paper.GROUPS.values()] == [11, 2, 2]
    with pytest.raises(InputError, match="has no task 'quac'"):
        Harness("quac").check()


def test_a_task_whose_data_are_on_the_hub_says_so_where_there_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets.config.HF_HUB_OFFLINE", "huggingface_hub.constants.HF_HUB_OFFLINE"):
        monkeypatch.setattr(name, True)
    with pytest.raises(InputError, match=r"'boolq' of lm-evaluation-harness cannot be loaded .*are on the hub"):
        Harness("boolq").check()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    _index.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'mixlaw\[eval\]'"):
        Harness("boolq").check()
    _index.cache_clear()
