"""The order in which phases were trained, where a table says it only by the names and the order of its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Names of the field by the part of training that they are; any other name is between them, in the order given.
EARLY = re.compile(r"init(ial)?|(pre)?train(ing)?|pt|trunk|base|start|first|early", re.IGNORECASE)
LATE = re.compile(r"cool(ing)?(down)?|cd|anneal(ing)?|decay|final|last|late", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)[\W_]*(\d+)")


def training_order(names: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """Phases in the order of training: as is known, else as their names say, else as they are given.

    Args:
        names: in the order of the columns.
        known: phases whose order is known.

    Example:
        >>> training_order(["cooldown", "continue", "init"])
        ('init', 'continue', 'cooldown')
        >>> training_order(["stage10", "stage2"])
        ('stage2', 'stage10')
    """
    given = list(dict.fromkeys(names))
    order = sorted(given, key=lambda name: (_part(name), *_number(name, given)))
    settled = [name for name in known if name in given]
    if len(settled) < 2:
        return tuple(order)
    places = iter(settled)
    return tuple(next(places) if name in settled else name for name in order)


def by_checkpoints(order: Sequence[str], runs: Sequence[Sequence[frozenset[str]]]) -> tuple[str, ...]:
    """The order, corrected by checkpoints: a phase that a run has tokens of before another came before it.

    Args:
        order: of the phases, as far as it is known otherwise.
        runs: phases with tokens at each checkpoint of each run, earliest first.
    """
    before = {
        (one, other)
        for moments in runs
        for i, moment in enumerate(moments)
        for one in moment
        for other in frozenset().union(*moments[i + 1 :]) - moment
    }
    names = list(order)
    for _ in names:
        for i in range(len(names) - 1):
            pair = names[i + 1], names[i]
            if pair in before and pair[::-1] not in before:
                names[i], names[i + 1] = pair
    return tuple(names)


def _part(name: str) -> int:
    word = re.sub(r"[\W_\d]", "", name)
    return 0 if EARLY.fullmatch(word) else 2 if LATE.fullmatch(word) else 1


def _number(name: str, given: Sequence[str]) -> tuple[int, int]:
    """Where the first name of its stem is among those given, and the number behind the stem."""
    if match := _NUMBERED.fullmatch(name):
        like = [other for other in given if (m := _NUMBERED.fullmatch(other)) and m[1] == match[1]]
        return given.index(like[0]), int(match[2])
    return given.index(name), 0
