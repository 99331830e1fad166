"""Run Python in a process of its own, with limits on time, memory, files and processes.

`run_python` is for programs of our own making and bounds accidents: endless loops, runaway memory, stray files. It is
no protection against malicious code, which could read what the user can read and reach the network. Programs written by
a model go to `run_untrusted`, which runs them in bubblewrap or not at all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mixlaw.runner.evaluate.sandbox import jail

OUTPUT = 16 * 2**20  # bytes that a run may write, to its output and to any file

#: Set by the child itself before it reads the program: hard limits cannot be raised again, and no code runs between
#: fork and exec of a parent that may have threads.
PRELUDE = """
import os, resource, runpy, sys
seconds, memory, output = map(int, sys.argv[1:4])
for kind, limit in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, output),
                    (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0)):
    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))
sys.argv = ["program.py", *sys.argv[4:]]
runpy.run_path("program.py", run_name="__main__")
"""


class Status(Enum):
    """How a run ended."""

    DONE = "done"
    FAILED = "ended with an error"
    TIMEOUT = "stopped at its time limit"


@dataclass(frozen=True)
class ProgramResult:
    """Result of a program: how it ended, its exit code, its output, and the seconds it took.

    A code that is negative, or in bubblewrap over 128, is that of the signal that ended it.
    """

    status: Status
    code: int
    stdout: str
    stderr: str
    seconds: float


def run_python(
    code: str, *, seconds: float = 10.0, memory: int = 512 * 2**20, files: dict[str, str] | None = None
) -> ProgramResult:
    """Run a program in a fresh, isolated interpreter in an empty folder, and end everything that it started.

    The interpreter sees no environment and no installed packages (`-I -S`); the limit on processes does not hold for
    root.

    Args:
        code: the program.
        seconds: limit on CPU time (rounded up) and on elapsed time.
        memory: limit on the address space, bytes.
        files: text files by name to place beside the program.
    """

    def start(folder: Path, arguments: list[str], out: int, err: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", *arguments]
        null = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=folder, env={}, stdin=null, stdout=out, stderr=err, start_new_session=True)

    return _run(start, {**(files or {}), "program.py": code}, seconds, memory)


def run_untrusted(
    code: str, *, seconds: float = 10.0, memory: int = 512 * 2**20, files: dict[str, str] | None = None
) -> ProgramResult:
    """Run an untrusted program, such as one that a model wrote, in bubblewrap.

    What it may do is set in `mixlaw.runner.evaluate.sandbox.jail`.

    It can read its own files, which cannot be written, and its output is kept; it has no network, no other process or
    thread, no environment and no packages but the standard library. Its output proves nothing: for a verdict,
    see `mixlaw.runner.evaluate.sandbox.verdict`.

    Args:
        code, seconds, memory, files: as for `run_python`.

    Raises:
        InputError: bubblewrap is not installed or does not work here.
    """
    jail.require()

    def start(folder: Path, arguments: list[str], out: int, err: int) -> subprocess.Popen[bytes]:
        return jail.start(folder, arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    return _run(start, {**(files or {}), "program.py": code}, seconds, memory)


def _run(
    start: Callable[[Path, list[str], int, int], subprocess.Popen[bytes]],
    files: dict[str, str],
    seconds: float,
    memory: int,
) -> ProgramResult:
    with tempfile.TemporaryDirectory(prefix="mixlaw-") as name:
        folder = Path(name, "work")
        folder.mkdir()
        for path, text in files.items():
            (folder / path).write_text(text, encoding="utf-8")
        limits = [str(max(1, -int(-seconds // 1))), str(memory), str(OUTPUT)]
        begin = time.monotonic()
        with Path(name, "stdout").open("w+b") as out, Path(name, "stderr").open("w+b") as err:
            process = start(folder, ["-c", PRELUDE, *limits], out.fileno(), err.fileno())
            returned = wait(process, seconds)
            texts = [_text(stream.name) for stream in (out, err)]
        return ProgramResult(_status(returned), process.returncode, texts[0], texts[1], time.monotonic() - begin)


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Exit code, None where the time ran out; the process group is gone afterwards in any case."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _status(returned: int | None) -> Status:
    killed = (signal.SIGXCPU, signal.SIGKILL)
    if returned is None or -returned in killed or returned - 128 in killed:
        return Status.TIMEOUT
    return Status.DONE if returned == 0 else Status.FAILED


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
