"""A mapping applied to a table: shares and totals become tokens, columns become tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixlaw.adapters.mapped import FIELD, Mapped
from mixlaw.adapters.mapping import PhaseMap, Reading, TableMap, TaskMap, Value, captures, claimed, starred
from mixlaw.adapters.mixtures import ROUNDED, amounts, shared
from mixlaw.adapters.sheet import TEXT, Sheet, in_contract, labels, options, tells_version
from mixlaw.adapters.tables import Source
from mixlaw.cells import texts
from mixlaw.errors import InputError
from mixlaw.numbers import percent
from mixlaw.records import Unit

#: Share of a run by which its last step may lie past the end.
PAST = 0.01


def apply(source: Source, mapping: TableMap) -> Sheet:
    """Turn a table into the contract's columns, as its mapping says; columns that are in the contract stay.

    Raises:
        InputError: a cell is no number, a column is missing or means two things, shares are negative or sum to another
            number than one.
    """
    try:
        return _applied(source, mapping)
    except InputError:
        source.log.check()  # cells that are no numbers are the reason for what they lead to
        raise


def _applied(source: Source, mapping: TableMap) -> Sheet:
    mapped = Mapped(source)
    ignored = {name for name in source.frame.columns for glob in mapping.ignore if captures(glob, name) is not None}
    ignored |= {""} & set(source.frame.columns)
    mapped.used |= ignored
    _plain(mapped, mapping)
    free = [name for name in source.frame.columns if name not in ignored]
    units = _tasks(mapped, mapping, [name for name in free if name not in mapped.used])
    tasks = {mapped.sources[f"metric:{task}"] for task in units}
    domains = _phases(mapped, mapping, [name for name in free if name not in tasks])
    for name in free:
        if in_contract(name) and name not in mapped.used and not (mapping.phase and name.startswith("tokens:")):
            text, diverging = name in TEXT or name.startswith("decay:"), name.startswith("metric:")
            numbers = partial(mapped.numbers, name, **options(name), diverging=diverging)
            mapped.put(name, texts(source.frame[name]) if text else numbers(), name)
            mapped.used.add(name)
    rest = [name for name in source.frame.columns if name not in mapped.used]
    versions = [n for n in rest if tells_version(n) or any(captures(glob, n) is not None for glob in mapping.versions)]
    return Sheet(
        pl.DataFrame(list(mapped.columns.values())),
        source.places,
        mapped.sources,
        units,
        _kinds(mapping, domains),
        labels(source.frame, versions),
        (*source.notes, *mapped.notes),
        source.warnings,
        source.frame.select(rest),
        source.log,
        tuple(phase.name for phase in mapping.phase),
        True,
    )


def _plain(mapped: Mapped, mapping: TableMap) -> None:
    """Name, size, seed, progress, rate and schedule of each run."""
    if mapping.run is not None:
        template = mapping.run if FIELD.search(mapping.run) else "{" + mapping.run + "}"
        mapped.put("run", mapped.names(template), mapping.run)
    for name in ("params", "seed", "progress", "lr", "warmup"):
        value: Value | None = getattr(mapping, name)
        if value is not None:
            cells = mapped.value(value)
            mapped.put(name, _done(mapped, cells) if name == "progress" else cells, _called(value, name))
    if mapping.schedule is not None:
        mapped.put("schedule", mapped.words(mapping.schedule), mapping.schedule)


def _done(mapped: Mapped, progress: NDArray[np.float64]) -> NDArray[np.float64]:
    """Progress of which a step past the last one, as some trainers log it, is the end."""
    past = (progress > 1) & (progress <= 1 + PAST)
    if past.any():
        mapped.notes.append(
            f"progress of {past.sum()} rows is up to {percent(PAST)} past the end and counts as finished"
        )
    return np.where(past, 1.0, progress)


def _called(value: Value, otherwise: str) -> str:
    if isinstance(value, Reading):
        return value.column
    return value if isinstance(value, str) else otherwise


def _tasks(mapped: Mapped, mapping: TableMap, free: Sequence[str]) -> dict[str, str]:
    """Columns of tasks with their noise; returns the units."""
    units: dict[str, str] = {}
    taken = _beside(mapping)
    for column, (glob, parts) in claimed(mapping.tasks, [n for n in free if n not in taken], "tasks").items():
        entry = mapping.tasks[glob]
        task = TaskMap(unit=entry) if isinstance(entry, str) else entry
        name = starred(task.name, parts) if task.name else column.removeprefix("metric:")
        units[name] = task.unit
        cells = mapped.numbers(column, diverging=Unit.parse(task.unit, name).lower_is_better)
        mapped.put(f"metric:{name}", cells * task.scale + task.offset, column)
        for kind, pattern in (("noise", task.noise), ("stderr", task.stderr)):
            beside = starred(pattern, parts) if pattern else None
            if beside is not None and beside in mapped.source.frame.columns:
                mapped.put(f"{kind}:{name}", mapped.numbers(beside) * abs(task.scale), beside)
    return units


def _beside(mapping: TableMap) -> set[str]:
    """Columns with a plain name elsewhere in the mapping: a glob of tasks does not mean them."""
    values = [
        mapping.tokens,
        mapping.lr,
        mapping.warmup,
        *mapping.unique.values(),
        *(v for p in mapping.phase for v in (p.tokens, p.share, p.lr_end)),
    ]
    readings = [Reading(column=value) if isinstance(value, str) else value for value in values]
    names = [
        part for value in readings if isinstance(value, Reading) for part in (value.column, value.scale, value.over)
    ]
    names += [key for phase in mapping.phase for key in (*phase.shares, *phase.domain_tokens)]
    names += [key for phase in mapping.phase for key in FIELD.findall(f"{phase.domain} {phase.rest}")]
    return {name for name in names if isinstance(name, str)}


def _phases(mapped: Mapped, mapping: TableMap, free: Sequence[str]) -> list[str]:
    """Tokens of each phase and domain, learning rates, unique tokens; returns the domains."""
    domains: dict[str, None] = {}
    for phase in mapping.phase:
        columns = amounts(mapped, phase, free) if phase.domain_tokens else _of_total(mapped, mapping, phase, free)
        for domain, (cells, source) in columns.items():
            if ":" in domain or not domain:
                raise InputError(f"domain {domain!r} needs a name without a colon; give it another one in the mapping")
            mapped.put(f"tokens:{phase.name}:{domain}", cells, source)
            domains[domain] = None
        if phase.lr_end is not None:
            mapped.put(
                f"lr_end:{phase.name}", mapped.value(phase.lr_end, counts=False), _called(phase.lr_end, "lr_end")
            )
        if phase.decay is not None:
            mapped.put(f"decay:{phase.name}", mapped.words(phase.decay), phase.decay)
    for domain, value in mapping.unique.items():
        if mapping.phase and domain not in domains:
            raise InputError(f"unique: there is no domain {domain!r}; there are {', '.join(list(domains)[:12])}")
        mapped.put(f"unique:{domain}", mapped.value(value), _called(value, domain))
    return list(domains)


def _of_total(
    mapped: Mapped, mapping: TableMap, phase: PhaseMap, columns: Sequence[str]
) -> Mapping[str, tuple[NDArray[np.float64], str]]:
    """Tokens per domain of a phase of which the total is known."""
    total = phase.tokens if phase.tokens is not None else mapping.tokens
    assert total is not None  # the mapping is checked
    tokens = mapped.value(total)
    if phase.tokens is None and (phase.share is not None or len(mapping.phase) > 1):
        tokens = (
            _by_then(mapped, mapping, phase, tokens)
            if mapped.source.history or mapping.progress is not None
            else tokens * _part(mapped, mapping, phase)
        )
    return shared(mapped, phase, columns, tokens, mapping.tolerance)


def _part(mapped: Mapped, mapping: TableMap, phase: PhaseMap) -> NDArray[np.float64]:
    """Share of the run's tokens that a phase has, for every row; without one, what the others leave.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if phase.share is None:
        others = [_part(mapped, mapping, other) for other in mapping.phase if other is not phase]
        part = 1 - np.sum(others, axis=0)
        part = np.where(np.abs(part) < ROUNDED, 0.0, part)
    else:
        part = mapped.value(phase.share, counts=False)
    if (wrong := np.flatnonzero(~((part >= 0) & (part <= 1)))).size:
        row, seen = int(wrong[0]), "empty" if np.isnan(part[wrong[0]]) else f"{part[wrong[0]]:g}"
        raise InputError(
            f"{mapped.source.places[row]}: phase {phase.name!r} has the share {seen} of the run's tokens, not in 0..1; "
            'fix the row, or the mapping: share = { column = "...", over = 100 } for percent'
        )
    return np.asarray(part, dtype=np.float64)


def _by_then(mapped: Mapped, mapping: TableMap, phase: PhaseMap, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tokens of a phase at a moment of a run that has seen `tokens`: phases come one after the other."""
    if mapping.progress is None:
        raise InputError(
            "a history with several phases needs progress, the share of the run that is done; "
            'give it in the mapping, such as progress = { column = "Step", over = "max_steps" }'
        )
    planned = tokens / np.maximum(mapped.value(mapping.progress), 1e-12)
    before = sum(
        (_part(mapped, mapping, other) for other in mapping.phase[: mapping.phase.index(phase)]), np.float64(0)
    )
    part = _part(mapped, mapping, phase)
    return np.asarray(np.clip(tokens - before * planned, 0, part * planned), dtype=np.float64)


def _kinds(mapping: TableMap, domains: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the mapping knows of each domain; of several globs the first that matches."""
    kinds: dict[str, dict[str, Any]] = {}
    for domain in domains:
        for glob, known in mapping.domains.items():
            if captures(glob, domain) is not None:
                kinds.setdefault(domain, known.model_dump(mode="json", exclude_unset=True))
    return kinds
