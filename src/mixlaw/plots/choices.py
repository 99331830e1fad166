"""Plots of what there is to choose: the front between groups of tasks, and where single worlds have their optima."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixlaw.plots.style import CYCLE, OTHER, domain_colours, faded, rounded, styled
from mixlaw.recipe import Domain, Recipe


class Range(Protocol):
    """A value with the ends of its 90 % interval."""

    @property
    def mean(self) -> float:
        """The value."""

    @property
    def lo90(self) -> float:
        """Lower end."""

    @property
    def hi90(self) -> float:
        """Upper end."""


def front(
    gains: Sequence[Mapping[str, Range]],
    against: str,
    words: Sequence[str] = (),
    marked: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
    unit: str = "%",
) -> go.Figure:
    """The front between the first two groups of tasks; a third one is the colour.

    Args:
        gains: of every recipe on the front by group, ordered along the front.
        against: the baseline that gains refer to, at zero.
        words: what each recipe is, shown when it is pointed at.
        marked: recipes to show beside the front, by name, with their gains by group.
        title: over the figure.
        unit: of gains.
    """
    names, figure = list(gains[0]), go.Figure()
    x, y = ([gain[name] for gain in gains] for name in names[:2])
    figure.add_scatter(
        x=[g.mean for g in x],
        y=[g.mean for g in y],
        error_x=_bars(x),
        error_y=_bars(y),
        mode="lines+markers" if len(names) == 2 else "markers",
        line={"color": faded(CYCLE[0], 0.5), "width": 1.6},
        marker=_dots([gain[names[2]].mean for gain in gains] if len(names) > 2 else [], names, unit),
        customdata=["; ".join(f"{n} {rounded(*_ends(gain[n]))} {unit}" for n in names) for gain in gains],
        hovertext=[f"{text}<br>" if text else "" for text in words or [""] * len(gains)],
        hovertemplate="%{hovertext}%{customdata}<extra></extra>",
        name="front",
        showlegend=False,
    )
    for i, (name, values) in enumerate((marked or {}).items()):
        figure.add_scatter(
            x=[values[names[0]]],
            y=[values[names[1]]],
            mode="markers",
            marker={"symbol": "diamond", "size": 12, "color": CYCLE[1 + i % (len(CYCLE) - 1)]},
            name=name,
            hovertemplate=f"{name}: %{{x:+.2f}}, %{{y:+.2f}} {unit}<extra></extra>",
        )
    figure.add_scatter(
        x=[0], y=[0], mode="markers", name=against, hovertemplate=f"{against}<extra></extra>",
        marker={"color": OTHER, "size": 11, "symbol": "x"},
    )  # fmt: skip
    figure.update_xaxes(title_text=f"{names[0]}: gain over {against}, {unit}")
    figure.update_yaxes(title_text=f"{names[1]}: gain over {against}, {unit}")
    return styled(figure, title, height=440).update_layout(hovermode="closest", legend={"y": -0.18})


def _ends(value: Range) -> tuple[float, float, float]:
    return value.mean, value.lo90, value.hi90


def _bars(values: Sequence[Range]) -> dict[str, object]:
    """Error bars of 90 % intervals, faint: they overlap."""
    return {
        "type": "data",
        "array": [v.hi90 - v.mean for v in values],
        "arrayminus": [v.mean - v.lo90 for v in values],
        "color": faded(CYCLE[0], 0.28),
        "thickness": 1,
        "width": 0,
    }


def _dots(third: Sequence[float], names: Sequence[str], unit: str) -> dict[str, object]:
    if not third:
        return {"size": 8, "color": CYCLE[0]}
    title = {"text": f"{names[2]}, {unit}", "side": "right", "font": {"size": 12.5}}
    bar = {"title": title, "thickness": 12, "outlinewidth": 0}
    return {
        "size": 9,
        "color": list(third),
        "colorscale": "Viridis",
        "colorbar": bar,
        "line": {"width": 1, "color": OTHER},
    }


def spread(
    recipe: Recipe,
    ends: Mapping[str, Mapping[str, tuple[float, float]]],
    domains: Sequence[Domain],
    free: Recipe | None = None,
    title: str = "",
) -> go.Figure:
    """Where the best share of every domain lies in 90 % of the worlds that the data allow, a panel per phase.

    Args:
        recipe: the recommendation, as dots.
        ends: phase -> domain -> 5 % and 95 % point of the best share, as bars.
        domains: in the order shown.
        free: the optimum without limits, as rings.
        title: over the figure.
    """
    paint, phases = domain_colours(domains), [phase for phase in recipe.phases if phase.name in ends]
    names = [domain.name for domain in reversed(domains)]
    titles = [phase.name for phase in phases]
    figure = make_subplots(rows=1, cols=len(phases), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.07)
    without = {phase.name: phase.mixture for phase in free.phases} if free else {}
    for column, phase in enumerate(phases, 1):
        low, high = ([ends[phase.name][name][i] for name in names] for i in (0, 1))
        colour = [paint[name] for name in names]
        figure.add_bar(
            x=[b - a for a, b in zip(low, high, strict=True)], base=low, y=names, orientation="h", width=0.5,
            marker={"color": [faded(c, 0.35) for c in colour], "line": {"width": 0}}, name="90 % of worlds",
            customdata=list(zip(low, high, strict=True)), showlegend=False, row=1, col=column,
            hovertemplate="%{y}: %{customdata[0]:.0%} to %{customdata[1]:.0%}<extra></extra>",
        )  # fmt: skip
        _shares(figure, [phase.mixture.share(n) for n in names], names, colour, "proposal", column)
        if phase.name in without:
            rings = [without[phase.name].share(n) for n in names]
            _shares(figure, rings, names, colour, "without limits", column)
    _key(figure, bool(without))
    figure.update_xaxes(range=[-0.03, 1.03], tickvals=[0, 0.5, 1], ticktext=["0", "50", "100"])
    figure.update_xaxes(title_text="share of the phase's tokens, %", row=1, col=(len(phases) + 1) // 2)
    height = 150 + 34 * len(names)
    styled(figure, title, height)
    return figure.update_layout(legend={"y": -90 / height}, margin={"t": 76 if title else 40})


def _key(figure: go.Figure, free: bool) -> None:
    """The legend in grey, for the colours are of the domains."""
    figure.add_bar(x=[None], y=[None], orientation="h", marker={"color": faded(OTHER, 0.45)}, name="90 % of worlds")
    for name, symbol in (("proposal", "circle"), *((("without limits", "circle-open"),) if free else ())):
        marker = {"color": OTHER, "size": 10, "symbol": symbol, "line": {"width": 1.6, "color": OTHER}}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)


def _shares(
    figure: go.Figure, shares: Sequence[float], names: Sequence[str], colour: Sequence[str], what: str, column: int
) -> None:
    symbol = "circle" if what == "proposal" else "circle-open"
    figure.add_scatter(
        x=list(shares), y=list(names), mode="markers", name=what, showlegend=False,
        marker={"color": list(colour), "size": 10, "symbol": symbol, "line": {"width": 1.6, "color": list(colour)}},
        hovertemplate=f"%{{y}}: %{{x:.1%}} ({what})<extra></extra>", row=1, col=column,
    )  # fmt: skip
