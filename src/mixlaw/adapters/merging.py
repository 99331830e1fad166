"""Records of an import beside those that a study has: what is new is added, what contradicts is named or replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixlaw.adapters.rows import agree
from mixlaw.cells import SHOWN
from mixlaw.errors import InputError
from mixlaw.files import names_to_disk, to_disk
from mixlaw.recipe import Phase, Recipe
from mixlaw.records import Measurement, Record, read_record

AT_ONCE = 32  # files that the disk is asked to write: it takes that many in little more time than one


@dataclass(frozen=True)
class Merge:
    """What an import changes in the runs of a study.

    Attributes:
        records: all of the study as they will be.
        written: path -> record to write.
        removed: paths of records that another takes the place of.
        contradictions: what was otherwise in the study, with run, task, old and new value.
        notes: how many rows are new, and what those gain that were there.
    """

    records: tuple[Record, ...]
    written: Mapping[Path, Record]
    removed: tuple[Path, ...]
    contradictions: tuple[str, ...]
    notes: tuple[str, ...]

    def write(self) -> None:
        """Write every record, whole or not at all, and remove those that were replaced."""
        drafts = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in self.written}
        try:
            for path, record in self.written.items():
                _write(drafts[path], record)
            with ThreadPoolExecutor(AT_ONCE) as threads:
                list(threads.map(to_disk, drafts.values()))
                for path, draft in drafts.items():
                    draft.replace(path)
                list(threads.map(names_to_disk, {folder for path in drafts for folder in path.parents[:2]}))
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)
        for path in self.removed:
            path.unlink()
            with suppress(OSError):  # where anything else is in the folder, it stays
                path.parent.rmdir()


def merged(folder: Path, records: Sequence[Record]) -> Merge:
    """Records beside those of a study, without changing it; where they contradict it, theirs count.

    Args:
        folder: of the study.
        records: of the import, each run and progress once.

    Raises:
        InputError: a row contradicts a run that was trained here, or others of its run.
    """
    there = {path: read_record(path) for path in sorted((folder / "runs").glob("*/record.json"))}
    at = {(record.run, record.progress): path for path, record in there.items()}
    whole, written, removed = dict(there), {}, []
    faults: list[str] = []
    ours_differ: list[str] = []
    gained: dict[str, None] = {}
    fresh = changed = 0
    for record in records:
        path = at.get((record.run, record.progress))
        old = None if path is None else there[path]
        result = record if old is None else _joined(old, record)
        if old is None:
            fresh += 1
        else:
            (ours_differ if old.recipe.data else faults).extend(_contradictions(old, record))
            gained |= dict.fromkeys(task for task in result.values if task not in old.values)
            changed += result != old
        target = folder / "runs" / result.key / "record.json"
        if result != old:
            written[target] = whole[target] = result
        if path is not None and path != target:
            removed.append(path)
            del whole[path]
    if ours_differ:
        raise InputError(
            f"{counted(len(ours_differ), 'contradicts', 'contradict')} runs that {folder} trained itself, which no "
            "table replaces: "
            f"{listed(ours_differ)}; correct the table, or call its runs otherwise"
        )
    ours = {record.run for record in records}
    union = [record for record in whole.values() if record.run in ours]
    agree(union, [f"run {record.run!r} at progress {record.progress:g}" for record in union])
    notes = []
    if there:
        gains = f" and gain {', '.join(list(gained)[:12])}" if gained else ""
        notes = [
            f"{fresh} rows are new, {len(records) - fresh} are in the study already, of which {changed} change{gains}"
        ]
    return Merge(tuple(whole.values()), written, tuple(removed), tuple(faults), tuple(notes))


def counted(values: int, one: str, more: str) -> str:
    """How many values, and the verb that goes with the number."""
    return f"1 value {one}" if values == 1 else f"{values} values {more}"


def replaced(values: Sequence[str]) -> list[str]:
    """A note of the values that were replaced, if any."""
    return [f"{counted(len(values), 'was', 'were')} replaced: {listed(values)}"] if values else []


def listed(values: Sequence[str]) -> str:
    """The first of some values, and how many more there are."""
    return "; ".join([*values[:SHOWN], *([f"and {len(values) - SHOWN} more"] if len(values) > SHOWN else [])])


def _joined(old: Record, new: Record) -> Record:
    """What both know of one moment of a run; where they differ, the new one counts."""
    values = dict(old.values)
    for task, measured in new.values.items():
        before = values.get(task)
        if before is not None and before.value == measured.value:
            stderr = before.stderr if measured.stderr is None else measured.stderr
            measured = Measurement(measured.value, stderr, measured.count or before.count)
        values[task] = measured
    recipe = _completed(new.recipe, old.recipe)
    details = dict(old.details) | dict(new.details)
    return replace(new, recipe=recipe, values=values, noise={**old.noise, **new.noise}, details=details)


def _completed(recipe: Recipe, other: Recipe) -> Recipe:
    """A recipe with what it leaves open as the other has it: the end of a decay, a warm-up, unique tokens."""
    known = {phase.name: phase for phase in other.phases}
    phases = tuple(_ended(phase, known.get(phase.name)) for phase in recipe.phases)
    warmup = other.warmup if recipe.warmup is None else recipe.warmup
    return replace(recipe, phases=phases, warmup=warmup, unique={**other.unique, **recipe.unique}, data=other.data)


def _ended(phase: Phase, other: Phase | None) -> Phase:
    return (
        phase if other is None or phase.lr_end is not None else replace(phase, lr_end=other.lr_end, decay=other.decay)
    )


def _contradictions(old: Record, new: Record) -> Iterator[str]:
    """What two records say differently of one moment of a run."""
    where = f"run {old.run!r}" + (f" at progress {old.progress:g}" if old.progress < 1 else "")
    for task, measured in new.values.items():
        before = old.values.get(task)
        if before is not None and before.value != measured.value:
            yield f"{where}, task {task!r}: {before.value:.6g}, now {measured.value:.6g}"
        elif before is not None:
            for name, old_one, new_one in (
                ("standard error", before.stderr, measured.stderr),
                ("count", before.count, measured.count),
            ):
                if None not in (old_one, new_one) and old_one != new_one:
                    yield f"{where}, {name} of {task!r}: {old_one:.6g}, now {new_one:.6g}"
    for task, noise in new.noise.items():
        if task in old.noise and old.noise[task] != noise:
            yield f"{where}, noise of {task!r}: {old.noise[task]:.6g}, now {noise:.6g}"
    for what, before, now in _different(old, new):
        yield f"{where}, {what}: {before}, now {now}"


def _different(old: Record, new: Record) -> Iterator[tuple[str, Any, Any]]:
    """What differs between the recipes of two records, with both values."""
    a, b = old.recipe, _completed(new.recipe, old.recipe)
    for name in ("params", "seed", "lr", "warmup", "schedule"):
        if getattr(a, name) != getattr(b, name):
            yield name, getattr(a, name), getattr(b, name)
    for domain in a.unique.keys() | b.unique.keys():
        if a.unique.get(domain) != b.unique.get(domain):
            yield f"unique:{domain}", a.unique.get(domain), b.unique.get(domain)
    one, other = {p.name: p for p in a.phases}, {p.name: p for p in b.phases}
    domains = dict.fromkeys((*a.domains, *b.domains))
    for phase in dict.fromkeys((*one, *other)):
        for domain in domains:
            before, now = old.drawn(phase, domain), new.drawn(phase, domain)
            if before != now:
                yield f"tokens:{phase}:{domain}", f"{before:,.0f}", f"{now:,.0f}"
        if phase in one and phase in other:
            for name in ("lr_end", "decay"):
                before, now = getattr(one[phase], name), getattr(other[phase], name)
                if before != now:
                    yield f"{name}:{phase}", before, now
    if list(one) != list(other) and set(one) == set(other):
        yield "order of phases", ", ".join(one), ", ".join(other)


def _write(path: Path, record: Record) -> None:
    """Write one record, with few system calls, as there may be thousands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record.as_json(), ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
