"""Curves that trackers keep on disk, as one table: MLflow, Trackio, TensorBoard, Hugging Face's Trainer.

A reader gives points; everything after that is the same for all of them, and for histories of Weights & Biases.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from mixlaw.cells import series_of
from mixlaw.errors import InputError
from mixlaw.files import read_text

_STATES = ("", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")  # of MLflow, as its folders number them
#: What mixlaw reads by itself in a table, and trackers call other things, such as a rate or a warm-up in steps.
_OURS = frozenset({"run", "step", "progress", "lr", "warmup", "schedule"})
_LARGEST = 1.7e308  # from here on, a number in a database of MLflow is infinite


class Point(NamedTuple):
    """One value that a run logged."""

    run: str
    step: int
    task: str
    value: float


@dataclass
class Curves:
    """What a tracker has: points in the order of logging, settings by run, and runs that did not finish."""

    of: str
    points: list[Point] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)

    def table(self) -> pl.DataFrame:
        """A row per run and step: `run`, `step`, the settings of the run, what was logged.

        Of a run that was resumed, what it logged again counts, and what it had logged from there on does not. A setting
        that is called like something logged is `config.<name>`.
        """
        kept: dict[tuple[str, str], dict[int, float]] = {}
        for run, step, task, value in self.points:
            curve = kept.setdefault((run, task), {})
            while curve and next(reversed(curve)) >= step:
                curve.popitem()
            curve[step] = value
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for (run, task), curve in kept.items():
            for step, value in curve.items():
                if run not in self.unfinished:
                    rows.setdefault((run, step), {})[f"logged.{task}" if task in _OURS else task] = value
        tasks = {task: None for row in rows.values() for task in row}
        named = {
            run: {f"config.{key}" if key in _OURS | {*tasks} else key: value for key, value in known.items()}
            for run, known in self.settings.items()
        }
        table = [{"run": run, "step": step} | named.get(run, {}) | rows[run, step] for run, step in sorted(rows)]
        columns = dict.fromkeys(("run", "step", *(key for row in table for key in row)))
        return pl.DataFrame({name: series_of(name, [row.get(name) for row in table]) for name in columns})

    @property
    def warnings(self) -> tuple[str, ...]:
        """Which runs are left out, and what has no step."""
        found = []
        if self.unfinished:
            names = ", ".join(f"{run} ({state})" for run, state in list(self.unfinished.items())[:3])
            found.append(f"{len(self.unfinished)} of {self.of}'s runs did not finish and are left out: {names}")
        later = {task for _, step, task, _ in self.points if step > 0}
        if at_none := sorted({task for _, _, task, _ in self.points if task not in later}):
            found.append(
                f"logged without a step, or at step 0 alone, and so before any token: {', '.join(at_none[:5])}; "
                "log them at the last step, or write them into the table of the runs"
            )
        return tuple(found)


def reader_of(path: Path) -> Callable[[Path], Curves] | None:
    """What reads the files of a tracker; None where the path is something else."""
    if os.path.isdir(path):  # where a name is too long, Path raises
        for glob, reader in _FOLDERS.items():
            if next(path.glob(glob), None) is not None:
                return reader
        return None
    if path.name == "trainer_state.json":
        return _trainer
    if ".tfevents." in path.name:
        return _tensorboard
    return _database if path.suffix in (".db", ".sqlite", ".sqlite3") else None


def read_curves(path: Path) -> Curves | None:
    """The curves of a tracker; None where the path is something else.

    Raises:
        InputError: it has no curves, or cannot be read.
    """
    reader = reader_of(path)
    if reader is None or not os.path.exists(path):
        return None
    curves = reader(path)
    if not curves.points:
        raise InputError(f"{path} holds no curve of {curves.of}; give the folder or file to which its runs logged")
    return curves


def _database(path: Path) -> Curves:
    """A database of MLflow or Trackio, which is opened to read alone."""
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
            tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
            if {"runs", "metrics", "params"} <= tables:
                return _mlflow_database(database)
            if {"metrics", "configs"} <= tables:
                return _trackio(database)
    except sqlite3.Error as error:
        raise InputError(f"{path} cannot be read as a database: {error}; check the file") from error
    raise InputError(f"{path} is no database of MLflow or Trackio; give a table, or what one of these wrote")


def _mlflow_database(database: sqlite3.Connection) -> Curves:
    runs = list(
        database.execute("select run_uuid, name, status from runs where lifecycle_stage = 'active' order by start_time")
    )
    names = _names({run: name for run, name, _ in runs})
    curves = Curves("MLflow")
    curves.unfinished = {names[run]: state for run, _, state in runs if state != "FINISHED"}
    for run, key, value in database.execute("select run_uuid, key, value from params"):
        if run in names:
            curves.settings.setdefault(names[run], {})[key] = value
    query = "select run_uuid, step, key, value, is_nan from metrics order by timestamp, step"
    for run, step, key, value, lost in database.execute(query):
        if run in names:
            number = (
                math.nan
                if lost or value is None
                else math.copysign(math.inf, value)
                if abs(value) > _LARGEST
                else value
            )
            curves.points.append(Point(names[run], step, key, number))
    return curves


def _mlflow_folder(path: Path) -> Curves:
    """The older way of MLflow: a folder per run, a file per metric with lines of time, value and step."""
    folders = [file.parent for file in sorted(path.rglob("meta.yaml")) if (file.parent / "metrics").is_dir()]
    texts = {folder: read_text(folder / "meta.yaml") for folder in folders}
    active = [folder for folder in folders if re.search(r"^lifecycle_stage: deleted", texts[folder], re.M) is None]
    named = {folder: folder / "tags" / "mlflow.runName" for folder in active}
    names = _names({str(f): read_text(n).strip() if n.exists() else f.name for f, n in named.items()})
    curves = Curves("MLflow")
    for folder in active:
        run, state = names[str(folder)], re.search(r"^status: (\w+)", texts[folder], re.M)
        status = state[1] if state else "unknown"
        status = _STATES[int(status)] if status.isdigit() and int(status) < len(_STATES) else status
        if status != "FINISHED":
            curves.unfinished[run] = status
        for file in sorted(f for f in (folder / "params").rglob("*") if f.is_file()):
            curves.settings.setdefault(run, {})[file.relative_to(folder / "params").as_posix()] = read_text(file)
        for file in sorted(f for f in (folder / "metrics").rglob("*") if f.is_file()):
            task = file.relative_to(folder / "metrics").as_posix()
            curves.points += [Point(run, step, task, value) for step, value in _lines(file)]
    return curves


def _lines(file: Path) -> Iterator[tuple[int, float]]:
    """Steps and values of a metric in the order of their time."""
    try:
        rows = [line.split() for line in read_text(file).splitlines() if line.strip()]
        yield from ((int(row[2]), float(row[1])) for row in sorted(rows, key=lambda row: (int(row[0]), int(row[2]))))
    except (ValueError, IndexError) as error:
        raise InputError(f"{file} holds no lines of time, value and step: {error}; check the file") from error


def _trackio(database: sqlite3.Connection) -> Curves:
    curves, columns = Curves("Trackio"), {row[1] for row in database.execute("pragma table_info(metrics)")}
    run = "run_id" if "run_id" in columns else "run_name"  # before there were ids, a name was one run
    names = _names(dict(database.execute(f"select distinct {run}, run_name from metrics")))
    for key, config in database.execute(f"select {run}, config from configs"):
        known = {name: value for name, value in _flat(json.loads(config)).items() if not name.startswith("_")}
        curves.settings[names.get(key, key)] = known
    for key, step, logged in database.execute(f"select {run}, step, metrics from metrics order by timestamp, id"):
        for task, value in _flat(json.loads(logged)).items():
            if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
                value = float(value)
            if isinstance(value, int | float) and not isinstance(value, bool):
                curves.points.append(Point(names[key], step, task, float(value)))
    return curves


def _flat(values: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """Keys joined by dots; lists and media are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and "_type" not in value:
            flat |= _flat(value, f"{head}{key}.")
        elif not isinstance(value, Mapping | list):
            flat[head + key] = value
    return flat


