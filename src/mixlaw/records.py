"""What runs measured: one atomic JSON file per record, one table over all of them.

The table is the exchange format between folders, trainers and teams; its columns are

    run, params, seed, progress, lr, warmup, schedule, tokens:<phase>:<domain>, lr_end:<phase>, decay:<phase>,
    unique:<domain>, metric:<task>, noise:<task>

of which lr, warmup, schedule and decay are there only where a record is not at their default.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.files import is_whole, sealed, write_json
from mixlaw.numbers import percent
from mixlaw.phases import training_order
from mixlaw.recipe import Decay, Recipe, Schedule

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1  # of record.json
MEASURED_ON = "measured_on"  # in details: by task, identity of the held-out text or items
UNMEASURED = "unmeasured.json"  # beside it: why tasks could not be measured, until a later run does
#: Most parameters for each token of a run; where there are more, the tokens are shares, percent or billions.
MOST_PARAMS = 10_000
#: Most tokens for each parameter; where there are more, the parameters are millions or billions.
MOST_TOKENS = 1_000_000


class Unit(Enum):
    """Unit of a task; which tells the direction that is better."""

    NATS_PER_TOKEN = "nats/token"
    BITS_PER_BYTE = "bits/byte"
    ACCURACY = "accuracy"
    CHOICE_PROB = "choice-prob"
    PASS_AT_1 = "pass@1"
    WIN_RATE = "win-rate"

    @property
    def lower_is_better(self) -> bool:
        """Losses fall as models improve; rates and probabilities rise."""
        return self in (Unit.NATS_PER_TOKEN, Unit.BITS_PER_BYTE)

    @classmethod
    def parse(cls, name: str, task: str) -> Unit:
        """The unit of that name, or an InputError naming the task and what there is."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(unit.value for unit in cls)
            raise InputError(
                f"task {task!r} has the unknown unit {name!r}; its direction is unknown: use one of {known}"
            ) from None


@dataclass(frozen=True)
class Measurement:
    """Value of a task, its standard error over documents or items, and how many of those there were."""

    value: float
    stderr: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InputError(f"measured {self.value}; a record holds finite numbers: leave the task out")

    @property
    def smallest_effect(self) -> float | None:
        """Least difference to another model that is significant at 5 %: 1.96 sqrt(2) standard errors.

        For two models that are measured on different items. Those measured on the same ones share most of the error,
        and so show smaller differences; seeds add noise of their own.
        """
        return None if self.stderr is None else 1.96 * math.sqrt(2) * self.stderr


