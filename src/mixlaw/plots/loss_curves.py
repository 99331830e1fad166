"""Plot of training loss as it was logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from mixlaw.plots.style import colours, count, size_axis, styled

MOST_POINTS = 8000  # of all curves together


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


def losses(curves: Sequence[Curve], title: str = "") -> go.Figure:
    """Training loss against tokens, a line per segment that continues its parent's, a colour per model size.

    Long logs are thinned evenly. Losses are of the mixture trained on, so a step at the start of a phase mostly shows
    the change of mixture.
    """
    step = -(-sum(len(curve.tokens) for curve in curves) // MOST_POINTS) or 1
    curves = [replace(c, tokens=c.tokens[::-step][::-1], loss=c.loss[::-step][::-1]) for c in curves]
    figure, by_name = go.Figure(), {curve.name: curve for curve in curves}
    for size, colour in colours([f"{count(n)} params" for n in sorted({c.params for c in curves})]).items():
        for number, curve in enumerate(c for c in curves if f"{count(c.params)} params" == size):
            tokens, loss = _joined(curve, by_name.get(curve.parent or ""))
            figure.add_scatter(
                x=tokens, y=[round(value, 4) for value in loss], mode="lines", line={"color": colour, "width": 1.4},
                opacity=0.8, name=size, legendgroup=size, showlegend=number == 0,
                hovertemplate=f"{_words(curve)}<br>%{{x:.3s}} tokens: %{{y:.3f}} nats/token<extra></extra>",
            )  # fmt: skip
    ends = [n for curve in curves for n in curve.tokens]
    figure.update_xaxes(title_text="tokens", **size_axis(min(ends), max(ends)))
    figure.update_yaxes(title_text="training loss, nats/token")
    return styled(figure, title, 400).update_layout(hovermode="closest")


def _joined(curve: Curve, parent: Curve | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The entries of a segment behind the last one of its parent."""
    last = (parent.tokens[-1:], parent.loss[-1:]) if parent else ((), ())
    return (*last[0], *curve.tokens), (*last[1], *curve.loss)


def _words(curve: Curve) -> str:
    shared = f"shared by {len(curve.runs)} recipes" if len(curve.runs) > 1 else f"run {curve.runs[0]}"
    return f"<b>{curve.phase}</b>, {count(curve.params)} params, {shared}<br>{curve.mixture}"
