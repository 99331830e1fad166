"""Rows of a sheet into records: every cell is checked, and so is what rows of one run say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import polars as pl

from mixlaw.adapters.sheet import PREFIXES, TOKENS, Sheet
from mixlaw.errors import InputError
from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.records import Measurement, Record, Unit

Column = list[float | None]

#: Most parameters for each token of a run; where there are more, the tokens are shares, percent or billions.
MOST_PARAMS = 10_000
#: Least peak rate over the rule's: what is less is a rate, not a ratio.
LEAST_LR = 0.01


@dataclass(frozen=True)
class Axes:
    """Names of a sheet, in order of appearance."""

    pairs: Mapping[str, tuple[str, str]]  # column -> phase, domain
    tasks: tuple[str, ...]

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases in order."""
        return tuple(dict.fromkeys(phase for phase, _ in self.pairs.values()))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains in order of appearance."""
        return tuple(dict.fromkeys(domain for _, domain in self.pairs.values()))


def axes_of(sheet: Sheet) -> Axes:
    """Phases, domains and tasks of a sheet.

    Raises:
        InputError: a column that every table needs is missing, or one belongs to a task, domain or phase that does not
            exist.
    """
    columns = sheet.frame.columns
    there = ", ".join([*columns, *sheet.ignored][:12])
    for needed in ("run", "params"):
        if needed not in columns:
            raise InputError(f"column {needed!r} is missing; there are {there}: rename or add it, or give a --mapping")
    pairs = {name: (match[1], match[2]) for name in columns if (match := TOKENS.fullmatch(name))}
    tasks = tuple(name.removeprefix("metric:") for name in columns if name.startswith("metric:"))
    if not pairs or not tasks:
        what = "tokens:<phase>:<domain>" if not pairs else "metric:<task>"
        raise InputError(f"no column {what}; there are {there}: rename or add them, or give a --mapping")
    axes = Axes(pairs, tasks)
    owners = {
        "lr_end": axes.phases,
        "decay": axes.phases,
        "unique": axes.domains,
        **dict.fromkeys(("noise", "stderr", "count"), tasks),
    }
    for name in columns:
        kind, _, owner = name.partition(":")
        if name not in pairs and name.startswith(PREFIXES) and kind in owners and owner not in owners[kind]:
            raise InputError(
                f"column {name!r} refers to {owner!r}, which no tokens: or metric: column has; rename or remove it"
            )
        if (kind == "tokens" and name not in pairs) or ":" in pairs.get(name, ("", ""))[1]:
            raise InputError(f"column {name!r} is not tokens:<phase>:<domain>; a name has no colon: rename it")
    return axes


def records(sheet: Sheet, axes: Axes, units: Mapping[str, Unit]) -> list[Record]:
    """One record per row.

    Raises:
        InputError: a cell is not what it should be; names row and column.
    """
    tokens = {column: sheet.column(column, low=0) for column in axes.pairs}
    ends = {phase: sheet.column(f"lr_end:{phase}", 0, 1) for phase in axes.phases}
    unique = {domain: sheet.column(f"unique:{domain}", low=1) for domain in axes.domains}
    seeds, progress = sheet.column("seed", low=0), sheet.column("progress", 0, 1)
    recipes = [
        _recipe(row, sheet.places[row], params, axes, tokens, ends, unique, seeds[row])
        for row, params in enumerate(_params(sheet))
    ]
    recipes = list(zip(_scheduled(sheet, [recipe for recipe, _ in recipes]), (by for _, by in recipes), strict=True))
    values = _values(sheet, axes.tasks, units)
    noise = _by_row(sheet.frame.height, {task: sheet.column(f"noise:{task}", low=0) for task in axes.tasks})
    names = _names(sheet)
    return [
        Record(
            run=names[row],
            recipe=recipe,
            values=values[row],
            progress=1.0 if (done := progress[row]) is None else done,
            noise=noise[row],
            tokens=amounts,
        )
        for row, (recipe, amounts) in enumerate(recipes)
    ]


def _names(sheet: Sheet) -> list[str]:
    names = sheet.frame["run"].cast(pl.String, strict=False).to_list()
    for place, name in zip(sheet.places, names, strict=True):
        if not name:
            raise InputError(f"{place}, column {sheet.sources.get('run', 'run')!r}: the cell is empty; fill it")
    return names


def _params(sheet: Sheet) -> list[float]:
    cells = sheet.column("params", low=1)
    for place, params in zip(sheet.places, cells, strict=True):
        if params is None:
            raise InputError(f"{place}, column {sheet.sources.get('params', 'params')!r}: the cell is empty; fill it")
    return [params for params in cells if params is not None]


def _recipe(
    row: int,
    place: str,
    params: float,
    axes: Axes,
    tokens: Mapping[str, Column],
    ends: Mapping[str, Column],
    unique: Mapping[str, Column],
    seed: float | None,
) -> tuple[Recipe, dict[str, dict[str, float]]]:
    """Recipe of a row, and tokens by phase and domain."""
    amounts: dict[str, dict[str, float]] = {}
    for column, (phase, domain) in axes.pairs.items():
        if amount := tokens[column][row]:
            amounts.setdefault(phase, {})[domain] = amount
    if not amounts:
        raise InputError(f"{place}: no tokens in any tokens:<phase>:<domain> column; leave the row out")
    phases = []
    for phase, by in amounts.items():
        total = round(math.fsum(by.values()))
        if total < 1:
            raise InputError(f"{place}: phase {phase!r} has {math.fsum(by.values()):g} tokens; give tokens, not shares")
        phases.append(Phase(phase, total, Mixture.normalised(by), ends[phase][row]))
    pool = {domain: round(count) for domain, cells in unique.items() if (count := cells[row]) is not None}
    recipe = Recipe(round(params), tuple(phases), round(seed or 0), pool)
    if recipe.tokens * MOST_PARAMS < params:
        raise InputError(
            f"{place}: {recipe.tokens:,} tokens in all for {recipe.params:,} params; give absolute "
            "token counts, not percentages, shares or billions (a --mapping can scale, and take shares of a total)"
        )
    return recipe, amounts


def _scheduled(sheet: Sheet, recipes: Sequence[Recipe]) -> list[Recipe]:
    """The recipes of all rows with their peak rates, warm-ups, schedules and shapes of decay."""
    rates, warmups = sheet.column("lr", low=0), sheet.column("warmup", low=0)
    schedules = sheet.words("schedule", [schedule.value for schedule in Schedule])
    names = dict.fromkeys(phase.name for recipe in recipes for phase in recipe.phases)
    shapes = {name: sheet.words(f"decay:{name}", [shape.value for shape in Decay]) for name in names}
    scheduled = []
    for row, recipe in enumerate(recipes):
        rate, warmup = rates[row], warmups[row]
        if rate is not None and rate < LEAST_LR:
            raise InputError(
                f"{sheet.places[row]}, column {sheet.sources.get('lr', 'lr')!r}: {rate:g} is a learning rate; lr is "
                "the peak rate over that of your rule for the size, 1 where they agree: divide (a --mapping can), or "
                "rename the column"
            )
        phases = tuple(replace(p, decay=Decay(shapes[p.name][row] or Decay.LINEAR)) for p in recipe.phases)
        scheduled.append(
            replace(
                recipe,
                phases=phases,
                schedule=Schedule(schedules[row] or Schedule.WSD),
                lr=1.0 if rate is None else rate,
                warmup=None if warmup is None else round(warmup),
            )
        )
    return scheduled


def _values(sheet: Sheet, tasks: Sequence[str], units: Mapping[str, Unit]) -> list[dict[str, Measurement]]:
    """Measurements of each row; a task that was not measured is absent."""
    rows: list[dict[str, Measurement]] = [{} for _ in range(sheet.frame.height)]
    for task in tasks:
        cells = sheet.column(f"metric:{task}")
        _plausible(sheet, task, cells, units[task])
        stderr, count = sheet.column(f"stderr:{task}", low=0), sheet.column(f"count:{task}", low=1)
        for row, value in enumerate(cells):
            if value is not None:
                number = count[row]
                rows[row][task] = Measurement(value, stderr[row], None if number is None else round(number))
    return rows


def _plausible(sheet: Sheet, task: str, cells: Column, unit: Unit) -> None:
    """Refuse a value that is impossible in its unit."""
    lower = unit.lower_is_better
    for place, value in zip(sheet.places, cells, strict=True):
        if value is None or (value > 0 if lower else value <= 1):
            continue
        column = sheet.sources.get(f"metric:{task}", f"metric:{task}")
        what = "above 0" if lower else "at most 1"
        hint = "leave the cell empty if it was not measured" if lower else "give percent with scale = 0.01"
        raise InputError(f"{place}, column {column!r}: {value:g} in {unit.value} must be {what}; fix it, or {hint}")


def _by_row(height: int, columns: Mapping[str, Column]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [{} for _ in range(height)]
    for name, cells in columns.items():
        for row, cell in enumerate(cells):
            if cell is not None:
                rows[row][name] = cell
    return rows


def drop_repeats(rows: Sequence[Record], places: Sequence[str]) -> tuple[list[int], list[str]]:
    """Indices of the rows to keep, and warnings: the same checkpoint listed twice counts once.

    Raises:
        InputError: rows of one run contradict each other; names them.
    """
    first: dict[tuple[str, float], int] = {}
    kept, repeated = [], []
    for row, record in enumerate(rows):
        before = first.setdefault((record.run, record.progress), row)
        if before == row:
            kept.append(row)
        elif rows[before] == record:
            repeated.append(f"{places[row]} repeats {places[before]}")
        else:
            raise InputError(
                f"{_rows(places[before], places[row])}: run {record.run!r} is listed 2 times at progress "
                f"{record.progress:g} with different contents; keep one, or give repeated seeds names of their own"
            )
    _agree([rows[row] for row in kept], [places[row] for row in kept])
    plural = "s" * (len(repeated) != 1)
    return kept, [f"ignored {len(repeated)} duplicate row{plural}: {'; '.join(repeated[:3])}"] if repeated else []


def _rows(one: str, other: str) -> str:
    """Two places, in short."""
    a, b = one.removeprefix("row "), other.removeprefix("row ")
    return f"rows [{a}, {b}]" if a.isdigit() and b.isdigit() else f"{one} and {other}"


def _agree(records: Sequence[Record], places: Sequence[str]) -> None:
    """Check that checkpoints of a run have one size, and that later ones have seen no fewer tokens."""
    runs: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        runs.setdefault(record.run, []).append(row)
    for run, rows in runs.items():
        ordered = sorted(rows, key=lambda row: records[row].progress)
        for before, after in pairwise(ordered):
            a, b = records[before].recipe, records[after].recipe
            where = _rows(places[before], places[after])
            if a.params != b.params:
                raise InputError(
                    f"{where}, column 'params': run {run!r} has {a.params:,} and {b.params:,}; a run has one size"
                )
            if b.tokens < a.tokens:
                raise InputError(
                    f"{where}, column 'progress': run {run!r} has {a.tokens:,} tokens at progress "
                    f"{records[before].progress:g} and {b.tokens:,} at {records[after].progress:g}; correct one of them"
                )
