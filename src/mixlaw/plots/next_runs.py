"""Plots of what things are worth: domains to tasks, ranges that do not matter, sizes, and suggested runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixlaw.plots.choices import Range
from mixlaw.plots.hover import recipe_words
from mixlaw.plots.style import CYCLE, colours, count, faded, styled
from mixlaw.recipe import Recipe


class Point(Protocol):
    """What one more point of a domain in a phase is worth to a task, percent of loss."""

    @property
    def phase(self) -> str:
        """Where."""

    @property
    def domain(self) -> str:
        """Of what."""

    @property
    def task(self) -> str:
        """To whom."""

    @property
    def gain(self) -> Range:
        """Percent of loss."""


class Flat(Protocol):
    """A range of one share in which nothing is lost that the data can tell."""

    @property
    def phase(self) -> str:
        """Where."""

    @property
    def what(self) -> str:
        """A domain, `code` or `all code`, or `length`."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""

    @property
    def at(self) -> float:
        """Where the recommendation is."""


class Size(Protocol):
    """The best recipe at one size."""

    @property
    def params(self) -> int:
        """The size."""

    @property
    def shares(self) -> Mapping[str, Mapping[str, float]]:
        """Phase -> kind -> share."""


class Offer(Protocol):
    """A suggested run."""

    @property
    def recipe(self) -> Recipe:
        """What to train."""

    @property
    def cost(self) -> float:
        """FLOPs still to be paid, after the runs before it."""

    @property
    def brings(self) -> float | None:
        """Expected reduction of the regret, percent of loss."""

    @property
    def why(self) -> str:
        """What speaks for it."""


def worth(points: Sequence[Point], title: str = "") -> go.Figure:
    """What one more point of every domain in every phase is worth to every task, as a heat map.

    A cell whose 90 % interval holds zero shows its number in brackets, or none where that would be a zero.

    Args:
        points: as a what-if gives them.
        title: over the figure.
    """
    rows = list(dict.fromkeys((p.phase, p.domain) for p in points))
    tasks = list(dict.fromkeys(p.task for p in points))
    by = {(p.phase, p.domain, p.task): p.gain for p in points}
    cells = [[by[phase, domain, task] for task in tasks] for phase, domain in rows]
    most = max(abs(cell.mean) for row in cells for cell in row) or 1.0
    clear = [[cell.lo90 > 0 or cell.hi90 < 0 for cell in row] for row in cells]
    digits = 2 if most < 1 else 1
    least, figure = 0.5 / 10**digits, go.Figure()
    figure.add_heatmap(
        z=[[cell.mean for cell in row] for row in cells], x=tasks, y=[f"{domain}, {phase}" for phase, domain in rows],
        autocolorscale=True, zmin=-most, zmax=most, xgap=2, ygap=2,
        text=[
            ["" if abs(c.mean) < least else f"{c.mean:+.{digits}f}" if sure else f"({c.mean:+.{digits}f})"
             for c, sure in zip(row, told, strict=True)]
            for row, told in zip(cells, clear, strict=True)
        ],
        texttemplate="%{text}", textfont={"size": 11},
        customdata=[[(cell.lo90, cell.hi90) for cell in row] for row in cells],
        hovertemplate="one more point of %{y}<br>%{x}: %{z:+.3f} % of loss<br>"
        "90 %: %{customdata[0]:+.3f} to %{customdata[1]:+.3f}<extra></extra>",
        colorbar={"title": {"text": "% of loss", "side": "right", "font": {"size": 12.5}}, "thickness": 12,
                  "outlinewidth": 0},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showline=False, ticks="")
    figure.update_xaxes(side="top", showline=False, ticks="", tickangle=-35 if len(tasks) > 4 else 0)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return styled(figure, title, 110 + 26 * len(rows)).update_layout(margin={"t": 84 if title else 56})


