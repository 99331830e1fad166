"""The front between groups of tasks as a part of the report, and as a page of its own."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.plots import front as plotted
from mixlaw.plots.hover import recipe_words
from mixlaw.plots.style import count
from mixlaw.report.page import HoverTexts, page, plot, table

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.front import Front


def front_part(front: Front, proposal: Proposal | None = None, texts: HoverTexts | None = None) -> str:
    """Plot and table of a front; the proposal beside it where its gains refer to the same baseline."""
    names = " and ".join(front.groups)
    figure = front_figure(front, proposal)
    groups = [f"{name}: {', '.join(tasks)}" for name, tasks in front.groups.items()]
    return "".join(
        [
            f"<p>{escape(front.sentence)} The groups: {escape('; '.join(groups))}.</p>",
            plot(figure, f"Gains of the recipes between {names}", texts),
            _recipes(front),
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


def front_page(front: Front, title: str) -> str:
    """A page with a front alone."""
    body = f"<header><h1>{escape(title)}</h1></header><main>{front_part(front)}</main>"
    return page(title, body)


def _recipes(front: Front) -> str:
    """Gains and mixtures of every recipe."""
    head, *body = front.rows()
    names = [phase.name for phase in front.points[0].recipe.phases]
    rows = [[*head, *names]]
    for row, point in zip(body, front.points, strict=True):
        rows.append([*row, *(f"{count(phase.tokens)}: {phase.mixture}" for phase in point.recipe.phases)])
    return table(rows, [[""] * len(head) + ["words"] * len(names)] * len(body))
