"""The search for the best recipe of a problem, whose first answer is there long before the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from mixlaw.optimizer.goal.gains import Objective
from mixlaw.optimizer.search.climb import ENOUGH, climbed, on_ladder, one_thread, refined
from mixlaw.optimizer.search.problem import Problem
from mixlaw.optimizer.target.points import Points
from mixlaw.recipe import Recipe

STARTS = 12  # points that climb


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best recipe of the best variant of a target.

    Attributes:
        problem: with baselines of its schedule.
        index: of the variant.
        wide: what was searched first, with a free schedule and size.
        search: with the schedule of the optimum.
        point: the optimum.
    """

    problem: Problem
    index: int
    wide: Objective
    search: Objective
    point: Points

    @property
    def recipe(self) -> Recipe:
        """The optimum as a recipe."""
        return self.search.allowed.recipe(self.point)


@dataclass(frozen=True, eq=False)
class Search:
    """The search of `propose`; what it finds depends on nothing but its arguments.

    Attributes:
        problem: what it is the best recipe of.
        starts: points that climb.
        seed: of the random ones among them.
        on_step: called at every step; what it raises ends the search.
    """

    problem: Problem
    starts: int = STARTS
    seed: int = 0
    on_step: Callable[[], None] = field(default=lambda: None)

    @cached_property
    def _climbs(self) -> list[tuple[Objective, Points, Tensor]]:
        """For each branch of the target where it is searched, where the climbs ended, and their values."""
        searches = [replace(o.within(o.draws[:ENOUGH]), on_step=self.on_step) for o in self.problem.objectives]
        return [(each, *climbed(each, self.problem.baselines, self.starts, self.seed)) for each in searches]

    def first(self, start: Recipe) -> Recipe:
        """The best of the climbs in all draws, or the start, a recipe of the target, where that is better."""
        with one_thread():
            climbs = self._climbs
            with torch.no_grad():
                best = [(search, points, search.value(points)) for search, points, _ in climbs]
                search, points, values = max(best, key=lambda each: float(each[2].max()))
                if float(search.value(search.allowed.read([start]))) >= float(values.max()):
                    return start
        return search.allowed.recipe(points[values.argmax()[None]])

    def optimum(self) -> Optimum:
        """Refine the best climb of every branch, round a free size to the ladder, and settle on a schedule."""
        with one_thread():
            tried = []
            for index, (search, points, values) in enumerate(self._climbs):
                start = points[values.argmax()[None]]
                tried.append((*refined(search, start), index, search))
            point, _, index, search = max(tried, key=lambda each: each[1])
            search, point = on_ladder(search, point)
            settled, fixed, point = self.problem.settled(index, search, point)
        wide = replace(search, baseline=fixed.baseline, guarded=fixed.guarded)
        return Optimum(settled, index, wide, fixed, point)
