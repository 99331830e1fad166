"""What becomes of processes: waiting for them, and who belongs to whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Look every moment until something is so; fails only where it never comes to be."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Processes that a process has started, by whichever thread, and that are still there."""
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def family(pid: int) -> list[int]:
    """A process, its children and theirs, parents first."""
    return [pid, *(other for child in children(pid) for other in family(child))]


def gone(pids: Iterable[int]) -> bool:
    """Whether processes have ended; one that nobody has waited for yet keeps its number, as a zombie."""
    states = []
    for pid in pids:
        with suppress(OSError):
            states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "ZX" for state in states)


def silent(pids: Iterable[int]) -> bool:
    """Whether processes have ended or are about to: they hold no files any more, and can write nothing."""
    held: list[Path] = []
    for pid in pids:
        with suppress(OSError):
            held += Path(f"/proc/{pid}/fd").iterdir()
    return not held
