"""mixlaw: how much code goes with how much text, in which phase, and how to cool down.

The public surface. Recipes and errors are imported at once; what needs more packages when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError as InputError
from mixlaw.recipe import Domain as Domain
from mixlaw.recipe import Kind as Kind
from mixlaw.recipe import Mixture as Mixture
from mixlaw.recipe import Phase as Phase
from mixlaw.recipe import Recipe as Recipe
from mixlaw.recipe import Schedule as Schedule

if TYPE_CHECKING:
    from mixlaw.adapters.importing import import_table as import_table
    from mixlaw.analysis.data.design import Design as Design
    from mixlaw.analysis.fit import fit as fit
    from mixlaw.analysis.surface.surface import Surfaces as Surfaces
    from mixlaw.optimizer.answers.compare import what_if as what_if
    from mixlaw.optimizer.answers.front import pareto as pareto
    from mixlaw.optimizer.answers.propose import propose as propose
    from mixlaw.optimizer.goal.goal import Goal as Goal
    from mixlaw.optimizer.optuna.sampler import MixtureSampler as MixtureSampler
    from mixlaw.optimizer.target.target import Target as Target
    from mixlaw.records import Measurement as Measurement
    from mixlaw.records import Record as Record
    from mixlaw.records import Unit as Unit
    from mixlaw.study import Study as Study
    from mixlaw.study import open_study as open_study

__version__ = "0.1.0"

_LATER = {
    "Design": "mixlaw.analysis.data.design",
    "Goal": "mixlaw.optimizer.goal.goal",
    "Measurement": "mixlaw.records",
    "MixtureSampler": "mixlaw.optimizer.optuna.sampler",
    "Record": "mixlaw.records",
    "Study": "mixlaw.study",
    "Surfaces": "mixlaw.analysis.surface.surface",
    "Target": "mixlaw.optimizer.target.target",
    "Unit": "mixlaw.records",
    "fit": "mixlaw.analysis.fit",
    "import_table": "mixlaw.adapters.importing",
    "open_study": "mixlaw.study",
    "pareto": "mixlaw.optimizer.answers.front",
    "propose": "mixlaw.optimizer.answers.propose",
    "what_if": "mixlaw.optimizer.answers.compare",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'mixlaw' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
