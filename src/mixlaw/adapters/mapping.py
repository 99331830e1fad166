"""The mapping file: which columns of a foreign table are its runs, sizes, phases, mixtures and tasks, in TOML.

A value is a number (the same for every row), the name of a column, or `{ column, scale, over, offset, empty }`. A glob
has stars; in a new name, a star is what the star of the glob matched. Of several globs the first that matches a
column has it. `docs/mappings` has one for each of six public tables.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mixlaw.errors import InputError, did_you_mean, key_of, some
from mixlaw.files import read_text
from mixlaw.records import Unit
from mixlaw.settings import DomainSettings

#: In a draft of a mapping, what its author has to fill in: no column is called so.
BLANK = "FILL"


class _Strict(BaseModel):
    """A table of the mapping file; a key that is not known is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reading(_Strict):
    """A column times `scale`, over `over` (numbers or columns), plus `offset`; `empty` where its cell is empty."""

    column: str
    scale: float | str = 1.0
    over: float | str = 1.0
    offset: float = 0.0
    empty: float | None = None


Value = float | str | Reading


class TaskMap(_Strict):
    """How columns become tasks.

    Attributes:
        unit: of the values after scaling.
        name: of the task; empty, that of the column.
        noise, stderr: columns with its standard deviation over seeds, and its standard error.
        scale, offset: value = cell * scale + offset.
        link: of a score, the loss on the same task that it is predicted through; a star is that of the name.
        chance: of a score, that of guessing.
    """

    unit: str
    name: str = ""
    noise: str | None = None
    stderr: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    link: str | None = None
    chance: float | None = None


class PhaseMap(_Strict):
    """One phase: its tokens, and what they were.

    Attributes:
        name: of the phase.
        share: of the run's `tokens`; one phase may do without, it has what the others leave. Or give `tokens`.
        tokens: of the phase.
        shares: glob of columns -> domain, columns that hold shares of the phase.
        domain_tokens: glob of columns -> domain, columns that hold tokens.
        domain: the only domain, a name with {column} in it.
        rest: domain that has what the shares leave of one, a name with {column} in it.
        percent: shares are percent; not given, the table decides.
        lr_end: learning rate at the end of the phase over the peak.
        decay: shape of the fall to it: linear, cosine, 1-sqrt, or a column that says so.
    """

    name: str = Field(min_length=1, pattern="^[^:]+$")
    share: Value | None = None
    tokens: Value | None = None
    shares: dict[str, str] = {}
    domain_tokens: dict[str, str] = {}
    domain: str | None = None
    rest: str | None = None
    percent: bool | None = None
    lr_end: Value | None = None
    decay: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> PhaseMap:
        ways = [bool(self.shares), bool(self.domain_tokens), self.domain is not None]
        if sum(ways) != 1:
            raise ValueError(f"phase {self.name!r} needs one of shares, domain_tokens and domain, got {sum(ways)}")
        if self.rest is not None and not self.shares:
            raise ValueError(f"phase {self.name!r}: rest goes with shares")
        if self.domain_tokens and (self.tokens is not None or self.share is not None):
            raise ValueError(f"phase {self.name!r}: domain_tokens are tokens already; take share and tokens out")
        if isinstance(self.share, float) and not 0 < self.share <= 1:
            raise ValueError(f"phase {self.name!r}: its share of the run's tokens must be in 0..1, got {self.share:g}")
        return self


class Join(_Strict):
    """Another file beside the table; `on` names key columns, without it the rows correspond."""

    file: str
    on: str | list[str] = []
    prefix: str = ""

    @property
    def keys(self) -> list[str]:
        """Key columns."""
        return [self.on] if isinstance(self.on, str) else self.on


class Pivot(_Strict):
    """A table with a row per run and task: `by` names a run, columns become `<value>/<task>`, `<noise>/<task>`.

    Attributes:
        by, task, value: columns.
        noise: column with the standard deviation over seeds.
        seeds: column that tells of how many seeds a value is the mean; its noise is then that much less.
    """

    by: list[str] = Field(min_length=1)
    task: str
    value: str
    noise: str | None = None
    seeds: str | None = None


class Results(_Strict):
    """How evaluation results join the table.

    Attributes:
        key: column that names the model; not given, `model` if there is one, else `run`.
        tasks: globs of the tasks that are meant, such as "arc_*/acc_norm".
    """

    key: str | None = None
    tasks: list[str] = ["*"]


