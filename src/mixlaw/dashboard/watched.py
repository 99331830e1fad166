"""The study behind the dashboard, read again whenever its files change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mixlaw.analysis.data.design import Design
from mixlaw.analysis.surface.model import Status
from mixlaw.analysis.surface.surface import Surfaces
from mixlaw.dashboard.view import View
from mixlaw.errors import InputError, of_machine
from mixlaw.folder import Folder
from mixlaw.folder.names import baselines_of
from mixlaw.optimizer.answers.proposal import Proposal
from mixlaw.optimizer.goal.goal import Goal
from mixlaw.optimizer.goal.references import Compared
from mixlaw.optimizer.search.problem import Problem, problem_of
from mixlaw.optimizer.target.schedule import Kept, keep_schedule
from mixlaw.optimizer.target.target import Target
from mixlaw.recipe import Domain, Recipe
from mixlaw.records import read_record

KEPT = 8  # problems of the last views


@dataclass(frozen=True, eq=False)
class Opened:
    """A study as its files were at one moment.

    Attributes:
        stamp: of study.toml, surfaces and proposals.
        study, surfaces, target, goal, domains: as they were.
        proposals: frozen ones, oldest first.
        compared: baselines, and the one that gains refer to.
        reasons: why nothing is better than the baseline, by the question of a view that has been searched.
    """

    stamp: str
    study: Folder
    surfaces: Surfaces
    target: Target
    goal: Goal
    domains: tuple[Domain, ...]
    proposals: tuple[Proposal, ...]
    compared: tuple[Compared, str]
    reasons: dict[str, str] = field(default_factory=dict)
    _grounds: dict[str, Problem] = field(default_factory=dict)

    @cached_property
    def view(self) -> View:
        """Initial positions of the sliders."""
        return View.of(self.target, self.goal, self.surfaces.tasks, [d.name for d in self.domains])

    @property
    def measured(self) -> Design:
        """The runs behind the surfaces; what was measured since, the posterior does not know."""
        return self.surfaces.observed.design

    @cached_property
    def last(self) -> Recipe | None:
        """Recipe of the last proposal for phases like the target's."""
        names = tuple(self.target.phases)
        same = [p for p in self.proposals if tuple(f.name for f in p.recipe.phases[-len(names) :]) == names]
        return same[-1].recipe if same else None

    @cached_property
    def weightless(self) -> Mapping[str, str]:
        """Why tasks have no weight in the study, by task."""
        why = {task: "weight 0 in study.toml" for task, weight in self.view.weights.items() if not weight}
        noise = "no signal above seed noise: predictions of held-out runs are no better than the mean"
        given = self.goal.weights or {}
        return why | {t: noise for t in why if self.surfaces.status[t] is Status.NOISE and t not in given}

    @cached_property
    def spans(self) -> dict[str, tuple[float, float]]:
        """Least and greatest size and budget that were measured."""
        design = self.surfaces.observed.design
        values = {"params": design.params, "tokens": design.total}
        return {name: (float(v.min()), float(v.max())) for name, v in values.items()}

    def problem(self, view: View) -> Problem:
        """Where recipes for a view are compared; those of the last views are at hand."""
        key = view.question
        if key not in self._grounds:
            made = problem_of(
                self.surfaces,
                self.kept(view).target,
                self.domains,
                goal=self.goal if view.weights == self.view.weights else view.goal(self.goal),
                baselines=self.compared[0],
                against=self.compared[1],
                measured=self.measured,
            )
            while len(self._grounds) >= KEPT:
                self._grounds.pop(next(iter(self._grounds)), None)
            self._grounds[key] = made
        return self._grounds[key]

    def kept(self, view: View) -> Kept:
        """The target of a view as `propose` takes it: what the runs do not vary of the schedule is not optimised."""
        return keep_schedule(view.target(self.target), self.measured)

    def start(self, view: View) -> Recipe:
        """The recipe to begin with: at hand, else of the last proposal, else the best baseline."""
        references = self.problem(view).references
        return view.recipe or self.last or references.entries[references.against].recipe


