"""The chat client against a real server over a small checkpoint: answers, order, retries, refusals, transcripts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from chat_server import Server, memorised, serve
from mixlaw.errors import InputError
from mixlaw.runner.evaluate.chat import Chat, Endpoint, Reply, Request

ANSWERS = {
    "Which colour has grass?": "Grass is green.",
    "Add two numbers in Python.": "def add(a, b):\n    return a + b",
    "What comes after seven?": "Eight.",
}
QUESTIONS = [Request((("user", question),), {"temperature": 0, "max_tokens": 40}) for question in ANSWERS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "parrot"
    return memorised(folder, [([("user", question)], answer) for question, answer in ANSWERS.items()])


@pytest.fixture
def server(checkpoint: Path) -> Iterator[Server]:
    with serve(checkpoint) as running:
        yield running


def chat(server: Server, folder: Path, **settings: object) -> Chat:
    return Chat(Endpoint(server.url, "parrot", **settings), folder / "chat.jsonl")  # type: ignore[arg-type]


def test_answers_of_the_checkpoint_arrive_in_the_order_of_the_questions(server: Server, tmp_path: Path) -> None:
    replies = list(chat(server, tmp_path).ask(QUESTIONS * 2))
    assert replies == [Reply(answer, "stop") for answer in ANSWERS.values()] * 2
    assert len(server.requests) == 3, "the same request is asked once"


def test_options_reach_the_server(server: Server, tmp_path: Path) -> None:
    short, cut = (Request(QUESTIONS[1].messages, {"temperature": 0, **more}) for more in OPTIONS)
    assert next(chat(server, tmp_path).ask([short])).finish == "length"
    assert next(chat(server, tmp_path).ask([cut])) == Reply("def add(a, b):", "stop")


OPTIONS: tuple[dict[str, object], ...] = ({"max_tokens": 2}, {"stop": ["\n    return"], "max_tokens": 40})


def test_a_transcript_repeats_the_request_and_answers_when_the_server_is_gone(server: Server, tmp_path: Path) -> None:
    replies = list(chat(server, tmp_path).ask(QUESTIONS))
    rows = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines()]
    assert {row["request"]["messages"][0]["content"] for row in rows} == set(ANSWERS)
    assert all(row["url"] == server.url and row["request"]["model"] == "parrot" for row in rows)
    assert all(row["response"]["usage"]["completion_tokens"] > 1 for row in rows)
    asked = len(server.requests)
    assert list(chat(server, tmp_path).ask(QUESTIONS)) == replies
    assert len(server.requests) == asked


def test_half_a_line_of_a_killed_process_is_cut_and_asked_again(server: Server, tmp_path: Path) -> None:
    replies = list(chat(server, tmp_path).ask(QUESTIONS))
    path = tmp_path / "chat.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert list(chat(server, tmp_path).ask(QUESTIONS)) == replies
    assert len(server.requests) == 4
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


def test_a_damaged_line_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text('{"key": "a"}\n')
    with pytest.raises(InputError, match=r"chat.jsonl:1 is damaged"):
        chat(server, tmp_path)


def test_a_full_or_failing_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.failures = [429, 503]
    assert next(chat(server, tmp_path).ask(QUESTIONS[:1])).text == "Grass is green."
    assert len(server.requests) == 3


def test_no_more_than_so_many_requests_are_under_way(server: Server, tmp_path: Path) -> None:
    requests = [Request((("user", f"Question {n}"),), {"max_tokens": 8}) for n in range(12)]
    assert len(list(chat(server, tmp_path, parallel=3).ask(requests))) == 12
    assert 2 <= server.most <= 3


def test_the_key_comes_from_the_environment_and_stays_out_of_the_transcript(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sesame-open"
    monkeypatch.setenv("PARROT_KEY", "wrong")
    with pytest.raises(InputError, match=r"refuses the key in \$PARROT_KEY"):
        list(chat(server, tmp_path, key="PARROT_KEY").ask(QUESTIONS))
    monkeypatch.setenv("PARROT_KEY", "sesame-open")
    assert len(list(chat(server, tmp_path, key="PARROT_KEY").ask(QUESTIONS))) == 3
    assert "sesame" not in (tmp_path / "chat.jsonl").read_text()


def test_no_message_repeats_a_secret(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-planted")
    for url, key in (
        ("http://me:sk-planted@h/v1", "K"),
        ("http://h/v1?key=sk-planted", "K"),
        (server.url, "sk-planted"),
    ):
        with pytest.raises(InputError, match="environment variable") as refusal:
            Endpoint(url, "m", key)
        assert "planted" not in str(refusal.value)
    with pytest.raises(InputError, match="is no URL: correct it"):
        Endpoint("http://[", "m")
    server.key = "another"  # it repeats the one that it got
    with pytest.raises(InputError, match=r"refuses the key in \$JUDGE_KEY: .*incorrect API key \$JUDGE_KEY") as refusal:
        list(chat(server, tmp_path, key="JUDGE_KEY").ask(QUESTIONS))
    assert "planted" not in str(refusal.value)


def test_wrong_models_and_silent_addresses_are_input_errors(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model 'owl'.*does not exist"):
        list(Chat(Endpoint(server.url, "owl"), tmp_path / "a.jsonl").ask(QUESTIONS))
    with pytest.raises(InputError, match=r"no answer from http://127.0.0.1:9/v1 .*is the server running"):
        list(Chat(Endpoint("http://127.0.0.1:9/v1", "owl", retries=0), tmp_path / "b.jsonl").ask(QUESTIONS))


def test_an_endpoint_that_gives_no_answer_is_asked_nothing_more(tmp_path: Path) -> None:
    calls: list[object] = []

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                connection, address = listening.accept()
                calls.append(address)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=hang_up, daemon=True).start()
        endpoint = Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "owl", retries=1, parallel=1)
        silent = Chat(endpoint, tmp_path / "chat.jsonl")
        for question in QUESTIONS:
            with pytest.raises(InputError, match="no answer from"):
                list(silent.ask([question]))
        assert len(calls) == 2, "once, and one retry"
