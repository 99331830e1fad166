"""Plots of training plans: the schedule of a recipe, and the tree of segments that recipes share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil, cos, pi, sqrt
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mixlaw.numbers import percent
from mixlaw.plots.style import OTHER, SHARES, Plain, colours, count, domain_colours, drawn, faded, on, scatter, styled
from mixlaw.recipe import Decay, Domain, Phase, Recipe, Schedule

#: Least share that has its number in a stack; below 6 % it is written small.
LEGIBLE = 0.035
#: Domains that a stack distinguishes; of more, those below the least share in every phase are one band.
MOST_BANDS, LEAST_BAND = 8, 0.02
#: Share of the width that a phase has at least: a cooldown of 5 % is what many studies are about.
LEAST_WIDTH = 0.18


@dataclass(frozen=True)
class Node:
    """A segment of training as drawn in the tree.

    Attributes:
        name: of the checkpoint it leaves.
        parent: name of the segment it continues; None starts from the initialisation.
        start, stop: tokens trained before and after it.
        phase: name of the phase.
        params: size of the model.
        done: whether it is trained.
        runs: names of the recipes that pass through it.
        label: of the recipe that ends here; empty where none does.
        mixture: of the phase, in words.
    """

    name: str
    parent: str | None
    start: int
    stop: int
    phase: str
    params: int
    done: bool
    runs: tuple[str, ...]
    label: str = ""
    mixture: str = ""


def plain_schedule(recipe: Recipe, domains: Sequence[Domain], title: str = "") -> Plain:
    """Mixture of every phase over the tokens of a recipe, the learning rate above it.

    Args:
        recipe: the one to draw.
        domains: all domains in the order of the stack; text in cool colours, code in warm ones.
        title: over the figure.
    """
    places = _places(recipe)
    starts, true = places[:-1], list(accumulate((phase.tokens for phase in recipe.phases), initial=0))
    paint = domain_colours(domains)
    used = [d for d in sorted(domains, key=lambda d: d.kind.is_code) if recipe.domain_tokens(d.name) > 0]
    minor = [d for d in used if max(phase.mixture.share(d.name) for phase in recipe.phases) < LEAST_BAND]
    minor = minor if len(used) > MOST_BANDS and len(minor) > 1 else []
    bars = [_band(recipe, places, [d], paint[d.name]) for d in used if d not in minor]
    bars = [_band(recipe, places, minor, OTHER), *bars] if minor else bars
    top, plot, below = 84 if title else 56, 268, 66 + 20 * ceil(len(bars) / 2)  # pixels
    ticks = {"tickvals": places, "ticktext": list(map(count, true)), "range": [0, recipe.tokens], "tickangle": 0}
    axis = "tokens" if places == true else "tokens, not to scale"
    rate = {"domain": [0.772, 1], "title": {"text": "lr / peak"}, "range": [0, 1.12], "tickvals": [0, 1]}
    share = {"domain": [0, 0.722], "title": {"text": "share of tokens"}, **SHARES, "range": [0, 1]}
    layout = {
        "title": {"text": title}, "height": top + plot + below, "autosize": True, "barmode": "stack", "bargap": 0,
        "legend": {"traceorder": "normal", "y": -60 / plot}, "hovermode": "closest", "margin": {"t": top, "b": below},
        "xaxis": {**ticks, "anchor": "y", "matches": "x2", "showticklabels": False, "showline": False, "ticks": ""},
        "xaxis2": {**ticks, "anchor": "y2", "title": {"text": axis}},
        "yaxis": rate,
        "yaxis2": {"anchor": "x2", **share},
        "annotations": [
            _name(phase, (start + end) / 2)
            for phase, start, end in zip(recipe.phases, starts, places[1:], strict=True)
        ],
    }  # fmt: skip
    return {"data": [*bars, _learning_rate(recipe, places)], "layout": layout}


schedule = drawn(plain_schedule)


def _places(recipe: Recipe) -> list[float]:
    """Where phases begin and end on the axis of tokens: short ones have a least width, the others give way."""
    parts = [phase.tokens / recipe.tokens for phase in recipe.phases]
    least = min(LEAST_WIDTH, 1 / len(parts))
    if min(parts) >= least:
        return [*accumulate((phase.tokens for phase in recipe.phases), initial=0)]
    over = [max(part - least, 0.0) for part in parts]
    spare = (1 - least * len(parts)) / sum(over)
    return [*accumulate((recipe.tokens * (least + part * spare) for part in over), initial=0.0)]


def _name(phase: Phase, middle: float) -> dict[str, Any]:
    """Name and length of a phase, above its middle."""
    text = f"<b>{phase.name}</b><br>{count(phase.tokens)}"
    place = {"x": middle, "y": 1.16, "xref": "x", "yref": "y domain", "yanchor": "bottom"}
    return {**place, "text": text, "showarrow": False}


def _band(recipe: Recipe, places: Sequence[float], domains: Sequence[Domain], colour: str) -> dict[str, Any]:
    """A band of the stack: one domain, or several small ones together."""
    shares = [sum(phase.mixture.share(d.name) for d in domains) for phase in recipe.phases]
    name = domains[0].name if len(domains) == 1 else f"{len(domains)} small domains"
    words = [
        "<br>".join(
            f"{d.name} ({d.kind.value})<br>{p.name}: {percent(p.mixture.share(d.name), 1)}, "
            f"{count(p.tokens * p.mixture.share(d.name))} tokens"
            for d in domains
        )
        for p in recipe.phases
    ]
    return {
        "type": "bar", "xaxis": "x2", "yaxis": "y2", "name": name, "y": shares,
        "x": [(start + end) / 2 for start, end in pairwise(places)],
        "width": [end - start for start, end in pairwise(places)], "marker": {"color": colour, "line": {"width": 0}},
        "text": [percent(share) if share >= LEGIBLE else "" for share in shares], "textposition": "inside",
        "insidetextanchor": "middle", "textangle": 0, "cliponaxis": False,
        "textfont": {"color": on(colour), "size": [11 if share >= 0.06 else 8 for share in shares]},
        "constraintext": "none", "customdata": words, "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip


def _learning_rate(recipe: Recipe, places: Sequence[float]) -> dict[str, Any]:
    tokens, rates = learning_rates(recipe)
    true = list(accumulate((phase.tokens for phase in recipe.phases), initial=0))
    return scatter(
        np.interp(tokens, true, places).tolist(), rates, "lines", customdata=tokens,
        line={"color": OTHER, "width": 2.4}, fill="tozeroy",
        fillcolor=faded(OTHER, 0.15), name="learning rate", showlegend=False,
        hovertemplate="%{customdata:.3s} tokens<br>learning rate %{y:.2f} of its peak<extra></extra>",
    )  # fmt: skip


def learning_rates(recipe: Recipe, points: int = 24) -> tuple[list[float], list[float]]:
    """Tokens and the rate over its peak there, after warm-up: straight lines, or `points` of each curved fall."""
    if recipe.schedule is Schedule.COSINE:
        done = [i / points for i in range(points + 1)]
        end = recipe.cosine_end
        return [recipe.tokens * d for d in done], [end + (1 - end) * _remaining(Decay.COSINE, d) for d in done]
    x, y, now, start = [0.0], [1.0], 1.0, 0
    for phase in recipe.phases:
        end = 1.0 if phase.lr_end is None else phase.lr_end
        done = [i / points for i in range(points + 1)] if phase.decay is not Decay.LINEAR else [0.0, 1.0]
        x += [start + phase.tokens * d for d in done]
        y += [end + (now - end) * _remaining(phase.decay, d) for d in done]
        now, start = end, start + phase.tokens
    return x, y


def _remaining(decay: Decay, done: float) -> float:
    """Share of a decay that remains after a part of it."""
    falls = {Decay.LINEAR: 1 - done, Decay.COSINE: (1 + cos(pi * done)) / 2, Decay.ONE_SQRT: 1 - sqrt(done)}
    return falls[decay]


def segment_tree(nodes: Sequence[Node], title: str = "") -> go.Figure:
    """Segments over tokens: branches, how many recipes share each, and which are trained.

    Every size has its own tree, over the share of its longest recipe; solid lines are trained, faint ones planned, and
    their width grows with the recipes that share them.
    """
    figure, phases = go.Figure(), list(dict.fromkeys(node.phase for node in nodes))
    paint = colours(phases)
    rows = _rows(nodes)
    length = {size: max(n.stop for n in nodes if n.params == size) for size in {n.params for n in nodes}}
    _branches(figure, nodes, rows, length)
    for phase in phases:
        for done in (True, False):
            some = [n for n in nodes if n.phase == phase and n.done is done]
            _segments(
                figure, some, rows, length, paint[phase], phase, done, showlegend=done or not _any_done(nodes, phase)
            )
    if {node.done for node in nodes} == {True, False}:
        line = {"color": faded(OTHER, 0.35), "width": 4}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name="planned")
    for size in length:
        ys = [rows[n.name] for n in nodes if n.params == size]
        figure.add_annotation(
            x=-0.01, y=min(ys), xanchor="right", text=f"<b>{count(size)}</b><br>params", showarrow=False
        )
    figure.update_yaxes(visible=False, autorange="reversed")
    figure.update_xaxes(title_text="share of the longest recipe of each size", **SHARES, range=[-0.1, 1.02])
    leaves = len({round(rows[n.name], 3) for n in nodes})
    height = min(1000, 120 + 13 * leaves)
    styled(figure, title, height)
    return figure.update_layout(
        hovermode="closest", legend={"y": -60 / (height - 80)}, margin={"t": 40 if title else 8}
    )


def _any_done(nodes: Sequence[Node], phase: str) -> bool:
    return any(node.done for node in nodes if node.phase == phase)


def _rows(nodes: Sequence[Node]) -> dict[str, float]:
    """Height of every segment: leaves one below the other, a parent in the middle of its children, sizes apart."""
    below: dict[str | None, list[Node]] = defaultdict(list)
    for node in sorted(nodes, key=lambda n: (n.params, n.start, n.name)):
        below[node.parent].append(node)
    rows: dict[str, float] = {}
    free = 0.0

    def place(node: Node) -> float:
        """Row of a node: the mean of its children's, a new one for a leaf."""
        nonlocal free
        heights = [place(child) for child in below[node.name]]
        if not heights:
            heights, free = [free], free + 1
        rows[node.name] = sum(heights) / len(heights)
        return rows[node.name]

    known = {node.name for node in nodes}
    roots = [node for parent, group in below.copy().items() if parent not in known for node in group]
    last = None
    for root in sorted(roots, key=lambda n: n.params):
        free += 1.5 if last not in (None, root.params) else 0
        last = root.params
        place(root)
    return rows