def opened(path: Path) -> Opened:
    """Open a study with its surfaces.

    Raises:
        InputError: study.toml, surfaces, proposals or records are not there, wrong or damaged; or there is no target.
    """
    stamp, study = stamp_of(path), Folder(path)
    target, surfaces = study.target(), study.surfaces()
    return Opened(
        stamp=stamp,
        study=study,
        surfaces=surfaces,
        target=target,
        goal=study.goal(surfaces),
        domains=tuple(study.domains),
        proposals=tuple(study.proposals()),
        compared=baselines_of(study),
    )


def stamp_of(path: Path) -> str:
    """Changes whenever study.toml, surfaces or proposals do; what is before the `#` is not about proposals."""
    fitted = [path / "study.toml", *sorted((path / "surfaces").glob("*"))]
    frozen = sorted((path / "proposals").glob("*.json"))
    return "#".join("|".join(f"{file.name}:{_moment(file)}" for file in files) for files in (fitted, frozen))


def _moment(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


@dataclass
class Watched:
    """The study behind the page, for as many readers as there are.

    Attributes:
        path: of the study.
    """

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: Opened | None = None
    _rows: dict[Path, tuple[int, tuple[str, float]]] = field(default_factory=dict)

    def now(self) -> Opened:
        """The study as it is; read only where its files have changed.

        Raises:
            InputError: it is wrong or damaged.
        """
        with self._lock:
            stamp = stamp_of(self.path)
            last = self._last
            if last is not None and last.stamp.partition("#")[0] == stamp.partition("#")[0]:
                if last.stamp != stamp:  # only proposals are new: surfaces, and what was laid out for them, stay
                    frozen, compared = tuple(last.study.proposals()), baselines_of(last.study)
                    self._last = replace(last, stamp=stamp, proposals=frozen, compared=compared)
                return self._last  # type: ignore[return-value]
            self._last = opened(self.path)
            return self._last

    def news(self) -> str:
        """A sentence on runs measured since the surfaces were fitted; empty if there are none."""
        known = self.now().surfaces.observed.design
        seen = set(zip(known.runs, (round(p, 9) for p in known.progress.tolist()), strict=True))
        fresh = len(self._records() - seen)
        if not fresh:
            return ""
        runs = "run is" if fresh == 1 else "runs are"
        return f"{fresh} new {runs} not in the fit yet. Run `mixlaw fit {self.path}`; this page then updates."

    def _records(self) -> set[tuple[str, float]]:
        """Run and progress of all records on disk; a file is read once."""
        rows = {}
        for file in self.path.glob("runs/*/record.json"):
            moment = _moment(file)
            row = self._rows.get(file)
            if row is None or row[0] != moment:
                record = read_record(file)
                row = moment, (record.run, round(record.progress, 9))
            rows[file] = row
        self._rows = rows
        return {row for _, row in rows.values()}


@dataclass
class Job:
    """Work in a thread of its own, which a page polls.

    Attributes:
        share, what: share done, and the current step.
        done: the result; None before there is one.
        failed: the error as a sentence.
    """

    share: float = 0.0
    what: str = ""
    done: Any = None
    failed: str = ""

    def tell(self, share: float, what: str) -> None:
        """Progress of the work."""
        self.share, self.what = share, what

    def start(self, work: Callable[[Callable[[float, str], None]], Any]) -> Job:
        """Start the thread; an error is kept as a sentence."""

        def body() -> None:
            try:
                self.done = work(self.tell)
            except InputError as error:
                self.failed = str(error)
            except Exception as error:
                why = f"the proposal failed ({type(error).__name__}: {error}); run `mixlaw propose` to see more"
                self.failed = of_machine(error) or why

        threading.Thread(target=body, daemon=True).start()
        return self

    @property
    def over(self) -> bool:
        """Whether it ended, with a result or an error."""
        return self.done is not None or bool(self.failed)
