"""Plot of a proposal and a baseline that are both trained: measured gains in their predicted intervals."""

from __future__ import annotations

from typing import Any

from mixlaw.optimizer.answers.pairs import Pair, PairedGain
from mixlaw.plots.style import CYCLE, OTHER, Plain, drawn

PAINT = {1: CYCLE[2], -1: CYCLE[1], 0: OTHER}  # clearly better, clearly worse, within seed noise
#: The axis ends at this many times the second widest row; a task beyond is a triangle at the end, its number beside.
CLIP = 1.6
#: Pixels right of the axis where the numbers are, and their heads.
BESIDE, HEAD = (8, 80), ("measured", "predicted")


def plain_paired(pair: Pair) -> Plain:
    """A row per task, sorted by measured gain: bar and tick predicted (90 %), diamond measured, hollow if outside.

    Grey diamonds are within seed noise. Numbers to the right: measured, and predicted. All tasks by weight are on top.
    """
    rows = [*([pair.total] if pair.total else []), *sorted(pair.gains, key=lambda gain: -gain.measured)]
    names = [f"<b>{row.task}</b>" if row is pair.total else row.task for row in rows]
    least, most = _range(rows)
    stub = 0.05 * (most - least)  # of a bar that lies beyond the end of the axis
    low = [_within(row.predicted.lo90, least, most - stub) for row in rows]
    high = [_within(row.predicted.hi90, least + stub, most) for row in rows]
    bars = {
        "type": "bar", "orientation": "h", "y": names, "base": low,
        "x": [b - a for a, b in zip(low, high, strict=True)],
        "name": "predicted, 90 %", "marker": {"color": OTHER, "opacity": 0.45}, "width": 0.42, "hoverinfo": "skip",
    }  # fmt: skip
    ticks = {
        "type": "scatter", "mode": "markers", "x": [_within(row.predicted.mean, least, most) for row in rows],
        "y": names, "showlegend": False, "hoverinfo": "skip",
        "marker": {"symbol": "line-ns", "size": 13, "line": {"width": 2, "color": OTHER}},
    }  # fmt: skip
    layout: dict[str, Any] = {
        "title": {"text": f"{_title(pair)}<br><span style='font-size:12px'>{_subtitle(pair)}</span>",
                  "xref": "container", "x": 0.01, "y": 1, "yanchor": "top", "pad": {"t": 24}},
        "height": 202 + 30 * len(rows), "autosize": True,
        "xaxis": {"title": {"text": f"← worse    better →<br>gain over {pair.against}, {pair.unit}"}, "zeroline": True,
                  "range": [least, most]},
        "yaxis": {"autorange": "reversed", "ticks": "", "showgrid": False, "showline": False},
        "legend": {"y": -80 / (40 + 30 * len(rows))}, "margin": {"t": 112, "b": 90, "r": 166},
        "annotations": [
            *(note for row, name in zip(rows, names, strict=True) for note in _numbers(row, name)),
            *(_note(x, 1, text, OTHER, yref="paper", yanchor="bottom") for x, text in zip(BESIDE, HEAD, strict=True)),
        ],
    }  # fmt: skip
    measured = [
        _measured(rows, names, inside, beyond, least, most) for beyond in (0, -1, 1) for inside in (True, False)
    ]
    return {
        "data": [bars, ticks, *(trace for trace in measured if trace["showlegend"] or trace["x"])],
        "layout": layout,
    }


paired = drawn(plain_paired)


def _range(rows: list[PairedGain]) -> tuple[float, float]:
    """Ends of the axis, such that one far task does not press all others together."""
    reach = sorted(max(abs(row.predicted.lo90), abs(row.predicted.hi90), abs(row.measured)) for row in rows)
    limit = CLIP * reach[-2 if len(reach) > 1 else -1]
    ends = [v for row in rows for v in (row.predicted.lo90, row.predicted.hi90, row.measured) if abs(v) <= limit]
    low, high = min(ends, default=-limit), max(ends, default=limit)
    pad = 0.06 * max(high - low, 1e-6)
    return min(low, 0.0) - pad, max(high, 0.0) + pad


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _measured(
    rows: list[PairedGain], names: list[str], inside: bool, beyond: int, least: float, most: float
) -> dict[str, Any]:
    """Measured gains inside, or outside, their intervals; those beyond an end of the axis are triangles there."""
    chosen = [
        (row, name)
        for row, name in zip(rows, names, strict=True)
        if row.inside is inside and (row.measured > most) - (row.measured < least) == beyond
    ]
    colours = [PAINT[row.sign] for row, _ in chosen]
    symbol = ("diamond", "triangle-right", "triangle-left")[beyond] + ("" if inside else "-open")
    return {
        "type": "scatter", "mode": "markers", "name": f"measured, {'inside' if inside else 'outside'}",
        "x": [_within(row.measured, least, most) for row, _ in chosen], "y": [name for _, name in chosen],
        "marker": {"symbol": symbol, "size": 12, "color": colours, "line": {"width": 2, "color": colours}},
        "showlegend": beyond == 0, "cliponaxis": False,
        "customdata": [[row.measured, row.predicted.text()] for row, _ in chosen],
        "hovertemplate": "%{y}<br>measured %{customdata[0]:+.2f}<br>predicted %{customdata[1]}<extra></extra>",
    }  # fmt: skip


def _numbers(row: PairedGain, name: str) -> list[dict[str, Any]]:
    """Measured and predicted beside a row."""
    colour = PAINT[row.sign]
    return [
        _note(8, name, f"<b>{round(row.measured, 1) + 0:+.1f}</b>", colour),
        _note(80, name, row.predicted.text(), OTHER),
    ]


def _note(shift: float, y: object, text: str, colour: str, **place: str) -> dict[str, Any]:
    return {
        "xref": "paper", "x": 1, "xanchor": "left", "xshift": shift, "y": y, "text": text, "showarrow": False,
        "font": {"color": colour}, **place,
    }  # fmt: skip


def _title(pair: Pair) -> str:
    if pair.total is None:
        return f"Proposal and {pair.against}"
    return f"Measured {pair.total.measured:+.1f}, predicted {pair.total.predicted.text()}"


def _subtitle(pair: Pair) -> str:
    """In two lines, so that it fits a narrow page."""
    better, same, worse = (len(gains) for gains in pair.by_sign)
    inside, every = sum(gain.inside for gain in pair.gains), len(pair.gains)
    return (
        f"tasks: {better} better, {worse} worse, {same} within seed noise;<br>"
        f"{inside} of {every} inside what was predicted (90 %)"
    )
