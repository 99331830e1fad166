"""Foreign runs: a table of any trainer, checked row by row and audited, becomes records of a study."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from mixlaw.adapters.audit import audit
from mixlaw.adapters.gather import gather
from mixlaw.adapters.learn import read_domains, updated_settings
from mixlaw.adapters.lm_eval import add_results
from mixlaw.adapters.mapping import scores
from mixlaw.adapters.merging import counted, listed, merged, replaced
from mixlaw.adapters.names import doubled, summaries, twins
from mixlaw.adapters.reading import Table
from mixlaw.adapters.rows import axes_of, drop_repeats, records
from mixlaw.adapters.sheet import TOKENS, Sheet
from mixlaw.adapters.suggested import completed
from mixlaw.adapters.units import Given, Units, against_size, small_counts, units_of
from mixlaw.cells import CellLog
from mixlaw.errors import InputError, did_you_mean
from mixlaw.files import read_text, write_text
from mixlaw.numbers import size
from mixlaw.phases import training_order
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Schedule
from mixlaw.records import Record
from mixlaw.settings import Settings, read_settings, validate
from mixlaw.tables import TWO, Tone
from mixlaw.tables import Table as Shown


@dataclass(frozen=True)
class Understood(Printable):
    """What a table turned out to hold.

    Attributes:
        records: one per row.
        runs: number of different runs.
        phases, domains: names, in order of appearance.
        tasks: name -> unit.
        params: smallest and largest model.
        tokens: fewest and most tokens of a row.
        ignored: columns that mixlaw does not use.
        empty: number of cells without a measurement.
        notes: changes and assumptions made on the way.
        warnings: what makes rows hard to compare, though it did not stop the import.
        written: whether the study has them now; not so in a dry run.
    """

    records: tuple[Record, ...]
    runs: int
    phases: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: Mapping[str, str]
    params: tuple[int, int]
    tokens: tuple[int, int]
    ignored: tuple[str, ...]
    empty: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    written: bool = True

    def page(self) -> Page:
        """What was understood, what was assumed, and what to look at."""
        parts = [
            ("params", f"{size(self.params[0])} to {size(self.params[1])}"),
            ("tokens", f"{size(self.tokens[0])} to {size(self.tokens[1])}"),
            ("phases in order", ", ".join(self.phases)),
            (f"{_counted(self.domains, 'domain')}", _few(self.domains)),
            (f"{_counted(self.tasks, 'task')}", _few([f"{task} [{unit}]" for task, unit in self.tasks.items()])),
            *([("empty cells", f"{self.empty}: not measured")] if self.empty else []),
            *([("ignored columns", _few(self.ignored))] if self.ignored else []),
        ]
        notes = [*(f"note: {note}" for note in self.notes), *(f"warning: {warning}" for warning in self.warnings)]
        answer = f"{_counted(self.records, 'row')} of {self.runs} run{'s' * (self.runs != 1)}"
        answer += "" if self.written else "; a dry run: nothing was written"
        tone: Tone = "unsure" if self.warnings else "better"
        return Page(answer, tone, tables=[Shown("parts", TWO, parts)], notes=notes)

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
            "empty": self.empty,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def _counted(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _few(names: Sequence[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def understand(
    table: pl.DataFrame | Sheet,
    units: Mapping[str, str],
    unit: Units = None,
    phases: Sequence[str] = (),
    replacing: bool = False,
) -> Understood:
    """Check a table in the contract's columns, turn it into records, and audit whether they can be compared.

    Args:
        table: columns as in `mixlaw.records`; others are ignored and named.
        units: units that the study knows, by task.
        unit: of tasks that are not among them, one for all, or TASK=UNIT.
        phases: of the study, in the order of training.
        replacing: whether units of the table, or given, take the place of those that the study knows.

    Raises:
        InputError: a column is missing, or a value contradicts another or itself; names row and column.
    """
    sheet = table if isinstance(table, Sheet) else Sheet.plain(table)
    axes = axes_of(sheet, phases)
    if sheet.frame.is_empty():
        raise InputError("the table has no rows; give at least one run")
    known, doubts = units_of(axes.tasks, units, sheet.units, Given.of(unit), replacing)
    rows, order = records(sheet, axes, known)
    kept, warnings = drop_repeats(rows, sheet.places)
    kept_rows = [rows[row] for row in kept]
    notes, comparability = audit(kept_rows, [sheet.places[row] for row in kept], sheet.labels_of(kept), known)
    sizes, tokens = [r.recipe.params for r in kept_rows], [r.recipe.tokens for r in kept_rows]
    return Understood(
        records=tuple(kept_rows),
        runs=len({r.run for r in kept_rows}),
        phases=order,
        domains=axes.domains,
        tasks={task: value.value for task, value in known.items()},
        params=(min(sizes), max(sizes)),
        tokens=(min(tokens), max(tokens)),
        ignored=sheet.ignored,
        empty=len(kept_rows) * len(known) - sum(len(r.values) for r in kept_rows),
        notes=(*sheet.notes, *_cells(sheet.log), *_finished(sheet), *notes),
        warnings=(
            *sheet.warnings,
            *_diverged(sheet.log),
            *doubts,
            *warnings,
            *against_size(kept_rows, known),
            *comparability,
        ),
    )


def _cells(log: CellLog) -> list[str]:
    """A note on cells that hold a word for nothing."""
    columns = dict.fromkeys(column for _, column in sorted(log.blanks))
    where = f" (columns {_few(list(columns), 5)})" if len(columns) > 1 else "".join(f" (column {c})" for c in columns)
    return [f"{len(log.blanks)} cells say NaN, NA or the like and count as empty{where}"] if log.blanks else []


def _finished(sheet: Sheet) -> list[str]:
    """A note on rows that count as finished because their progress is empty, where that of others is not."""
    done = sheet.column("progress")
    empty = [place for place, at in zip(sheet.places, done, strict=True) if at is None]
    if not empty or len(empty) == len(done):
        return []
    return [f"progress of {len(empty)} rows is empty and counts as 1, finished: {_few(empty, 3)}"]


def _diverged(log: CellLog) -> list[str]:
    """A warning of losses that are infinite."""
    where = ", ".join(f"{place} {column}" for place, column in sorted(log.diverged)[:3])
    many = f" and {len(log.diverged) - 3} more" if len(log.diverged) > 3 else ""
    return (
        [f"{len(log.diverged)} losses are infinite, so the runs diverged; left empty: {where}{many}"] if where else []
    )


def _order(sheet: Sheet, phases: Sequence[str], known: Sequence[str]) -> list[str]:
    """A note on the order of phases where neither mapping nor study gives it."""
    if len(phases) < 2 or sheet.phases or set(phases) <= {*known}:
        return []
    named = list(dict.fromkeys(match[1] for name in sheet.frame.columns if (match := TOKENS.fullmatch(name))))
    how = "list [[phases]] in study.toml, or [[phase]] in a --mapping, in the order of training if it was another"
    if named != list(phases):
        return [f"phases are in the order {', '.join(phases)}, by names and checkpoints, not by columns ({how})"]
    if training_order(named[::-1]) != tuple(named):
        return [f"phases are in the order of their columns: {', '.join(phases)} ({how})"]
    return []


def _assumptions(understood: Understood, settings: Settings, given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is assumed about schedule and domains because neither study nor table gives it."""
    known = settings.domains
    plain = [name for name in understood.domains if name not in known and "kind" not in given.get(name, {})]
    written = {name for name, domain in known.items() if domain.unique_tokens}
    in_table = {name for record in understood.records for name in record.recipe.unique}
    unlimited = [
        n for n in understood.domains if n not in written | in_table and "unique_tokens" not in given.get(n, {})
    ]
    notes = [f"no kind given for {_few(plain, 5)}: assuming text"] if plain else []
    if unlimited:
        notes.append(
            f"no unique_tokens given for {_few(unlimited, 5)}: the fit assumes unlimited data, propose needs them"
        )
    how = "set kind and unique_tokens under [domains] of study.toml, or in a file for --domains"
    return [*_ends(understood, settings), *([f"{'; '.join(notes)} ({how})"] if notes else [])]


