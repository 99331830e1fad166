"""Progress: bars with an ETA in a terminal and in a notebook, a line now and then elsewhere.

It goes to stderr, or into a cell's output while the work lasts; stdout is for results.
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape

from mixlaw.errors import printable
from mixlaw.numbers import percent

Progress = Callable[[float, str], None]  # share done, 0..1, and the current step
SILENCE = 15.0  # seconds between lines where there is no terminal
BLINK = 0.2  # seconds between two pictures of a bar in a notebook


_DETAIL: ContextVar[int] = ContextVar("detail", default=0)


@contextmanager
def detail(level: int) -> Iterator[None]:
    """How much progress is shown inside: none below 0, every step on a line of its own above."""
    token = _DETAIL.set(level)
    try:
        yield
    finally:
        _DETAIL.reset(token)


@contextmanager
def progress_or_bar(title: str, progress: Progress | None) -> Iterator[Progress]:
    """Where work reports its progress: the caller's function, else a bar if a person sits at a prompt."""
    if progress is not None:
        yield progress
    elif at_prompt():
        with progress_bar(title) as report:
            yield report
    else:
        yield lambda share, what: None


def at_prompt() -> bool:
    """Whether a person is waiting: in IPython, a notebook, or Python's own prompt."""
    return "get_ipython" in vars(builtins) or hasattr(sys, "ps1")


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A progress bar; what is yielded takes the share done, 0..1, and the current step."""
    from rich import progress as rich_progress
    from rich.console import Console

    level, console = _DETAIL.get(), Console(stderr=True)
    if level < 0:
        yield lambda share, what: None
        return
    if console.is_jupyter:
        with _cell(title) as in_cell:
            yield in_cell
        return
    title_column, status = (
        rich_progress.TextColumn(f"{{task.{field}}}", markup=False) for field in ("fields[title]", "description")
    )
    timing = (rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn())
    columns = (title_column, rich_progress.BarColumn(), *timing, status)
    with rich_progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0, title=title)
        lines = _Lines(title, every_step=level > 0)

        def report(share: float, what: str) -> None:
            what = printable(what)
            bar.update(task, completed=share, description=what)
            if not console.is_terminal or level > 0:
                lines.report(share, what)

        yield report


@contextmanager
def _cell(title: str) -> Iterator[Progress]:
    """A bar in the output of a notebook's cell, gone when the work is done."""
    from IPython.display import display

    began, last = time.monotonic(), -1.0
    shown = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def report(share: float, what: str) -> None:
        """Draw the bar anew, at most once every BLINK seconds."""
        nonlocal last
        now = time.monotonic()
        if now - last < BLINK and share < 1:
            return
        last = now
        eta = f", about {(now - began) * (1 - share) / share:.0f} s left" if share > 0.02 else ""
        words = f"{title}: {percent(share)}{eta}: {what}"
        bar = f'<progress value="{share:.4f}" max="1"></progress> {escape(words)}'
        shown.update({"text/html": bar, "text/plain": words}, raw=True)

    try:
        yield report
    finally:
        shown.update({"text/html": "", "text/plain": ""}, raw=True)


class _Lines:
    """Progress in lines, with an ETA: at most one every `SILENCE` seconds, or one for every step."""

    def __init__(self, title: str, every_step: bool = False) -> None:
        self.title, self.began, self.last = title, time.monotonic(), time.monotonic()
        self.every_step, self.step = every_step, ""

    def report(self, share: float, what: str) -> None:
        """Print a line if the last one is long enough ago, or if it is a new step and these are asked for."""
        now = time.monotonic()
        if self.every_step:
            if what != self.step:
                print(f"{self.title}: {now - self.began:.1f} s, {percent(share)}: {what}", file=sys.stderr, flush=True)
            self.step = what
            return
        if now - self.last > SILENCE:
            self.last = now
            eta = f", about {(now - self.began) * (1 - share) / share:.0f} s left" if share > 0.02 else ""
            print(f"{self.title}: {percent(share)}{eta}: {what}", file=sys.stderr, flush=True)
