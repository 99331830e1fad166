"""mixlaw: how much code goes with how much text, in which phase, and how to cool down.

The public surface. Recipes and errors are imported at once; what needs more packages when it is first used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError as InputError
from mixlaw.errors import InvalidMixture as InvalidMixture
from mixlaw.errors import InvalidRecipe as InvalidRecipe
from mixlaw.recipe import Decay as Decay
from mixlaw.recipe import Domain as Domain
from mixlaw.recipe import Kind as Kind
from mixlaw.recipe import Mixture as Mixture
from mixlaw.recipe import Phase as Phase
from mixlaw.recipe import Recipe as Recipe
from mixlaw.recipe import Schedule as Schedule

if TYPE_CHECKING:  # the lines below are also the table of what `__getattr__` imports
    from mixlaw.analysis.data.design import Design as Design
    from mixlaw.analysis.data.recipe_features import RecipeFeatures as RecipeFeatures
    from mixlaw.analysis.data.recipes import design_of as design_of
    from mixlaw.analysis.fit import fit as fit
    from mixlaw.analysis.surface.surface import Surfaces as Surfaces
    from mixlaw.demo.loop import run_demo as run_demo
    from mixlaw.optimizer.answers.compare import compare as compare
    from mixlaw.optimizer.answers.front import pareto as pareto
    from mixlaw.optimizer.answers.propose import propose as propose
    from mixlaw.optimizer.answers.verify import verify as verify
    from mixlaw.optimizer.answers.what_if import what_if as what_if
    from mixlaw.optimizer.goal.goal import Goal as Goal
    from mixlaw.optimizer.goal.goal import Measure as Measure
    from mixlaw.optimizer.goal.values import Interval as Interval
    from mixlaw.optimizer.next_runs.costs import Proxies as Proxies
    from mixlaw.optimizer.next_runs.suggest import suggest as suggest
    from mixlaw.optimizer.optuna.sampler import MixtureSampler as MixtureSampler
    from mixlaw.optimizer.target.feasible import Infeasible as Infeasible
    from mixlaw.optimizer.target.target import Guard as Guard
    from mixlaw.optimizer.target.target import Target as Target
    from mixlaw.optimizer.target.target import Trained as Trained
    from mixlaw.records import Measurement as Measurement
    from mixlaw.records import Record as Record
    from mixlaw.records import Unit as Unit
    from mixlaw.runner.execute.machines import Local as Local
    from mixlaw.runner.execute.machines import Ray as Ray
    from mixlaw.runner.plan.price import Assumptions as Assumptions
    from mixlaw.study import Study as Study
    from mixlaw.study import import_runs as import_runs
    from mixlaw.study import new_study as new_study
    from mixlaw.study import open_study as open_study
    from mixlaw.study import preview_import as preview_import
    from mixlaw.testing.worlds import random_recipes as random_recipes
    from mixlaw.testing.worlds import random_world as random_world

    __version__: str


@cache
def _modules() -> dict[str, str]:
    """Name -> module of what is imported when it is first used, as this file says it to type checkers."""
    import re
    from pathlib import Path

    lines = re.findall(r"^    from (mixlaw\.\S+) import (\w+) as \2$", Path(__file__).read_text("utf-8"), re.MULTILINE)
    return {name: module for module, name in lines}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mixlaw")
    if name not in _modules():
        raise AttributeError(f"module 'mixlaw' has no attribute {name!r}")
    return getattr(import_module(_modules()[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_modules()])
