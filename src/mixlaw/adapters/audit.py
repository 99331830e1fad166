"""Can these rows be compared? Repeats, checkpoints listed twice, mixed units, versions, recipes that disagree.

Nothing here stops an import: what contradicts itself is refused before; this is what its author should look at.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixlaw.adapters.jumps import Model, mixed_units
from mixlaw.adapters.sheet import Label
from mixlaw.numbers import percent
from mixlaw.records import Record, Unit

_SHOWN = 3  # examples in one message
_GRID = 0.004  # shares nearer than this are one recipe; small ones, if they begin with the same digit
_APART = 0.05  # repeats of one recipe that differ by more (losses relative, rates absolute) are worth a look


def audit(
    records: Sequence[Record], places: Sequence[str], labels: Sequence[Label], units: Mapping[str, Unit]
) -> tuple[list[str], list[str]]:
    """Notes and warnings on the comparability of records.

    Args:
        records: one per row.
        places: what to call the rows.
        labels: what should not differ between rows.
        units: of the tasks.
    """
    values = {task: _column(records, task) for task in units}
    groups = _groups(records)
    spreads = {task: _spreads(groups, cells, units[task]) for task, cells in values.items()}
    notes, warnings = _repeats(records, places, groups, spreads)
    warnings += _checkpoints(records, places)
    warnings += [f"task {task!r} has the same value in all rows" for task, cells in values.items() if _constant(cells)]
    model = Model.of(records)
    for task, cells in values.items():
        if (mixed := mixed_units(model, cells)) is not None:
            rows, what = mixed
            number = f"{len(rows)} rows are" if len(rows) > 1 else "1 row is"
            warnings.append(f"task {task!r}: {number} off by {what}, as if units were mixed: {_places(places, rows)}")
    per_token = any(unit is Unit.NATS_PER_TOKEN for unit in units.values())
    warnings += [warning for label in labels for warning in _label(label, model, values, per_token)]
    return notes, warnings


def _column(records: Sequence[Record], task: str) -> NDArray[np.float64]:
    """Values of one task, NaN where not measured, shape (rows,)."""
    return np.array([record.values[task].value if task in record.values else math.nan for record in records])


def _constant(cells: NDArray[np.float64]) -> bool:
    there = cells[np.isfinite(cells)]
    return len(there) > 2 and bool(np.all(there == there[0]))


def _places(places: Sequence[str], rows: Sequence[int]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return ", ".join(places[row] for row in rows[:_SHOWN]) + more


def _groups(records: Sequence[Record]) -> list[list[int]]:
    """Rows of nearly the same recipe at the same moment, two or more."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        recipe = record.recipe
        phases = tuple(
            (
                p.name,
                round(math.log(p.tokens), 2),
                p.lr_end,
                p.decay,
                tuple(
                    (d, round(s / _GRID) if s > 10 * _GRID else f"{s:.1g}") for d, s in p.mixture.items() if s > 1e-6
                ),
            )
            for p in recipe.phases
        )
        unique = tuple(sorted(recipe.unique.items()))
        rate = (round(math.log(recipe.lr), 2), recipe.schedule, recipe.warmup)
        groups[(recipe.params, phases, unique, rate, round(record.progress, 3))].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _repeats(
    records: Sequence[Record],
    places: Sequence[str],
    groups: Sequence[Sequence[int]],
    spreads: Mapping[str, Mapping[int, float]],
) -> tuple[list[str], list[str]]:
    """Recipes that were measured more than once: the same numbers under two names, and repeats that disagree."""
    copies = [(a, b) for rows in groups for a, b in pairwise(rows) if _same(records[a], records[b])]
    warnings = []
    if copies:
        pairs = "; ".join(f"{places[a]} and {places[b]}" for a, b in copies[:_SHOWN])
        warnings.append(f"{len(copies)} rows repeat the numbers of another row under another name: {pairs}")
    notes = []
    differences = [spread for by_group in spreads.values() for spread in by_group.values()]
    if differences:
        count = sum(len(rows) for rows in groups)
        notes.append(
            f"{len(groups)} recipe{'s were' if len(groups) > 1 else ' was'} measured more than once ({count} rows); "
            f"their values differ by {percent(np.median(differences), 2)} in the median, "
            f"{percent(max(differences), 2)} at most"
        )
    for task, by_group in spreads.items():
        usual = float(np.median(list(by_group.values()))) if by_group else 0.0
        for number, spread in by_group.items():
            if spread > max(_APART, 5 * usual if len(by_group) > 3 else 0.0):
                warnings.append(
                    f"task {task!r} differs by {percent(spread, 1)} between rows of nearly one recipe: "
                    f"{_places(places, groups[number])}"
                )
    return notes, _first(warnings, "pairs of near recipes that differ")


