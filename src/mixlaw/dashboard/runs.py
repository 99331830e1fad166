"""The runs of a study on the page: measured against predicted, a table of those that are brushed, and loss curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from mixlaw.analysis.data.code_share import code_shares
from mixlaw.dashboard.watched import Opened
from mixlaw.numbers import percent, unparted
from mixlaw.plots import checked, losses
from mixlaw.plots.parity import Parity
from mixlaw.plots.style import CYCLE, SHARES, Plain, count
from mixlaw.report.evidence import curves
from mixlaw.report.page import table

PREDICTED = "predicted"
#: Curves that can be told from each other; without a brush all are drawn up to here.
MOST_CURVES = 400

ELSEWHERE = "imported runs have no training logs"
HINT = "Drag over dots to choose runs: table and loss curves then show these alone. Double-click to see all again."


def frame(study: Opened) -> list[Component]:
    """The tab: which task, over what, plot, table and curves."""
    over = [PREDICTED, "parameters", *(f"code share of {phase}" for phase in study.surfaces.phases)]
    tasks = list(study.surfaces.tasks)
    choices = [
        dcc.Dropdown(tasks, tasks[0], id="runs-task", clearable=False, searchable=False),
        dcc.Dropdown(over, PREDICTED, id="runs-over", clearable=False, searchable=False),
    ]
    return [
        dcc.Store(id="explored"),
        html.P(HINT, className="soft"),
        html.Div(choices, className="choices"),
        _figure("runs", "Measured values of runs"),
        html.P("", id="runs-said", className="soft", role="status"),
        html.Div(id="runs-table", className="sorted"),
        html.H2("Loss curves"),
        _figure("curves", "Training loss of the runs"),
    ]


def _figure(name: str, words: str) -> Component:
    return html.Div(id=f"figure-{name}", role="img", className="plot", **{"aria-label": words})  # type: ignore[arg-type]


def explored(study: Opened, task: str, over: str, brushed: Sequence[int] | None) -> dict[str, Any]:
    """Plot, table and curves of the runs that are brushed, of all without.

    Args:
        study: whose runs.
        task: which values.
        over: what is on the horizontal axis.
        brushed: numbers of the dots.
    """
    points = checked(study.surfaces, task)
    rows = range(len(points.runs)) if brushed is None else sorted(i for i in brushed if i < len(points.runs))
    values = ["measured", "predicted", "90 % interval", "off by"]
    heads = ["run", "params", *values, *study.surfaces.phases]
    styles = [["", "extra", "", "", "extra", "", *["words extra"] * len(study.surfaces.phases)]] * len(rows)
    names = [points.runs[i] for i in rows]
    said = f"{len(rows)} of {len(points.runs)} runs, {points.how} predictions of {task}, {points.unit}"
    return {
        "figures": {"runs": _dots(study, points, over), "curves": _curves(study, None if brushed is None else names)},
        "parts": {"runs-table": table([heads, *(_row(study, points, i) for i in rows)], styles), "runs-said": said},
        "classes": {},
    }


def _row(study: Opened, points: Parity, i: int) -> list[str]:
    design = study.surfaces.observed.design
    mixtures = []
    for tokens in design.tokens[design.runs.index(points.runs[i])].tolist():
        whole = sum(tokens)
        pairs = sorted(zip(design.domains, tokens, strict=True), key=lambda pair: -pair[1])
        shares = (f"{name} {percent(t / whole)}" for name, t in pairs if whole and t >= 0.005 * whole)
        mixtures.append(unparted(", ".join(shares)))
    measured, mean = float(points.measured[i]), float(points.mean[i])
    ends = f"{points.lo90[i]:.4g} to {points.hi90[i]:.4g}"
    off = percent(measured / mean - 1, 1, sign=True)
    return [points.runs[i], count(points.params[i]), f"{measured:.4g}", f"{mean:.4g}", ends, off, *mixtures]


def _dots(study: Opened, points: Parity, over: str) -> Plain:
    """Measured values, a dot per run and a colour per size; hollow outside the interval."""
    design = study.surfaces.observed.design
    at = [design.runs.index(run) for run in points.runs]
    x: list[float] = points.mean.tolist()
    if over == "parameters":
        x = list(points.params)
    elif over != PREDICTED:
        phase = study.surfaces.phases.index(over.removeprefix("code share of "))
        x = code_shares(design, study.domains)[:, phase][at].tolist()
    sizes = sorted({*points.params})
    paint = [CYCLE[sizes.index(size) % len(CYCLE)] for size in points.params]
    inside = ((points.measured >= points.lo90) & (points.measured <= points.hi90)).tolist()
    dots = {
        "type": "scatter", "mode": "markers", "x": x, "y": points.measured.tolist(), "name": "runs",
        "marker": {"size": 8, "color": paint, "symbol": ["circle" if ok else "circle-open" for ok in inside],
                   "line": {"width": 2}},
        "hovertext": [f"<b>{run}</b><br>{text}" for run, text in zip(points.runs, points.words, strict=True)],
        "customdata": [[m, lo, hi] for m, lo, hi in
                       zip(points.mean.tolist(), points.lo90.tolist(), points.hi90.tolist(), strict=True)],
        "hovertemplate": "%{hovertext}<br>measured %{y:.4g}, predicted %{customdata[0]:.4g}"
        "<br>90 %: %{customdata[1]:.4g} to %{customdata[2]:.4g}<extra></extra>",
        "showlegend": False,
    }  # fmt: skip
    keys = [{"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": f"{count(size)} params",
             "marker": {"color": CYCLE[n % len(CYCLE)], "size": 8}} for n, size in enumerate(sizes)]  # fmt: skip
    keys.append({"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": "outside its 90 % interval",
                 "marker": {"color": "#8A8F98", "size": 8, "symbol": "circle-open", "line": {"width": 2}}})  # fmt: skip
    traces = [dots, *keys]
    if over == PREDICTED:
        ends = [min(*x, *points.measured), max(*x, *points.measured)]
        traces.append({"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip",
                       "line": {"dash": "dot", "width": 1, "color": "#8A8F98"}, "showlegend": False})  # fmt: skip
    axis: Plain = {"title": {"text": f"predicted {points.task}, {points.unit}" if over == PREDICTED else over}}
    axis |= {"type": "log"} if over == "parameters" else SHARES if over != PREDICTED else {}
    layout = {
        "height": 380, "autosize": True, "dragmode": "select", "xaxis": axis, "hovermode": "closest",
        "yaxis": {"title": {"text": f"measured {points.task}, {points.unit}"}}, "margin": {"t": 8},
        "legend": {"y": -0.25},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _curves(study: Opened, chosen: Sequence[str] | None) -> Plain:
    """Loss curves, those of the chosen runs in colour; a note where runs were trained elsewhere."""
    found = curves(study.study)[:MOST_CURVES]
    if not found or chosen == []:
        missing = "runs/ has no training log of the recipes in study.toml" if study.study.has_data else ELSEWHERE
        note = "no run is chosen" if found else missing
        empty = {"visible": False}
        text = [
            {"text": note, "showarrow": False, "x": 0, "xref": "paper", "xanchor": "left", "y": 0.5, "yref": "paper"}
        ]
        return {
            "data": [],
            "layout": {
                "height": 60,
                "xaxis": empty,
                "yaxis": empty,
                "annotations": text,
                "margin": {"t": 0, "b": 0, "l": 0},
            },
        }
    made: Plain = json.loads(losses(found, chosen=chosen or ()).to_json())
    made["layout"].pop("template", None)
    return made
