"""Rows of a sheet into records: every cell is checked, and so is what rows of one run say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mixlaw.adapters.names import refuse_near_misses
from mixlaw.adapters.sheet import PREFIXES, TOKENS, Sheet
from mixlaw.errors import InputError, did_you_mean, some
from mixlaw.phases import by_checkpoints, training_order
from mixlaw.recipe import Decay, Mixture, Phase, Recipe, Schedule
from mixlaw.records import MOST_PARAMS, MOST_TOKENS, Measurement, Record, Unit

Column = list[float | None]

#: Least peak rate over the rule's: what is less is a rate, not a ratio.
LEAST_LR = 0.01
#: Most parameters and tokens, which are integers of 64 bits; most that a float has exactly, as seeds must be.
MOST, EXACT = 2.0**63 - 1024, 2.0**53
RATE = (
    "lr is the peak rate over that of your rule for the size, 1 where they agree: divide (a --mapping can), or rename "
    "the column"
)

MAPPED = "give a --mapping, which --sketch FILE drafts"
#: A share that is no rounding of zero; what to give in its place.
LEAST_SHARE = 1e-4
PARAMS_MEANT = "give absolute parameter counts such as 60M, not millions or billions (a --mapping can scale)"
TOKENS_MEANT = (
    "give absolute token counts, not percentages, shares or billions "
    "(a --mapping can scale, and take shares of a total)"
)
ABOVE_CHANCE = "if 0 is chance, give chance + (1 - chance) x score"
NOT_MEASURED = "leave the cell empty if it was not measured"


@dataclass(frozen=True)
class Axes:
    """Names of a sheet: phases in the order of training, the others in that of their columns."""

    pairs: Mapping[str, tuple[str, str]]  # column -> phase, domain
    tasks: tuple[str, ...]
    phases: tuple[str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains in order of appearance."""
        return tuple(dict.fromkeys(domain for _, domain in self.pairs.values()))


def axes_of(sheet: Sheet, phases: Sequence[str] = (), measured: bool = True) -> Axes:
    """Phases, domains and tasks of a sheet; `phases` are in the order of training, where that is known.

    Without `measured`, recipes need no tasks.

    Raises:
        InputError: a column that every table needs is missing, or one belongs to a task, domain or phase that does not
            exist.
    """
    columns = sheet.frame.columns
    refuse_near_misses(sheet)
    there = some([*columns, *sheet.ignored])
    for needed in ("run", "params"):
        if needed not in columns:
            meant = did_you_mean(needed, sheet.ignored) or f"there are {there}"
            raise InputError(f"column {needed!r} is missing; {meant}: rename or add it, or {MAPPED}")
    pairs = {name: (match[1], match[2]) for name in columns if (match := TOKENS.fullmatch(name))}
    tasks = tuple(name.removeprefix("metric:") for name in columns if name.startswith("metric:"))
    if not pairs or (measured and not tasks):
        what = "tokens:<phase>:<domain>" if not pairs else "metric:<task>"
        raise InputError(f"no column {what}; there are {there}: rename or add them, or {MAPPED}")
    named = tuple(dict.fromkeys(phase for phase, _ in pairs.values()))
    axes = Axes(pairs, tasks, training_order(named, sheet.phases or phases))
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
        if kind == "metric" and not owner:
            raise InputError(f"column {name!r} names no task; write metric:<task>, or remove it")
        if (kind == "tokens" and name not in pairs) or ":" in pairs.get(name, ("", ""))[1]:
            raise InputError(f"column {name!r} is not tokens:<phase>:<domain>; a name has no colon: rename it")
    return axes


