"""The unit of each task, which sets its direction: as study, table or its author says, and whether that can be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from mixlaw.adapters.mapping import captures
from mixlaw.errors import InputError, unknown
from mixlaw.records import Record, Unit

#: What a caller may say of units: one for all tasks, or several, of which some are TASK=UNIT.
Units = str | Sequence[str] | Mapping[str, str] | None

_SCORES = {"acc", "accuracy", "em", "exact", "pass", "mc1", "mc2", "f1", "win", "winrate", "correct"}
_LOSSES = {"loss", "nll", "bpb", "ppl", "perplexity", "xent"}
#: Rows, and rank correlation with size, from which a task that gets worse with size is worth a warning.
_ROWS, _WORSE = 6, 0.5


@dataclass(frozen=True)
class Given:
    """Units as given beside a table: one for every task without another, and those of single tasks.

    Attributes:
        default: for tasks that nothing else names.
        tasks: task, or a glob of tasks, -> unit.
    """

    default: str | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, units: Units) -> Given:
        """Read what a caller gives.

        Raises:
            InputError: two units for all tasks, or an unknown one.
        """
        if isinstance(units, Mapping):
            return cls(None, {task: Unit.parse(unit, task).value for task, unit in units.items()})
        parts = [units] if isinstance(units, str) else list(units or ())
        plain = list(dict.fromkeys(part for part in parts if "=" not in part))
        if len(plain) > 1:
            raise InputError(
                f"two units for all tasks: {', '.join(plain)}; name the tasks of one: --unit TASK={plain[1]}"
            )
        pairs = [part.rpartition("=") for part in parts if "=" in part]
        return cls(plain[0] if plain else None, {task: Unit.parse(unit, task).value for task, _, unit in pairs})


def units_of(
    tasks: Sequence[str], study: Mapping[str, str], table: Mapping[str, str], given: Given, replacing: bool = False
) -> tuple[dict[str, Unit], list[str]]:
    """The unit of each task, and warnings of names that contradict theirs.

    Args:
        tasks: of the table.
        study, table: units that the study and the table or its mapping have.
        given: beside the table.
        replacing: whether units of the table, or given, take the place of those of the study.

    Raises:
        InputError: a task has no unit or two, a unit is given for a task that does not exist, or the one given for all
            contradicts the name of a task.
    """
    named: dict[str, str] = {}
    for glob, unit in given.tasks.items():
        hits = [task for task in tasks if captures(glob, task) is not None]
        if not hits:
            raise unknown("task", glob, tasks)
        for task in hits:
            named.setdefault(task, unit)
    units, warnings = {}, []
    if _useless(given.default, tasks, {**study, **named}, replacing):
        named = dict.fromkeys(tasks, given.default or "") | named
    for task in tasks:
        said = {where: by[task] for where, by in (("study", study), ("table", table), ("--unit", named)) if task in by}
        if replacing and len(said) > 1:
            said.pop("study", None)
        if len(set(said.values())) > 1:
            both = " and in ".join(f"{unit} ({where})" for where, unit in said.items())
            settled = "; or give --replace, if the table has all of its values again" if "study" in said else ""
            raise InputError(f"task {task!r} is in {both}; correct one, or rename it{settled}")
        if not said and given.default is None:
            raise InputError(
                f"task {task!r} has no unit, so its direction is unknown; "
                "give --unit, or write it under [tasks] of study.toml"
            )
        units[task] = Unit.parse(next(iter(said.values()), given.default or ""), task)
        if (doubt := _contradiction(task, units[task])) and task not in named and "study" not in said:
            if not said:
                raise InputError(
                    f"{doubt}; give its own: --unit {task}={_other(units[task])}, or repeat this one for it"
                )
            warnings.append(doubt)
    return units, warnings


def _useless(default: str | None, tasks: Sequence[str], known: Mapping[str, str], replacing: bool) -> bool:
    """Whether none needs the unit for all tasks and none has it, so that it contradicts what is known.

    Raises:
        InputError: it does, and is not to take its place.
    """
    if default is None or not tasks or any(task not in known for task in tasks):
        return False
    unit = Unit.parse(default, tasks[0])
    contradicts = all(Unit.parse(known[task], task) is not unit for task in tasks)
    if contradicts and not replacing:
        there = ", ".join(dict.fromkeys(known[task] for task in tasks))
        raise InputError(
            f"--unit {unit.value}, but the study has every task of the table in {there}; convert the "
            "values, name the tasks otherwise, leave --unit out, or give --replace if the table has all values again"
        )
    return contradicts


def _contradiction(task: str, unit: Unit) -> str:
    """What the name of a task says against its unit; empty where it says nothing."""
    words = {word for word in re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", task) if word}
    words |= {word.lower() for word in words} | {re.sub(r"\d+$", "", word.lower()) for word in words}
    score, loss = words & _SCORES, words & _LOSSES
    if unit.lower_is_better and score and not loss:
        return f"task {task!r} is called like a score, which rises, but {unit.value} falls"
    if not unit.lower_is_better and loss and not score:
        return f"task {task!r} is called like a loss, which falls, but {unit.value} rises"
    return ""


def _other(unit: Unit) -> str:
    return Unit.ACCURACY.value if unit.lower_is_better else Unit.BITS_PER_BYTE.value


def against_size(records: Sequence[Record], units: Mapping[str, Unit]) -> Iterator[str]:
    """Warnings of tasks on which larger models are worse, as when the unit has the wrong direction."""
    finished = [record for record in records if record.progress == 1]
    for task, unit in units.items():
        rows = [(r.recipe.params, r.values[task].value) for r in finished if task in r.values]
        if len(rows) < _ROWS or len({size for size, _ in rows}) < 2 or len({value for _, value in rows}) < 2:
            continue
        table = pl.DataFrame(rows, schema=["size", "value"], orient="row")
        rise = float(table.select(pl.corr("size", "value", method="spearman")).item())
        if (rise if unit.lower_is_better else -rise) > _WORSE:
            yield (
                f"task {task!r} gets worse with size in {unit.value} (rank correlation {abs(rise):.2f} over "
                f"{len(rows)} runs); check its unit, which sets the direction"
            )


#: Params of the largest model, and times that a run may have seen a token of a domain, within which counts are counts.
LEAST_PARAMS, MOST_REPEATS = 1000, 10_000


def small_counts(records: Sequence[Record], unique: Mapping[str, int | None]) -> Iterator[str]:
    """Warnings of sizes and unique tokens that look like millions or billions.

    Args:
        records: of an import.
        unique: tokens by domain, for records that do not say it.
    """
    how = "if these are millions or billions, give absolute counts such as"
    if (largest := max((record.recipe.params for record in records), default=LEAST_PARAMS)) < LEAST_PARAMS:
        yield f"the largest model has {largest:,} params; {how} 60M (a --mapping can scale)"
    few: dict[str, str] = {}
    for record in records:
        for domain in record.recipe.domains:
            known = record.recipe.unique.get(domain) or unique.get(domain)
            drawn = sum(record.drawn(phase.name, domain) for phase in record.recipe.phases)
            if known and drawn > MOST_REPEATS * known:
                few.setdefault(
                    domain, f"run {record.run!r} drew {drawn:,.0f} tokens of {domain!r}, which has {known:,} unique"
                )
    yield from (f"{said}; {how} 900B" for said in few.values())
