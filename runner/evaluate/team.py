"""Ranks that evaluate one model together: the first one asks, and every rank computes its share of the batches.

Only the first rank reads data sets, asks judges and runs programs; the others hold the model and wait for batches.
Batches are those of one process, whole, so that on CPUs every value has the same bits for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mixlaw.errors import InputError

if TYPE_CHECKING:
    from mixlaw.runner.evaluate.measure import Subject

T = TypeVar("T")
B = TypeVar("B")


def shared(subject: Subject, compute: Callable[[Subject, B], T], batches: Sequence[B]) -> list[T]:
    """What `compute` returns for each batch, in order; the first rank calls it while the others `serve`.

    Args:
        subject: the model, on every rank.
        compute: a function of a module, called with the rank's own subject.
        batches: plain data.

    Raises:
        InputError, RuntimeError: the first failure of a rank.
    """
    if subject.ranks.world == 1:
        return [compute(subject, batch) for batch in batches]
    subject.ranks.broadcast((compute, batches))
    return _share(subject, compute, batches)


def serve(subject: Subject) -> None:
    """Compute shares until the first rank is done; all other ranks call it."""
    with subject.at_rest():
        while (order := subject.ranks.broadcast()) is not None:
            _share(subject, *order)


@contextmanager
def leading(subject: Subject) -> Iterator[None]:
    """Dismiss the ranks that serve when the block ends, however it does."""
    try:
        yield
    finally:
        subject.ranks.broadcast()


def _share(subject: Subject, compute: Callable[[Subject, Any], T], batches: Sequence[Any]) -> list[T]:
    ranks, mine = subject.ranks, list[T]()
    failure: Exception | None = None
    try:
        mine = [compute(subject, batch) for batch in batches[ranks.rank :: ranks.world]]
    except InputError as error:
        failure = error
    except Exception as error:  # raised by the first rank, which does not wait for the one that failed
        failure = RuntimeError(f"rank {ranks.rank}: {type(error).__name__}: {error}")
    parts = ranks.gather((mine, failure))
    for _, failed in parts:
        if failed is not None:
            raise failed
    return [parts[number % ranks.world][0][number // ranks.world] for number in range(len(batches))] if parts else []
