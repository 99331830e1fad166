"""What measures the tasks of a study, found out before hours are spent on training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.records import Unit
from mixlaw.settings.tasks import SUITES

if TYPE_CHECKING:
    from mixlaw.runner.evaluate.items import Task
    from mixlaw.study import Study


def units_of(study: Study) -> dict[str, str]:
    """Unit of every task: those of study.toml; where it writes none, all that the data measure, and its suites."""
    told = study.settings.units()
    suites = {task for name in study.settings.suites for task in SUITES[name][0]}
    if set(told) - suites or not (study.data / "manifest.json").exists():
        return told
    from mixlaw.runner.evaluate.run import tasks_of

    return {**{name: task.unit.value for name, task in tasks_of(study.data).items()}, **told}


def measures_of(study: Study, known: dict[str, Task]) -> dict[str, dict[str, Any]]:
    """What measures each task that the data folder does not measure in this unit, as plain data for the workers.

    Args:
        study: the study; its folder is where relative paths begin.
        known: tasks that the data folder measures.

    Raises:
        InputError: held-out text in another unit than bits/byte, or items that are not there.
    """
    found = {}
    for name, task in study.settings.tasks.items():
        told = task.measure()
        if told is None and name in known and Unit(task.unit) is not known[name].unit:
            told = {"kind": "items", "items": name, "unit": task.unit}
        if told is not None:
            found[name] = _placed(study, told)
            if told["kind"] == "items":
                _check_items(study, name, told["items"], known)
    return found


def _check_items(study: Study, task: str, items: str, known: dict[str, Task]) -> None:
    built = [name for name in known if (study.data / "items" / f"{name}.json").exists()]
    if items in known and items not in built:
        raise InputError(f"{items} is held-out text, which is measured in bits/byte; write that under [tasks]")
    if items not in built:
        raise InputError(f"tasks.{task}: there are no items {items!r}; choose one of {', '.join(built) or 'none'}")


def _placed(study: Study, told: dict[str, Any]) -> dict[str, Any]:
    """Paths made absolute; a reference may be the name of a run."""
    for key in ("include", "prompts"):
        if told.get(key) is not None:
            told[key] = str((study.path / told[key]).resolve())
    if told["kind"] == "programs" and told["problems"] not in ("human-eval", "mbpp"):
        told["problems"] = str((study.path / told["problems"]).resolve())
    if told["kind"] == "judge":
        run = study.runs / told["reference"] / "checkpoint"
        told["reference"] = str((run if run.exists() else study.path / told["reference"]).resolve())
    return told


def preflight(study: Study) -> None:
    """Find out whether every task can be measured here, and training logged where it is to be.

    Raises:
        InputError: a package, data, a judge or bubblewrap is missing.
    """
    from mixlaw.runner.evaluate.registry import read
    from mixlaw.runner.train import sinks

    sinks.check(study.setup.sinks)
    for name, told in study.setup.measures.items():
        try:
            read(told).check()
        except InputError as error:
            raise InputError(f"tasks.{name}: {error}") from error


def chance_of(study: Study) -> dict[str, float]:
    """Score of guessing: as study.toml says, or as the number of choices tells."""
    from mixlaw.runner.evaluate.choices import chance
    from mixlaw.runner.evaluate.items import read_items

    told = study.settings.chance()
    for name, task in study.settings.tasks.items():
        items = task.items or name
        if task.unit == Unit.ACCURACY.value and name not in told and _there(study.data, items):
            told[name] = chance([len(item.choices) for item in read_items(study.data, items)])
    return told


def _there(data: Path, items: str) -> bool:
    return (data / "items" / f"{items}.json").exists()
