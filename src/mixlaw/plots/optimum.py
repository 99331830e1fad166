"""Plots of a recommendation's surroundings: spread of the optimum, equivalent shares, optima over model size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixlaw.numbers import percent
from mixlaw.optimizer.answers.sensitivity import Flat, Step
from mixlaw.plots.style import CYCLE, OTHER, SHARES, colours, count, domain_colours, faded, styled
from mixlaw.recipe import Domain, Recipe

#: Ends of an axis of shares, and its ticks: the first that holds all of them is taken.
SHARE_AXES = ((0.25, (0, 0.1, 0.2)), (0.5, (0, 0.25, 0.5)), (1.0 + 1e-9, (0, 0.5, 1)))
SAMPLES, EQUIVALENT = "90 % of posterior samples", "statistically equivalent"


def spread(
    recipe: Recipe,
    ends: Mapping[str, Mapping[str, tuple[float, float]]],
    domains: Sequence[Domain],
    free: Recipe | None = None,
    title: str = "",
    flat: Sequence[Flat] = (),
) -> go.Figure:
    """How sure the share of every domain is, a panel per phase: range of its optimum, and equivalent shares.

    Args:
        recipe: the recommendation, as dots.
        ends: phase -> domain -> 5 % and 95 % point of the best share, as thin bars.
        domains: in the order shown.
        free: the optimum without limits, as rings.
        title: over the figure.
        flat: statistically equivalent ranges, as wide bars; those of all code together and of lengths are left out.
    """
    paint, phases = domain_colours(domains), [phase for phase in recipe.phases if phase.name in ends]
    names = [domain.name for domain in reversed(domains)]
    titles = [phase.name for phase in phases]
    figure = make_subplots(rows=1, cols=len(phases), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.07)
    without = {phase.name: phase.mixture for phase in free.phases} if free else {}
    for column, phase in enumerate(phases, 1):
        low, high = ([ends[phase.name][name][i] for name in names] for i in (0, 1))
        colour = [paint[name] for name in names]
        wide = {each.what: each for each in _of_domains(flat) if each.phase == phase.name and each.what in paint}
        if wide:
            figure.add_bar(
                x=[each.high - each.low for each in wide.values()], base=[each.low for each in wide.values()],
                y=list(wide), orientation="h", width=0.62, name=EQUIVALENT, showlegend=False, row=1, col=column,
                marker={"color": [faded(paint[name], 0.25) for name in wide], "line": {"width": 0}},
                customdata=[_span(each.low, each.high) for each in wide.values()],
                hovertemplate="%{y}: any share %{customdata} is equivalent<extra></extra>",
            )  # fmt: skip
        figure.add_bar(
            x=[b - a for a, b in zip(low, high, strict=True)], base=low, y=names, orientation="h", width=0.12,
            marker={"color": [faded(c, 0.8) for c in colour], "line": {"width": 0}}, name=SAMPLES,
            customdata=list(map(_span, low, high)), showlegend=False, row=1, col=column,
            hovertemplate="%{y}: %{customdata}<extra></extra>",
        )  # fmt: skip
        _shares(figure, [phase.mixture.share(n) for n in names], names, colour, "proposal", column)
        if phase.name in without:
            rings = [without[phase.name].share(n) for n in names]
            _shares(figure, rings, names, colour, "without limits", column)
    _key(figure, bool(without), bool(_of_domains(flat)))
    figure.update_layout(barmode="overlay")
    most = max((x for trace in figure.data for x in _right_ends(trace)), default=1.0)
    end, ticks = next((end, ticks) for end, ticks in SHARE_AXES if most <= end)
    figure.update_xaxes(range=[-0.03 * end, 1.03 * end], tickvals=ticks, ticktext=[f"{100 * x:g}" for x in ticks])
    figure.update_xaxes(title_text="share of the phase's tokens, %", row=1, col=(len(phases) + 1) // 2)
    plot, below, above = 34 * len(names), 110, 76 if title else 40  # pixels
    styled(figure, title, above + plot + below)
    return figure.update_layout(legend={"y": -52 / plot}, margin={"t": above, "b": below})


def _span(low: float, high: float) -> str:
    return f"from {percent(low)} to {percent(high)}"


def _right_ends(trace: Any) -> list[float]:
    """The right ends of bars, and the places of dots."""
    base = trace.base if trace.type == "bar" and trace.base is not None else [0.0] * len(trace.x)
    return [a + b for a, b in zip(base, trace.x, strict=True) if b is not None]


def _of_domains(ranges: Sequence[Flat]) -> list[Flat]:
    """Ranges of single domains: those of all code together come first, for a domain may be called code too."""
    return [flat for flat in ranges[_together(ranges) :] if flat.what != "length"]


def _together(ranges: Sequence[Flat]) -> int:
    """How many ranges are of all code together."""
    return next((i for i, flat in enumerate(ranges) if flat.what not in ("code", "all code")), len(ranges))


def _key(figure: go.Figure, free: bool, flat: bool) -> None:
    """The legend in grey, for the colours are of the domains."""
    if flat:
        figure.add_bar(x=[None], y=[None], orientation="h", marker={"color": faded(OTHER, 0.3)}, name=EQUIVALENT)
    figure.add_bar(x=[None], y=[None], orientation="h", marker={"color": faded(OTHER, 0.8)}, name=SAMPLES)
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
        customdata=[percent(share, 1) for share in shares], row=1, col=column,
        hovertemplate=f"%{{y}}: %{{customdata}} ({what})<extra></extra>",
    )  # fmt: skip


def flat_directions(ranges: Sequence[Flat], title: str = "") -> go.Figure:
    """Ranges of shares that are statistically equivalent to the recommendation, which is a dot."""
    together = _together(ranges)
    labels = ["all code" if i < together else flat.what for i, flat in enumerate(ranges)]
    names = [
        f"length of {flat.phase}" if flat.what == "length" else f"{what} in {flat.phase}"
        for what, flat in zip(labels, ranges, strict=True)
    ]
    figure = go.Figure()
    figure.add_bar(
        x=[flat.high - flat.low for flat in ranges], base=[flat.low for flat in ranges], y=names, orientation="h",
        width=0.5, marker={"color": faded(CYCLE[0], 0.3), "line": {"width": 0}}, name="statistically equivalent",
        customdata=[_span(flat.low, flat.high) for flat in ranges],
        hovertemplate="%{y}: any share %{customdata} is statistically equivalent<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[flat.at for flat in ranges], y=names, mode="markers", marker={"color": CYCLE[0], "size": 9}, name="proposal",
        customdata=[percent(flat.at, 1) for flat in ranges],
        hovertemplate="%{y}: %{customdata} proposed<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text="share", **SHARES, range=[-0.02, 1.02])
    if not ranges:
        figure.update_yaxes(showticklabels=False, ticks="", showgrid=False)
        figure.add_annotation(
            x=0.5, y=0.5, xref="paper", yref="paper", text="no other share is statistically equivalent"
        )
        figure.update_annotations(showarrow=False)
    plot, below = 20 + 28 * max(1, len(names)), 110  # pixels: of the rows, and for axis and legend
    figure.update_layout(margin_b=below)
    return styled(figure, title, 40 + plot + below).update_layout(legend={"y": -62 / plot})


def over_sizes(sizes: Sequence[Step], title: str = "") -> go.Figure:
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
                hovertemplate=f"{kind} in {phase}<br>%{{x:,.0f}} params: %{{customdata}}<extra></extra>",
                customdata=[percent(size.shares.get(phase, {}).get(kind, 0.0), 1) for size in sizes],
            )  # fmt: skip
    sizes_shown = [size.params for size in sizes]
    figure.update_xaxes(type="log", tickvals=sizes_shown, ticktext=[count(params) for params in sizes_shown])
    figure.update_xaxes(title_text="parameters (non-embedding)", row=1, col=(len(phases) + 1) // 2)
    figure.update_yaxes(**SHARES, range=[-0.03, 1.03])
    figure.update_yaxes(title_text="share of the phase's tokens", row=1, col=1)
    return styled(figure, title, 360).update_layout(margin={"t": 76 if title else 40})
