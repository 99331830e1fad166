"""A mapping applied to a table: shares and totals become tokens, columns become tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.adapters.mapping import PhaseMap, Reading, TableMap, TaskMap, Value, captures, claimed, starred
from mixlaw.adapters.mixtures import amounts, shared
from mixlaw.adapters.sheet import Sheet, in_contract, labels, numbers, tells_version
from mixlaw.adapters.tables import Source
from mixlaw.errors import InputError

#: What is left of one after shares were subtracted from it, where nothing is.
ROUNDED = 1e-9
_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass
class Desk:
    """What is being made of one table: the columns so far, what they were called, and what has been said.

    Attributes:
        source: the table.
        columns: contract column -> cells.
        sources: contract column -> what its author called it.
        used: columns of the table that have found their meaning.
        notes: what was done.
    """

    source: Source
    columns: dict[str, pl.Series] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, cells: Any, source: str) -> None:
        """Add a column of the contract.

        Raises:
            InputError: another column became the same one.
        """
        if name in self.columns:
            raise InputError(f"{source!r} and {self.sources[name]!r} both become {name!r}; tell them apart by name")
        self.columns[name] = pl.Series(name, cells, nan_to_null=True, strict=False)
        self.sources[name] = source

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column of the table as numbers, NaN where empty, shape (rows,).

        Raises:
            InputError: there is no such column, or a cell is not a number.
        """
        frame = self.source.frame
        if column not in frame.columns:
            raise InputError(
                f"there is no column {column!r}; there are {', '.join(frame.columns[:12])}: mend the mapping"
            )
        self.used.add(column)
        return np.array(numbers(frame[column], self.source.places, column), dtype=np.float64)

    def value(self, value: Value) -> NDArray[np.float64]:
        """A value of the mapping for every row, NaN where empty, shape (rows,)."""
        if isinstance(value, str):
            value = Reading(column=value)
        if not isinstance(value, Reading):
            return np.full(self.source.frame.height, float(value))
        scale, over = (self.numbers(n) if isinstance(n, str) else n for n in (value.scale, value.over))
        cells = self.numbers(value.column) * scale / over + value.offset
        return cells if value.empty is None else np.where(np.isnan(cells), value.empty, cells)

    def names(self, template: str) -> list[str]:
        """A name with {column} in it, for every row."""
        keys = _FIELD.findall(template)
        for key in keys:
            if key != "file" and key not in self.source.frame.columns:
                raise InputError(f"{template!r} needs the column {key!r}, which is not there; mend the mapping")
        cells = {key: self.source.frame[key].cast(pl.String).to_list() for key in keys if key != "file"}
        self.used.update(cells)
        made = []
        for row in range(self.source.frame.height):
            own = {"file": self.source.name, **{key: column[row] or "" for key, column in cells.items()}}
            made.append(_FIELD.sub(lambda match, own=own: own[match[1]], template))  # type: ignore[misc]
        return made


def apply(source: Source, mapping: TableMap) -> Sheet:
    """Turn a table into the contract's columns, as its mapping says; columns that are in the contract stay.

    Raises:
        InputError: a column is missing or means two things, or shares are negative or do not sum to one.
    """
    desk = Desk(source)
    ignored = {name for name in source.frame.columns for glob in mapping.ignore if captures(glob, name) is not None}
    ignored |= {""} & set(source.frame.columns)
    desk.used |= ignored
    _plain(desk, mapping)
    free = [name for name in source.frame.columns if name not in ignored]
    units = _tasks(desk, mapping, [name for name in free if name not in desk.used])
    tasks = {desk.sources[f"metric:{task}"] for task in units}
    domains = _phases(desk, mapping, [name for name in free if name not in tasks])
    for name in free:
        if in_contract(name) and name not in desk.used and not (mapping.phase and name.startswith("tokens:")):
            desk.put(name, source.frame[name], name)
            desk.used.add(name)
    rest = [name for name in source.frame.columns if name not in desk.used]
    versions = [n for n in rest if tells_version(n) or any(captures(glob, n) is not None for glob in mapping.versions)]
    return Sheet(
        pl.DataFrame(list(desk.columns.values())),
        source.places,
        desk.sources,
        units,
        _kinds(mapping, domains),
        labels(source.frame, versions),
        (*source.notes, *desk.notes),
        source.warnings,
        source.frame.select(rest),
    )


def _plain(desk: Desk, mapping: TableMap) -> None:
    """Name, size, seed and progress of each run."""
    if mapping.run is not None:
        template = mapping.run if _FIELD.search(mapping.run) else "{" + mapping.run + "}"
        desk.put("run", desk.names(template), mapping.run)
    for name in ("params", "seed", "progress"):
        value: Value | None = getattr(mapping, name)
        if value is not None:
            desk.put(name, desk.value(value), _called(value, name))


def _called(value: Value, otherwise: str) -> str:
    if isinstance(value, Reading):
        return value.column
    return value if isinstance(value, str) else otherwise


