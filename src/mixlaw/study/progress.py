"""The progress bar of a run: share of the FLOPs done, ETA, and what each worker trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixlaw.progress import at_prompt, progress_bar
from mixlaw.runner.execute.queue import RunProgress

NAMED = 4  # workers whose segments are shown


@contextmanager
def run_progress_or_bar(progress: Callable[[RunProgress], None] | None) -> Iterator[Callable[[RunProgress], None]]:
    """The same for a run."""
    if progress is not None:
        yield progress
    elif at_prompt():
        with run_progress_bar() as show:
            yield show
    else:
        yield lambda state: None


@contextmanager
def run_progress_bar() -> Iterator[Callable[[RunProgress], None]]:
    """A bar for a run: share of the FLOPs done, ETA, and what each worker trains."""
    with progress_bar("training") as tell:

        def show(state: RunProgress) -> None:
            doing = "  ".join(
                f"[{number}] {segment.recipe.params / 1e6:.2g}M {segment.phase} {tokens / segment.tokens:.0%}"
                + (f" {state.speeds[number]:,.0f} tokens/s" if number in state.speeds else "")
                for number, (segment, tokens) in sorted(state.doing.items())[:NAMED]
            )
            doing += f"  and {len(state.doing) - NAMED} more" if len(state.doing) > NAMED else ""
            tell(state.done / state.total, f"{state.segments_done}/{state.segments} segments  {doing}")

        yield show
