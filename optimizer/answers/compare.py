"""Two recipes head to head: the probability that one is better per task, group and over all, and what supports each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mixlaw.numbers import percent, size
from mixlaw.optimizer.goal.gains import Gain, gain_of
from mixlaw.optimizer.goal.goal import Goal, Utility, utility_of
from mixlaw.optimizer.goal.posterior import Posterior, log_losses
from mixlaw.optimizer.goal.values import chance, chance_text
from mixlaw.optimizer.search.problem import Problem, design_and_history, distinct, without_past
from mixlaw.optimizer.search.support import doubts_of, is_same
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Domain, Recipe
from mixlaw.tables import Column, Rows, Table, Tone


@dataclass(frozen=True)
class Standing:
    """What the target and the measured runs say about one recipe.

    Attributes:
        name: of the recipe.
        distance, radius: from measured recipes, and how far these speak; None without a target of its phases.
        nearest: name of the nearest run.
        broken: limits of the target that it does not keep, in words.
        doubts: where what was measured is too small, or the audit is broken, as `propose` says.
    """

    name: str
    distance: float | None = None
    radius: float = 0.0
    nearest: str = ""
    broken: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def fit(self) -> bool:
        """Whether it keeps all limits and measured runs speak for it."""
        return self.distance is not None and not self.objection

    @property
    def objection(self) -> str:
        """What speaks against it; empty where nothing does."""
        far = self.distance is not None and self.distance > self.radius
        limits = [f"it does not keep {'; '.join(self.broken)}"] if self.broken else []
        return " and ".join([*limits, *(["it is beyond what measured runs speak for"] if far else []), *self.doubts])

    def __str__(self) -> str:
        if self.distance is None:
            return f"{self.name}: not of the target's phases, so neither limits nor distance are known"
        limits = f"does not keep: {'; '.join(self.broken)}" if self.broken else "keeps all limits of the target"
        far = "beyond" if self.distance > self.radius else "within"
        near = (
            f"{percent(self.distance)} of the tokens of a phase differ from the nearest run {self.nearest}, {far} the "
            f"{percent(self.radius)} to which measured runs speak; "
            if self.nearest
            else ""
        )
        return f"{self.name}: {near}{limits}"


@dataclass(frozen=True)
class Comparison(Printable):
    """Two recipes side by side.

    Attributes:
        names: of the two.
        recipes: the two.
        gain: of the first over the second, by task, by group and over all, with the probability that it is better.
        unit: of gains.
        standings: of both; empty where there is no target.
        same: whether both are one recipe, within a percent of the tokens of every phase.
    """

    names: tuple[str, str]
    recipes: tuple[Recipe, Recipe]
    gain: Gain
    unit: str
    standings: tuple[Standing, ...] = ()
    same: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "names": list(self.names),
            "recipes": [recipe.as_json() for recipe in self.recipes],
            "gain": asdict(self.gain),
            "unit": self.unit,
            "same": self.same,
            "supported": self.supported,
            "sentence": " ".join(filter(None, (self.sentence, self.verdict))),
            "standings": [asdict(standing) for standing in self.standings],
        }

    def table(self) -> Table:
        """Gains and chances, a row per task, per group, and for all together; the greatest gain first."""
        gain = self.gain
        columns = [
            "task",
            Column("gain"),
            Column("chance to be better", "chance"),
        ]
        title = f"gain of {self.names[0]} over {self.names[1]}, {self.unit}"
        tasks = sorted(gain.by_task.items(), key=lambda item: -item[1].mean)
        rows = [[task, each.cell(None), chance(gain.better[task])] for task, each in tasks]
        rows += [
            [f"all of {name}", each.cell(None), chance(gain.better_groups[name])]
            for name, each in gain.by_group.items()
        ]
        rows.append(["all, by weight", gain.total.cell(None), chance(gain.probability)])
        return Table("gains", columns, rows, title, self._sizes())

    def _sizes(self) -> str:
        """Params and tokens of the two, which differ where two runs are compared."""
        first, second = (f"{size(recipe.params)} params, {size(recipe.tokens)} tokens" for recipe in self.recipes)
        if first == second:
            return f"both have {first}"
        return f"{self.names[0]} has {first}; {self.names[1]} has {second}: part of the gain"

    def rows(self) -> Rows:
        """Cells of the table, heads first."""
        return self.table().cells()

    @property
    def sentence(self) -> str:
        """Which one is better, how likely that is, and on how many tasks."""
        first, second = self.names
        if self.same:
            return f"{first} and {second} are one recipe."
        gain = self.gain
        odds = f"{first} is better than {second} with a chance of {chance_text(gain.probability)}"
        if gain.probability < 0.5:
            odds = f"{second} is better than {first} with a chance of {chance_text(1 - gain.probability)}"
        clear = [
            sum(sign * each.mean > 0 and each.lo90 * each.hi90 > 0 for each in gain.by_task.values())
            for sign in (1, -1)
        ]
        return f"{odds}. Of {len(gain.by_task)} tasks, {first} is clearly better on {clear[0]}, {second} on {clear[1]}."

    @property
    def supported(self) -> bool | None:
        """Whether the better one can be recommended: clearly better, within limits, near measured runs.

        None where that is not known: without a target there are no limits and no distances.
        """
        better = self._better()
        if better is None:
            return False
        if not self.standings or self.standings[better].distance is None:
            return None
        return self.standings[better].fit

    def _better(self) -> int | None:
        """Which of the two is clearly better, if one is."""
        return {"better": 0, "worse": 1}.get(self.gain.total.tone)

    @property
    def verdict(self) -> str:
        """Whether the data support choosing the better one, in words."""
        better = self._better()
        if self.same:
            return ""
        if better is None:
            return "The data support neither: the 90 % interval of the gain holds zero."
        name = self.names[better]
        if self.supported is None:
            return f"The data prefer {name}; whether runs nearby support it is not known without a [target] like it."
        if self.supported:
            return f"The data support {name}: within limits, and near measured runs."
        return f"The data do not support {name}: {self.standings[better].objection}."

    def page(self) -> Page:
        """Gains, what supports each, and which one is better."""
        tone: Tone = self.gain.total.tone if self.supported is not False else "unsure"
        answer = " ".join(filter(None, (self.sentence, self.verdict)))
        return Page(answer, tone, tables=[self.table()], notes=[str(standing) for standing in self.standings])


def compare(
    posterior: Posterior,
    recipes: tuple[Recipe, Recipe],
    domains: Sequence[Domain],
    *,
    names: tuple[str, str] = ("A", "B"),
    goal: Goal | None = None,
    problem: Problem | None = None,
    draws: int = 64,
) -> Comparison:
    """Compare two recipes task by task, within each posterior sample.

    Args:
        posterior: fitted surfaces.
        recipes: two recipes of phases and domains that the surfaces know; of a target whose past is not known, what
            follows it.
        domains: with the unique tokens there are.
        names: what the recipes are called.
        goal: as in `what_if`.
        problem: of the target, for distances and limits.
        draws: posterior samples behind the intervals.

    Raises:
        InputError: a phase or domain that was never measured.
    """
    utility = utility_of(goal or Goal(), posterior)
    gain = gain_between(posterior, recipes, domains, utility, problem, distinct(posterior, draws))
    named = zip(names, recipes, strict=True)
    standings = () if problem is None else tuple(standing_of(problem, name, recipe) for name, recipe in named)
    phases = [len(recipe.phases) for recipe in recipes]
    same = phases[0] == phases[1] and is_same(*recipes, phases[0])
    return Comparison(names, recipes, gain, utility.goal.unit, standings, same)


def gain_between(
    posterior: Posterior,
    recipes: tuple[Recipe, Recipe],
    domains: Sequence[Domain],
    utility: Utility,
    problem: Problem | None,
    draws: int,
) -> Gain:
    """What the first of two recipes gains over the second, whatever past they have, in the same posterior samples."""
    losses = []
    with torch.no_grad():
        for recipe in recipes:
            design, history = design_and_history(posterior, recipe, domains, without_past(problem, recipe))
            every = log_losses(posterior, design, draws)
            losses.append((every if history is None else history.by_draw(every))[:, 0])
    return gain_of(utility, *losses)


def standing_of(problem: Problem, name: str, recipe: Recipe) -> Standing:
    """What a target and the measured runs say about a recipe."""
    objective, runs = problem.objectives[0], problem.runs[0]
    allowed = objective.allowed
    if tuple(phase.name for phase in recipe.phases[-len(allowed.target.phases) :]) != allowed.target.phases:
        return Standing(name)
    distance, neighbour = objective.distance(allowed.read([recipe]))
    nearest = runs[int(neighbour)] if runs else ""
    doubts = doubts_of(objective.posterior, objective.utility, recipe)
    return Standing(name, float(distance), objective.radius, nearest, allowed.violations(recipe), doubts)
