"""What measures the tasks of a study, checked before hours are spent on training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.records import Unit
from mixlaw.settings import Settings
from mixlaw.settings.tasks import SUITES

if TYPE_CHECKING:
    from mixlaw.runner.evaluate.items import Task
    from mixlaw.runner.plan.setup import Setup


def units_of(data: Path, settings: Settings) -> dict[str, str]:
    """Unit of every task: those of study.toml; where none but suites is measured here, also all that the data measure.

    So tasks that an import has added do not keep the next runs from being measured.
    """
    units = settings.units()
    suites = {task for name in settings.suites for task in SUITES[name][0]}
    named = set(units) - suites
    if not (data / "manifest.json").exists() or any(settings.tasks[name].measure() is not None for name in named):
        return units
    from mixlaw.runner.evaluate.run import tasks_of

    measured = {name: task.unit.value for name, task in tasks_of(data).items()}
    return units if named & measured.keys() else {**measured, **units}


def measured_on(data: Path, settings: Settings) -> dict[str, str]:
    """Identity of the held-out text or items of every task that the data folder measures here; empty without data."""
    from mixlaw.runner.batches.manifest import read_manifest

    if not (data / "manifest.json").exists():
        return {}
    own = {task for task, of in settings.tasks.items() if of.measure() is not None}
    known = read_manifest(data).measured_on
    return {task: known[task] for task in units_of(data, settings) if task in known and task not in own}


def chance_of(data: Path, settings: Settings) -> dict[str, float]:
    """Score of guessing by task: as study.toml says, or from the number of choices."""
    from mixlaw.runner.evaluate.items import read_items
    from mixlaw.runner.evaluate.scoring import chance

    scores = settings.chance()
    for name, task in settings.tasks.items():
        items = task.items or name
        if task.unit == Unit.ACCURACY.value and name not in scores and _items_file(data, items).exists():
            scores[name] = chance([len(item.choices) for item in read_items(data, items)])
    return scores


def measures_of(path: Path, settings: Settings, known: dict[str, Task]) -> dict[str, dict[str, Any]]:
    """What measures each task that the data folder does not measure in this unit, as plain data for the workers.

    Args:
        path: folder of the study, where relative paths begin.
        settings: its study.toml.
        known: tasks that the data folder measures.

    Raises:
        InputError: held-out text in another unit than bits/byte, or items that do not exist.
    """
    measures = {}
    for name, task in settings.tasks.items():
        measure = task.measure()
        if measure is None and name in known and Unit(task.unit) is not known[name].unit:
            measure = {"kind": "items", "items": name, "unit": task.unit}
        if measure is not None:
            measures[name] = _absolute(path, measure)
            if measure["kind"] == "items":
                _check_items(path / "data", name, measure["items"], known)
    return measures


def preflight(setup: Setup) -> None:
    """Check whether every task can be measured here, and training logged where it is to be.

    Raises:
        InputError: a package, data, a judge or bubblewrap is missing.
    """
    from mixlaw.runner.evaluate.run import read_measure
    from mixlaw.runner.train.log import check_sinks

    check_sinks(setup.sinks)
    for name, measure in setup.measures.items():
        try:
            read_measure(measure).check()
        except InputError as error:
            raise InputError(f"tasks.{name}: {error}") from error


def _check_items(data: Path, task: str, items: str, known: dict[str, Task]) -> None:
    built = [name for name in known if _items_file(data, name).exists()]
    if items in known and items not in built:
        raise InputError(f"{items} is held-out text, which is measured in bits/byte; write that under [tasks]")
    if items not in built:
        raise InputError(f"tasks.{task}: there are no items {items!r}; choose one of {', '.join(built) or 'none'}")


def _absolute(path: Path, measure: dict[str, Any]) -> dict[str, Any]:
    """The measure with absolute paths; a reference is a folder or the name of a run, which may be in a store alone."""
    for key in ("include", "prompts"):
        if measure.get(key) is not None:
            measure[key] = str((path / measure[key]).resolve())
    if measure["kind"] == "programs" and measure["problems"] not in ("human-eval", "mbpp"):
        measure["problems"] = str((path / measure["problems"]).resolve())
    if measure["kind"] == "judge":
        name, folder, run = measure["reference"], path / measure["reference"], path / "runs" / measure["reference"]
        is_run = (run / "checkpoint").exists() or ("/" not in name and not folder.exists())
        measure["reference"] = str((run / "checkpoint" if is_run else folder).resolve())
    return measure


def _items_file(data: Path, items: str) -> Path:
    return data / "items" / f"{items}.json"