def _same(one: Record, other: Record) -> bool:
    return bool(one.values) and one.values == other.values


def _spreads(groups: Sequence[Sequence[int]], cells: NDArray[np.float64], unit: Unit) -> dict[int, float]:
    """Largest difference within each group that was measured at least twice: losses over their mean, rates as is."""
    spreads = {}
    for number, rows in enumerate(groups):
        there = cells[list(rows)]
        there = there[np.isfinite(there)]
        if len(there) > 1:
            spreads[number] = float(np.ptp(there) / (abs(there.mean()) if unit.lower_is_better else 1.0))
    return spreads


def _first(messages: list[str], what: str, limit: int = 8) -> list[str]:
    """A few messages, and how many more there are."""
    return [*messages[:limit], f"{len(messages) - limit} more {what}"] if len(messages) > limit else messages


def _checkpoints(records: Sequence[Record], places: Sequence[str]) -> Iterator[str]:
    """Checkpoints of one run with the same numbers, or with the tokens of another moment."""
    runs: dict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        runs[record.run].append(row)
    copied, still = [], []
    for rows in runs.values():
        ordered = sorted(rows, key=lambda row: records[row].progress)
        for before, after in pairwise(ordered):
            if _same(records[before], records[after]):
                copied.append((before, after))
            elif records[before].recipe.tokens == records[after].recipe.tokens:
                still.append((before, after))
    if copied:
        pairs = "; ".join(f"{places[a]} and {places[b]}" for a, b in copied[:_SHOWN])
        yield f"{len(copied)} checkpoints are listed twice: the same numbers at two moments of one run: {pairs}"
    if still:
        pairs = "; ".join(f"{places[a]} and {places[b]}" for a, b in still[:_SHOWN])
        yield (
            f"{len(still)} checkpoints have the tokens of an earlier moment of their run; tokens are those trained on "
            f"by then, not those planned: {pairs}"
        )


def _label(label: Label, model: Model, values: Mapping[str, NDArray[np.float64]], per_token: bool) -> Iterator[str]:
    """A label that differs between rows, and how much values jump with it."""
    kinds = dict.fromkeys(cell for cell in label.cells if cell is not None)
    if len(kinds) < 2 or len(kinds) > max(8, len(label.cells) // 2):  # one of its own for each row is a name
        return
    counts = {kind: label.cells.count(kind) for kind in kinds}
    usual = max(counts, key=lambda kind: counts[kind])
    shown = ", ".join(f"{kind} in {count}" for kind, count in sorted(counts.items(), key=lambda kv: -kv[1])[:4])
    off = np.array([cell is not None and cell != usual for cell in label.cells])
    sizes = {task: jump for task in label.tasks or values if (jump := model.jump(values[task], off)) is not None}
    largest = sorted(sizes.items(), key=lambda kv: -abs(kv[1][0]))[:_SHOWN]
    jumps = "".join(
        f"; {task!r} is {percent(size, 1, sign=True)} (± {percent(error, 1)}) elsewhere"
        for task, (size, error) in largest
    )
    token = "losses per token" if per_token and "token" in label.name.lower() else "rows measured differently"
    yield f"{label.name} differs between rows ({shown}){jumps}; {token} are not comparable"