@dataclass(frozen=True)
class Record:
    """What one run had measured at one moment.

    Attributes:
        run: name of the training run; several records of a run differ in progress.
        recipe: what it had been trained on at that moment.
        values: task -> measurement; a task that was not evaluated is absent.
        progress: share of its learning-rate schedule done, 1 = finished.
        noise: task -> standard deviation over seeds, where it was measured.
        tokens: phase -> domain -> tokens actually drawn; where absent, the recipe's shares are exact.
        details: what else is worth keeping (seconds, tokens per second, versions); never read by the analysis.
    """

    run: str
    recipe: Recipe
    values: Mapping[str, Measurement]
    progress: float = 1.0
    noise: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.progress <= 1:
            raise InputError(f"run {self.run} has progress {self.progress}; it is the share done, between 0 and 1")

    def __repr__(self) -> str:
        return f"<Record: run {self.run!r} at {percent(self.progress)}, {len(self.values)} tasks, {self.recipe!r}>"

    @property
    def key(self) -> str:
        """Name of its folder: the lineage where the run is ours, else a hash of name and progress as well."""
        if self.run == self.recipe.lineage:
            return self.run
        identity = f"{self.run}\n{self.progress!r}\n{self.recipe.lineage}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def drawn(self, phase: str, domain: str) -> float:
        """Tokens of a domain in a phase."""
        if phase in self.tokens:
            return self.tokens[phase].get(domain, 0.0)
        phases = [p for p in self.recipe.phases if p.name == phase]
        return phases[0].tokens * phases[0].mixture.share(domain) if phases else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Record.from_json`."""
        values = {task: [m.value, m.stderr, m.count] for task, m in self.values.items()}
        return {
            "format": FORMAT,
            "run": self.run,
            "progress": self.progress,
            "values": values,
            "noise": dict(self.noise),
            "tokens": {phase: dict(by_domain) for phase, by_domain in self.tokens.items()},
            "recipe": self.recipe.as_json(),
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read what `as_json` wrote."""
        return cls(
            run=data["run"],
            recipe=Recipe.from_json(data["recipe"]),
            values={task: Measurement(*entry) for task, entry in data["values"].items()},
            progress=data["progress"],
            noise=data["noise"],
            tokens=data["tokens"],
            details=data["details"],
        )


def write_record(runs: Path, record: Record) -> Path:
    """Write one record under `runs`, whole or not at all."""
    path = runs / record.key / "record.json"
    write_json(path, sealed(record.as_json()))
    return path


def read_record(path: Path) -> Record:
    """Read one record file.

    Raises:
        InputError: it is truncated, of another format, or not a record.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] == FORMAT:
            if not is_whole(data):
                raise ValueError("its content differs from its checksum")
            return Record.from_json(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is truncated or damaged ({error}); delete it and run again to measure it anew"
        ) from error
    except KeyError as error:
        raise InputError(f"{path} is not a record: {error} is missing; delete it and run again") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a record: {error}; delete it and run again") from error
    raise InputError(
        f"{path} has record format {data['format']}, this mixlaw reads {FORMAT}; use the mixlaw that wrote it"
    )


def is_measured_on(path: Path, wanted: Mapping[str, str]) -> bool:
    """Whether a record file was measured on this held-out text and these items; foreign ones, and damaged, count so."""
    if not wanted:
        return True
    try:
        measured_on = json.loads(path.read_bytes())["details"].get(MEASURED_ON, wanted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True  # whoever reads it says what is wrong
    return all(measured_on.get(task) == identity for task, identity in wanted.items())


def read_records(runs: Path) -> list[Record]:
    """All records of a study, in the order of their keys."""
    return [read_record(path) for path in sorted(runs.glob("*/record.json"))]


def phase_order(sequences: Iterable[Sequence[str]]) -> list[str]:
    """Phase names of many runs in one order that agrees with each run's own, as far as they agree with each other."""
    from graphlib import CycleError, TopologicalSorter

    graph: dict[str, set[str]] = {}
    for names in sequences:
        for before, name in zip((None, *names), names, strict=False):
            graph.setdefault(name, set()).update({before} if before is not None else set())
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:
        return list(graph)


def to_table(
    records: Sequence[Record], domains: Sequence[str] = (), tasks: Sequence[str] = (), phases: Sequence[str] = ()
) -> pl.DataFrame:
    """All records as one polars table, a row per record, columns as in the module's head.

    Args:
        records: any number; without any, a table without rows.
        domains, tasks: names that get a column even if no record has them; they lead the order.
        phases: in the order of training; those of no record get no column.
    """
    import polars as pl

    sequences = dict.fromkeys(tuple(p.name for p in record.recipe.phases) for record in records)
    phases = training_order(phase_order(sequences), phases) if phases else phase_order(sequences)
    domains = list(dict.fromkeys([*domains, *(d for r in records for d in r.recipe.domains)]))
    tasks = list(dict.fromkeys([*tasks, *(task for r in records for task in r.values)]))
    ends = [{p.name: p.lr_end for p in record.recipe.phases} for record in records]
    columns: dict[str, pl.Series] = {}

    def add(name: str, values: list[Any], dtype: Any) -> None:
        columns[name] = pl.Series(name, values, dtype=dtype)

    add("run", [r.run for r in records], pl.String)
    add("params", [r.recipe.params for r in records], pl.Int64)
    add("seed", [r.recipe.seed for r in records], pl.Int64)
    add("progress", [r.progress for r in records], pl.Float64)
    if any(r.recipe.lr != 1 for r in records):
        add("lr", [r.recipe.lr for r in records], pl.Float64)
    if any(r.recipe.warmup is not None for r in records):
        add("warmup", [r.recipe.warmup for r in records], pl.Int64)
    if any(r.recipe.schedule is not Schedule.WSD for r in records):
        add("schedule", [r.recipe.schedule.value for r in records], pl.String)
    for phase in phases:
        for domain in domains:
            add(f"tokens:{phase}:{domain}", [float(r.drawn(phase, domain)) for r in records], pl.Float64)
    for phase in phases:
        if any(end.get(phase) is not None for end in ends):
            add(f"lr_end:{phase}", [end.get(phase) for end in ends], pl.Float64)
    shapes = [{p.name: p.decay for p in record.recipe.phases} for record in records]
    for phase in phases:
        if any(shape.get(phase, Decay.LINEAR) is not Decay.LINEAR for shape in shapes):
            add(f"decay:{phase}", [shape[phase].value if phase in shape else None for shape in shapes], pl.String)
    for domain in domains:
        if any(domain in r.recipe.unique for r in records):
            add(f"unique:{domain}", [r.recipe.unique.get(domain) for r in records], pl.Float64)
    for task in tasks:
        add(f"metric:{task}", [r.values[task].value if task in r.values else None for r in records], pl.Float64)
    for task in tasks:
        if any(task in r.noise for r in records):
            add(f"noise:{task}", [r.noise.get(task) for r in records], pl.Float64)
    return pl.DataFrame(columns)
