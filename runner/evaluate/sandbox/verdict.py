"""Whether a program written by a model passes its tests, decided in a process that the program cannot reach."""

from __future__ import annotations

import ast
import builtins
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from mixlaw.runner.evaluate.sandbox import jail, remote
from mixlaw.runner.evaluate.sandbox.run import OUTPUT, PRELUDE, wait

SECONDS = 10.0
MEMORY = 512 * 2**20


@dataclass(frozen=True)
class Check:
    """Tests of a program.

    Attributes:
        before: code that the tests need and that does not come from the program.
        names: functions and classes of the program that the tests use.
        tests: code that raises an exception where the program is wrong.
    """

    before: str
    names: tuple[str, ...]
    tests: str

    @classmethod
    def of(cls, tests: str) -> Check:
        """A check by assertions alone: the program's names are those that the tests use and do not define."""
        return cls("", tuple(dict.fromkeys(_free(tests))), tests)


def _free(code: str) -> list[str]:
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    bound |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    return [node.id for node in names if node.id not in bound and not hasattr(builtins, node.id)]


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed, and if not, the reason in a line."""

    passed: bool
    reason: str = ""


def verdict(program: str, check: Check, seconds: float = SECONDS, memory: int = MEMORY) -> Verdict:
    """Run a program's tests: the program in one sandbox, the tests in another, and a pipe between them.

    A program that ends early, prints what it likes, or changes its own interpreter has not answered, and fails.
    Arguments and results go by value: plain data as such, instances of the program's classes by reference, and what
    the program changes in its arguments stays with it.

    Args:
        program: source of the program.
        check: its tests.
        seconds: limit on elapsed time, and on CPU time of each.
        memory: limit on the address space of each, bytes.

    Raises:
        InputError: bubblewrap is not installed or does not work here.
    """
    jail.require()
    with tempfile.TemporaryDirectory(prefix="mixlaw-") as name, ExitStack() as stack:
        out, err = (stack.enter_context(Path(name, stream).open("w+b")) for stream in ("out", "err"))
        (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
        limits = [str(max(1, -int(-seconds // 1))), str(memory), str(OUTPUT)]
        try:
            sample = jail.start(
                _folder(Path(name, "program"), "task.txt", program), ["-c", PRELUDE, *limits, "serve", "0", "1"],
                stdin=to_read, stdout=from_write, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(wait, sample, 0.0)
            tests = jail.start(
                _folder(Path(name, "tests"), "task.json", json.dumps(asdict(check))),
                ["-c", PRELUDE, *limits, "check", str(from_read), str(to_write)],
                stdin=subprocess.DEVNULL, stdout=out.fileno(), stderr=err.fileno(), pass_fds=(from_read, to_write),
            )  # fmt: skip
        finally:
            for number in (to_read, to_write, from_read, from_write):
                os.close(number)
        returned = wait(tests, seconds)
        out_bytes, err_text = (
            Path(name, "out").read_bytes(),
            Path(name, "err").read_text(encoding="utf-8", errors="replace"),
        )
    if returned == 0 and out_bytes == remote.PASSED:
        return Verdict(True)
    return Verdict(False, "ran out of time" if returned is None else (err_text.strip().splitlines() or ["ended"])[-1])


def _folder(folder: Path, name: str, text: str) -> Path:
    folder.mkdir()
    (folder / name).write_text(text, encoding="utf-8")
    (folder / "program.py").write_text(Path(remote.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def passing(programs: Sequence[str], checks: Sequence[Check], workers: int, seconds: float = SECONDS) -> list[Verdict]:
    """Verdicts on many programs, `workers` at a time; the same program with the same tests is run once."""
    from concurrent.futures import ThreadPoolExecutor

    pairs = list(zip(programs, checks, strict=True))
    with ThreadPoolExecutor(workers) as pool:
        futures = {pair: pool.submit(verdict, *pair, seconds) for pair in dict.fromkeys(pairs)}
        return [futures[pair].result() for pair in pairs]