def _branches(figure: go.Figure, nodes: Sequence[Node], rows: Mapping[str, float], length: Mapping[int, int]) -> None:
    """Vertical lines from a segment's end to the beginnings of its children."""
    x: list[float | None] = []
    y: list[float | None] = []
    for node in nodes:
        if node.parent is not None and node.parent in rows:
            at = node.start / length[node.params]
            x += [at, at, None]
            y += [rows[node.parent], rows[node.name], None]
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": OTHER, "width": 1}, hoverinfo="skip", showlegend=False)


def _segments(
    figure: go.Figure,
    nodes: Sequence[Node],
    rows: Mapping[str, float],
    length: Mapping[int, int],
    colour: str,
    phase: str,
    done: bool,
    showlegend: bool,
) -> None:
    """Horizontal lines, one trace per width: plotly has one width per trace."""
    by_width: dict[float, list[Node]] = defaultdict(list)
    for node in nodes:
        by_width[min(3 + 1.5 * (len(node.runs) - 1) ** 0.5, 10)].append(node)
    for i, (width, group) in enumerate(sorted(by_width.items())):
        # The middle of a line has a point of its own, to show the hover text there.
        x = [
            at
            for n in group
            for at in (*(v / length[n.params] for v in (n.start, (n.start + n.stop) / 2, n.stop)), None)
        ]
        y = [at for n in group for at in (rows[n.name],) * 3 + (None,)]
        figure.add_scatter(
            x=x, y=y, text=[text for n in group for text in (_words(n),) * 3 + ("",)], mode="lines",
            line={"color": colour if done else faded(colour, 0.3), "width": width},
            name=phase if done else f"{phase}, planned", legendgroup=f"{phase}{done}",
            showlegend=showlegend and i == 0, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip


def _words(node: Node) -> str:
    head = f"<b>{node.label or node.name}</b><br>{count(node.params)} params, {node.phase}"
    share = f"shared by {len(node.runs)} recipes" if len(node.runs) > 1 else "one recipe"
    state = "trained" if node.done else "planned"
    mixture = f"<br>{node.mixture}" if node.mixture else ""
    return f"{head}<br>tokens {count(node.start)} to {count(node.stop)}{mixture}<br>{share}, {state}"
