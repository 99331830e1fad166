"""Result files of lm-evaluation-harness, and of what is read like it, joined to the table of the models' training."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from mixlaw.adapters.mapping import Results, captures
from mixlaw.adapters.other_evaluations import INSPECT, OLMES, inspect_ai, olmes
from mixlaw.adapters.sheet import Label, Sheet
from mixlaw.cells import texts
from mixlaw.errors import InputError
from mixlaw.files import read_text
from mixlaw.records import Unit

_ACCURACIES = re.compile(r"acc(_.*)?|accuracy|.*_acc|exact_match|em|contains|mc[12]")
_UNITS = dict.fromkeys(("bits_per_byte", "bits_per_byte_corr"), Unit.BITS_PER_BYTE) | {"likelihood": Unit.CHOICE_PROB}
_UNITS |= dict.fromkeys(("pass@1", "pass_at_1"), Unit.PASS_AT_1)
# What a file says of the whole evaluation; where it differs, results may differ for no other reason.
_SETTINGS = ("lm_eval_version", "tokenizer_bos_token", "tokenizer_eos_token", "max_length", "chat_template_sha")


_ENDINGS = (".json", ".json.gz", OLMES, INSPECT)


@dataclass(frozen=True)
class Evaluation:
    """One result file.

    Attributes:
        path: of the file.
        model: name or path that was evaluated, with its revision.
        names: what it may be called in the table, most precise first.
        date: seconds since 1970; of two results of one task the later counts.
        values: task -> (value, standard error, number of items).
        units: task -> unit.
        settings: what was set, for all tasks (task "") or one.
        unknown: metrics that have no unit here.
        empty: tasks whose value is not a finite number.
    """

    path: Path
    model: str
    names: tuple[str, ...]
    date: float
    values: Mapping[str, tuple[float, float | None, int | None]]
    units: Mapping[str, str]
    settings: Mapping[tuple[str, str], str]
    unknown: frozenset[str]
    empty: tuple[str, ...] = ()


def add_results(sheet: Sheet, paths: Sequence[Path], how: Results) -> Sheet:
    """Add the results in files and folders to the rows of the models they are about.

    Raises:
        InputError: a file is no result file, names no row or several, or no result belongs to any row.
    """
    evaluations = [evaluation for path in paths for evaluation in _read(path, how)]
    if not evaluations:
        raise InputError(f"no results of evaluations in {', '.join(map(str, paths))}; give files or folders")
    rows = _Rows(sheet, how.key)
    merged = _Merged(sheet.frame.height)
    for evaluation in sorted(evaluations, key=lambda evaluation: evaluation.date):
        merged.add(evaluation, rows.of(evaluation))
    if all(row is None for row in merged.owners):
        early = next((hint for evaluation in evaluations if (hint := rows.early(evaluation))), "")
        raise InputError(
            f"no model of the results is in column {rows.key!r}: {evaluations[0].model!r} against {rows.cells[0]!r}; "
            + (early or "add a column `model` with the name or path that was evaluated")
        )
    if not merged.values:
        named = ", ".join(sorted(merged.unknown)) or "none that is a number"
        raise InputError(f"the results have no metric of which the unit is known (but {named}); evaluate other tasks")
    merged.hints = list(dict.fromkeys(hint for e in evaluations if rows.of(e) is None and (hint := rows.early(e))))
    return merged.onto(sheet, rows.key)


class _Rows:
    """Finds the row of a model by name."""

    def __init__(self, sheet: Sheet, key: str | None) -> None:
        self.key = key or ("model" if "model" in sheet.ignored else "run")
        columns = sheet.rest if self.key in sheet.ignored else sheet.frame
        if self.key not in columns.columns:
            raise InputError(f"results: there is no column {self.key!r} to join on; add it, or set results.key")
        self.cells = texts(columns[self.key])
        self.places = sheet.places
        done = sheet.column("progress", 0, 1) if self.key == "run" else [None] * len(self.cells)
        self.under_way = [at is not None and at < 1 for at in done]  # the name of a run is that of the finished one

    def of(self, evaluation: Evaluation) -> int | None:
        """The row; None where no row has any of the model's names."""
        for name in evaluation.names:
            hits = [row for row, cell in enumerate(self.cells) if cell == name]
            if len(hits) > 1:
                raise InputError(
                    f"{evaluation.path}: model {name!r} is in {' and '.join(self.places[row] for row in hits[:3])}; "
                    "add a column `model` with the checkpoint that was evaluated"
                )
            if hits:
                return None if self.under_way[hits[0]] else hits[0]
        return None

    def early(self, evaluation: Evaluation) -> str:
        """What to do about a model whose path names a run, but not at its end; empty where it names none."""
        parts = [part for part in re.split(r"[/@\\]", evaluation.model) if part]
        for cell, waits in zip(self.cells, self.under_way, strict=True):
            if cell in parts and (waits or evaluation.names[-1] != cell):
                return (
                    f"{evaluation.model!r} may be a checkpoint of {cell!r} or another model; if a row is about it, "
                    "write that name into a column `model` of the row"
                )
        return ""