def records(sheet: Sheet, axes: Axes, units: Mapping[str, Unit]) -> tuple[list[Record], tuple[str, ...]]:
    """One record per row, and the phases in the order of training, which checkpoints may tell.

    Raises:
        InputError: cells are not what they should be; names rows and columns.
    """
    columns = _read(sheet, axes, units)
    sheet.log.check()
    axes = replace(axes, phases=axes.phases if sheet.phases else _checkpointed(axes, columns))
    recipes = [_recipe(row, sheet.places[row], axes, columns) for row in range(sheet.frame.height)]
    found = [
        Record(
            run=columns.run[row],
            recipe=recipe,
            values=_measured(columns, row),
            progress=1.0 if (done := columns.plain["progress"][row]) is None else done,
            noise={task: noise for task, cells in columns.noise.items() if (noise := cells[row]) is not None},
            tokens=amounts,
        )
        for row, (recipe, amounts) in enumerate(recipes)
    ]
    return found, axes.phases


def _checkpointed(axes: Axes, columns: _Columns) -> tuple[str, ...]:
    """Phases in the order in which runs of several rows came to them."""
    rows_of: dict[str, list[int]] = {}
    for row, run in enumerate(columns.run):
        rows_of.setdefault(run, []).append(row)
    done, runs = columns.plain["progress"], []
    for rows in rows_of.values():
        ordered = sorted(rows, key=lambda row: 1.0 if (at := done[row]) is None else at)
        seen = [frozenset(p for c, (p, _) in axes.pairs.items() if columns.tokens[c][row]) for row in ordered]
        runs += [seen] if len(set(seen)) > 1 else []
    return by_checkpoints(axes.phases, runs)


@dataclass(frozen=True)
class _Columns:
    """All columns of a sheet that mean something, read: of numbers, None where a cell is empty."""

    run: list[str]
    plain: Mapping[str, Column]  # params, seed, progress, lr, warmup
    schedule: list[str | None]
    tokens: Mapping[str, Column]  # by the name of the column
    ends: Mapping[str, Column]  # by phase, as decay
    decay: Mapping[str, list[str | None]]
    unique: Mapping[str, Column]  # by domain
    values: Mapping[str, Column]  # by task, as the rest
    stderr: Mapping[str, Column]
    count: Mapping[str, Column]
    noise: Mapping[str, Column]


def _read(sheet: Sheet, axes: Axes, units: Mapping[str, Unit]) -> _Columns:
    """Read every cell that means something; what is wrong with them goes into the log of the sheet."""
    ranges = {"params": (1, MOST), "seed": (0, EXACT), "progress": (0, 1), "lr": (0, math.inf), "warmup": (0, MOST)}
    plain = {name: sheet.column(name, low, high) for name, (low, high) in ranges.items()}
    for place, params, rate in zip(sheet.places, plain["params"], plain["lr"], strict=True):
        if params is None:
            sheet.log.add(place, sheet.sources.get("params", "params"), "the cell is empty", "fill it")
        if rate is not None and rate < LEAST_LR:
            sheet.log.add(place, sheet.sources.get("lr", "lr"), f"{rate:g} is a learning rate", RATE)
    return _Columns(
        sheet.names("run"),
        plain,
        sheet.words("schedule", [schedule.value for schedule in Schedule]),
        {column: _tokens(sheet, column) for column in axes.pairs},
        {phase: sheet.column(f"lr_end:{phase}", 0, 1) for phase in axes.phases},
        {phase: sheet.words(f"decay:{phase}", [shape.value for shape in Decay]) for phase in axes.phases},
        {domain: sheet.column(f"unique:{domain}", 1, MOST) for domain in axes.domains},
        {task: _values(sheet, task, units[task]) for task in axes.tasks},
        {task: sheet.column(f"stderr:{task}", low=0) for task in axes.tasks},
        {task: sheet.column(f"count:{task}", low=1) for task in axes.tasks},
        {task: sheet.column(f"noise:{task}", low=0) for task in axes.tasks},
    )


def _tokens(sheet: Sheet, column: str) -> Column:
    """Tokens of a phase and domain; a part of one token is a share, in a table that no mapping made."""
    cells = sheet.column(column, 0, MOST)
    for place, amount in zip(sheet.places, cells, strict=True):
        if amount is not None and LEAST_SHARE < amount < 1 and not sheet.mapped:
            sheet.log.add(place, sheet.sources.get(column, column), f"{amount:g} of a token", TOKENS_MEANT)
    return cells


