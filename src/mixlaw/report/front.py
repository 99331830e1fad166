"""The front between groups of tasks as a part of the report, and as a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.plots import front as plotted
from mixlaw.plots.hover import recipe_words
from mixlaw.plots.mixtures import mixtures
from mixlaw.recipe import Domain
from mixlaw.report.page import HoverTexts, page, plot, table

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.front import Front


def front_part(
    front: Front, domains: Sequence[Domain], proposal: Proposal | None = None, texts: HoverTexts | None = None
) -> str:
    """Plot and table of a front; the proposal beside it where its gains refer to the same baseline."""
    names = " and ".join(front.groups)
    figure = front_figure(front, proposal)
    recipes = {f"recipe {i}": point.recipe for i, point in enumerate(front.points, 1)}
    groups = [f"{name}: {', '.join(tasks)}" for name, tasks in front.groups.items()]
    return "".join(
        [
            f"<p>{escape(front.sentence)} The groups: {escape('; '.join(groups))}.</p>",
            plot(figure, f"Gains of the recipes between {names}", texts),
            table(front.rows()),
            plot(mixtures(recipes, domains), "Mixtures of the recipes, a row for each phase"),
        ]
    )


def front_figure(front: Front, proposal: Proposal | None = None) -> go.Figure:
    """Plot of a front; the proposal beside it where its gains refer to the same baseline."""
    words = [f"<b>recipe {i}</b><br>{recipe_words(point.recipe)}" for i, point in enumerate(front.points, 1)]
    marked = {}
    if proposal and (proposal.against, proposal.unit) == (front.against, front.unit):
        marked["proposal"] = {
            name: sum(proposal.gains[task].mean for task in tasks) / len(tasks) for name, tasks in front.groups.items()
        }
    gains = [point.gains for point in front.points]
    return plotted(gains, front.against, words, marked, unit=front.unit)


def front_page(front: Front, title: str, domains: Sequence[Domain]) -> str:
    """A page with a front alone."""
    body = f"<header><h1>{escape(title)}</h1></header><main>{front_part(front, domains)}</main>"
    return page(title, body)
