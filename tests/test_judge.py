"""Win rate with a real judge behind a real server: a small model that has learnt verdicts with a known outcome."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chat_server import Server, continuing, memorised, serve
from mixlaw.errors import InputError
from mixlaw.runner.evaluate.judge import PROMPTS, QUESTION, Judged, _verdict, read_prompts
from mixlaw.runner.evaluate.measure import Subject
from mixlaw.runner.evaluate.run import read_measure
from mixlaw.runner.execute.machines import Ray
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.store import Store, seal

Case = tuple[str, str, str, str | None, str | None]
#: Prompt, our answer, the reference's, and the verdicts with ours shown first and second.
CASES: tuple[Case, ...] = (
    ("Why is snow cold?", "It is frozen water.", "Because.", "A", "B"),  # ours is better
    ("What do cows eat?", "They eat stones.", "They eat grass.", "B", "A"),  # the reference is better
    ("Who bakes bread?", "A baker does.", "Bakers do.", "C", "C"),  # equally good
    ("When is noon?", "At twelve.", "At 12 o'clock.", "A", "A"),  # whatever is shown first
    ("How many legs has a dog?", "Four.", "Four legs.", "C", "B"),  # half a win
    ("Is fire hot?", "Yes.", "Yes.", None, None),  # the same answer: nobody is asked
)
SCORES = (1, 0, 0.5, 0.5, 0.75, 0.5)


def verdicts(cases: Iterable[Case]) -> list[tuple[list[tuple[str, str]], str]]:
    """What a judge is asked, in both orders, and says."""
    found = []
    for prompt, ours, theirs, *said in cases:
        for pair, verdict in zip(((ours, theirs), (theirs, ours)), said, strict=True):
            question = QUESTION.format(prompt=prompt, first=pair[0], second=pair[1])
            found += [([("user", question)], f"[[{verdict}]]")] if verdict else []
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    continuing(folder / "ours", [(prompt, f" {ours}") for prompt, ours, *_ in CASES])
    continuing(folder / "theirs", [(prompt, f" {theirs}") for prompt, _, theirs, *_ in CASES])
    memorised(folder / "judge", verdicts(CASES))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": case[0]}) + "\n" for case in CASES))
    return folder


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    return Subject.load(folder / "ours", folder)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serve(folder / "judge") as running:
        yield running


def judged(folder: Path, server: Server) -> Judged:
    options = {"temperature": 0, "max_tokens": 40}
    return Judged(server.url, "judge", str(folder / "theirs"), prompts=str(folder / "prompts.jsonl"), options=options)


def at(subject: Subject, folder: Path) -> Subject:
    return replace(subject, folder=folder)


def test_wins_ties_and_position_bias_are_those_that_the_judge_has_learnt(
    folder: Path, subject: Subject, server: Server, tmp_path: Path
) -> None:
    found = judged(folder, server).measure("chat", at(subject, tmp_path))
    assert found.value == pytest.approx(np.mean(SCORES))
    assert found.stderr == pytest.approx(np.std(SCORES, ddof=1) / math.sqrt(6))
    assert found.count == 6
    assert found.details["judgements"] == 10
    assert found.details["equal"] == 1
    assert found.details["ties"] == 3
    assert found.details["first wins"] == pytest.approx(4 / 7)  # A, B, B, A, A, A, B of those that are no tie
    assert found.details["orders agree"] == pytest.approx(3 / 5)


def test_transcripts_hold_answers_and_verdicts_and_answer_when_the_judge_is_gone(
    folder: Path, subject: Subject, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    task = judged(folder, server)
    found = task.measure("chat", at(subject, tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"planted" in path.read_bytes()]
    rows = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines()]
    assert [row["ours"].strip() for row in rows] == [ours for _, ours, *_ in CASES]
    assert [row["reference"].strip() for row in rows] == [theirs for _, _, theirs, *_ in CASES]
    assert [tuple(row["verdicts"]) for row in rows[:5]] == [case[3:] for case in CASES[:5]]
    asked = len(server.requests)
    assert task.measure("chat", at(subject, tmp_path)) == found
    assert len(server.requests) == asked


def test_a_judge_that_fails_half_way_is_asked_for_the_rest_only(
    folder: Path, subject: Subject, server: Server, tmp_path: Path
) -> None:
    task = replace(judged(folder, server), parallel=1)
    server.failures = [0, 0, 0, 400]
    with pytest.raises(InputError, match="refuses a request"):
        task.measure("chat", at(subject, tmp_path))
    before = len(server.requests)
    kept = len((tmp_path / "chat.chat.jsonl").read_text().splitlines())
    assert kept >= 3
    assert task.measure("chat", at(subject, tmp_path)).value == pytest.approx(np.mean(SCORES))
    assert len(server.requests) - before == 10 - kept


def test_a_model_against_itself_wins_half_and_nobody_is_asked(
    folder: Path, subject: Subject, server: Server, tmp_path: Path
) -> None:
    found = replace(judged(folder, server), reference=str(folder / "ours")).measure("chat", at(subject, tmp_path))
    assert (found.value, found.stderr, found.details["judgements"], server.requests) == (0.5, 0.0, 0, [])


def test_the_answers_of_a_reference_are_kept_for_the_next_worker_until_it_changes(
    folder: Path, subject: Subject, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, task = tmp_path / "theirs", judged(folder, server)
    shutil.copytree(folder / "theirs", here)
    task = replace(task, reference=str(here))
    of_study = replace(subject, folder=tmp_path, data=tmp_path / "data")
    first = task.measure("chat", of_study)
    assert first.value == pytest.approx(np.mean(SCORES))
    with monkeypatch.context() as patch:
        patch.setattr(Subject, "load", None)
        assert task.measure("chat", of_study) == first
    shutil.copytree(folder / "ours", here, dirs_exist_ok=True)
    assert task.measure("chat", of_study).value == 0.5, "against itself"


def test_a_reference_that_is_a_run_in_a_store_is_fetched_from_there(
    folder: Path, subject: Subject, server: Server, tmp_path: Path
) -> None:
    here, study, url = tmp_path / "draft", tmp_path / "study", "memory://judged"
    shutil.copytree(folder / "theirs", here)
    seal(here, tmp_path / "sealed", 1)
    Store(url).put(tmp_path / "sealed", "trained/checkpoint")
    task = replace(judged(folder, server), reference=str(study / "runs" / "trained" / "checkpoint"))
    setup = Setup("data", "", 300, 16, ("chat",), measures={"chat": task.as_json()})
    with pytest.raises(InputError, match=r"there is no checkpoint at .*trained/checkpoint to compare with"):
        read_measure(Ray(store="memory://empty").located(setup).measures["chat"]).check()
    found = read_measure(Setup.from_json(Ray(store=url).located(setup).as_json()).measures["chat"])
    found.check()
    assert found.measure("chat", at(subject, tmp_path)).value == pytest.approx(np.mean(SCORES))
    assert not (study / "runs").exists()


def test_a_judge_without_verdicts_gives_no_number(folder: Path, subject: Subject, tmp_path: Path) -> None:
    with serve(folder / "theirs") as babbling:
        task = replace(judged(folder, babbling), model="theirs")
        with pytest.raises(InputError, match=r"gave no \[\[A\]\], \[\[B\]\] or \[\[C\]\] in 10 of 10 judgements"):
            task.measure("chat", at(subject, tmp_path))


def test_what_is_missing_is_told_before_anything_is_trained(folder: Path, server: Server, tmp_path: Path) -> None:
    task = judged(folder, server)
    task.check()
    with pytest.raises(InputError, match=r"no checkpoint at .*nowhere to compare with"):
        replace(task, reference=str(tmp_path / "nowhere")).check()
    with pytest.raises(InputError, match="cannot be read as prompts"):
        replace(task, prompts=str(tmp_path / "none.jsonl")).check()
    with pytest.raises(InputError, match=r"model 'owl'.*does not exist"):
        replace(task, model="owl").check()


def test_the_last_verdict_of_a_reply_counts() -> None:
    assert _verdict("[[A]] looks better at first, but no: [[B]]") == "B"
    assert _verdict("Neither. [A] [[D]]") == ""


def test_there_are_forty_different_prompts_and_ones_own_are_read_once_each(tmp_path: Path) -> None:
    assert len(set(PROMPTS)) == len(PROMPTS) == 40
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n{"prompt": "a"}\n')
    assert read_prompts(str(tmp_path / "p.jsonl")) == ("a", "b")
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no prompts"):
        read_prompts(str(tmp_path / "p.jsonl"))
