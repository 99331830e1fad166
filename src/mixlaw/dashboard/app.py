"""The dashboard as a Dash app: how its callbacks are connected with the parts of the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dash import ALL, ClientsideFunction, Dash, Input, Output, State
from flask import Response
from plotly.offline import get_plotlyjs

from mixlaw.dashboard import page
from mixlaw.dashboard.answer import Answer, landscape
from mixlaw.dashboard.callbacks import CONTROLS, Callbacks, Propose
from mixlaw.dashboard.watched import Watched
from mixlaw.optimizer.answers.quick import adapt_recipe
from mixlaw.plots.style import TEMPLATES
from mixlaw.report.page import PALETTE


def app_of(path: Path, propose: Propose, freeze: Propose) -> Dash:
    """The app for a study."""
    torch.set_num_threads(1)  # a page has several callbacks at once, each too small to share
    watched = Watched(path)
    title = f"{path.resolve().name}: mixlaw"
    app = Dash(
        "mixlaw.dashboard",
        title=title,
        update_title=title,
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        suppress_callback_exceptions=True,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        hooks={
            "request_pre": "payload => window.dash_clientside.mixlaw.asked(payload)",
            "request_post": "(payload, response) => window.dash_clientside.mixlaw.answered(payload, response)",
        },
    )
    look = json.dumps({mode: template.to_plotly_json() for mode, template in TEMPLATES.items()})
    scripts = f'<script id="look" type="application/json">{look}</script><script src="/plotly.js"></script>'
    index = app.index_string.replace("{%app_entry%}", f"{scripts}{{%app_entry%}}")
    app.index_string = index.replace("{%favicon%}", f'<link rel="icon" href="data:,"><style>{PALETTE}</style>')
    app.server.add_url_rule("/plotly.js", view_func=plotly_js)
    app.layout = lambda: page.frame(path.resolve().name)
    calls = Callbacks(watched, propose, freeze)
    app.server.config["CALLS"] = calls
    app.server.add_url_rule("/progress/<session>", view_func=calls.progress)
    connect(app, calls)
    connect_tabs(app, calls)
    script_of(app)
    return app


def warm(calls: Callbacks) -> None:
    """Compute what the first picture needs, while the browser still starts; what is wrong is told by the page."""
    with suppress(Exception), calls.answer_lock:
        study = calls.watched.now()
        view = replace(study.view, recipe=adapt_recipe(study.problem(study.view), study.start(study.view)))
        page.filled(Answer.of(study, view), "")
        landscape(study, view)


#: Parts that several callbacks fill.
SHARED = ("shown", "by-hand", "hand", "pins")


def plotly_js() -> Response:
    """The library that draws, as it comes with the package plotly."""
    return Response(get_plotlyjs(), mimetype="text/javascript", headers={"Cache-Control": "max-age=86400"})


def connect(app: Dash, calls: Callbacks) -> None:
    """Connect the parts of the page to the callbacks on the server."""
    dial, choice = {"type": "dial", "name": ALL}, {"type": "choice", "name": ALL}
    session, query, query_changed = State("session", "data"), State("query", "data"), Input("query", "data")
    app.callback(
        [*_stores("stamp", "frozen-seen", "again"), *_stores("best", more=True), Output("news", "children")],
        [Input("study-timer", "n_intervals"), *(State(name, "data") for name in ("stamp", "frozen-seen", "best"))],
        prevent_initial_call="initial_duplicate",
    )(calls.check_study)
    app.callback(
        output={name: Output(*part, allow_duplicate=name in SHARED) for name, part in CONTROLS.items()},
        inputs=[Input("place", "search"), Input("stamp", "data"), query],
        prevent_initial_call="initial_duplicate",
    )(calls.controls)
    app.callback(
        output={name: Output(name, "data") for name in ("shown", "query", "search")},
        inputs=[
            Input(dial, "value"),
            Input(choice, "value"),
            Input("pins", "data"),
            Input("hand", "data"),
            Input("again", "data"),
            [State(dial, "id"), State(choice, "id")],
            State("best", "data"),
            session,
            State("move", "data"),
            query,
        ],
    )(calls.redraw)
    by_hand = [Output("by-hand", "children", allow_duplicate=True), *_stores("hand", more=True)]
    _on(app, by_hand, [Input("mode", "value"), State("hand", "data"), query], calls.set_by_hand)
    found = {name: Output(name, "data", allow_duplicate=True) for name in ("shown", "query", "best")}
    _on(app, found, [Input("first", "data"), session], calls.finish)
    _on(app, found | {"first": Output("first", "data")}, [Input("search", "data"), session], calls.improve)
    _on(app, Output("landscape", "data"), [query_changed], calls.draw_landscape)
    pressed = {name: Input(f"do-{name}", "n_clicks") for name in ("pin", "recipe", "csv", "freeze", "propose", "stop")}
    pins = [*_stores("pins", more=True), Output("pin-name", "value")]
    named = [Input("pinned", "value"), State("pins", "data"), State("pin-name", "value"), query]
    _on(app, pins, [pressed["pin"], *named], calls.pin)
    _on(app, Output("file", "data"), [pressed["recipe"], pressed["csv"], query], calls.download)
    frozen, off = Output("frozen", "children"), Output("proposal-timer", "disabled")
    kept = Output("frozen", "children", allow_duplicate=True)
    _on(app, kept, [pressed["freeze"], query], calls.freeze)
    _on(app, Output("shown", "data", allow_duplicate=True), [pressed["stop"], session], calls.stop)
    _on(app, [off, frozen], [pressed["propose"], query, session], calls.start_proposal)
    progress = [
        Output(*part, allow_duplicate=True) for part in (("frozen", "children"), ("proposal-timer", "disabled"))
    ]
    progress += _stores("best", "again", more=True)
    _on(
        app,
        progress,
        [Input("proposal-timer", "n_intervals"), session],
        calls.poll_proposal,
    )


def connect_tabs(app: Dash, calls: Callbacks) -> None:
    """Connect the tabs besides the recipe's; they are filled when they are chosen."""
    shown = Output("shown", "data", allow_duplicate=True)
    _on(app, [Output("tab-runs", "children"), shown], [Input("tab", "value"), Input("stamp", "data")], calls.fill)
    chosen = [Input("runs-task", "value"), Input("runs-over", "value"), Input("brush", "data")]
    app.callback(Output("explored", "data"), chosen)(calls.explore)


