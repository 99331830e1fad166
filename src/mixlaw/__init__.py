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
    from mixlaw.analysis.design import Design as Design
    from mixlaw.analysis.fit import fit as fit
    from mixlaw.analysis.surface import Surfaces as Surfaces
    from mixlaw.importing import import_table as import_table
    from mixlaw.optimizer.proposals.pareto import pareto as pareto
    from mixlaw.optimizer.proposals.propose import propose as propose
    from mixlaw.optimizer.proposals.what_if import what_if as what_if
    from mixlaw.optimizer.sampling.sampler import MixtureSampler as MixtureSampler
    from mixlaw.optimizer.space.target import Target as Target
    from mixlaw.optimizer.worth.goal import Goal as Goal
    from mixlaw.records import Measurement as Measurement
    from mixlaw.records import Record as Record
    from mixlaw.records import Unit as Unit
    from mixlaw.study import Study as Study
    from mixlaw.study import open_study as open_study

__version__ = "0.1.0"

_LATER = {
    "Design": "mixlaw.analysis.design",
    "Goal": "mixlaw.optimizer.worth.goal",
    "Measurement": "mixlaw.records",
    "MixtureSampler": "mixlaw.optimizer.sampling.sampler",
    "Record": "mixlaw.records",
    "Study": "mixlaw.study",
    "Surfaces": "mixlaw.analysis.surface",
    "Target": "mixlaw.optimizer.space.target",
    "Unit": "mixlaw.records",
    "fit": "mixlaw.analysis.fit",
    "import_table": "mixlaw.importing",
    "open_study": "mixlaw.study",
    "pareto": "mixlaw.optimizer.proposals.pareto",
    "propose": "mixlaw.optimizer.proposals.propose",
    "what_if": "mixlaw.optimizer.proposals.what_if",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'mixlaw' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
