"""The answer to a target: a recipe, what it will bring, how sure that is, and what does not matter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import is_whole, locked, read_text, sealed, write_json
from mixlaw.numbers import percent, size
from mixlaw.optimizer.answers.ladder import Rung
from mixlaw.optimizer.answers.phase_lines import schedule_table
from mixlaw.optimizer.answers.risk import Risk
from mixlaw.optimizer.answers.sensitivity import Flat, Free, Step
from mixlaw.optimizer.goal.evidence import Direction
from mixlaw.optimizer.goal.gains import Gain
from mixlaw.optimizer.goal.values import PROPOSAL, Forecast, Interval, chance_text
from mixlaw.optimizer.search.support import is_same
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.printable import Page, Printable
from mixlaw.recipe import Recipe
from mixlaw.tables import Cell, Column, Table, Tone

FORMAT = 4


@dataclass(frozen=True)
class Proposal(Printable):
    """A recommended recipe with everything that is known about it.

    Attributes:
        target: what was asked for.
        recipe: the recommendation.
        supported: whether the data support recommending it over the best baseline.
        sentence: the one that matters.
        reasons: why the data do not support it; empty where they do.
        against: the baseline that gains refer to.
        unit: of gains.
        over: what it gains over each baseline, by its name.
        weights: of the tasks.
        groups: name -> tasks.
        noise: standard deviation of one run over seeds by task, in the unit of its gains.
        percent: what one percent of loss is in that unit, by task.
        combined: how gains of tasks make one: `sum` by weight, `worst`, or "" for a function of values.
        baselines: recipes to beat, by name.
        forecasts: for the proposal and every baseline, by task.
        spread: 5 % and 95 % point over draws of the best share, phase -> domain.
        length: the same for the last phase's share of the tokens.
        flat: statistically equivalent ranges.
        distance: share of its tokens by which the phase differs that differs most from the nearest measured recipe.
        radius: distance up to which measured recipes speak for each other.
        nearest: name of that run.
        warnings: what to know before paying for it.
        directions: what the audit says in the directions that it asks about.
        begun: what has been trained before it, where the target has a prefix or branches.
        free: the optimum without bounds, repetition limits, guards and trust region.
        way: the best recipe at smaller sizes, and at this one.
        guarded: probability by task that the guard of the target holds.
        may_lose: what each guarded task may lose.
        risks: what the recommendation and each baseline risk, by name.
        ladder: recipes at the sizes between, with marks that the gain has to pass.
        known: runs of its recipes, baselines included, that had been measured when it was frozen.
        fit, data: hashes of the surfaces and of the table of runs that it was made from; empty where not known.
        bound: what the search maximises: mean of the gain less `caution` standard deviations over draws.
        number: of the proposal in its study, from 1 on; 0 before it is frozen.
        created: when it was frozen, UTC in ISO 8601; empty before that.
    """

    target: Target
    recipe: Recipe
    supported: bool
    sentence: str
    reasons: tuple[str, ...]
    against: str
    unit: str
    over: Mapping[str, Gain]
    weights: Mapping[str, float]
    groups: Mapping[str, tuple[str, ...]]
    noise: Mapping[str, float]
    percent: Mapping[str, float]
    combined: str
    baselines: Mapping[str, Recipe]
    forecasts: tuple[Forecast, ...]
    spread: Mapping[str, Mapping[str, tuple[float, float]]]
    length: tuple[float, float]
    flat: tuple[Flat, ...]
    distance: float
    radius: float
    nearest: str
    warnings: tuple[str, ...]
    directions: tuple[Direction, ...] = ()
    begun: tuple[Trained, ...] = ()
    free: Free | None = None
    way: tuple[Step, ...] = ()
    guarded: Mapping[str, float] = field(default_factory=dict)
    may_lose: Mapping[str, float] = field(default_factory=dict)
    risks: Mapping[str, Risk] = field(default_factory=dict)
    ladder: tuple[Rung, ...] = ()
    known: tuple[str, ...] = ()
    fit: str = ""
    data: str = ""
    bound: float | None = None
    number: int = field(default=0, compare=False)
    created: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """Hash of the content; number, time and what was measured then are no part of it, so freezing twice is once."""
        content = {name: value for name, value in self.as_json().items() if name not in ("created", "number", "known")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def gain(self) -> Interval:
        """Of all tasks together, over the baseline that gains refer to."""
        return self.over[self.against].total

    @property
    def gains(self) -> Mapping[str, Interval]:
        """The same by task."""
        return self.over[self.against].by_task

    @property
    def beats(self) -> dict[str, float]:
        """Probability that it beats each baseline."""
        return {name: gain.probability for name, gain in self.over.items()}

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recommendation and the baselines, by name."""
        return {PROPOSAL: self.recipe, **self.baselines}

    @property
    def same(self) -> frozenset[str]:
        """Baselines that the recommendation is, within a percent of their tokens."""
        last = len(self.target.phases)
        return frozenset(name for name, recipe in self.baselines.items() if is_same(self.recipe, recipe, last))

    def forecast(self, recipe: str, task: str) -> Forecast:
        """The forecast of one recipe and task."""
        return next(f for f in self.forecasts if (f.recipe, f.task) == (recipe, task))

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Proposal.from_json`."""
        plain = asdict_shallow(self)
        if self.bound is None:  # frozen before it was there
            del plain["bound"]
        return {
            "format": FORMAT,
            **plain,
            "target": self.target.as_json(),
            "recipe": self.recipe.as_json(),
            "reasons": list(self.reasons),
            "over": {name: asdict(gain) for name, gain in self.over.items()},
            "groups": {name: list(tasks) for name, tasks in self.groups.items()},
            "directions": [direction.as_json() for direction in self.directions],
            "baselines": {name: recipe.as_json() for name, recipe in self.baselines.items()},
            "forecasts": [asdict(forecast) for forecast in self.forecasts],
            "spread": {phase: {d: list(ends) for d, ends in by.items()} for phase, by in self.spread.items()},
            "length": list(self.length),
            "flat": [asdict(flat) for flat in self.flat],
            "warnings": list(self.warnings),
            "known": list(self.known),
            "risks": {name: asdict(risk) for name, risk in self.risks.items()},
            "ladder": [rung.as_json() for rung in self.ladder],
            "begun": [part.model_dump(mode="json") for part in self.begun],
            "free": self.free.as_json() if self.free else None,
            "way": [asdict(step) for step in self.way],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Proposal:
        """Read what `as_json` wrote.

        Raises:
            InputError: it was written by another version.
        """
        if data.get("format") != FORMAT:
            raise InputError(
                f"a proposal of format {data.get('format')} cannot be read, this version reads {FORMAT}; propose again"
            )
        rest = {name: value for name, value in data.items() if name not in ("format", "own")}
        return cls(
            **{
                **rest,
                "target": Target.from_json(data["target"]),
                "recipe": Recipe.from_json(data["recipe"]),
                "reasons": tuple(data["reasons"]),
                "over": {name: Gain.from_json(gain) for name, gain in data["over"].items()},
                "groups": {name: tuple(tasks) for name, tasks in data["groups"].items()},
                "directions": tuple(Direction(**direction) for direction in data["directions"]),
                "baselines": {name: Recipe.from_json(recipe) for name, recipe in data["baselines"].items()},
                "forecasts": tuple(Forecast(**forecast) for forecast in data["forecasts"]),
                "spread": {p: {d: (ends[0], ends[1]) for d, ends in by.items()} for p, by in data["spread"].items()},
                "length": (data["length"][0], data["length"][1]),
                "flat": tuple(Flat(**flat) for flat in data["flat"]),
                "warnings": tuple(data["warnings"]),
                "known": tuple(data["known"]),
                "risks": {name: Risk(**risk) for name, risk in data["risks"].items()},
                "ladder": tuple(Rung.from_json(rung) for rung in data["ladder"]),
                "begun": tuple(Trained(**part) for part in data["begun"]),
                "free": Free.from_json(data["free"]) if data["free"] else None,
                "way": tuple(Step(**step) for step in data["way"]),
            }
        )

    def freeze(self, folder: Path) -> Proposal:
        """Write `<id>.json` into the folder, once; a file of that name is the same proposal.

        The result has its number and the time at which it was first frozen.
        """
        path = folder / f"{self.id}.json"
        with locked(folder):  # two processes would take the same number
            if not path.exists():
                number = 1 + max((proposal.number for proposal in load_proposals(folder)), default=0)
                now = datetime.now(UTC).isoformat(timespec="microseconds")
                write_json(path, sealed({**self.as_json(), "created": now, "number": number}))
        return load_proposal(path)

    @property
    def tone(self) -> Tone:
        """Green only where the data support it."""
        return "better" if self.supported else "worse" if self.gain.hi90 < 0 else "unsure"

    def page(self) -> Page:
        """The schedule, what is expected of it, and the sentence that matters."""
        name = f"{self.number} ({self.id}, {self.created[:16]} UTC)" if self.number else self.id
        notes, more = self._notes()
        tables = [self._forecast_table(), schedule_table(self.recipe)]
        return Page(self.sentence, self.tone, f"proposal {name} for {self.target}", tables, notes, more)

    def _forecast_table(self) -> Table:
        """Values and gains by task, the greatest gain first; baselines last, where a narrow terminal has no room."""
        gain, names = self.over[self.against], [name for name in self.recipes if name != PROPOSAL]
        columns = [
            "task",
            Column("unit", numeric=False),
            Column(PROPOSAL),
            Column(f"gain over {self.against}, {self.unit}", "gain"),
            *(Column(name, extra=name != self.against) for name in names),
        ]
        tasks = sorted(gain.by_task.items(), key=lambda item: -item[1].mean)
        after = [""] * len(names)
        rows = [self._forecast_row(task, each, names) for task, each in tasks]
        rows += [[f"all of {name}", "", "", each.cell(None), *after] for name, each in gain.by_group.items()]
        return Table("tasks", columns, [*rows, ["all, by weight", "", "", gain.total.cell(None), *after]])

    def _forecast_row(self, task: str, gain: Interval, names: Sequence[str]) -> list[Cell | str]:
        parts = [self.forecast(name, task) for name in (PROPOSAL, *names)]
        own, *others = [Interval(f.mean, f.lo90, f.hi90).cell() for f in parts]
        return [task, parts[0].unit, own, gain.cell(None), *others]

    def _notes(self) -> tuple[list[str], list[str]]:
        """What to know before training it, and the rest."""
        near = (
            f"{percent(self.distance)} of the tokens of a phase differ from the nearest measured run {self.nearest}; "
            f"measured runs have a neighbour within {percent(self.radius)}"
        )
        beats = ", ".join(f"{name} {chance_text(p)}" for name, p in self.beats.items() if name not in self.same)
        guarded = ", ".join(f"{task} {chance_text(p)}" for task, p in self.guarded.items())
        rest = self.target.to_come(self.recipe)
        free = [self._free()] if self.free and self.free.gain > self.gain.mean else []
        begun = (f"{size(p.tokens)} tokens of {p.phase} ({p.mixture or 'mixture unknown'})" for p in self.begun)
        first = [
            *([f"resumes from {', '.join(begun)}"] if self.begun else []),
            *([f"of {rest.name} from here on: {size(rest.tokens)} tokens of {rest.mixture}"] if rest else []),
            *([f"chance to beat: {beats}"] if beats else []),
            *([f"chance that the guard holds: {guarded}"] if guarded else []),
            *([near] if self.nearest else []),
            *([] if self.supported else [*free, "`mixlaw suggest` ranks the runs that would make this clearer"]),
            *(str(flat) for flat in self.flat if flat.what == "length"),
            *self.warnings,
        ]
        bound = f"the search maximises a lower bound of the gain, here {self.bound or 0:.3g} {self.unit}"
        return first, [
            *([] if self.bound is None else [bound]),
            f"weights: {', '.join(f'{task} {percent(w)}' for task, w in self.weights.items() if w)}",
            *(str(flat) for flat in self.flat if flat.what != "length"),
            *(free if self.supported else []),
            *(f"best at {step}" for step in self.way),
            *([self._risk()] if self.risks else []),
            *map(str, self.ladder),
            *(f"audit, {direction}" for direction in self.directions),
        ]

    def _risk(self) -> str:
        mine = self.risks[PROPOSAL]
        others = ", ".join(f"{name} {risk.regret:.2g}" for name, risk in self.risks.items() if name != PROPOSAL)
        return (
            f"if it is wrong: expected regret {mine.regret:.2g} {self.unit} ({others}); in the worst tenth of cases "
            f"it gains {mine.worst:.2g} over {self.against}"
        )

    def _free(self) -> str:
        assert self.free is not None
        broken = f", but it violates: {'; '.join(self.free.breaks)}" if self.free.breaks else ", within all limits"
        phases = "; ".join(f"{p.name} {p.mixture}" for p in self.free.recipe.phases[-len(self.target.phases) :])
        return f"without limits, guard and caution: {round(self.free.gain, 2):+.3g} {self.unit} ({phases}){broken}"


def frozen_baseline(proposals: Sequence[Proposal], recipe: Recipe, name: str) -> Recipe | None:
    """The baseline of this name that the last proposal for the recipe's size and schedule was compared with."""

    def schedule(of: Recipe) -> tuple[object, ...]:
        return (of.params, *((p.name, p.tokens, p.lr_end) for p in of.phases))

    alike = (one for one in reversed(proposals) if name in one.baselines and schedule(one.recipe) == schedule(recipe))
    return next((one.baselines[name] for one in alike), None)


def load_proposals(folder: Path) -> tuple[Proposal, ...]:
    """All frozen proposals of a folder, in the order in which they were created.

    Raises:
        InputError: a file is not a proposal, or was changed after it was frozen.
    """
    by_id = (load_proposal(path) for path in sorted(folder.glob("*.json")))
    return tuple(sorted(by_id, key=lambda proposal: (proposal.number, proposal.created)))


def load_proposal(path: Path) -> Proposal:
    """A frozen proposal from its file, which is read once as long as it does not change.

    Raises:
        InputError: the file is not a proposal, or was changed after it was frozen.
    """
    return _load(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=4096)
def _load(path: Path, changed: int, length: int) -> Proposal:
    try:
        data: dict[str, Any] = json.loads(read_text(path))
        kinds = [type(data.get(name)) for name in ("number", "created", "known")]
        proposal = Proposal.from_json(data)
        content = proposal.id if is_whole(data) else "another"
    except InputError as error:
        raise InputError(f"{path} cannot be read as a proposal ({error}); restore it or move it away") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a proposal ({error!r:.200}); restore it or move it away") from error
    if content != path.stem or kinds != [int, str, list]:
        raise InputError(f"{path} was changed after it was frozen: its name is no longer its hash; restore or move it")
    return proposal


def asdict_shallow(value: Any) -> dict[str, Any]:
    """Fields of a dataclass by name, as they are."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
