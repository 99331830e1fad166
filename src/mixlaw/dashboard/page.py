"""The page: its frame, and the parts that callbacks fill."""

from __future__ import annotations

from html import escape
from typing import Any
from uuid import uuid4

from dash import dcc, html
from dash.development.base_component import Component

from mixlaw.dashboard.answer import Answer
from mixlaw.errors import InputError, of_machine
from mixlaw.numbers import unparted
from mixlaw.report.page import bullets, table, words

#: Milliseconds between checks of the study's files, and of a proposal that is being made.
STUDY_TIMER, PROPOSAL_TIMER = 2000, 400
TABS = {"recipe": "Recipe", "runs": "Runs", "next": "Next runs", "fit": "Fit and calibration"}
FIGURES = {
    "gains": "Gain of every task over the baseline, with 90 % intervals",
    "schedule": "Mixture of every phase over tokens, with the learning rate",
    "pinned": "Mixtures of the recipe at hand and of the pinned ones, a row for each phase",
    "landscape": "Gain or a task over two dials of the recipe, with the optimum of each posterior sample",
}


def frame(title: str) -> Component:
    """The page without content; every open page has a session id of its own."""
    empty = dict.fromkeys(
        ("stamp", "best", "pins", "hand", "shown", "search", "first", "again", "frozen-seen", "brush", "landscape")
    )
    stores = {"session": uuid4().hex, "query": "", "move": 0, **empty}
    return html.Div(
        [
            dcc.Location(id="place", refresh=False),
            *(dcc.Store(id=name, data=data) for name, data in stores.items()),
            dcc.Interval(id="study-timer", interval=STUDY_TIMER),
            dcc.Interval(id="proposal-timer", interval=PROPOSAL_TIMER, disabled=True),
            dcc.Download(id="file"),
            html.Header([html.H1(title), html.P("", id="subtitle", className="soft")]),
            html.Div(id="error", className="error", role="alert"),
            html.Div("", id="news", className="news", role="status"),
            dcc.Tabs(
                [dcc.Tab(label=label, value=name) for name, label in TABS.items()],
                value="recipe",
                id="tab",
                mobile_breakpoint=0,
            ),
            html.Div(
                [
                    html.Div([_sliders(), _results()], id="body", className="body"),
                    html.Main(
                        [html.Div(id="tab-runs"), html.H2("Proposals that were trained"), html.Div(id="trained")],
                        id="runs",
                    ),
                    html.Main(html.Div(id="tab-next"), id="next"),
                    html.Main(html.Div(id="tab-fit"), id="fit"),
                ],
                id="tabs",
                className="recipe",
            ),
            html.Footer(
                "Works offline. Move sliders by mouse, touch or arrow keys; the URL of this page restores "
                "what it shows."
            ),
        ],
        className="page",
    )


def _sliders() -> Component:
    modes = [{"label": "Search within limits", "value": "search"}, {"label": "Set by hand", "value": "hand"}]
    parts = [
        html.Div(id="panel"),
        dcc.RadioItems(modes, "search", id="mode", className="modes"),
        html.Div(id="limits"),
        html.Div(id="by-hand"),
    ]
    return html.Aside(parts, id="aside", **{"aria-label": "Sliders"})  # type: ignore[arg-type]


def _results() -> Component:
    pinned = html.Div(
        [html.H2("Mixtures beside the pinned ones"), _figure("pinned")], id="pinned-box", className="away"
    )
    return html.Main(
        [
            html.Div(
                [
                    html.P(id="sentence"),
                    html.Span(id="state", className="state", role="status"),
                ],
                id="verdict",
                className="verdict unsure",
            ),
            html.Div(id="facts", className="facts"),
            _actions(),
            html.P("", id="frozen", className="soft", role="status"),
            html.Div(
                [
                    _section("Gain by task", _figure("gains"), pinned),
                    _section("Schedule", _figure("schedule")),
                ],
                className="grid",
            ),
            _section("Landscape", html.Div(id="choices", className="choices"), _figure("landscape")),
            _section("Predictions", html.Div(id="table", className="scroll"), html.Div(id="notes")),
        ]
    )


def _actions() -> Component:
    buttons = {
        "pin": ("Pin this recipe", "Keep it under this name, to compare with"),
        "freeze": ("Freeze what I see", "Keep this recipe with its predictions in proposals/"),
        "propose": ("Propose", "Run mixlaw propose for this view: a full search, kept in proposals/"),
        "stop": ("Stop searching", "Keep the recipe at hand"),
        "recipe": ("Recipe", "Download the recipe as JSON, for mixlaw what-if and mixlaw export"),
        "csv": ("CSV", "Download the predictions"),
        "png": ("PNG", "Download the plots as one picture"),
    }
    made = [html.Button(label, id=f"do-{name}", title=title, n_clicks=0) for name, (label, title) in buttons.items()]
    name = html.Span(dcc.Input(id="pin-name", placeholder="name of the pin", maxLength=24), className="pin-name")
    pinned = dcc.Dropdown([], [], id="pinned", multi=True, placeholder="nothing pinned", className="pinned")
    rest = [html.A("Start over", href="?", id="reset"), html.Div(["Compared with", pinned], className="pins")]
    return html.Div([made[0], name, *made[1:], *rest], className="actions")


def _section(title: str, *parts: Component) -> Component:
    return html.Section([html.H2(title), *parts])


def _figure(name: str) -> Component:
    return html.Div(id=f"figure-{name}", role="img", className="plot", **{"aria-label": FIGURES[name]})  # type: ignore[arg-type]


def message_of(error: Exception) -> str:
    """The error as one sentence."""
    if isinstance(error, InputError):
        return str(error)
    return (
        of_machine(error) or f"the dashboard failed ({type(error).__name__}: {error}); fix that, and the page continues"
    )


def failed(error: Exception) -> dict[str, Any]:
    """The error as a sentence; the rest stays as it was, dimmed."""
    return {"parts": {"error": words(message_of(error)), "state": ""}, "classes": {"body": "body stale"}}


def marked(text: str) -> list[Component | str]:
    """A sentence for Dash, with words in backquotes as code, as `words` has them in HTML."""
    parts = unparted(text).split("`")
    return [html.Code(part) if i % 2 and i < len(parts) - 1 else part for i, part in enumerate(parts) if part]


def filled(answer: Answer, state: str, settled: bool = True) -> dict[str, Any]:
    """An answer as parts of the page, which its script inserts: HTML, classes and figures by name.

    While a better recipe is searched for the verdict is not settled, and not green.

    Dash itself would search the whole page at every move of a slider.
    """
    pinned = bool(answer.view.pins)
    facts = "".join(f'<div class="fact"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in answer.facts())
    return {
        "parts": {
            "sentence": words(answer.sentence),
            "facts": facts,
            "table": table(answer.rows(), answer.styles()),
            "notes": bullets(list(answer.notes())),
            "error": "",
            "state": words(state),
        },
        "classes": {
            "verdict": f"verdict {answer.tone}" + ("" if settled else " unsettled"),
            "body": "body",
            "pinned-box": "" if pinned else "away",
        },
        "figures": answer.figures(),
    }
