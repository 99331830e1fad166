"""Foreign runs: a table of any trainer, checked row by row, becomes records of a study."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.recipe import Kind, Mixture, Phase, Recipe
from mixlaw.records import Measurement, Record, Unit, read_record, write_record
from mixlaw.settings import VERSION, read_settings

if TYPE_CHECKING:
    import polars as pl

_TOKENS = re.compile(r"tokens:([^:]+):([^:]+)")
_PLAIN = ("run", "params", "seed", "progress")
_PREFIXES = ("lr_end:", "unique:", "metric:", "noise:")


@dataclass(frozen=True)
class Understood:
    """What a table turned out to hold.

    Attributes:
        records: one per row.
        runs: number of different runs.
        phases, domains: names, in order of appearance.
        tasks: name -> unit.
        params: smallest and largest model.
        tokens: fewest and most tokens of a row.
        ignored: columns that mean nothing to mixlaw.
    """

    records: tuple[Record, ...]
    runs: int
    phases: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: Mapping[str, str]
    params: tuple[int, int]
    tokens: tuple[int, int]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{len(self.records)} rows of {self.runs} runs",
            f"{self.params[0]:,} to {self.params[1]:,} params, {self.tokens[0]:,} to {self.tokens[1]:,} tokens",
            f"phases in order: {', '.join(self.phases)}",
            f"{len(self.domains)} domains: {', '.join(self.domains)}",
            f"{len(self.tasks)} tasks: {', '.join(f'{task} [{unit}]' for task, unit in self.tasks.items())}",
        ]
        return "\n".join([*lines, *([f"ignored columns: {', '.join(self.ignored)}"] if self.ignored else [])])

    def as_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "rows": len(self.records),
            "runs": self.runs,
            "phases": list(self.phases),
            "domains": list(self.domains),
            "tasks": dict(self.tasks),
            "params": list(self.params),
            "tokens": list(self.tokens),
            "ignored": list(self.ignored),
        }


def read_table(path: Path) -> pl.DataFrame:
    """Read CSV, Parquet or NDJSON, by the ending of the name.

    Raises:
        InputError: no such file, another ending, or content that is not of that format.
    """
    import polars as pl

    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".csv": lambda p: pl.read_csv(p, infer_schema_length=None),
        ".parquet": pl.read_parquet,
        ".ndjson": lambda p: pl.read_ndjson(p, infer_schema_length=None),
        ".jsonl": lambda p: pl.read_ndjson(p, infer_schema_length=None),
    }
    if path.suffix not in readers:
        raise InputError(f"a table is {', '.join(readers)}, got {str(path)!r}; convert it or mend its name")
    try:
        return readers[path.suffix](path)
    except FileNotFoundError:
        raise InputError(f"there is no table {str(path)!r}; check the path") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {error}; export it again") from error


def understand(table: pl.DataFrame, units: Mapping[str, str], unit: str | None = None) -> Understood:
    """Check a table in the contract's columns and turn it into records.

    Args:
        table: columns as in `mixlaw.records`; others are ignored and named.
        units: units that the study knows, by task.
        unit: of tasks that are not among them.

    Raises:
        InputError: a column is missing, or a value contradicts another or itself; names row and column.
    """
    pairs = {name: match.groups() for name in table.columns if (match := _TOKENS.fullmatch(name))}
    tasks = [name.removeprefix("metric:") for name in table.columns if name.startswith("metric:")]
    for needed, there in (("run", "run" in table.columns), ("params", "params" in table.columns)):
        if not there:
            raise InputError(
                f"column {needed!r} is missing; there are {', '.join(table.columns[:12])}: rename or add it"
            )
    if not pairs or not tasks:
        what = "tokens:<phase>:<domain>" if not pairs else "metric:<task>"
        raise InputError(f"no column {what}; there are {', '.join(table.columns[:12])}: rename or add them")
    known = {task: _unit(task, units, unit) for task in tasks}
    rows = [_record(row, number, pairs, tasks) for number, row in enumerate(table.iter_rows(named=True), 1)]
    _no_twins(rows)
    sizes = [r.recipe.params for r in rows] or [0]
    tokens = [r.recipe.tokens for r in rows] or [0]
    return Understood(
        records=tuple(rows),
        runs=len({r.run for r in rows}),
        phases=tuple(dict.fromkeys(phase for phase, _ in pairs.values())),
        domains=tuple(dict.fromkeys(domain for _, domain in pairs.values())),
        tasks=known,
        params=(min(sizes), max(sizes)),
        tokens=(min(tokens), max(tokens)),
        ignored=tuple(c for c in table.columns if c not in pairs and c not in _PLAIN and not c.startswith(_PREFIXES)),
    )


def _unit(task: str, units: Mapping[str, str], unit: str | None) -> str:
    found = units.get(task, unit)
    if found is None:
        raise InputError(
            f"task {task!r} has no unit, so its direction is unknown; "
            "give --unit, or write it under [tasks] of study.toml"
        )
    return Unit.parse(found, task).value


def _number(row: Mapping[str, Any], column: str, number: int, low: float = 0.0, high: float = math.inf) -> float | None:
    """A cell as a number within its range; None where it is empty."""
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"row {number}, column {column!r}: {value!r} is not a number; mend or empty the cell"
        ) from None
    if not math.isfinite(found) or not low <= found <= high:
        span = f"between {low:g} and {high:g}" if high < math.inf else f"finite and >= {low:g}"
        raise InputError(f"row {number}, column {column!r}: {value} must be {span}; mend or empty the cell")
    return found


def _record(row: Mapping[str, Any], number: int, pairs: Mapping[str, tuple[Any, ...]], tasks: Sequence[str]) -> Record:
    drawn: dict[str, dict[str, float]] = {}
    for column, (phase, domain) in pairs.items():
        tokens = _number(row, column, number)
        if tokens:
            drawn.setdefault(phase, {})[domain] = tokens
    if not drawn:
        raise InputError(f"row {number}: no tokens in any tokens:<phase>:<domain> column; leave the row out")
    params = _number(row, "params", number, low=1)
    if row["run"] in (None, "") or params is None:
        raise InputError(f"row {number}, column {'params' if params is None else 'run'!r}: the cell is empty; fill it")
    phases = tuple(
        Phase(phase, round(sum(by.values())), Mixture.normalised(by), _number(row, f"lr_end:{phase}", number, high=1))
        for phase, by in drawn.items()
    )
    unique = {domain: _number(row, f"unique:{domain}", number, low=1) for _, domain in pairs.values()}
    progress = _number(row, "progress", number, high=1)
    values = {task: _number(row, f"metric:{task}", number, low=-math.inf) for task in tasks}
    noise = {task: _number(row, f"noise:{task}", number) for task in tasks}
    recipe = Recipe(
        params=round(params),
        phases=phases,
        seed=round(_number(row, "seed", number) or 0),
        unique={domain: round(count) for domain, count in unique.items() if count is not None},
    )
    return Record(
        run=str(row["run"]),
        recipe=recipe,
        values={task: Measurement(value) for task, value in values.items() if value is not None},
        progress=1.0 if progress is None else progress,
        noise={task: value for task, value in noise.items() if value is not None},
        tokens=drawn,
    )


def _no_twins(records: Sequence[Record]) -> None:
    """Refuse the same checkpoint twice."""
    count = Counter((record.run, record.progress) for record in records)
    twins = [moment for moment, times in count.items() if times > 1]
    if twins:
        rows = [number for number, r in enumerate(records, 1) if (r.run, r.progress) == twins[0]]
        raise InputError(
            f"rows {rows}: run {twins[0][0]!r} is listed {len(rows)} times at progress {twins[0][1]:g}; "
            "keep one, or give repeated seeds names of their own"
        )


def store(understood: Understood, folder: Path, domains: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the records into a study and what was learned into its study.toml; creates the study if there is none.

    Raises:
        InputError: a record is there already with other values, or study.toml would become invalid. Nothing is written.
    """
    text = _learn(understood, folder / "study.toml", domains)
    for record in understood.records:
        path = folder / "runs" / record.key / "record.json"
        if path.exists() and read_record(path) != record:
            raise InputError(f"run {record.run!r} is in {folder} already with other values; import into a new study")
    for record in understood.records:
        write_record(folder / "runs", record)
    write_text(folder / "study.toml", text)


