"""Plot of what suggested runs are expected to gain for their cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from mixlaw.optimizer.next_runs.suggestion import Job
from mixlaw.plots.hover import recipe_words
from mixlaw.plots.style import CYCLE, styled


def value_of_runs(jobs: Sequence[Job], regret: float, title: str = "") -> go.Figure:
    """Expected gain of suggested runs against their cost, one after another.

    Args:
        jobs: ordered by expected gain per FLOP; those without an expectation count as 0.
        regret: expected gain with perfect knowledge, percent: the most that runs can reach.
        title: over the figure.
    """
    costs = [0.0, *accumulate(job.cost for job in jobs)]
    gains = [0.0, *accumulate(job.brings or 0.0 for job in jobs)]
    figure = go.Figure()
    figure.add_scatter(
        x=costs, y=gains, mode="lines+markers", line={"color": CYCLE[0], "width": 2.4, "shape": "linear"},
        marker={"size": 8}, name="suggested runs", showlegend=False,
        customdata=[["nothing trained yet", 0.0], *([job.why, job.cost] for job in jobs)],
        hovertext=["", *(f"<br>{recipe_words(job.recipe)}" for job in jobs)],
        hovertemplate="%{customdata[0]}%{hovertext}<br>costs %{customdata[1]:.3g} FLOPs, %{x:.3g} in all<br>"
        "expected gain %{y:.3g} % of loss in all<extra></extra>",
    )  # fmt: skip
    figure.add_hline(regret, line_dash="dot", line_width=1)
    figure.add_annotation(
        x=1, xref="paper", y=regret, text=f"with perfect knowledge: {regret:.2g} %", showarrow=False,
        xanchor="right", yanchor="bottom",
    )  # fmt: skip
    figure.update_xaxes(title_text="cost, training FLOPs", exponentformat="power", rangemode="tozero")
    figure.update_yaxes(title_text="expected gain, % of loss", rangemode="tozero")
    return styled(figure, title).update_layout(hovermode="closest")