@dataclass
class _Merged:
    """Results by row and task, later ones over earlier ones."""

    height: int
    owners: list[int | None] = field(default_factory=list)
    values: dict[str, dict[int, tuple[float, float | None, int | None]]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    settings: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    models: dict[int, set[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)

    def add(self, evaluation: Evaluation, row: int | None) -> None:
        """Take up one file."""
        self.owners.append(row)
        self.unknown |= evaluation.unknown
        if row is None:
            self.lost.append(evaluation.model)
            return
        self.models.setdefault(row, set()).add(evaluation.model)
        self.empty += [f"{task} in {evaluation.path.name}" for task in evaluation.empty]
        self.units.update(evaluation.units)
        if evaluation.settings.get(("", "limit"), "null") not in ("null", "false"):
            self.limited.append(evaluation.path.name)
        for task, value in evaluation.values.items():
            before = self.values.setdefault(task, {}).get(row)
            if before is not None and before[0] != value[0]:
                self.replaced.append(f"{task} of {evaluation.model} ({before[0]:.4g}, then {value[0]:.4g})")
            self.values[task][row] = value
        for setting, text in evaluation.settings.items():
            self.settings.setdefault(setting, {})[row] = text

    def onto(self, sheet: Sheet, key: str) -> Sheet:
        """The sheet with the results."""
        if both := [task for task in self.values if f"metric:{task}" in sheet.frame.columns]:
            raise InputError(f"task {both[0]!r} is in the table and in the results; rename or remove the column")
        parts = (("metric", 0), ("stderr", 1), ("count", 2))
        columns = [
            pl.Series(f"{kind}:{task}", [by[row][i] if row in by else None for row in range(self.height)], pl.Float64)
            for kind, i in parts
            for task, by in self.values.items()
        ]
        measured = {row for row in self.owners if row is not None}
        notes = [f"{len(self.owners)} result files for {len(measured)} of {self.height} rows"]
        if self.unknown:
            notes.append(f"metrics without a unit, left out: {', '.join(sorted(self.unknown))}")
        return replace(
            sheet,
            frame=sheet.frame.with_columns(columns),
            units={**sheet.units, **self.units},
            labels=(*sheet.labels, *self._labels()),
            notes=(*sheet.notes, *notes),
            warnings=(*sheet.warnings, *self._warnings()),
            rest=sheet.rest.drop(key, strict=False),
        )

    def _warnings(self) -> Iterator[str]:
        if self.limited:
            yield f"{len(self.limited)} result files are of the first items of each task alone (limit): " + ", ".join(
                self.limited[:3]
            )
        if self.empty:
            yield f"{len(self.empty)} results are not finite numbers and are left out: {', '.join(self.empty[:3])}"
        for models in self.models.values():
            if len(models) > 1:
                yield f"results of several models are given to one row: {', '.join(sorted(models)[:3])}"
        if self.lost:
            names = ", ".join(sorted(set(self.lost))[:5])
            yield f"{len(self.lost)} result files are of models that no row names and are left out: {names}"
        yield from self.hints[:3]
        if self.replaced:
            yield f"{len(self.replaced)} results were measured again with another value, the latest counts: " + (
                "; ".join(self.replaced[:3])
            )

    def _labels(self) -> Iterator[Label]:
        """Settings per row; those of one task belong to all its metrics."""
        for (task, setting), by_row in self.settings.items():
            cells = tuple(by_row.get(row) for row in range(self.height))
            tasks = tuple(name for name in self.values if name.split("/")[0] == task) if task else None
            if tasks is None or tasks:
                yield Label(f"{setting} of {task}" if task else setting, cells, tasks)


def _read(path: Path, how: Results) -> Iterator[Evaluation]:
    """Result files of a folder, or the one given."""
    if os.path.isdir(path):
        for file in sorted(file for file in path.rglob("*") if file.name.lower().endswith(_ENDINGS)):
            if (evaluation := _evaluated(file, how)) is not None:
                yield evaluation
        return
    if not os.path.exists(path):
        raise InputError(f"there are no results at {str(path)!r}; check the path")
    named = path.suffix != ".jsonl" or path.name.endswith(OLMES)
    if (evaluation := _evaluated(path, how) if named else None) is None:
        raise InputError(
            f"{path} holds no results of lm-evaluation-harness (or lighteval, OLMES, inspect-ai); give the "
            "results_*.json, metrics-all.jsonl or .eval that it writes"
        )
    yield evaluation


def _evaluated(path: Path, how: Results) -> Evaluation | None:
    """One file; None where it is JSON of another kind.

    Raises:
        InputError: it is damaged: a value is not of the kind that the program writes, or is not there.
    """
    try:
        data = _load(path)
        return None if data is None else _evaluation(path, data, how)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else f"{error}".partition("\n")[0]
        raise InputError(f"{path} is no result as its program writes it: {what}; evaluate again, or move it") from error


def _load(path: Path) -> dict[str, Any] | None:
    """Content of a result file; None where it is JSON of another kind."""
    if path.name.endswith(OLMES):
        return olmes(path)
    if path.suffix == INSPECT:
        return inspect_ai(path)
    try:
        data = json.loads(read_text(path))
    except (OSError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; write it again, or move it out of the way") from error
    if isinstance(data, dict) and "eval" in data and "status" in data:
        return inspect_ai(path)
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        return None
    return data if all(isinstance(entry, dict) for entry in data["results"].values()) else None


def _table(data: Any, *keys: str) -> Mapping[str, Any]:
    """The first of the keys that holds a table; empty where none does, whatever it holds."""
    values = (data.get(key) for key in keys) if isinstance(data, Mapping) else ()
    return next((value for value in values if isinstance(value, Mapping)), {})


def _evaluation(path: Path, data: Mapping[str, Any], how: Results) -> Evaluation:
    """One file.

    Raises:
        InputError: a value is impossible in its unit; names file and task.
    """
    values: dict[str, tuple[float, float | None, int | None]] = {}
    units: dict[str, str] = {}
    unknown, empty = set(), []
    for task, metrics in data["results"].items():
        if "config_general" in data and (task == "all" or ":_average|" in task):  # means of others, by lighteval
            continue
        items = _table(data.get("n-samples"), task).get("effective", metrics.get("sample_len"))
        for key, value, stderr in _metrics(metrics):
            metric, _, filtered = key.partition(",")
            name = "/".join([task, metric, *([filtered] if filtered not in ("", "none") else [])])
            if not any(captures(glob, name) is not None for glob in how.tasks):
                continue
            unit = _UNITS.get(metric, Unit.ACCURACY if _ACCURACIES.fullmatch(metric) else None)
            if unit is None:
                unknown.add(metric)
            elif not math.isfinite(value):
                empty.append(name)
            else:
                _refuse_impossible(path, name, value, unit)
                values[name] = (value, stderr, _count(_table(metrics, "sample_count").get(key, items)))
                units[name] = unit.value
    return Evaluation(
        path,
        *_names(path, data),
        _seconds(data.get("date")),
        values,
        units,
        dict(_settings(data)),
        frozenset(unknown),
        tuple(empty),
    )


def _seconds(date: Any) -> float:
    """A date as seconds since 1970, also where it is text as ISO 8601 has it; 0 where there is none."""
    if isinstance(date, str):
        with suppress(ValueError):
            date = datetime.fromisoformat(date).timestamp()
    return float(date) if isinstance(date, (int, float)) and not isinstance(date, bool) else 0.0


def _refuse_impossible(path: Path, name: str, value: float, unit: Unit) -> None:
    if not (value > 0 if unit.lower_is_better else 0 <= value <= 1):
        wanted = "above 0" if unit.lower_is_better else "between 0 and 1"
        raise InputError(
            f"{path}: {name} = {value:g} in {unit.value} must be {wanted}; correct it there, or choose other tasks "
            "with results = { tasks = [...] } in a mapping"
        )


def _count(value: Any) -> int | None:
    """A number of items; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """Key, value and standard error; a key is metric and filter, `acc,none`, before version 0.4 the metric alone."""
    for key, value in metrics.items():
        metric, _, filtered = key.partition(",")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or metric.endswith("_stderr") or metric in ("sample_len", "alias", "name"):
            continue
        stderr = metrics.get(f"{metric}_stderr,{filtered}" if filtered else f"{metric}_stderr")
        known = float(stderr) if isinstance(stderr, (int, float)) else math.nan
        yield key, float(value), known if 0 <= known < math.inf else None


#: Last parts of a path that say only that it is the finished model of the folder before.
_FINISHED = re.compile(r"final|final[-_]?(model|checkpoint)|hf|hf[-_]?(model|checkpoint)|huggingface|model|export(ed)?")


def _names(path: Path, data: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The model, and what a row may call it, most precise first: in full, or by the end of its path.

    A revision other than main is part of every name: it is another checkpoint. A part further up is no name, as what is
    in a folder called like a run may be an early checkpoint or another model.
    """
    config = _table(data, "config", "config_general")
    inner = _table(config, "model_config")
    given = config.get("model_args")
    args = (
        dict(part.partition("=")[::2] for part in given.split(","))
        if isinstance(given, str)
        else _table(config, "model_args")
    )
    keys = ("peft", "delta", "pretrained", "model", "path", "engine")
    known = (
        data.get("model_name"),
        *(args.get(key) for key in keys),
        *(config.get(key) for key in ("model_name", "model")),
    )
    model = next((str(name) for name in (*known, inner.get("model_name")) if name), path.parent.name)
    parts = [part for part in model.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = [parts[-1:], parts[-2:-1]] if len(parts) > 1 and _FINISHED.fullmatch(parts[-1].lower()) else [parts[-1:]]
    names = [model, "/".join(parts[-2:]), *("/".join(end) for end in ends)]
    revision = next(
        (r for r in (args.get("revision"), config.get("model_revision"), inner.get("revision")) if r), "main"
    )
    if revision != "main":
        return f"{model}@{revision}", tuple(dict.fromkeys(f"{name}@{revision}" for name in names if name))
    names.insert(2, str(data.get("model_name_sanitized") or ""))
    return model, tuple(dict.fromkeys(name for name in names if name))


def _settings(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """What was set, for the whole file and for each task."""
    for name in _SETTINGS:
        if data.get(name) is not None:
            yield ("", name), json.dumps(data[name])
    yield ("", "limit"), json.dumps(_table(data, "config").get("limit"))
    for key, label in (("versions", "version"), ("n-shot", "number of shots")):
        for task, value in _table(data, key).items():
            if value is not None:
                yield (task, label), json.dumps(value)