def _stores(*names: str, more: bool = False) -> list[Output]:
    """Data of stores to fill; `more` where another callback fills them as well."""
    return [Output(name, "data", allow_duplicate=more) for name in names]


def _on(app: Dash, output: Any, inputs: list[Any], function: Callable[..., Any]) -> None:
    """A callback that is not called when the page opens."""
    app.callback(output=output, inputs=inputs, prevent_initial_call=True)(function)


def script_of(app: Dash) -> None:
    """Connect what the page does by itself, in assets/page.js."""
    on: Callable[..., None] = app.clientside_callback
    for kind in ("dial", "part"):
        dial = {"type": kind, "name": ALL}
        words = [Input(dial, "value"), Input(dial, "drag_value"), State(dial, "id"), State(dial, "max")]
        on(ClientsideFunction("mixlaw", "say"), *words)
    parts = {"type": "part", "name": ALL}
    on(
        ClientsideFunction("mixlaw", "balance"),
        [Output(parts, "value"), Output("hand", "data", allow_duplicate=True)],
        Input(parts, "value"),
        State(parts, "id"),
        State("hand", "data"),
        prevent_initial_call=True,
    )
    on(
        ClientsideFunction("mixlaw", "pinned"),
        [Output("pinned", "options"), Output("pinned", "value")],
        Input("pins", "data"),
    )
    on(ClientsideFunction("mixlaw", "mode"), Output("aside", "className"), Input("mode", "value"))
    on(ClientsideFunction("mixlaw", "tab"), Output("tabs", "className"), Input("tab", "value"))
    on(
        ClientsideFunction("mixlaw", "picture"),
        Output("do-png", "data-made"),
        Input("do-png", "n_clicks"),
        prevent_initial_call=True,
    )
