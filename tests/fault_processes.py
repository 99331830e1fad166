"""Processes that come to harm: forked, and sent a signal before the n-th operation on files, or at any time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError, of_machine
from processes import family

#: Operations on files, by the name under which Python audits them; a process is killed before the n-th of them.
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "shutil.copyfile")
SECONDS = 600.0  # until a process that has not ended counts as one that hangs


@dataclass
class Ended:
    """How a process ended: its exit code, negative for a signal, what it printed, and seconds."""

    code: int
    output: str
    seconds: float


def at_operation(number: int, sent: int, counter: Path | None = None) -> None:
    """Send this process and those forked from it a signal before the n-th operation of one of them on files."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in OPERATIONS or (writes and not str(arguments[0]).startswith("/dev/")):
            count += 1
            if counter is not None:
                os.pwrite(handle, b"%9d" % count, 0)
            if count == number:
                os.killpg(0, sent)

    handle = os.open(counter, os.O_CREAT | os.O_WRONLY) if counter is not None else -1
    sys.addaudithook(hook)


def start(act: Callable[[Path], object], folder: Path, harm: Callable[[], None] = lambda: None) -> int:
    """Do something in a process of its own, forked, so that it need not import anything; its number."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = _inside(act, folder, harm)
        finally:  # nothing escapes into what the parent does
            os._exit(code)
    return pid


def call(act: Callable[[Path], object], folder: Path, harm: Callable[[], None] = lambda: None) -> Ended:
    """The same, and wait for its end."""
    return wait(start(act, folder, harm), folder)


def wait(pid: int, folder: Path, after: float | None = None, harm: Callable[[int], None] = lambda _: None) -> Ended:
    """Wait for a process; do it harm after some seconds if it is still there."""
    begun = time.monotonic()
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
        passed = time.monotonic() - begun
        if after is not None and passed > after:
            harm(pid)
            after = None
        if passed > SECONDS:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    output = _log(folder).read_text(errors="replace") if _log(folder).exists() else ""
    return Ended(os.waitstatus_to_exitcode(done[1]), output, time.monotonic() - begun)


def send_all(sent: int, pid: int) -> None:
    """Send a signal to a process and its group, as a terminal does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, sent)


def kill_one(rng: random.Random, pid: int) -> None:
    """Kill one of the processes that a process has started, or itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(family(pid)), signal.SIGKILL)


def _log(folder: Path) -> Path:
    """File of what a process prints: beside the folder, which may be on a disk that is full."""
    return folder.parent.parent / f"{folder.name}.txt" if folder.parent.name == "disk" else folder / "output.txt"


def _inside(act: Callable[[Path], object], folder: Path, harm: Callable[[], None]) -> int:
    """The process itself; its exit code."""
    os.setsid()
    out = os.open(_log(folder), os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        harm()
        act(folder)
    except SystemExit as end:
        code = int(end.code or 0)
    except InputError as error:
        print(error)
        code = 2
    except KeyboardInterrupt:
        code = 1
    except BaseException as error:
        if isinstance(error, Exception) and (sentence := of_machine(error)):  # as the command line does
            print(sentence)
            code = 2
        else:
            traceback.print_exc()
            code = 3
    with contextlib.suppress(Exception):
        sys.stdout.flush(), sys.stderr.flush()
    return code
