"""Both ends of the pipe between programs and their tests, here without the sandbox around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.runner.evaluate.sandbox import remote
from mixlaw.runner.evaluate.sandbox.remote import PASSED, Remote, check, pack, serve, unpack
from mixlaw.runner.evaluate.sandbox.verdict import Check
from test_verdict import TYPED

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9))
)
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.binary())
PLAIN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
    ),
    max_leaves=12,
)


def run(program: str, tests: str) -> None:
    """Check a program with both ends in this process; raises what the tests raise."""
    requests, answers = SimpleQueue[Any](), SimpleQueue[Any]()
    served = threading.Thread(target=serve, args=(program, iter(requests.get, None), answers.put), daemon=True)
    served.start()
    task = Check.of(tests)
    try:
        check({"before": "", "names": task.names, "tests": tests}, iter(answers.get, None), requests.put)
    finally:
        requests.put(None)
        served.join()


@given(PLAIN)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    def never(_: object) -> int:
        raise AssertionError

    back = unpack(json.loads(json.dumps(pack(value, never))), never)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple)


@pytest.mark.parametrize(("program", "tests"), TYPED)
def test_values_keep_their_types(program: str, tests: str) -> None:
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        run(program, tests)
    finally:
        sys.set_int_max_str_digits(digits)


def test_what_a_program_keeps_is_sent_as_a_number_and_comes_back_as_itself() -> None:
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    one = object()
    assert unpack(pack([one, (one, bytearray(b"x"))], keep), kept.__getitem__) == [one, (one, b"x")]


@pytest.mark.parametrize(
    ("program", "tests", "kind", "text"),
    [
        ("def f(): return 1", "assert f() == 2", AssertionError, "^$"),
        ("def f(): raise KeyError('gone')", "f()", KeyError, "gone"),
        ("class Odd(Exception): pass\ndef f(): raise Odd('so')", "f()", RuntimeError, "Odd: so"),
        ("def f(): raise SystemExit(3)", "f()", RuntimeError, "SystemExit: 3"),
        ("x = 1", "f()", KeyError, "f"),
        ("1 / 0\ndef f(): return 1", "f()", ZeroDivisionError, "division by zero"),
        ("def f(x): return x", "f(object())", TypeError, "plain values only, not object"),
        ("class A: pass", "A().__len__()", AttributeError, "__len__"),
    ],
)
def test_what_goes_wrong_is_raised_where_the_tests_run(
    program: str, tests: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        run(program, tests)


def test_a_program_that_has_ended_is_called_so() -> None:
    with pytest.raises(EOFError, match="the program has ended"):
        check({"before": "", "names": ["f"], "tests": ""}, iter(()), lambda _: None)


def test_a_remote_thing_is_equal_to_itself_alone() -> None:
    one, other = (Remote(lambda *_: 5, 0) for _ in range(2))
    assert one == one
    assert one != other


@pytest.mark.parametrize(("answer", "passed"), [("a + b", True), ("a - b", False)])
def test_two_processes_with_pipes_between_them(answer: str, passed: bool, tmp_path: Path) -> None:
    (tmp_path / "task.txt").write_text(f"print('hello')\ndef add(a, b): return {answer}")
    (tmp_path / "task.json").write_text(json.dumps({"before": "", "names": ["add"], "tests": "assert add(2, 3) == 5"}))
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    command = [sys.executable, str(remote.__file__)]
    served = subprocess.Popen(
        [*command, "serve", str(to_read), str(from_write)], cwd=tmp_path, pass_fds=(to_read, from_write)
    )
    for number in (to_read, from_write):
        os.close(number)
    ends = (from_read, to_write)
    done = subprocess.run([*command, "check", *map(str, ends)], cwd=tmp_path, pass_fds=ends, capture_output=True)
    for number in ends:
        os.close(number)
    assert served.wait() == 0
    assert (done.stdout, done.returncode) == ((PASSED, 0) if passed else (b"", 1))
