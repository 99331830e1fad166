"""Progress on stderr: bars with an ETA in a terminal, a line now and then elsewhere; stdout stays free for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixlaw.runner.dispatch import Progress

SILENCE = 15.0  # seconds between lines where there is no terminal
NAMED = 4  # workers whose segments are shown


@contextmanager
def telling(title: str) -> Iterator[Callable[[float, str], None]]:
    """A bar for work that tells its share done, 0..1, and what it is doing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    said, shown = TextColumn("{task.fields[title]}"), TextColumn("{task.description}")
    columns = (said, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), shown)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0, title=title)
        lines = _Lines(title)

        def tell(share: float, what: str) -> None:
            bar.update(task, completed=share, description=what)
            if not console.is_terminal:
                lines.tell(share, what)

        yield tell


@contextmanager
def training() -> Iterator[Callable[[Progress], None]]:
    """A bar for a run: share of the FLOPs done, ETA, and what each worker trains."""
    with telling("training") as tell:

        def show(state: Progress) -> None:
            doing = "  ".join(
                f"[{number}] {segment.recipe.params / 1e6:.2g}M {segment.phase} {tokens / segment.tokens:.0%}"
                + (f" {state.speeds[number]:,.0f} tokens/s" if number in state.speeds else "")
                for number, (segment, tokens) in sorted(state.doing.items())[:NAMED]
            )
            doing += f"  and {len(state.doing) - NAMED} more" if len(state.doing) > NAMED else ""
            tell(state.done / state.total, f"{state.segments_done}/{state.segments} segments  {doing}")

        yield show


class _Lines:
    """Progress where there is no terminal: at most a line every `SILENCE` seconds, with an ETA."""

    def __init__(self, title: str) -> None:
        self.title, self.began, self.last = title, time.monotonic(), time.monotonic()

    def tell(self, share: float, what: str) -> None:
        """Print a line if the last one is long enough ago."""
        now = time.monotonic()
        if now - self.last > SILENCE:
            self.last = now
            left = f", about {(now - self.began) * (1 - share) / share:.0f} s left" if share > 0.02 else ""
            print(f"{self.title}: {share:.0%}{left}: {what}", file=sys.stderr, flush=True)