def _ends(understood: Understood, settings: Settings) -> list[str]:
    """What is assumed about the end of the learning rate where no row says it."""
    last = understood.phases[-1]
    ends = [p.lr_end for record in understood.records for p in record.recipe.phases if p.name == last]
    cosine = any(record.recipe.schedule is Schedule.COSINE for record in understood.records)
    if settings.phases or cosine or any(end is not None for end in ends):
        return []
    return [
        f"no lr_end given for {last}: assuming that runs end decayed to zero (a column lr_end:{last} says otherwise)"
    ]


def import_into(
    folder: Path,
    table: Table,
    *,
    units: Mapping[str, str],
    unit: Units = None,
    domains: str | Path | None = None,
    mapping: str | Path | None = None,
    results: Sequence[str | Path] = (),
    suggested: Sequence[Mapping[str, Any]] = (),
    replacing: bool = False,
    dry_run: bool = False,
) -> Understood:
    """Read a table of foreign runs, check it and write it into a study, which is created if there is none.

    `units` are those of the tasks that the study has, `suggested` its job lines, with `dry_run` nothing is written;
    `mixlaw.import_runs` says what the other arguments are.

    Raises:
        InputError: something contradicts itself or the study, which is then unchanged.
    """
    path = folder / "study.toml"
    sheet, mapped = gather(table, Path(mapping) if mapping else None)
    sheet = completed(sheet, suggested)
    if results:
        sheet = add_results(sheet, [Path(result) for result in results], mapped.results)
    described = read_domains(Path(domains)) if domains else {}
    settings = read_settings(path) if path.exists() else Settings()
    order = [phase.name for phase in settings.phases]
    understood = understand(sheet, units, unit, order, replacing)
    merge = merged(folder, understood.records)
    given = {name: {**sheet.domains.get(name, {}), **described.get(name, {})} for name in understood.domains}
    linked = scores(mapped, understood.tasks)
    fresh = {task: name for task, name in understood.tasks.items() if units.get(task) != name or task in linked}
    _refuse_two_units(understood, merge.records, [t for t in fresh if units.get(t, fresh[t]) != fresh[t]])
    text, changes, others = updated_settings(path, merge.records, understood.phases, given, fresh, linked)
    contradictions = [*merge.contradictions, *others]
    if contradictions and not replacing:
        raise _contradicted(folder, contradictions)
    if (now := [name for name in understood.phases if name in order]) != [name for name in order if name in now]:
        _refuse_two_orders(merge.records, now)
    notes = [
        *merge.notes,
        *replaced(contradictions),
        *changes,
        *_order(sheet, understood.phases, order),
        *_undescribed(understood.domains, described),
        *_assumptions(understood, settings, given),
    ]
    unique = {name: domain.unique_tokens for name, domain in validate(tomllib.loads(text), path).domains.items()}
    warnings = [*understood.warnings, *small_counts(understood.records, unique)]
    warnings += _new_names(understood, settings, [record.run for record in merge.records])
    if not dry_run:
        merge.write()
        if not path.exists() or read_text(path) != text:
            write_text(path, text)
    notes = [*understood.notes, *notes]
    return replace(understood, notes=tuple(notes), warnings=tuple(warnings), written=not dry_run)


