"""Training a study: what is planned, what a run does, and what it would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.machine import cores
from mixlaw.runner.execute.backends import Backend, Local
from mixlaw.runner.execute.machines import this_machine
from mixlaw.runner.execute.queue import Outcome, RunProgress
from mixlaw.runner.plan.dry_run import Assumptions, DryRun
from mixlaw.runner.plan.price import Plan
from mixlaw.runner.plan.tree import Segment, Tree, plan
from mixlaw.runner.train.gpus import GPUS
from mixlaw.runner.train.speed import calibrated, remembered
from mixlaw.study.tasks import preflight

if TYPE_CHECKING:
    from mixlaw.study import Study


def planned(study: Study, workers: int | None) -> Plan:
    """See `Study.plan`."""
    tree, setup, measured, trained = _tree(study), study.setup, _measured(study), Local().trained(study.runs)
    memory = study.path / "calibration.json"
    speed = remembered(_sizes(tree.segments), setup, memory)
    speed |= calibrated(_sizes(tree.untrained(measured, trained)), setup, memory)
    return Plan(tree, setup, measured, trained, speed, workers or cores())


def ran(study: Study, site: Backend, progress: Callable[[RunProgress], None]) -> Outcome:
    """See `Study.run`."""
    study.records()  # a damaged record is found before hours are spent
    tree = plan(study.recipes())
    pending = tree.needed(_measured(study), site.trained(study.runs))
    if not pending:
        return Outcome((), {}, ())
    preflight(study)
    return site.executor(study.setup, study.runs, progress).run(tree, pending)


def foreseen(study: Study, site: Backend | None, terms: Assumptions | None) -> DryRun:
    """See `Study.dry_run`.

    Raises:
        InputError: the speed of a size is not known, or a size fits on no machine.
    """
    site, terms = site or Local(), terms or Assumptions()
    tree, setup, measured, trained = _tree(study), study.setup, _measured(study), site.trained(study.runs)
    sizes = _sizes(tree.untrained(measured, trained))
    speed = remembered(sizes, setup, study.path / "calibration.json")
    if terms.gpus is not None and terms.gpu is None and this_machine().kind == "cpu":
        raise InputError(f"there is no GPU here to time; name what GPUs they are with --gpu: {', '.join(GPUS)}")
    assumed = {}
    if terms.gpu is not None:  # what was timed on this machine holds for that GPU if it is here
        timed = speed if this_machine().kind == "cuda" else {}
        assumed = {size: f"{terms.mfu:.0%} of the peak of {terms.gpu}" for size in sizes if size not in timed}
        speed = {**{size: terms.speed(setup, size) for size in assumed}, **timed}
    if unknown := [size for size in sizes if size not in speed]:
        raise InputError(
            f"the speed of {unknown[0]:,} parameters was not timed on this machine; let `mixlaw plan {study.path}` "
            f"time it, or name a GPU with --gpu: {', '.join(GPUS)}"
        )
    machines = terms.machines() or site.machines()
    workers = sum(machine.devices for machine in machines)
    return DryRun(Plan(tree, setup, measured, trained, speed, workers), machines, assumed, terms.price)


def _tree(study: Study) -> Tree:
    tree = plan(study.recipes())
    if not tree.recipes:
        where = study.path / "study.toml"
        raise InputError(f"there are no recipes; write [[recipes]] into {where} or files into recipes/")
    return tree


def _sizes(segments: Iterable[Segment]) -> list[int]:
    return sorted({segment.recipe.params for segment in segments})


def _measured(study: Study) -> frozenset[str]:
    return frozenset(path.parent.name for path in study.runs.glob("*/record.json"))
