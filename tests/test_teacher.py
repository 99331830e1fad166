"""Code from a teacher: a real server over a checkpoint that was trained to answer some problems right, some wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_server import Server, memorised, serve
from mixlaw.errors import InputError
from mixlaw.runner.corpora.sources.answers import Answer, NoAnswer, parse_answer
from mixlaw.runner.corpora.sources.registry import identity, partitions, read
from mixlaw.runner.corpora.sources.teacher import Synthesis, synthesise
from mixlaw.runner.evaluate.sandbox.run import Status, run_untrusted
from test_jail import unable

PROMPT = "Solve: {statement}"


def blocks(solution: str, tests: str) -> str:
    return f"```python\n{solution}\n```\n\n```python\n{tests}\n```"


ADD = "def add(a, b):\n    return a + b"
ADD_TESTS = "assert add(1, 2) == 3\nassert add(0, 0) == 0"

#: Problem -> what the checkpoint is taught to answer, and the verdict.
TAUGHT = {
    "Add two.": (blocks(ADD, ADD_TESTS), "passed"),
    "Sum.": (blocks(f"# again\n{ADD}", "assert add(2, 2) == 4"), "passed"),  # no solution is kept twice
    "Double it.": (blocks("def double(x):\n    return 2 * x", "assert double(4) == 8"), "passed"),
    "Square it.": (blocks("def square(x):\n    return x + x", "assert square(3) == 9"), "failed"),
    "Say hello.": (blocks("def hello():\n    return 'hi'", "assert True"), "tests prove nothing"),
    "Wait.": (blocks("def wait():\n    while True:\n        pass", "assert wait() is None"), "failed"),
    "Negate it.": (blocks("def negate(x):\n    return 0 - x", "assert negate(0) == 0"), "failed"),  # given tests
    "Why?": ("Because.", "no code"),
}
GIVEN = {"Negate it.": "assert negate(2) == -2\nassert negate(-1) == 2", "Add two.": ["assert add(5, 6) == 11"]}
KEPT = ["Add two.", "Double it."]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = [([("user", PROMPT.replace("{statement}", problem))], answer) for problem, (answer, _) in TAUGHT.items()]
    return memorised(tmp_path_factory.mktemp("server") / "teacher", told)


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Server]:
    with serve(checkpoint) as running:
        yield running


def settings(folder: Path, url: str, **more: object) -> Path:
    """A teacher.toml with its problems."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"statement": problem, **({"tests": GIVEN[problem]} if problem in GIVEN else {})} for problem in TAUGHT]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys: dict[str, object] = {"endpoint": url, "model": "teacher", "problems": "problems.jsonl", "prompt": PROMPT}
    keys |= {"temperature": 0.0, "max_tokens": 120, "seconds": 2.0, "parallel": 2, **more}
    file = folder / "teacher.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
    return file


@pytest.fixture(scope="module")
def done(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Synthesis]:
    if reason := unable():
        pytest.skip(reason)
    file = settings(tmp_path_factory.mktemp("teacher"), server.url)
    return file, synthesise(file)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_answer_has_the_verdict_that_it_was_made_for(done: tuple[Path, Synthesis]) -> None:
    file, found = done
    attempts = rows(file.with_name("teacher.attempts.jsonl"))
    assert {row["statement"]: row["verdict"] for row in attempts} == {
        problem: verdict for problem, (_, verdict) in TAUGHT.items()
    }
    reasons = {row["statement"]: row["reason"] for row in attempts}
    assert reasons["Wait."] == "ran out of time"
    assert "AssertionError" in reasons["Square it."]
    assert (found.attempts, found.documents) == (len(TAUGHT), len(KEPT))
    assert found.verdicts["failed"] == 3
    assert str(found).startswith(f"{len(KEPT)} documents of {len(TAUGHT)} attempts in ")


def test_what_is_kept_passes_when_run_again_and_what_is_not_does_not(done: tuple[Path, Synthesis]) -> None:
    file, found = done
    kept = rows(found.kept)
    assert [row["statement"] for row in kept] == KEPT
    for row in kept:
        assert run_untrusted(row["text"]).status is Status.DONE
    for row in rows(file.with_name("teacher.attempts.jsonl")):
        if row["verdict"] == "failed":
            program = "\n".join([row["solution"], row["tests"], row["given_tests"]])
            assert run_untrusted(program, seconds=2).status is not Status.DONE


def test_a_document_is_the_statement_the_solution_and_its_tests_with_all_that_it_comes_from(
    done: tuple[Path, Synthesis], server: Server
) -> None:
    row = rows(done[1].kept)[0]
    assert row["text"] == f"# Add two.\n\n{ADD}\n\n{ADD_TESTS}\n"
    assert (row["model"], row["endpoint"], row["prompt"]) == ("teacher", server.url, "Solve: Add two.")
    assert row["sampling"] == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 120}
    assert (row["seed"], row["problem"], row["sample"], row["verdict"]) == (0, 1, 0, "passed")
    assert row["given_tests"] == "assert add(5, 6) == 11"
    assert row["date"].endswith("+00:00")