def _recipe(row: int, place: str, axes: Axes, columns: _Columns) -> tuple[Recipe, dict[str, dict[str, float]]]:
    """Recipe of a row, and tokens by phase and domain.

    Raises:
        InputError: it has no tokens, or hardly any for its size.
    """
    amounts: dict[str, dict[str, float]] = {phase: {} for phase in axes.phases}
    for column, (phase, domain) in axes.pairs.items():
        if amount := columns.tokens[column][row]:
            amounts[phase][domain] = amount
    amounts = {phase: by for phase, by in amounts.items() if by}
    if not amounts:
        raise InputError(f"{place}: no tokens in any tokens:<phase>:<domain> column; leave the row out")
    phases = []
    for phase, by in amounts.items():
        total = round(math.fsum(by.values()))
        if total < 1:
            raise InputError(f"{place}: phase {phase!r} has {math.fsum(by.values()):g} tokens; give tokens, not shares")
        shape = Decay(columns.decay[phase][row] or Decay.LINEAR)
        phases.append(Phase(phase, total, Mixture.normalised(by), columns.ends[phase][row], shape))
    pool = {domain: round(count) for domain, cells in columns.unique.items() if (count := cells[row]) is not None}
    of_row = {name: cells[row] for name, cells in columns.plain.items()}
    params, rate, warmup = of_row["params"] or 0.0, of_row["lr"], of_row["warmup"]
    recipe = Recipe(
        round(params),
        tuple(phases),
        round(of_row["seed"] or 0),
        pool,
        schedule=Schedule(columns.schedule[row] or Schedule.WSD),
        lr=1.0 if rate is None else rate,
        warmup=None if warmup is None else round(warmup),
    )
    if recipe.tokens * MOST_PARAMS < params:
        raise InputError(f"{place}: {recipe.tokens:,} tokens in all for {recipe.params:,} params; {TOKENS_MEANT}")
    if recipe.tokens > MOST_TOKENS * params:
        raise InputError(f"{place}: {recipe.tokens:,} tokens for {recipe.params:,} params; {PARAMS_MEANT}")
    return recipe, amounts


def _measured(columns: _Columns, row: int) -> dict[str, Measurement]:
    """Measurements of a row; a task that was not measured is absent."""
    values = {}
    for task, cells in columns.values.items():
        if (value := cells[row]) is not None:
            count = columns.count[task][row]
            values[task] = Measurement(value, columns.stderr[task][row], None if count is None else round(count))
    return values


def _values(sheet: Sheet, task: str, unit: Unit) -> Column:
    """Values of a task, those that are impossible in its unit in the log; a loss that is infinite diverged."""
    lower = unit.lower_is_better
    cells = sheet.column(f"metric:{task}", diverging=lower)
    for place, value in zip(sheet.places, cells, strict=True):
        if value is None or (value > 0 if lower else 0 <= value <= 1):
            continue
        what = "above 0" if lower else "between 0 and 1"
        hint = NOT_MEASURED
        if not lower and value > -1:
            hint = "give percent with scale = 0.01 in a mapping" if value > 1 else ABOVE_CHANCE
        column = sheet.sources.get(f"metric:{task}", f"metric:{task}")
        sheet.log.add(place, column, f"{value:g} in {unit.value} must be {what}", f"fix it, or {hint}")
    return cells


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
    agree([rows[row] for row in kept], [places[row] for row in kept])
    plural = "s" * (len(repeated) != 1)
    return kept, [f"ignored {len(repeated)} duplicate row{plural}: {'; '.join(repeated[:3])}"] if repeated else []


def _rows(one: str, other: str) -> str:
    """Two places, in short."""
    a, b = one.removeprefix("row "), other.removeprefix("row ")
    return f"rows [{a}, {b}]" if a.isdigit() and b.isdigit() else f"{one} and {other}"


def agree(records: Sequence[Record], places: Sequence[str]) -> None:
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
