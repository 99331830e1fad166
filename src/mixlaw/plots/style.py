"""One look for all plots: plotly templates for light and dark, and colours that colour-blind readers distinguish."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import plotly.graph_objects as go

from mixlaw.numbers import size
from mixlaw.recipe import Domain

#: A figure as plain data, the way plotly.js takes it: {"data": traces, "layout": layout}. Pages that redraw
#: interactively take this; `drawn` makes the figures that notebooks show.
Plain = dict[str, Any]
P = ParamSpec("P")

HEIGHT = 340  # pixels, of most plots
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: After Okabe and Ito 2008, Color Universal Design; yellow and black are left out and the blue is lighter: each has to
#: show on white and on black.
CYCLE = ("#1A80BF", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Shades for domains: cool for text, warm for code, so that the code share is seen at a glance.
TEXT_SHADES = (
    "#0072B2", "#56B4E9", "#1F9BA8", "#A99BD0", "#2F5D8A", "#9CC9E8",
    "#6A5ACD", "#66C2A5", "#7F9CB8", "#0E7C7B", "#C5B8E8", "#3B8F6B",
    "#4682B4", "#88C0D0", "#8A6FD1", "#93A8AC",
)  # fmt: skip
CODE_SHADES = ("#D55E00", "#F2B01E", "#A65628", "#FBE0A8", "#A98150", "#EE8E6B")
OTHER = "#8A8F98"  # neutral on both backgrounds: measured runs, lines to the eye

INK = {"light": "#1f2328", "dark": "#e6e8eb"}
FAINT = {"light": "#e4e7eb", "dark": "#30363d"}
AXIS = {"light": "#57606a", "dark": "#9aa4af"}
count = size  # under the name by which plots know it: their own sizes are of models

#: Ticks of an axis of shares; plotly's own format of percent has no space.
SHARES = {"tickvals": [step / 5 for step in range(6)], "ticktext": [f"{20 * step} %" for step in range(6)]}
#: From worse to better through the colour of the page.
DIVERGING = {"light": ("#B4500A", "#F6F7F8", "#0B61A4"), "dark": ("#E07B39", "#1C232C", "#3E9BDC")}


def template(mode: str) -> go.layout.Template:
    """The plotly template of a mode, `light` or `dark`; backgrounds are transparent, the page shows through."""
    axis = {
        "gridcolor": FAINT[mode],
        "linecolor": AXIS[mode],
        "zerolinecolor": AXIS[mode],
        "tickcolor": AXIS[mode],
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 12.5}},
        "tickfont": {"size": 11.5, "color": AXIS[mode]},
    }
    layout: dict[str, Any] = {
        "font": {"family": FONT, "size": 13, "color": INK[mode]},
        "title": {"font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(CYCLE),
        "colorscale": {"diverging": [[place / 2, colour] for place, colour in enumerate(DIVERGING[mode])]},
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 56, "r": 16, "t": 40, "b": 40},
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.24, "x": 0, "font": {"size": 12}},
        "hoverlabel": {
            "font": {"family": FONT, "size": 12.5, "color": INK[mode]},
            "bgcolor": {"light": "#ffffff", "dark": "#161b22"}[mode],
            "bordercolor": AXIS[mode],
            "align": "left",
        },
        "annotationdefaults": {"font": {"color": INK[mode], "size": 12}, "arrowcolor": AXIS[mode]},
        "shapedefaults": {"line": {"color": AXIS[mode]}},
    }
    return go.layout.Template(layout=layout)


TEMPLATES = {mode: template(mode) for mode in ("light", "dark")}


def styled(figure: go.Figure, title: str = "", height: int = HEIGHT) -> go.Figure:
    """Give a figure the light template, a title and a height in pixels; its width follows the page."""
    figure.update_layout(template=TEMPLATES["light"], title_text=title, height=height, autosize=True)
    return figure


def figure_of(plain: Plain) -> go.Figure:
    """The figure that plain data describe, checked by plotly, with the light template."""
    return go.Figure(plain).update_layout(template=TEMPLATES["light"])


def drawn(plain: Callable[P, Plain]) -> Callable[P, go.Figure]:
    """The same plot as a figure: notebooks show it, while pages take the plain data."""

    @wraps(plain)
    def figure(*args: P.args, **kwargs: P.kwargs) -> go.Figure:
        return figure_of(plain(*args, **kwargs))

    return figure


def scatter(x: object, y: object, mode: str, **parts: object) -> Plain:
    """A scatter trace as plain data."""
    return {"type": "scatter", "x": x, "y": y, "mode": mode, **parts}


def headline(task: str, words: str) -> str:
    """A title: the task, and a few words on what the plot shows."""
    return f"<b>{task}</b> <span style='font-size:0.85em'>{words}</span>"


def themed(figure: go.Figure, mode: str) -> go.Figure:
    """Give a figure the template of a mode, `light` or `dark`."""
    return figure.update_layout(template=TEMPLATES[mode])


def faded(colour: str, alpha: float) -> str:
    """A hex colour with transparency, for bands."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def rounded(mean: float, low: float, high: float) -> str:
    """A value and half the width of its interval, rounded together: 1.70 ± 0.26."""
    half = (high - low) / 2
    digits = min(6, max(0, 1 - math.floor(math.log10(half)))) if half > 0 else 4
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def on(colour: str) -> str:
    """Ink that reads well on a hex colour: dark or white by its luminance."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return INK["light"] if 0.299 * red + 0.587 * green + 0.114 * blue > 0.62 else "#ffffff"


def colours(names: Sequence[str]) -> dict[str, str]:
    """Colours for names in the order given, the same for the same list."""
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(names)}


def domain_colours(domains: Sequence[Domain]) -> dict[str, str]:
    """Cool shades for text-like domains, warm ones for code-like ones, in the order given."""
    text = [d.name for d in domains if not d.kind.is_code]
    code = [d.name for d in domains if d.kind.is_code]
    return {name: TEXT_SHADES[i % len(TEXT_SHADES)] for i, name in enumerate(text)} | {
        name: CODE_SHADES[i % len(CODE_SHADES)] for i, name in enumerate(code)
    }


def count_ticks(most: float) -> dict[str, Any]:
    """Two to four ticks from 0 to a number of tokens, as people say them: 500K, 1M."""
    power = 10.0 ** math.floor(math.log10(most / 2))
    step = power * next(times for times in (1, 2, 5, 10) if most < 4 * times * power)
    ticks = [step * i for i in range(math.floor(most / step) + 1)]
    return {"tickvals": ticks, "ticktext": [count(tick) for tick in ticks]}


def size_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis of parameters or tokens, with ticks as people say them: 470M, 1B.

    Args:
        low, high: smallest and greatest value shown, both positive.
    """
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high < 50 * low else (1,)
    ticks = [digit * 10.0**power for power in decades for digit in digits]
    shown = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    return {"type": "log", "tickvals": shown, "ticktext": [count(tick) for tick in shown]}