def flat_directions(ranges: Sequence[Flat], title: str = "") -> go.Figure:
    """Ranges of shares that are as good as the recommendation, as far as the data can tell; a dot where it stands."""
    # The shares of all code together come first; a domain may be called code too.
    together = next((i for i, flat in enumerate(ranges) if flat.what not in ("code", "all code")), len(ranges))
    told = ["all code" if i < together else flat.what for i, flat in enumerate(ranges)]
    names = [
        f"length of {flat.phase}" if flat.what == "length" else f"{what} in {flat.phase}"
        for what, flat in zip(told, ranges, strict=True)
    ]
    figure = go.Figure()
    figure.add_bar(
        x=[flat.high - flat.low for flat in ranges], base=[flat.low for flat in ranges], y=names, orientation="h",
        width=0.5, marker={"color": faded(CYCLE[0], 0.3), "line": {"width": 0}}, name="within noise",
        customdata=[(flat.low, flat.high) for flat in ranges],
        hovertemplate="%{y}: anything from %{customdata[0]:.0%} to %{customdata[1]:.0%} is within noise<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[flat.at for flat in ranges], y=names, mode="markers", marker={"color": CYCLE[0], "size": 9}, name="proposal",
        hovertemplate="%{y}: %{x:.1%} is proposed<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="share", tickformat=".0%", range=[-0.02, 1.02])
    height = 140 + 28 * len(names)
    return styled(figure, title, height).update_layout(legend={"y": -90 / height})


def over_sizes(sizes: Sequence[Size], title: str = "") -> go.Figure:
    """Shares of the best recipe against model size, a panel per phase, a line per kind of domain."""
    phases = list(dict.fromkeys(phase for size in sizes for phase in size.shares))
    kinds = list(dict.fromkeys(kind for size in sizes for by in size.shares.values() for kind in by))
    paint = colours(kinds)
    figure = make_subplots(rows=1, cols=len(phases), shared_yaxes=True, subplot_titles=phases, horizontal_spacing=0.03)
    for column, phase in enumerate(phases, 1):
        for kind in kinds:
            figure.add_scatter(
                x=[size.params for size in sizes], y=[size.shares.get(phase, {}).get(kind, 0.0) for size in sizes],
                mode="lines+markers", line={"color": paint[kind], "width": 2.2}, marker={"size": 7}, name=kind,
                legendgroup=kind, showlegend=column == 1, row=1, col=column,
                hovertemplate=f"{kind} in {phase}<br>%{{x:,.0f}} params: %{{y:.1%}}<extra></extra>",
            )  # fmt: skip
    sizes_shown = [size.params for size in sizes]
    figure.update_xaxes(type="log", tickvals=sizes_shown, ticktext=[count(params) for params in sizes_shown])
    figure.update_xaxes(title_text="parameters (non-embedding)", row=1, col=(len(phases) + 1) // 2)
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03])
    figure.update_yaxes(title_text="share of the phase's tokens", row=1, col=1)
    return styled(figure, title, 360).update_layout(margin={"t": 76 if title else 40})


def value_of_runs(offers: Sequence[Offer], regret: float, title: str = "") -> go.Figure:
    """What suggested runs are expected to win back, against what they cost, one after another.

    Args:
        offers: in the order in which they are worth most; those without an expectation count nothing.
        regret: expected loss for want of knowledge, percent; the line that runs can reach at best.
        title: over the figure.
    """
    paid = [0.0, *accumulate(offer.cost for offer in offers)]
    won = [0.0, *accumulate(offer.brings or 0.0 for offer in offers)]
    figure = go.Figure()
    figure.add_scatter(
        x=paid, y=won, mode="lines+markers", line={"color": CYCLE[0], "width": 2.4, "shape": "linear"},
        marker={"size": 8}, name="suggested runs", showlegend=False,
        customdata=[["nothing trained yet", 0.0], *([offer.why, offer.cost] for offer in offers)],
        hovertext=["", *(f"<br>{recipe_words(offer.recipe)}" for offer in offers)],
        hovertemplate="%{customdata[0]}%{hovertext}<br>costs %{customdata[1]:.3g} FLOPs, %{x:.3g} in all<br>"
        "wins back %{y:.3g} % of loss in all<extra></extra>",
    )  # fmt: skip
    figure.add_hline(regret, line_dash="dot", line_width=1)
    figure.add_annotation(
        x=1, xref="paper", y=regret, text=f"all that knowledge could bring: {regret:.2g} %", showarrow=False,
        xanchor="right", yanchor="bottom",
    )  # fmt: skip
    figure.update_xaxes(title_text="cost, training FLOPs", exponentformat="power", rangemode="tozero")
    figure.update_yaxes(title_text="expected to win back, % of loss", rangemode="tozero")
    return styled(figure, title).update_layout(hovermode="closest")