def _tasks(desk: Desk, mapping: TableMap, free: Sequence[str]) -> dict[str, str]:
    """Columns of tasks with their noise; returns the units."""
    units: dict[str, str] = {}
    taken = _beside(mapping)
    for column, (glob, parts) in claimed(mapping.tasks, [n for n in free if n not in taken], "tasks").items():
        found = mapping.tasks[glob]
        task = TaskMap(unit=found) if isinstance(found, str) else found
        name = starred(task.name, parts) if task.name else column.removeprefix("metric:")
        units[name] = task.unit
        desk.put(f"metric:{name}", desk.numbers(column) * task.scale + task.offset, column)
        for kind, pattern in (("noise", task.noise), ("stderr", task.stderr)):
            beside = starred(pattern, parts) if pattern else None
            if beside is not None and beside in desk.source.frame.columns:
                desk.put(f"{kind}:{name}", desk.numbers(beside) * abs(task.scale), beside)
    return units


def _beside(mapping: TableMap) -> set[str]:
    """Columns with a plain name elsewhere in the mapping: a glob of tasks does not mean them."""
    values = [
        mapping.tokens,
        *mapping.unique.values(),
        *(v for p in mapping.phase for v in (p.tokens, p.share, p.lr_end)),
    ]
    readings = [Reading(column=value) if isinstance(value, str) else value for value in values]
    names = [
        part for value in readings if isinstance(value, Reading) for part in (value.column, value.scale, value.over)
    ]
    names += [key for phase in mapping.phase for key in (*phase.shares, *phase.domain_tokens)]
    names += [key for phase in mapping.phase for key in _FIELD.findall(f"{phase.domain} {phase.rest}")]
    return {name for name in names if isinstance(name, str)}


def _phases(desk: Desk, mapping: TableMap, free: Sequence[str]) -> list[str]:
    """Tokens of each phase and domain, learning rates, unique tokens; returns the domains."""
    domains: dict[str, None] = {}
    for phase in mapping.phase:
        found = amounts(desk, phase, free) if phase.domain_tokens else _of_total(desk, mapping, phase, free)
        for domain, (cells, source) in found.items():
            if ":" in domain or not domain:
                raise InputError(f"domain {domain!r} needs a name without a colon; give it another one in the mapping")
            desk.put(f"tokens:{phase.name}:{domain}", cells, source)
            domains[domain] = None
        if phase.lr_end is not None:
            desk.put(f"lr_end:{phase.name}", desk.value(phase.lr_end), _called(phase.lr_end, "lr_end"))
    for domain, value in mapping.unique.items():
        if mapping.phase and domain not in domains:
            raise InputError(f"unique: there is no domain {domain!r}; there are {', '.join(list(domains)[:12])}")
        desk.put(f"unique:{domain}", desk.value(value), _called(value, domain))
    return list(domains)


def _of_total(
    desk: Desk, mapping: TableMap, phase: PhaseMap, columns: Sequence[str]
) -> Mapping[str, tuple[NDArray[np.float64], str]]:
    """Tokens per domain of a phase of which the total is known."""
    total = phase.tokens if phase.tokens is not None else mapping.tokens
    assert total is not None  # the mapping is checked
    tokens = desk.value(total)
    if phase.tokens is None and (phase.share is not None or len(mapping.phase) > 1):
        tokens = _by_then(desk, mapping, phase, tokens) if desk.source.history else tokens * _part(desk, mapping, phase)
    return shared(desk, phase, columns, tokens, mapping.tolerance)


def _part(desk: Desk, mapping: TableMap, phase: PhaseMap) -> NDArray[np.float64]:
    """Share of the run's tokens that a phase has, for every row; without one, what the others leave.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if phase.share is None:
        others = [_part(desk, mapping, other) for other in mapping.phase if other is not phase]
        part = 1 - np.sum(others, axis=0)
        part = np.where(np.abs(part) < ROUNDED, 0.0, part)
    else:
        part = desk.value(phase.share)
    if (wrong := np.flatnonzero(~((part >= 0) & (part <= 1)))).size:
        row, seen = int(wrong[0]), "empty" if np.isnan(part[wrong[0]]) else f"{part[wrong[0]]:g}"
        raise InputError(
            f"{desk.source.places[row]}: the share of the run's tokens in phase {phase.name!r} is {seen}, not in 0..1; "
            'mend the row, or the mapping: share = { column = "...", over = 100 } for percent'
        )
    return np.asarray(part, dtype=np.float64)


def _by_then(desk: Desk, mapping: TableMap, phase: PhaseMap, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tokens of a phase at a moment of a run that has seen `tokens`: phases come one after the other."""
    if mapping.progress is None:
        raise InputError(
            "a history with several phases needs progress, the share of the run that is done; "
            'give it in the mapping, such as progress = { column = "Step", over = "max_steps" }'
        )
    planned = tokens / np.maximum(desk.value(mapping.progress), 1e-12)
    before = sum((_part(desk, mapping, other) for other in mapping.phase[: mapping.phase.index(phase)]), np.float64(0))
    part = _part(desk, mapping, phase)
    return np.asarray(np.clip(tokens - before * planned, 0, part * planned), dtype=np.float64)


def _kinds(mapping: TableMap, domains: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the mapping knows of each domain; of several globs the first that matches."""
    found: dict[str, dict[str, Any]] = {}
    for domain in domains:
        for glob, known in mapping.domains.items():
            if captures(glob, domain) is not None:
                found.setdefault(domain, known.model_dump(mode="json", exclude_unset=True))
    return found