def test_it_is_a_source_and_what_it_kept_is_another(done: tuple[Path, Synthesis]) -> None:
    file, found = done
    (part,) = partitions("teacher:teacher.toml", file.parent)
    texts = [document.text for document in part.read()]
    assert texts == [row["text"] for row in rows(found.kept)]
    assert [document.text for document in read("teacher.kept.jsonl", file.parent)] == texts
    before = identity("teacher:teacher.toml", file.parent)
    os.utime(file.with_name("teacher.kept.jsonl"), (1, 1))
    assert identity("teacher:teacher.toml", file.parent) == before
    os.utime(file.with_name("problems.jsonl"), (1, 1))
    assert identity("teacher:teacher.toml", file.parent) != before


def test_nothing_is_asked_twice_and_more_samples_only_add(server: Server, done: tuple[Path, Synthesis]) -> None:
    (file, first), asked = done, len(server.requests)
    told: list[float] = []
    assert synthesise(file, lambda share, _: told.append(share)) == first
    assert (len(server.requests), told) == (asked, [])
    settings(file.parent, server.url, samples=2)
    again = synthesise(file, lambda share, _: told.append(share))
    assert [request["seed"] for request in server.requests[asked:]] == [1] * len(TAUGHT)
    assert (again.attempts, again.documents) == (2 * first.attempts, first.documents)
    assert told[-1] == 1.0


CLIENT = """
import sys
from pathlib import Path
from mixlaw.runner.corpora.sources.teacher import synthesise
synthesise(Path(sys.argv[1]))
"""


def test_killed_in_the_midst_it_goes_on_where_it_was(
    server: Server, tmp_path: Path, done: tuple[Path, Synthesis]
) -> None:
    file = settings(tmp_path, server.url, parallel=1)
    ledger = file.with_name("teacher.attempts.jsonl")
    process = subprocess.Popen([sys.executable, "-c", CLIENT, str(file)])
    while not ledger.exists() or not ledger.stat().st_size:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows(ledger)
    assert 0 < len(before) < len(TAUGHT)
    with ledger.open("a") as end:
        end.write('{"key": "cut')  # a line that was being written
    found = synthesise(file)
    assert rows(ledger)[: len(before)] == before
    assert len(rows(ledger)) == len(TAUGHT)
    assert [row["text"] for row in rows(found.kept)] == [row["text"] for row in rows(done[1].kept)]


def test_an_endpoint_that_is_gone_and_wrong_settings_are_told(server: Server, tmp_path: Path) -> None:
    file = settings(tmp_path, "http://127.0.0.1:9/v1")
    for change, message in (
        ({"samples": 0}, r"samples \(is 0\): Input should be greater than or equal to 1; keys are endpoint, model"),
        ({"prompt": "Solve"}, r"the prompt lacks \{statement\}"),
        ({"modle": "x"}, r"modle \(is 'x'\): Extra inputs are not permitted"),
        ({"problems": "none.jsonl"}, "none.jsonl cannot be read as problems"),
    ):
        settings(tmp_path, server.url, **change)
        with pytest.raises(InputError, match=message):
            partitions("teacher:teacher.toml", tmp_path)
    settings(tmp_path, server.url)
    (tmp_path / "problems.jsonl").write_text('{"statement": "x", "tests": "assert ("}\n')
    with pytest.raises(InputError, match=r"problems.jsonl line 1 is no problem \(SyntaxError"):
        synthesise(file)
    settings(tmp_path, server.url, model="other")
    with pytest.raises(InputError, match=r"refuses a request: .*'other' does not exist"):
        synthesise(file)


def test_an_answer_is_parse_answer_by_what_its_statements_are() -> None:
    text = (
        "Here:\n```python\nimport math\nfrom os import sep\nPI = 3  # about\n\n@staticmethod\ndef area(r):\n"
        "    # of a disc\n    return PI * r\n\nprint(area(1))\n```\nand\n```\nassert area(1) == 3\n\ndef test_area():\n"
        "    assert area(2) == 6\n\nif __name__ == '__main__':\n    test_area()\n```\n"
    )
    assert parse_answer(text) == Answer(
        "import math\nfrom os import sep\n\n\nPI = 3  # about\n\n\n"
        "@staticmethod\ndef area(r):\n    # of a disc\n    return PI * r",
        "assert area(1) == 3\ndef test_area():\n    assert area(2) == 6\ntest_area()",
    )
    assert Answer("def f(x):\n    '''Doc.'''\n    return x", "").emptied == "def f(x):\n    return None"
    with pytest.raises(NoAnswer, match="no code"):
        parse_answer("def f(): pass")
