"""Plot of training loss as it was logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mixlaw.plots.style import OTHER, colours, count, count_ticks, styled

MOST_POINTS = 8000  # of all curves together
BEGIN = 0.08  # share of the tokens before which losses are not looked at for the axis


@dataclass(frozen=True)
class Curve:
    """Training loss of one segment.

    Attributes:
        name: of the checkpoint it leaves.
        parent: name of the segment it resumes from; None starts from the initialisation.
        params: size of the model.
        phase: name of the phase.
        mixture: of the phase, in words.
        runs: names of the recipes that pass through it.
        tokens: trained so far, since the start of the recipe, at every entry of the log.
        loss: mean since the entry before, nats per token of the segment's own mixture.
    """

    name: str
    parent: str | None
    params: int
    phase: str
    mixture: str
    runs: tuple[str, ...]
    tokens: tuple[float, ...]
    loss: tuple[float, ...]


def losses(curves: Sequence[Curve], title: str = "", chosen: Sequence[str] = ()) -> go.Figure:
    """Training loss against tokens: a panel per model size, a line per segment that continues its parent's.

    Colours are phases, as in the tree of segments. Long logs are thinned evenly, and the fall at the very beginning of
    training is cut off. Losses are of the mixture trained on, so a step at the start of a phase mostly shows the change
    of mixture.

    Args:
        curves: what to draw.
        title: over the figure.
        chosen: names of runs; all other curves are grey, where any is named.
    """
    step = -(-sum(len(curve.tokens) for curve in curves) // MOST_POINTS) or 1
    curves = [replace(c, tokens=c.tokens[::-step][::-1], loss=c.loss[::-step][::-1]) for c in curves]
    sizes, wanted = sorted({c.params for c in curves}), {*chosen}
    across = min(2, len(sizes))
    down = -(-len(sizes) // across)
    names = [f"{count(size)} params" for size in sizes]
    figure = make_subplots(down, across, subplot_titles=names, horizontal_spacing=0.1, vertical_spacing=0.34 / down)
    paint, by_name = colours(list(dict.fromkeys(c.phase for c in curves))), {curve.name: curve for curve in curves}
    legend = set[str]()
    for number, size in enumerate(sizes):
        place = {"row": number // across + 1, "col": number % across + 1}
        own = [c for c in curves if c.params == size]
        for curve in sorted(own, key=lambda c: bool(wanted & {*c.runs})):  # grey ones below
            here = not wanted or bool(wanted & {*curve.runs})
            tokens, loss = _joined(curve, by_name.get(curve.parent or ""))
            name = curve.phase if here else "other runs"
            figure.add_scatter(
                x=tokens, y=[round(value, 4) for value in loss], mode="lines", opacity=0.75 if here else 0.25,
                line={"color": paint[curve.phase] if here else OTHER, "width": 1.1 if here else 0.8}, name=name,
                legendgroup=name, showlegend=name not in legend,
                hovertemplate=f"{_words(curve)}<br>%{{x:,.0f}} tokens: %{{y:.3f}} nats/token<extra></extra>", **place,
            )  # fmt: skip
            legend.add(name)
        most = max(max(c.tokens) for c in own)
        values = sorted(v for c in own for n, v in zip(c.tokens, c.loss, strict=True) if n >= BEGIN * most)
        pad = 0.05 * (values[-1] - values[0]) or 0.1
        figure.update_xaxes(title_text="tokens", tickangle=0, range=[0, most], **count_ticks(most), **place)
        figure.update_yaxes(range=[values[0] - pad, values[-1] + pad], **place)
        figure.update_yaxes(title_text="training loss, nats/token" if place["col"] == 1 else "", **place)
    height = 60 + 270 * down
    return styled(figure, title, height).update_layout(hovermode="closest", legend={"y": -54 / (height - 130)})


def _joined(curve: Curve, parent: Curve | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The entries of a segment behind the last one of its parent."""
    last = (parent.tokens[-1:], parent.loss[-1:]) if parent else ((), ())
    return (*last[0], *curve.tokens), (*last[1], *curve.loss)


def _words(curve: Curve) -> str:
    shared = f"shared by {len(curve.runs)} recipes" if len(curve.runs) > 1 else f"run {curve.runs[0]}"
    return f"<b>{curve.phase}</b>, {count(curve.params)} params, {shared}<br>{curve.mixture}"