def _learn(understood: Understood, path: Path, domains: Mapping[str, Mapping[str, Any]]) -> str:
    """study.toml with the table's domains, tasks and phases added; comments and what was there stay."""
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    if path.exists():
        read_settings(path)
    document.setdefault("version", VERSION)
    document.setdefault("name", path.parent.resolve().name)
    known = document.setdefault("domains", tomlkit.table())
    for name in understood.domains:
        entry = {"kind": Kind.TEXT.value, **known.get(name, {}), **domains.get(name, {})}
        table = tomlkit.inline_table()
        table.update(entry)
        known[name] = table
    tasks = document.setdefault("tasks", tomlkit.table())
    for task, unit in understood.tasks.items():
        tasks[task] = unit
    if "phases" not in document:
        document["phases"] = _phases(understood)
    return _checked(tomlkit.dumps(document), path)


def _phases(understood: Understood) -> Any:
    """Phases with their share of all tokens in the table; the last one decays unless the table says otherwise."""
    totals = dict.fromkeys(understood.phases, 0.0)
    ends: dict[str, float] = dict.fromkeys(understood.phases, 1.0) | {understood.phases[-1]: 0.0}
    for record in understood.records:
        for phase in record.recipe.phases:
            totals[phase.name] += phase.tokens / record.recipe.tokens
            ends[phase.name] = ends[phase.name] if phase.lr_end is None else phase.lr_end
    array = tomlkit.aot()
    for name, total in totals.items():
        if total > 0:
            table = tomlkit.table()
            table.update({"name": name, "share": total / sum(totals.values()), "lr_end": ends[name]})
            array.append(table)
    return array


def _checked(text: str, path: Path) -> str:
    """The text, if it is a valid study.toml."""
    from mixlaw.settings import validate

    validate(tomllib.loads(text), path)
    return text


def import_table(table: Path, folder: Path, unit: str | None = None, domains: Path | None = None) -> Understood:
    """Read a table of foreign runs, check it and write it into a study, which is created if there is none.

    Args:
        table: CSV, Parquet or NDJSON in the contract's columns.
        folder: of the study.
        unit: of tasks whose unit study.toml does not name.
        domains: TOML file with kind and unique tokens of domains.

    Raises:
        InputError: something contradicts itself or the study, which is then unchanged.
    """
    path = folder / "study.toml"
    units = read_settings(path).units() if path.exists() else {}
    understood = understand(read_table(table), units, unit)
    store(understood, folder, read_domains(domains) if domains else {})
    return understood


def read_domains(path: Path) -> dict[str, dict[str, Any]]:
    """Kind and unique tokens of domains from a TOML file, with or without a [domains] table around them."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f'{path} cannot be read: {error}; it holds lines such as web = {{ kind = "text" }}') from error
    found: dict[str, dict[str, Any]] = data.get("domains", data)
    return found