def _trainer(path: Path) -> Curves:
    """States of Hugging Face's Trainer: of several checkpoints of a run, the last one knows all of it."""
    files = sorted(path.rglob("trainer_state.json")) if path.is_dir() else [path]
    states: dict[str, tuple[int, Any, list[Point]]] = {}
    for file in files:
        folder = file.parent.parent if re.fullmatch(r"checkpoint-\d+", file.parent.name) else file.parent
        inside = folder.relative_to(path).as_posix() if path.is_dir() and folder.is_relative_to(path) else "."
        run = folder.resolve().name if inside == "." else inside
        try:
            state = json.loads(read_text(file))
            logged = [
                Point(run, int(line["step"]), key, value)
                for line in state["log_history"]
                for key, value in _numbers(line)
            ]
            if run not in states or int(state["global_step"]) > states[run][0]:
                states[run] = int(state["global_step"]), state.get("max_steps"), logged
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{file} is no state of a trainer: {error!r}; check the file") from error
    return Curves(
        "Hugging Face's Trainer",
        [point for *_, logged in states.values() for point in logged],
        {run: {"max_steps": last} for run, (_, last, _) in states.items()},
    )


def _numbers(line: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What a line logs, apart from its step."""
    return [(k, float(v)) for k, v in line.items() if isinstance(v, int | float) and k != "step"]


def _tensorboard(path: Path) -> Curves:
    """Event files; what is in one folder is one run."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ModuleNotFoundError as error:
        raise InputError("event files of TensorBoard need it: pip install tensorboard") from error
    files = sorted(path.rglob("*.tfevents.*")) if path.is_dir() else [path]
    curves = Curves("TensorBoard")
    for folder in dict.fromkeys(file.parent for file in files):
        events = EventAccumulator(str(folder if path.is_dir() else path), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        run = folder.resolve().name if folder in (path, path.parent) else folder.relative_to(path).as_posix()
        for task in events.Tags()["scalars"]:
            curves.points += [Point(run, event.step, task, event.value) for event in events.Scalars(task)]
        for task in events.Tags()["tensors"]:
            cells = [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(task)]
            numbers = [(step, cell) for step, cell in cells if cell.shape == () and cell.dtype.kind in "fiu"]
            curves.points += [Point(run, step, task, float(cell)) for step, cell in numbers]
    return curves


def _names(runs: Mapping[str, str | None]) -> dict[str, str]:
    """Names of runs by their ids; the ids themselves where names repeat or are empty."""
    given = list(runs.values())
    return {run: run if not name or given.count(name) > 1 else name for run, name in runs.items()}


_FOLDERS: dict[str, Callable[[Path], Curves]] = {
    "**/trainer_state.json": _trainer,
    "**/*.tfevents.*": _tensorboard,
    "*/*/metrics": _mlflow_folder,
}
