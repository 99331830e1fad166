"""What an import adds to study.toml: domains, tasks and phases; comments and what was there stay."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from mixlaw.errors import InputError
from mixlaw.files import read_text
from mixlaw.recipe import Decay, Kind
from mixlaw.records import Record
from mixlaw.settings import VERSION, DomainSettings, read_settings, validate


def updated_settings(
    path: Path,
    records: Sequence[Record],
    phases: Sequence[str],
    domains: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, str],
    scores: Mapping[str, Mapping[str, Any]],
) -> str:
    """Content of study.toml with what the records tell.

    Args:
        path: of study.toml, which may not be there yet.
        records: of all rows.
        phases: names, in order.
        domains: name -> kind and unique tokens, where known.
        tasks: name -> unit.
        scores: name -> link and chance, where known.

    Raises:
        InputError: study.toml is or would become invalid.
    """
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    if path.exists():
        read_settings(path)
    document.setdefault("version", VERSION)
    document.setdefault("name", path.parent.resolve().name)
    known = document.setdefault("domains", tomlkit.table())
    for name, given in domains.items():
        entry = {"kind": Kind.TEXT.value, **known.get(name, {}), **given}
        if name not in known or dict(known[name]) != entry:
            table = tomlkit.inline_table()
            table.update(entry)
            known[name] = table
    units = document.setdefault("tasks", tomlkit.table())
    for task, unit in tasks.items():
        if task not in units:
            entry = tomlkit.inline_table()
            entry.update({"unit": unit, **scores.get(task, {})})
            units[task] = entry if len(entry) > 1 else unit
    if "phases" not in document:
        document["phases"] = _phases(records, phases)
    text = tomlkit.dumps(document).rstrip() + "\n"
    validate(tomllib.loads(text), path)
    return text


def _phases(records: Sequence[Record], names: Sequence[str]) -> Any:
    """Phases with their share of all tokens in the table; the last one decays unless the table says otherwise."""
    totals = dict.fromkeys(names, 0.0)
    ends: dict[str, float] = dict.fromkeys(names, 1.0) | {names[-1]: 0.0}
    for record in records:
        for phase in record.recipe.phases:
            totals[phase.name] += phase.tokens / record.recipe.tokens
            ends[phase.name] = ends[phase.name] if phase.lr_end is None else phase.lr_end
    array = tomlkit.aot()
    for name, total in totals.items():
        if total > 0:
            table = tomlkit.table()
            table.update({"name": name, "share": total / sum(totals.values()), "lr_end": ends[name]})
            shapes = Counter(p.decay for r in records for p in r.recipe.phases if p.name == name and p.lr_end != 1)
            if shapes and (usual := shapes.most_common(1)[0][0]) is not Decay.LINEAR:
                table["decay"] = usual.value
            array.append(table)
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
        where = ".".join([name, *map(str, first["loc"])])
        raise InputError(
            f"{path}: {where} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path} cannot be read: {error}; it holds lines such as web = {{ kind = "text" }}') from error
    return domains