class TableMap(_Strict):
    """All of a mapping that is about one table.

    Attributes:
        file: name of the table; without it, the table given.
        run: a column, or a name with {column} and {file} in it; not given, `run`.
        params, seed, progress, tokens: values; tokens are those of the whole run.
        lr: peak learning rate over that of the team's rule for the size; warmup: tokens of linear warm-up.
        schedule: wsd, cosine, or a column that says which.
        phase: phases in order; none, the table has columns tokens:<phase>:<domain>.
        unique: domain -> unique tokens that the run could draw from.
        tasks: glob of columns -> task, or only its unit.
        join, pivot: other shapes.
        only: column -> the value or values of the rows that are meant.
        ignore: globs of columns that are known to mean nothing.
        versions: globs of columns that should not differ between rows, beside those named tokenizer or version.
        tolerance: how far shares may be from summing to one; they are then scaled.
        domains: glob of domains -> kind, unique tokens.
        results: how evaluation results join.
    """

    file: str | None = None
    run: str | None = None
    params: Value | None = None
    seed: Value | None = None
    progress: Value | None = None
    lr: Value | None = None
    warmup: Value | None = None
    schedule: str | None = None
    tokens: Value | None = None
    phase: list[PhaseMap] = []
    unique: dict[str, Value] = {}
    tasks: dict[str, TaskMap | str] = {}
    join: list[Join] = []
    pivot: Pivot | None = None
    only: dict[str, str | float | list[str | float]] = {}
    ignore: list[str] = []
    versions: list[str] = []
    tolerance: float = Field(default=0.005, ge=0, lt=0.5)
    domains: dict[str, DomainSettings] = {}
    results: Results = Results()

    @model_validator(mode="after")
    def _makes_sense(self) -> TableMap:
        for glob, task in self.tasks.items():
            Unit.parse(task if isinstance(task, str) else task.unit, glob)
        names = [phase.name for phase in self.phase]
        if len(set(names)) < len(names):
            raise ValueError(f"phase: names must differ, got {', '.join(names)}")
        parts = [phase for phase in self.phase if not phase.domain_tokens and phase.tokens is None]
        if parts and self.tokens is None:
            raise ValueError(f"phase {parts[0].name!r} has no tokens; give tokens for the run or for the phase")
        rest = [phase.name for phase in parts if phase.share is None]
        if len(rest) > 1 or (rest and len(parts) < len(self.phase)):
            raise ValueError(f"phase {rest[0]!r} has no share of the run's tokens; give share or tokens")
        shares = [phase.share for phase in self.phase if isinstance(phase.share, float)]
        if shares and len(shares) == len(self.phase) and abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"phase: the shares must sum to 1, got {sum(shares):g}")
        return self


def read_mapping(path: Path) -> list[TableMap]:
    """Read a mapping file: the keys of each [[table]] over those at the top; without one, the top alone.

    Raises:
        InputError: it cannot be read, or a key or value is wrong.
    """
    try:
        data = tomllib.loads(read_text(path))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is no mapping: {error}; it holds lines such as params = 1_000_000") from error
    tables: list[Mapping[str, Any]] = data.pop("table", [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise InputError(f"{path}: table = {tables!r}: each table of the mapping begins with a line [[table]]")
    try:
        return [TableMap.model_validate({**data, **table}) for table in tables or [{}]]
    except ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}; fix the mapping") from error


def _sentence(error: ValidationError) -> str:
    """The most telling problem: a key that is not known, else the deepest; a value may be of one of several kinds."""
    problem = min(error.errors(), key=lambda e: (e["type"] != "extra_forbidden", -len(e["loc"])))
    kinds = ("float", "str", Reading.__name__, TaskMap.__name__)
    key = key_of(part for part in problem["loc"] if part not in kinds)
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(problem["loc"])
        meant = did_you_mean(str(problem["loc"][-1]), known) or f"there are {some(known)}"
        return f"{key}: is not known; {meant}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _keys_beside(place: Sequence[str | int]) -> list[str]:
    """Keys of the table of a mapping at a place, by the names on the way there."""
    models: dict[str | int, type[BaseModel]] = {
        **{"phase": PhaseMap, "join": Join, "pivot": Pivot, "results": Results, "domains": DomainSettings},
        **{model.__name__: model for model in (Reading, TaskMap)},
    }
    model = next((models[part] for part in reversed(place[:-1]) if part in models), TableMap)
    return list(model.model_fields)


def blank(columns: Iterable[str]) -> InputError:
    """The error for a draft with a blank in it."""
    return InputError(
        f"the mapping still says {BLANK} where something is missing; its comments say what, fill it in: "
        f"the columns are {', '.join(list(columns)[:12])}"
    )


def captures(glob: str, name: str) -> list[str] | None:
    """What the stars of a glob match in a name; None where it does not match."""
    match = re.fullmatch("(.*)".join(map(re.escape, glob.split("*"))), name)
    return None if match is None else list(match.groups())


def starred(pattern: str, parts: Iterable[str]) -> str:
    """A pattern with its stars replaced, in order, by what a glob matched."""
    for part in parts:
        pattern = pattern.replace("*", part, 1)
    return pattern


def scores(mapping: TableMap, tasks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Link and chance of each task for which the mapping has them, by the first name that fits."""
    maps = {entry.name or glob: entry for glob, entry in mapping.tasks.items() if isinstance(entry, TaskMap)}
    names, settings = list(tasks), {}
    for task in names:
        entry, parts = next(((t, p) for n, t in maps.items() if (p := captures(n, task)) is not None), (None, []))
        if entry is not None:
            link = starred(entry.link, parts) if entry.link else None
            known = {"link": link if link in names else None, "chance": entry.chance}
            settings[task] = {key: value for key, value in known.items() if value is not None}
    return settings


def claimed(globs: Mapping[str, Any], columns: Iterable[str], what: str) -> dict[str, tuple[str, list[str]]]:
    """Columns that globs match -> the glob and what its stars matched.

    Raises:
        InputError: a glob matches no column.
    """
    names = list(columns)
    claims: dict[str, tuple[str, list[str]]] = {}
    for glob in globs:
        hits = [(name, parts) for name in names if (parts := captures(glob, name)) is not None]
        if not hits:
            if BLANK in glob:
                raise blank(names)
            meant = did_you_mean(glob, names) or f"there are {some(names)}"
            raise InputError(f"{what} {glob!r} matches no column; {meant}: fix the mapping")
        for name, parts in hits:
            claims.setdefault(name, (glob, parts))
    return claims
