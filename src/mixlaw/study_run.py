"""Training a study: what is planned, what a run does, and what it would do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mixlaw.errors import InputError
from mixlaw.runner.calibrate import calibrated
from mixlaw.runner.cost import Plan
from mixlaw.runner.dispatch import Outcome, Progress
from mixlaw.runner.sites import Local, Site
from mixlaw.runner.tree import Tree, plan

if TYPE_CHECKING:
    from mixlaw.study import Study


def planned(study: Study, workers: int | None) -> Plan:
    """See `Study.plan`."""
    tree = _tree(study)
    sizes = sorted({recipe.params for recipe in tree.recipes})
    return Plan(
        tree=tree,
        setup=study.setup,
        measured=_measured(study),
        trained=Local().trained(study.runs),
        speed=calibrated(sizes, study.setup, study.path / "calibration.json"),
        workers=workers or len(os.sched_getaffinity(0)),
    )


def ran(study: Study, site: Site, progress: Callable[[Progress], None]) -> Outcome:
    """See `Study.run`."""
    study.records()  # a damaged record is found before hours are spent
    tree = plan(study.recipes())
    pending = tree.needed(_measured(study), site.trained(study.runs))
    return site.executor(study.setup, study.runs, progress).run(tree, pending)


def _tree(study: Study) -> Tree:
    tree = plan(study.recipes())
    if not tree.recipes:
        where = study.path / "study.toml"
        raise InputError(f"there are no recipes; write [[recipes]] into {where} or files into recipes/")
    return tree


def _measured(study: Study) -> frozenset[str]:
    return frozenset(path.parent.name for path in study.runs.glob("*/record.json"))