def _contradicted(folder: Path, values: Sequence[str]) -> InputError:
    return InputError(
        f"{counted(len(values), 'contradicts', 'contradict')} those that {folder} has already: {listed(values)}; "
        "correct the table, or give --replace to take its values"
    )


def _refuse_two_units(understood: Understood, records: Iterable[Record], tasks: Sequence[str]) -> None:
    """Refuse another unit for a task of which the study keeps values that the table does not have again."""
    new = {(record.run, record.progress): record for record in understood.records}
    for task in tasks:
        pairs = [(record, new.get((record.run, record.progress))) for record in records]
        kept = [
            f"run {old.run!r}"
            for old, given in pairs
            if (task in old.values and (given is None or task not in given.values))
            or (task in old.noise and (given is None or task not in given.noise))
        ]
        if kept:
            raise InputError(
                f"task {task!r} would be in {understood.tasks[task]}, but the study has values in another unit that "
                f"the table does not have again: {_few(kept, 5)}; give all of them, or name the task otherwise"
            )


def _refuse_two_orders(records: Iterable[Record], order: Sequence[str]) -> None:
    """Refuse another order of phases than that of runs which the table does not have again."""
    for record in records:
        names = [phase.name for phase in record.recipe.phases if phase.name in order]
        if names != [name for name in order if name in names]:
            raise InputError(
                f"phases would be in the order {', '.join(order)}, but the study has run {record.run!r}, which the "
                f"table does not have again, with {', '.join(names)}; give all runs, or correct the order"
            )


def _undescribed(domains: Sequence[str], described: Mapping[str, Any]) -> list[str]:
    """A note on domains that a file describes and the table does not have.

    Raises:
        InputError: the name of one is nearly that of a domain that the file does not describe.
    """
    others = [name for name in described if name not in domains]
    for name in others:
        if meant := did_you_mean(name, [domain for domain in domains if domain not in described], 0.6):
            raise InputError(f"--domains describes {name!r}, which the table does not have; {meant}")
    return [f"domains that the table does not have are left out: {_few(others)}"] if others else []


def _new_names(understood: Understood, settings: Settings, runs: Iterable[str]) -> list[str]:
    """Warnings of names that are nearly others of the table or of the study."""
    pairs: list[tuple[str, Iterable[str], Iterable[str]]] = [
        ("task", understood.tasks, settings.tasks),
        ("domain", understood.domains, settings.domains),
        ("phase", understood.phases, [phase.name for phase in settings.phases]),
    ]
    warnings = [
        f"{what} {name!r} is new in this study; {meant}"
        for what, names, known in pairs
        for name in names
        if name not in known and (meant := did_you_mean(name, [k for k in known if k not in names], 0.8))
    ]
    warnings += [warning for what, names, known in pairs for warning in twins(what, names, known)]
    warnings += [warning for what, names, _ in pairs for warning in doubled(what, names)]
    warnings += summaries(record.run for record in understood.records)
    return [*warnings, *list(twins("run", sorted(runs)))[:3]]
