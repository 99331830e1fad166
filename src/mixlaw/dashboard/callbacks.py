"""What the page asks of the server: one method per callback, with what it reads and fills."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dash import ctx, no_update
from dash.exceptions import PreventUpdate

from mixlaw.dashboard import by_hand, dials, page, runs
from mixlaw.dashboard.answer import Answer, landscape
from mixlaw.dashboard.view import View, packed, unpacked
from mixlaw.dashboard.watched import Job, Opened, Watched
from mixlaw.errors import InputError
from mixlaw.numbers import percent
from mixlaw.optimizer.answers.held_back import held_back
from mixlaw.optimizer.answers.quick import adapt_recipe
from mixlaw.optimizer.answers.verify import verify
from mixlaw.optimizer.search.climb import one_thread
from mixlaw.optimizer.search.optimum import Search
from mixlaw.optimizer.target.target import WHOLE
from mixlaw.report.evidence import suggested
from mixlaw.report.first_screen import next_runs
from mixlaw.report.fit import fit_part
from mixlaw.report.sections import verified

Data = dict[str, Any]
Propose = Callable[..., Any]

SEARCHING, DONE = "looking for the best recipe …", "the best recipe that was found, as `mixlaw propose` finds it"
LAST = "the last proposal, as it was found and frozen"
BY_HAND = "set by hand: nothing is searched; limits that it does not keep are listed under the table"
STOPPED = "the search was stopped; this recipe keeps all limits, but better ones may exist"
MOST_PINS = 5  # more bars than that cannot be distinguished
USUAL = 200  # looks at the posterior of a search, before there was one
SESSIONS = 256  # pages whose last move is remembered


class Outdated(Exception):
    """The sliders moved while a search was running."""


@dataclass
class Callbacks:
    """What the page asks of the server.

    | callback        | when                          | reads                | fills                     |
    | ---             | ---                           | ---                  | ---                       |
    | `check_study`   | every two seconds             | the study's files    | stamp, frozen, news       |
    | `controls`      | page opened, stamp changed    | URL                  | sliders, subtitle, recipe |
    | `redraw`        | slider, choice or pin changed | sliders, recipe, pins | page, URL, search        |
    | `set_by_hand`   | Search or By hand chosen      | URL                  | sliders of the mixture    |
    | `draw_landscape`| the recipe changed            | URL                  | the landscape             |
    | `improve`       | `redraw` asked for a search   | URL                  | page, URL, recipe         |
    | `finish`        | `improve` has a first answer  | URL                  | page, URL, recipe         |
    | `pin`           | Pin, or a name taken out      | URL, name            | pins                      |
    | `download`      | Recipe, CSV                   | URL                  | file                      |
    | `stop`          | Stop searching                |                      | state                     |
    | `freeze`        | Freeze what I see             | URL                  | sentence                  |
    | `fill`          | another tab is chosen         | the study            | the tab                   |
    | `explore`       | task, axis or brush changed   | the study            | plot, table and curves    |
    | `start_proposal`| Propose                       | URL                  | sentence, proposal timer  |
    | `poll_proposal` | proposal timer                | its thread           | sentence, recipe          |

    Attributes:
        watched: the study.
        propose: makes and freezes a proposal of a study for a target and a goal.
        keep: freezes just one recipe, of a study and a problem.
        moves: number of the last move of every page, as the page counts them: searches for earlier ones stop.
        searches: of pages that show the first answer of one.
        looks: how often the search of a page has looked at the posterior, and how often the last search did.
        jobs: running proposals by page, with the question that they answer.
        moves_lock: held while a move is counted.
        answer_lock: held while a move is answered.
    """

    watched: Watched
    propose: Propose
    keep: Propose
    moves: dict[str, float] = field(default_factory=dict)
    searches: dict[str, Search] = field(default_factory=dict)
    looks: dict[str, tuple[int, int]] = field(default_factory=dict)
    jobs: dict[str, tuple[Job, str]] = field(default_factory=dict)
    moves_lock: threading.Lock = field(default_factory=threading.Lock)
    answer_lock: threading.Lock = field(default_factory=threading.Lock)

    def check_study(self, _ticks: int, stamp: Any, frozen: str | None, best: Data | None) -> tuple[Any, ...]:
        """Stamps of the fit and of proposals, a redraw for new ones where the page shows the last, and news."""
        try:
            study, news = self.watched.now(), self.watched.news()
            now, _, there = study.stamp.partition("#")
            follows = best is None or best["question"] == study.view.question
        except Exception as error:
            return f"broken: {page.message_of(error)}", no_update, no_update, no_update, ""
        grown = frozen is not None and there != frozen
        if grown and best and not follows and study.last and packed(study.last) != best["recipe"]:
            news = f"{news} There is a new proposal, {study.proposals[-1].id}; Start over shows it.".strip()
        stamp = no_update if now == stamp else now
        if grown and follows:
            return stamp, there, there, None, page.marked(news)
        return stamp, there if frozen is None else no_update, no_update, no_update, page.marked(news)

    def controls(self, search: str, stamp: str | None, query: str) -> Data:
        """Sliders for the view in the URL, or where they were before the study changed."""
        try:
            study = self.watched.now()
            view = View.read(query or search or "", study.view)
        except Exception as error:
            return {**dict.fromkeys(CONTROLS, no_update), "shown": page.failed(error)}
        places, names = [WHOLE, *study.target.phases], study.target.phases
        sliders = dials.dials(view, study.view, study.spans, names, study.goal.unit)
        shares = by_hand.shares_of(study, view.recipe) if view.hand and view.recipe else None
        return {
            "panel": dials.panel(sliders),
            "limits": dials.limit_groups(view, places, study.domains),
            "mode": "hand" if shares else "search",
            "hand": shares,
            "by-hand": by_hand.sliders(study, shares) if shares else [],
            "choices": list(dials.choices(view, names)),
            "subtitle": _subtitle(study),
            "best": None if view.recipe is None else _best(view) | ({"question": ""} if query else {}),
            "pins": {name: packed(recipe) for name, recipe in view.pins.items()},
            "shown": no_update,
        }

    def set_by_hand(self, mode: str, hand: Data | None, query: str) -> tuple[Any, Any]:
        """Sliders for the mixture of the recipe on the page, and its shares; nothing where it is searched again."""
        if (mode == "hand") == (hand is not None):
            raise PreventUpdate
        if mode != "hand":
            return [], None
        study = self.watched.now()
        view = View.read(query, study.view)
        shares = by_hand.shares_of(study, view.recipe or study.start(view))
        return by_hand.sliders(study, shares), shares

    def redraw(
        self,
        moved: list[Any],
        chosen: list[Any],
        pins: dict[str, str] | None,
        hand: dict[str, float] | None,
        _again: Any,
        names: list[list[Data]],
        best: Data | None,
        session: str,
        move: int,
        query: str,
    ) -> Data:
        """Redraw for the positions of the sliders with the current recipe, adapted; `improve` searches a better one."""
        if not moved:
            raise PreventUpdate
        with self.moves_lock:
            self.moves[session] = max(move, self.moves.get(session, move))
            while len(self.moves) > SESSIONS:
                self.moves.pop(next(iter(self.moves)))
        done, last = self.looks.get(session, (0, USUAL))
        self.looks[session] = 0, done or last
        with self.answer_lock:
            if self.moves.get(session, move) != move:  # a held key asks faster than answers can be computed
                raise PreventUpdate
            values = {each["name"]: value for each, value in zip(sum(names, []), moved + chosen, strict=True)}  # noqa: RUF017
            return self._answer(move, values, pins or {}, hand, best, query)

    def _answer(
        self,
        move: int,
        values: Data,
        pins: dict[str, str],
        hand: dict[str, float] | None,
        best: Data | None,
        query: str,
    ) -> Data:
        """The answer to one move of the sliders."""
        try:
            study = self.watched.now()
            pinned = {name: recipe for name, text in pins.items() if (recipe := unpacked(text)) is not None}
            view = replace(dials.view_of(values, study.view), pins=pinned)
            if hand is not None:
                base = View.read(query, study.view).recipe or study.start(view)
                view = replace(view, hand=True, recipe=by_hand.recipe_by_hand(study, view, base, hand))
                shown = page.filled(Answer.of(study, view), BY_HAND)
                return {"shown": shown, "query": view.query(study.view), "search": no_update}
            known = best is not None and best["question"] == view.question
            view = replace(view, recipe=None if best is None else unpacked(best["recipe"]))
            if not known:
                view = replace(view, recipe=adapt_recipe(study.problem(view), study.start(view)))
            # The study's own question has been answered by `propose`, which searches longer than a page can.
            last = best is None and view.question == study.view.question and view.recipe == study.last
            settled, state = known or last, LAST if last else DONE if known else SEARCHING
            query, shown = view.query(study.view), page.filled(Answer.of(study, view), state, settled)
        except Exception as error:
            return {"shown": page.failed(error), "query": no_update, "search": no_update}
        return {"shown": shown, "query": query, "search": no_update if settled else {"move": move, "query": query}}

    def draw_landscape(self, query: str) -> Data:
        """The landscape around the recipe on the page, drawn after all that is cheaper."""
        study = self.watched.now()
        figure = landscape(study, View.read(query, study.view))
        return {"parts": {}, "classes": {}, "figures": {"landscape": figure}}

    def improve(self, request: Data | None, session: str) -> Data:
        """Show the first recipe of a search that is better than the current one; `finish` ends the search."""
        if request is None:
            raise PreventUpdate

        def heed() -> None:
            """Count a look at the posterior; the search ends where the page has moved on."""
            done, last = self.looks.get(session, (0, USUAL))
            self.looks[session] = done + 1, last
            if self.moves.get(session, request["move"]) != request["move"]:
                raise Outdated

        def first(study: Opened, view: View) -> Data:
            """The best climb of the search, which is kept for `finish`."""
            assert view.recipe is not None
            search = Search(study.problem(view), on_step=heed)
            view = replace(view, recipe=search.first(view.recipe))
            shown, query = page.filled(Answer.of(study, view), SEARCHING, settled=False), view.query(study.view)
            while len(self.searches) >= SESSIONS:
                self.searches.pop(next(iter(self.searches)), None)
            self.searches[session] = search
            best = _best(view) | {"question": ""}
            return {"shown": shown, "query": query, "best": best, "first": request | {"query": query}}

        return {"first": no_update} | self._searched(request, first)

    def finish(self, request: Data | None, session: str) -> Data:
        """Show the recipe that `propose` finds, and where it is the baseline, why."""
        search = self.searches.pop(session, None)
        if request is None or search is None:
            raise PreventUpdate

        def last(study: Opened, view: View) -> Data:
            """The optimum, after a last look whether the page has moved on."""
            optimum = search.optimum()
            with one_thread():
                if why := held_back(optimum):
                    study.reasons[view.question] = why
            view = replace(view, recipe=optimum.recipe)
            shown = page.filled(Answer.of(study, view), DONE)
            search.on_step()
            return {"shown": shown, "query": view.query(study.view), "best": _best(view)}

        return self._searched(request, last)

    def _searched(self, request: Data, answer: Callable[[Opened, View], Data]) -> Data:
        """What a search has for the view of a request; nothing where the sliders have moved on."""
        try:
            study = self.watched.now()
            return answer(study, View.read(request["query"], study.view))
        except Outdated:
            raise PreventUpdate from None
        except Exception as error:
            return {"shown": page.failed(error), "query": no_update, "best": no_update}

    def progress(self, session: str) -> str:
        """How far the search of a page has come, judged by the last one: `40 %`."""
        done, last = self.looks.get(session, (0, USUAL))
        return percent(min(0.99, done / max(last, 1)))

    def pin(self, _clicks: int, kept: list[str], pins: dict[str, str] | None, name: str, query: str) -> Any:
        """Pin the current recipe under a name for comparison, or keep only some of the pinned ones."""
        pins = pins or {}
        if ctx.triggered_id == "pinned":
            if {*kept} == {*pins}:
                raise PreventUpdate
            return {one: text for one, text in pins.items() if one in kept}, no_update
        recipe = View.read(query, self.watched.now().view).recipe
        if recipe is None or len(pins) >= MOST_PINS:
            raise PreventUpdate
        free = next(f"pin {i}" for i in range(1, MOST_PINS + 2) if f"pin {i}" not in pins)
        return {**pins, (name or "").strip()[:24] or free: packed(recipe)}, ""

    def download(self, _recipe: int, _csv: int, query: str) -> Data:
        """The recipe or the predictions as a file."""
        study = self.watched.now()
        view = View.read(query, study.view)
        if view.recipe is None:
            raise PreventUpdate
        answer = Answer.of(study, view)
        if ctx.triggered_id == "do-csv":
            return {"content": answer.as_csv(), "filename": "predictions.csv", "type": "text/csv"}
        return {"content": answer.as_recipe(), "filename": "recipe.json", "type": "application/json"}

    def fill(self, tab: str, _stamp: str | None) -> tuple[Any, Any]:
        """The content of a tab: components of the runs, and parts of the report for the others."""
        if tab == "recipe":
            raise PreventUpdate
        try:
            study = self.watched.now()
            if tab == "runs":
                trained = verified(verify(list(study.proposals), study.study.table(), unique=study.study.unique))
                return runs.frame(study), {"parts": {"trained": trained}, "classes": {}}
            html = (
                next_runs(suggested(study.study), 50)
                if tab == "next"
                else fit_part(study.surfaces, study.surfaces.tasks)
            )
            return no_update, {"parts": {f"tab-{tab}": html}, "classes": {}}
        except Exception as error:
            return no_update, page.failed(error)

    def explore(self, task: str, over: str, brushed: list[int] | None) -> Data:
        """The runs that are brushed, of all without: figures, table and a sentence."""
        return runs.explored(self.watched.now(), task, over, brushed)

    def stop(self, clicks: int, session: str) -> Data:
        """Stop the search; the recipe at hand stays."""
        if not clicks:
            raise PreventUpdate
        with self.moves_lock:
            self.moves[session] = math.floor(self.moves.get(session, 0)) + 0.5  # below the next move, past the last
        return {"parts": {"state": STOPPED}, "classes": {}}

    def freeze(self, clicks: int, query: str) -> list[Any]:
        """Freeze the recipe on the page with its predictions, as it is."""
        if not clicks:
            raise PreventUpdate
        try:
            study = self.watched.now()
            view = View.read(query, study.view)
            if view.recipe is None:
                raise PreventUpdate
            return self._frozen(self.keep(study.study, study.problem(view), view.recipe))
        except (InputError, OSError) as error:
            return page.marked(page.message_of(error))

    def _frozen(self, proposal: Any) -> list[Any]:
        path = self.watched.path
        return page.marked(
            f"{proposal.sentence} Frozen as {path / 'proposals' / proposal.id}.json; "
            f"`mixlaw export {path} {proposal.id}` writes it for trainers."
        )

    def start_proposal(self, clicks: int, query: str, session: str) -> tuple[bool, Any]:
        """Start `propose` for the view, in a thread."""
        if not clicks:
            raise PreventUpdate
        try:
            study = self.watched.now()
            view = View.read(query, study.view)
        except InputError as error:
            return True, page.marked(page.message_of(error))
        target, goal = view.target(study.target), view.goal(study.goal)
        job = Job().start(lambda report: self.propose(study.study, target=target, goal=goal, progress=report))
        self.jobs[session] = job, view.question
        return False, "proposing …"

    def poll_proposal(self, _ticks: int, session: str) -> tuple[Any, bool, Any, Any]:
        """State of the proposal: a sentence, whether to stop asking, and its recipe as the current one."""
        job, question = self.jobs.get(session, (None, ""))
        if job is None:
            return "", True, no_update, no_update
        if not job.over:
            return f"proposing: {job.what}, {percent(job.share)}", False, no_update, no_update
        del self.jobs[session]
        if job.failed:
            return page.marked(job.failed), True, no_update, no_update
        return self._frozen(job.done), True, {"recipe": packed(job.done.recipe), "question": question}, job.done.id


CONTROLS = {
    "panel": ("panel", "children"),
    "limits": ("limits", "children"),
    "by-hand": ("by-hand", "children"),
    "mode": ("mode", "value"),
    "hand": ("hand", "data"),
    "choices": ("choices", "children"),
    "subtitle": ("subtitle", "children"),
    "best": ("best", "data"),
    "pins": ("pins", "data"),
    "shown": ("shown", "data"),
}


def _best(view: View) -> Data:
    assert view.recipe is not None
    return {"recipe": packed(view.recipe), "question": view.question}


def _subtitle(study: Opened) -> str:
    runs = len(set(study.surfaces.observed.design.runs))
    return f"{len(study.surfaces.tasks)} tasks fitted on {runs} runs over {len(study.domains)} domains"
