"""What an import adds to study.toml: domains, tasks and phases; comments and what was there stay."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from mixlaw.errors import InputError, key_of
from mixlaw.files import read_text
from mixlaw.recipe import Decay, Kind
from mixlaw.records import Record, phase_order
from mixlaw.settings import VERSION, DomainSettings, read_settings, validate


def updated_settings(
    path: Path,
    records: Sequence[Record],
    phases: Sequence[str],
    domains: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, str],
    scores: Mapping[str, Mapping[str, Any]],
) -> tuple[str, list[str], list[str]]:
    """Content of study.toml with what the records tell, notes on phases that were added, and what contradicted it.

    Args:
        path: of study.toml, which may not be there yet.
        records: of the whole study, the import among them.
        phases: of the import, in order.
        domains: name -> kind and unique tokens, where known.
        tasks: name -> unit.
        scores: name -> link and chance, where known.

    Raises:
        InputError: study.toml is or would become invalid.
    """
    document = tomlkit.parse(read_text(path)) if path.exists() else tomlkit.document()
    if path.exists():
        read_settings(path)
    document.setdefault("version", VERSION)
    document.setdefault("name", path.parent.resolve().name)
    known = document.setdefault("domains", tomlkit.table())
    notes: list[str] = []
    faults: list[str] = []
    for name, given in domains.items():
        faults += _changed(name, known.get(name, {}), given)
        entry = {**known.get(name, {}), **given}  # an assumed kind is not written: it would contradict the true one
        if name not in known or dict(known[name]) != entry:
            table = tomlkit.inline_table()
            table.update(entry)
            known[name] = table
    units = document.setdefault("tasks", tomlkit.table())
    for task, unit in tasks.items():
        before = units.get(task, {})
        before = dict(before) if isinstance(before, Mapping) else {"unit": before}
        now = {"unit": unit, **scores.get(task, {})}
        faults += [
            f"task {task!r}, {key}: {before[key]}, now {value}"
            for key, value in now.items()
            if before.get(key, value) != value
        ]
        if {**before, **now} != before:
            entry = tomlkit.inline_table()
            entry.update({**before, **now})
            units[task] = entry if len(entry) > 1 else unit
    if "phases" not in document:
        document["phases"] = _phases(_shares(records, phases), records, phases[-1])
    else:
        there = [str(phase["name"]) for phase in document["phases"]]
        faults += _turned_round(document, there, phases)
        if added := [name for name in phases if name not in there]:
            notes += [_added(document, path, records, phases, added)]
    text = tomlkit.dumps(document).rstrip() + "\n"
    validate(tomllib.loads(text), path)
    return text, notes, faults


def _changed(name: str, before: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What an import says otherwise of a domain than the study, with both values."""
    old, new = (DomainSettings.model_validate(dict(entry)) for entry in (before, given))
    there = [key for key in given if key in before and getattr(old, key) != getattr(new, key)]
    return [f"domain {name!r}, {key}: {_said(getattr(old, key))}, now {_said(getattr(new, key))}" for key in there]


def _said(value: Any) -> str:
    return value.value if isinstance(value, Kind) else f"{value:,}" if isinstance(value, int) else str(value)


def _turned_round(document: Any, there: Sequence[str], phases: Sequence[str]) -> list[str]:
    """Bring [[phases]] into the order of an import where that is another; returns what it contradicted."""
    before, now = [name for name in there if name in phases], [name for name in phases if name in there]
    if before == now:
        return []
    tables, places, array = {str(table["name"]): table for table in document["phases"]}, iter(now), tomlkit.aot()
    for name in there:
        array.append(tables[next(places) if name in before else name])
    document["phases"] = array
    return [f"order of phases: {', '.join(before)}, now {', '.join(now)}, with the lr_end that each has in study.toml"]


def _added(document: Any, path: Path, records: Sequence[Record], phases: Sequence[str], added: Sequence[str]) -> str:
    """Give [[phases]] those that are new, and make room for their shares; returns what was done, or is to be done."""
    before = {str(phase["name"]): phase for phase in document["phases"]}
    order = phase_order([[name for name in before if name in phases], phases, list(before)])
    shares = _shares(records, order)
    room = 1 - sum(shares[name] for name in added)
    fresh = {str(table["name"]): table for table in _phases(shares, records, order[-1])}
    array = tomlkit.aot()
    for name in order:
        if name in before:
            table = before[name]
            table["share"] = round(float(table["share"]) * room, _DIGITS)
            array.append(table)
        elif name in fresh:
            array.append(fresh[name])
    _sum_to_one(array)
    said = f"phase {', '.join(added)} is new"
    rest, document["phases"] = document["phases"], array
    try:
        validate(tomllib.loads(tomlkit.dumps(document)), path)
    except InputError:
        document["phases"] = rest
        return f"{said}: [[recipes]] of study.toml leave no room for it in [[phases]]; add it, or targets leave it out"
    return f"{said} and was added to [[phases]] of study.toml; check the shares and lr_end there"


#: Digits of a share in study.toml: more than any table of tokens means.
_DIGITS = 6


def _shares(records: Sequence[Record], names: Sequence[str]) -> dict[str, float]:
    """Mean share of each phase in the tokens of a run, rounded, summing to one."""
    totals = dict.fromkeys(names, 0.0)
    for record in records:
        for phase in record.recipe.phases:
            if phase.name in totals:
                totals[phase.name] += phase.tokens / record.recipe.tokens
    return {name: total / sum(totals.values()) for name, total in totals.items()}


def _sum_to_one(array: Any) -> None:
    """Give what rounding left to the largest share."""
    rest = 1 - sum(float(table["share"]) for table in array)
    largest = max(array, key=lambda table: float(table["share"]))
    largest["share"] = round(float(largest["share"]) + rest, _DIGITS)


def _phases(shares: Mapping[str, float], records: Sequence[Record], last: str) -> Any:
    """Phases with their shares; each ends as most runs say, else the last one decays and the others hold their rate."""
    array = tomlkit.aot()
    for name, share in shares.items():
        if round(share, _DIGITS) > 0:
            used = [phase for record in records for phase in record.recipe.phases if phase.name == name]
            ends = Counter(phase.lr_end for phase in used if phase.lr_end is not None)
            end = ends.most_common(1)[0][0] if ends else float(name != last)
            table = tomlkit.table()
            table.update({"name": name, "share": round(share, _DIGITS), "lr_end": end})
            shapes = Counter(phase.decay for phase in used if phase.lr_end != 1)
            if shapes and (usual := shapes.most_common(1)[0][0]) is not Decay.LINEAR:
                table["decay"] = usual.value
            array.append(table)
    _sum_to_one(array)
    return array


def read_domains(path: Path) -> dict[str, dict[str, Any]]:
    """Kind and unique tokens of domains from a TOML file, with or without a [domains] table around them.

    Raises:
        InputError: it cannot be read, or a domain has a key or a value that is wrong.
    """
    try:
        data = tomllib.loads(read_text(path))
        domains = data.get("domains", data)
        if not isinstance(domains, dict):
            raise ValueError("domains is no table")
        for name, given in domains.items():
            if not isinstance(given, dict):
                raise ValueError(f"{name} = {given!r} is no table")
            DomainSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = key_of([name, *first["loc"]])
        raise InputError(
            f"{path}: {where} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path} cannot be read: {error}; it holds lines such as web = {{ kind = "text" }}') from error
    return domains
