"""A dashboard in a browser: what its page shows, and what moving its sliders does."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixlaw.dashboard.app import app_of
from mixlaw.dashboard.serve import server_of
from mixlaw.dashboard.view import View
from mixlaw.dashboard.watched import opened
from mixlaw.folder import Folder
from mixlaw.optimizer.answers.quick import assess
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.values import PROPOSAL
from mixlaw.optimizer.search.problem import problem_of
from mixlaw.optimizer.target.schedule import keep_schedule
from mixlaw.recipe import Recipe
from mixlaw.study import open_study
from mixlaw.study.choosing import freeze, propose

TARGET = "\n[target]\nparams = 330000\ntokens = 6600000\ncooldown = [0.1, 0.2]\nguard = false\n"
SETTLED = "document.querySelector('#state')?.textContent.includes('was found')"
MOVED = "([handle, was]) => handle.getAttribute('aria-valuenow') !== was"
PATIENCE = 60_000  # milliseconds, on a machine that does much else


class Page:
    """A tab of a browser with the dashboard, what it asked for and complained of.

    Attributes:
        home: address of the study's own view with its best recipe, once that has been found.
        asked: addresses that it asked for since it was opened.
        complaints: errors of its script.
        answered: moves of sliders that were answered: values by name.
    """

    def __init__(self, browser: Any, address: str) -> None:
        self.home = address
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.answered: list[dict[str, Any]] = []
        self.view = browser.new_page()
        self.view.set_default_timeout(PATIENCE)
        self.view.on("request", lambda request: self.asked.append(request.url))
        self.view.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.view.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.view.on("response", self._note)

    def open(self, address: str = "", width: int = 1280, mode: str = "light") -> None:
        """Load the dashboard afresh in the same tab: what the browser has compiled it need not compile again."""
        self.view.goto("about:blank")  # what the page before still asks for is not noted
        for noted in (self.asked, self.complaints, self.answered):
            noted.clear()
        self.view.set_viewport_size({"width": width, "height": 900})
        self.view.emulate_media(color_scheme=mode)
        self.view.goto(address or self.home)

    def start(self) -> None:
        """Go home."""
        self.open()
        self.settle()
        self.home = self.view.url

    def _note(self, response: Any) -> None:
        """Keep what sliders stood at, where this answers a move of one; one that was overtaken has no content."""
        if response.status != 200 or response.request.method != "POST":
            return
        told = json.loads(response.request.post_data)
        if "search.data" in told["output"]:
            self.answered.append({dial["id"]["name"]: dial["value"] for dial in told["inputs"][0]})

    def settle(self) -> None:
        """Wait until nothing is searched for."""
        self.view.wait_for_function(SETTLED)

    def press(self, dial: str, *keys: str, handle: int = 0) -> None:
        """Move a slider by keys, and wait until the last of them is answered; a search for a better recipe goes on."""
        place = self.view.locator(f'.field[data-name="{dial}"] [role=slider]').nth(handle)
        place.focus()
        for key in keys:
            was = place.get_attribute("aria-valuenow")
            self.view.keyboard.press(key)
            self.view.wait_for_function(MOVED, arg=[place.element_handle(), was])
        now = float(place.get_attribute("aria-valuenow"))

        def stands(value: Any) -> bool:
            return bool(abs((value[handle] if isinstance(value, list) else value) - now) < 1e-9)

        self.until(lambda: bool(self.answered) and stands(self.answered[-1][dial]))

    def until(self, true: Any) -> None:
        """Wait for something that is noted while the page goes on."""
        for _ in range(PATIENCE // 20):
            if true():
                return
            self.view.wait_for_timeout(20)
        raise TimeoutError("the page did not get there")

    def said(self, dial: str) -> str:
        """The value of a slider in words."""
        return str(self.view.inner_text(f'.field[data-name="{dial}"] output'))

    def text(self, place: str) -> str:
        """Words of a part of the page."""
        return str(self.view.inner_text(place)).replace("\u00a0", " ")  # no line ends before a sign

    def cells(self) -> list[list[str]]:
        """The table of predictions."""
        rows = "[...document.querySelectorAll('#table tr')].map(r => [...r.querySelectorAll('th, td')]"
        found: list[list[str]] = self.view.evaluate(f"{rows}.map(cell => cell.innerText))")
        return found

    def shown(self, path: Path) -> View:
        """The view that the address leads to."""
        return View.read(self.view.url.partition("?")[2], opened(path).view)

    def bars(self) -> list[float]:
        """Lengths of the bars of the gains."""
        return [float(x) for x in self.view.evaluate("[...document.getElementById('figure-gains').data[0].x]")]


class served:
    """The dashboard of a study in a thread."""

    def __init__(self, path: Path) -> None:
        self.server = server_of(Folder(path), propose, freeze, port=0)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()


def press_freeze(study: Path) -> str:
    """Press "Freeze what I see" for the first baseline, without a browser; the answer of the server."""
    seen = opened(study)
    view = replace(seen.view, recipe=seen.problem(seen.view).baselines[0])
    app = app_of(study, propose, freeze)
    client = app.server.test_client()
    client.get("/_dash-dependencies")  # connects the callbacks
    (key,) = (key for key, call in app.callback_map.items() if [i["id"] for i in call["inputs"]] == ["do-freeze"])
    pressed = {"id": "do-freeze", "property": "n_clicks", "value": 1}
    asked = {
        "output": key,
        "outputs": {"id": "frozen", "property": key.removeprefix("frozen.")},
        "inputs": [pressed],
        "state": [{"id": "query", "property": "data", "value": view.query(seen.view)}],
        "changedPropIds": ["do-freeze.n_clicks"],
    }
    return str(client.post("/_dash-update-component", json=asked).get_data(as_text=True))


def expected(path: Path, recipe: Recipe, target: Any = None, goal: Goal | None = None) -> Any:
    """What the Python API says of a recipe."""
    study = open_study(path)
    kept = keep_schedule(target or study.target(), study.design())
    problem = problem_of(study.surfaces(), kept.target, study.domains, goal=goal)
    return assess(problem, {PROPOSAL: recipe}, study.design())[PROPOSAL]
