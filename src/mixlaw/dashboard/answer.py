"""What the page shows for a view: asked of optimizer and analysis, and put into words, cells and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import polars as pl
import torch

from mixlaw.analysis.data.code_share import code_share
from mixlaw.analysis.data.design import Design, Floats
from mixlaw.cells import csv_of
from mixlaw.dashboard.view import ALL, View
from mixlaw.dashboard.watched import Opened
from mixlaw.numbers import percent
from mixlaw.optimizer.answers.quick import Assessment, assess
from mixlaw.optimizer.goal.posterior import log_losses
from mixlaw.optimizer.goal.values import PROPOSAL, Forecast, Interval, chance_text
from mixlaw.plots.gain_bars import plain_gains
from mixlaw.plots.landscapes import Together, plain_ternary, plain_two_phases
from mixlaw.plots.mixtures import plain_mixtures
from mixlaw.plots.recipes import plain_schedule
from mixlaw.plots.responses import plain_response
from mixlaw.plots.style import Plain, count
from mixlaw.printable import Rows

#: Of the landscape: points on a side, and posterior samples whose optima are shown; few, as it is drawn at every move.
POINTS, SAMPLES = 11, 16
HERE, HAND = PROPOSAL, "by hand"  # names of the recipe at hand


@dataclass(frozen=True, eq=False)
class Answer:
    """A view with the recipe at hand weighed, and the pinned ones beside it.

    Attributes:
        study: what it was asked of.
        view: what was asked, with its recipes.
        recipes: the recipe at hand, the pinned ones, and the best baseline, weighed, by name.
    """

    study: Opened
    view: View
    recipes: Mapping[str, Assessment]

    @classmethod
    def of(cls, study: Opened, view: View) -> Answer:
        """Weigh the recipes of a view; it has one at hand."""
        assert view.recipe is not None
        problem, recipes = study.problem(view), {HAND if view.hand else HERE: view.recipe, **view.pins}
        best = problem.references.against
        return cls(
            study, view, assess(problem, {**recipes, best: problem.references.entries[best].recipe}, study.measured)
        )

    @property
    def here(self) -> Assessment:
        """The recipe at hand."""
        return self.recipes[self.name]

    @property
    def name(self) -> str:
        """Name of the recipe at hand."""
        return HAND if self.view.hand else HERE

    @property
    def tone(self) -> str:
        """Style of the verdict: green only where the data support it, and all limits and guards are kept."""
        here = self.here
        if here.gain.hi90 < 0:
            return "no"
        return "yes" if here.supported and not here.broken else "unsure"

    @property
    def sentence(self) -> str:
        """The verdict; a recipe that is set by hand is no proposal."""
        if self.view.hand:
            return self.here.sentence.replace("The proposal", "This recipe").replace(
                "the best candidate", "this recipe"
            )
        why = self.study.reasons.get(self.view.question) if self.here.same else None
        return why or self.here.sentence

    @property
    def compared(self) -> dict[str, Assessment]:
        """The recipe at hand, and the pinned ones."""
        return {name: self.recipes[name] for name in (self.name, *self.view.pins)}

    def facts(self) -> Iterator[tuple[str, str]]:
        """Numbers of the recipe at hand, each with what it is."""
        here, recipe = self.here, self.here.recipe
        yield here.gain.text(), f"{here.unit} gained over {here.against}, 90 % interval"
        yield chance_text(here.beats), f"chance to beat {here.against}"
        shares = " / ".join(percent(code_share(p.mixture, self.study.domains)) for p in recipe.phases)
        yield shares, "code share of " + " / ".join(p.name for p in recipe.phases)
        last = recipe.phases[-1]
        yield percent(last.tokens / recipe.tokens, 1), f"of {count(recipe.tokens)} tokens in {last.name}"
        if here.guarded:
            worst = min(here.guarded, key=lambda task: here.guarded[task])
            yield chance_text(here.guarded[worst]), f"chance that the guard holds for {worst}, the least sure task"
        if here.distance is not None and here.nearest:
            yield percent(here.distance), f"of its tokens differ from the nearest run, {here.nearest}"

    def rows(self) -> Rows:
        """Cells of the table of predictions."""
        gains = [f"gain of {name}, {self.here.unit}" for name in self.compared]
        rows = [["task", "unit", *self.recipes, *gains]]
        for i, base in enumerate(self.here.forecasts):
            values = [_text(one.forecasts[i]) for one in self.recipes.values()]
            rows.append(
                [base.task, base.unit, *values, *(one.gains[base.task].text() for one in self.compared.values())]
            )
        totals = [one.gain.text() for one in self.compared.values()]
        return [*rows, [ALL, "", *[""] * len(self.recipes), *totals]]

    def styles(self) -> Rows:
        """Classes of the cells below the heads: unit and levels of other recipes leave a narrow page first."""
        levels = ["extra" if self.view.pins else "", *["extra"] * (len(self.recipes) - 1)]
        return [["", "extra", *levels, *[""] * len(self.compared)]] * (len(self.here.forecasts) + 1)

    def notes(self) -> Iterator[str]:
        """What to know about the recipes beside their numbers."""
        yield from self.study.kept(self.view).notes
        for task, why in self.study.weightless.items():
            if not self.view.weights[task]:
                yield f"{task} does not count: {why}"
        for name, one in self.compared.items():
            for limit in one.broken:
                yield f"{name} does not keep: {limit}"
            if (one.recipe.params, one.recipe.tokens) != (self.here.recipe.params, self.here.recipe.tokens):
                size = f"{count(one.recipe.params)} params and {count(one.recipe.tokens)} tokens"
                yield f"{name} is predicted at its own size, {size}; gains refer to {self.here.against} at the target"

    def figures(self) -> dict[str, Plain | None]:
        """Figures by name, but for the landscape, which takes longer than all of them; None where nothing is drawn."""
        domains, compared = self.study.domains, {name: one.recipe for name, one in self.compared.items()}
        gains = {name: one.gains for name, one in self.compared.items()}
        return {
            "gains": plain_gains(gains, self.here.against, self.here.unit),
            "schedule": plain_schedule(self.here.recipe, domains),
            "pinned": plain_mixtures(compared, domains) if self.view.pins else None,
        }

    def as_csv(self) -> str:
        """All predictions, a line per recipe and task."""
        rows = []
        for name, one in self.recipes.items():
            for f in one.forecasts:
                gain = one.gains[f.task]
                ends = {"gain": gain.mean, "gain_lo90": gain.lo90, "gain_hi90": gain.hi90}
                rows.append({"recipe": name, **asdict(f), **ends})
        return csv_of(pl.DataFrame(rows))

    def as_recipe(self) -> str:
        """The recipe at hand as `mixlaw what-if` and `mixlaw export` read it."""
        return json.dumps(self.here.recipe.as_json(), indent=1, ensure_ascii=False) + "\n"


def _text(forecast: Forecast) -> str:
    return Interval(forecast.mean, forecast.lo90, forecast.hi90).text()


def landscape(study: Opened, view: View) -> Plain | None:
    """Gain or task over code shares of two phases, of one, or over three domains: what the study has."""
    surfaces, domains, recipe = study.surfaces, study.domains, view.recipe
    if recipe is None:
        return None
    task: str | Together = _weighted(study, view) if view.task == ALL else view.task
    coded = {d.kind.is_code for d in domains}
    if len(coded) == 2 and len(view.plane) == 2:
        across, up = view.plane
        figure = plain_two_phases(surfaces, task, recipe, (across, up), domains, POINTS, SAMPLES)
        figure["layout"] |= {"title": {"text": ""}, "margin": {"t": 12}}
        return figure
    if len(coded) == 2:
        heaviest = max(view.weights, key=lambda name: view.weights[name])
        return plain_response(surfaces, heaviest if isinstance(task, Together) else task, recipe, domains)
    corners = sorted((d.name for d in domains), key=lambda name: -recipe.domain_tokens(name))[:3]
    if len(corners) < 3:
        return None
    return plain_ternary(surfaces, task, recipe, recipe.phases[-1].name, corners, domains, POINTS)


def _weighted(study: Opened, view: View) -> Together:
    """The gain of all tasks together over the baseline, as the sentence has it."""
    assert view.recipe is not None
    problem = study.problem(view).scheduled(view.recipe)
    objective, references = problem.objectives[0], problem.references

    def values(design: Design, samples: int) -> tuple[Floats, Floats]:
        with torch.no_grad():
            losses = log_losses(objective.posterior, design, len(objective.baseline))
            gains = objective.utility.total(losses, objective.baseline).numpy()
        return gains.mean(0), gains[:samples]

    return Together(ALL, f"{objective.utility.goal.unit} gained over {references.against}", False, values)
