"""The answer to a target: a recipe, what it will bring, how sure that is, and what does not matter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import write_json
from mixlaw.optimizer.goal.values import PROPOSAL, Forecast, Interval, percent
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.printable import Printable, html_table, text_table
from mixlaw.recipe import Decay, Phase, Recipe

FORMAT = 3


@dataclass(frozen=True)
class Flat:
    """A range of one share, all else in proportion, statistically equivalent to the recommendation."""

    phase: str
    what: str  # a domain, `code` (`all code` where a domain has that name), or `length`
    low: float
    high: float
    at: float

    def __str__(self) -> str:
        if self.what == "length":
            return f"{self.phase}: any length from {self.low:.0%} to {self.high:.0%} is statistically equivalent"
        return (
            f"{self.what} in {self.phase}: any share from {self.low:.0%} to {self.high:.0%} is statistically equivalent"
        )


@dataclass(frozen=True)
class Free:
    """The optimum of a free hand, beside the one that keeps the limits.

    Attributes:
        recipe: what would be trained.
        gain: over the same baseline as the proposal.
        breaks: limits of the target that it does not keep, in words.
        distance: share of its tokens that differ from the nearest measured recipe.
    """

    recipe: Recipe
    gain: float
    breaks: tuple[str, ...]
    distance: float

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Free.from_json`."""
        return {**asdict_shallow(self), "recipe": self.recipe.as_json(), "breaks": list(self.breaks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Free:
        """Read what `as_json` wrote."""
        return cls(**{**data, "recipe": Recipe.from_json(data["recipe"]), "breaks": tuple(data["breaks"])})


@dataclass(frozen=True)
class Step:
    """The best recipe at one size: tokens in proportion to parameters, domains repeated as often as at the target.

    Attributes:
        params, tokens: of this step.
        shares: phase -> kind -> share.
    """

    params: int
    tokens: int
    shares: Mapping[str, Mapping[str, float]]

    def __str__(self) -> str:
        parts = (
            f"{phase} " + " ".join(f"{kind} {share:.0%}" for kind, share in by.items() if share >= 0.005)
            for phase, by in self.shares.items()
        )
        return f"{self.params:,} params: {'; '.join(parts)}"


@dataclass(frozen=True)
class Proposal(Printable):
    """A recommended recipe with everything that is known about it.

    Attributes:
        target: what was asked for.
        recipe: the recommendation.
        supported: whether the data support recommending it over the best baseline.
        sentence: the one that matters.
        against: the best baseline, which gains refer to.
        unit: of gains.
        gain: of all tasks together over it.
        gains: the same by task.
        weights: of the tasks.
        beats: probability that it beats each baseline.
        baselines: recipes to beat, by name.
        forecasts: for the proposal and every baseline, by task.
        spread: 5 % and 95 % point over draws of the best share, phase -> domain.
        length: the same for the last phase's share of the tokens.
        flat: statistically equivalent ranges.
        distance: share of the tokens that differ from the nearest measured recipe, in mixture and phase.
        radius: distance up to which measured recipes speak for each other.
        nearest: name of that run.
        warnings: what to know before paying for it.
        begun: what has been trained before it, where the target has a prefix or branches.
        free: the optimum without bounds, repetition limits, guards and trust region.
        way: the best recipe at smaller sizes, and at this one.
        guarded: probability by task that the guard of the target holds.
        created: when it was frozen, UTC in ISO 8601, which orders the proposals of a study; empty before that.
    """

    target: Target
    recipe: Recipe
    supported: bool
    sentence: str
    against: str
    unit: str
    gain: Interval
    gains: Mapping[str, Interval]
    weights: Mapping[str, float]
    beats: Mapping[str, float]
    baselines: Mapping[str, Recipe]
    forecasts: tuple[Forecast, ...]
    spread: Mapping[str, Mapping[str, tuple[float, float]]]
    length: tuple[float, float]
    flat: tuple[Flat, ...]
    distance: float
    radius: float
    nearest: str
    warnings: tuple[str, ...]
    begun: tuple[Trained, ...] = ()
    free: Free | None = None
    way: tuple[Step, ...] = ()
    guarded: Mapping[str, float] = field(default_factory=dict)
    created: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """Hash of the content; when it was frozen is no part of it, so proposing the same twice freezes it once."""
        content = {name: value for name, value in self.as_json().items() if name != "created"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recommendation and the baselines, by name."""
        return {PROPOSAL: self.recipe, **self.baselines}

    def forecast(self, recipe: str, task: str) -> Forecast:
        """The forecast of one recipe and task."""
        return next(f for f in self.forecasts if (f.recipe, f.task) == (recipe, task))

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Proposal.from_json`."""
        plain = asdict_shallow(self)
        return {
            "format": FORMAT,
            **plain,
            "target": self.target.as_json(),
            "recipe": self.recipe.as_json(),
            "gain": asdict(self.gain),
            "gains": {task: asdict(gain) for task, gain in self.gains.items()},
            "baselines": {name: recipe.as_json() for name, recipe in self.baselines.items()},
            "forecasts": [asdict(forecast) for forecast in self.forecasts],
            "spread": {phase: {d: list(ends) for d, ends in by.items()} for phase, by in self.spread.items()},
            "length": list(self.length),
            "flat": [asdict(flat) for flat in self.flat],
            "warnings": list(self.warnings),
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
        rest = {name: value for name, value in data.items() if name != "format"}
        return cls(
            **{
                **rest,
                "target": Target.from_json(data["target"]),
                "recipe": Recipe.from_json(data["recipe"]),
                "gain": Interval(**data["gain"]),
                "gains": {task: Interval(**gain) for task, gain in data["gains"].items()},
                "baselines": {name: Recipe.from_json(recipe) for name, recipe in data["baselines"].items()},
                "forecasts": tuple(Forecast(**forecast) for forecast in data["forecasts"]),
                "spread": {p: {d: (ends[0], ends[1]) for d, ends in by.items()} for p, by in data["spread"].items()},
                "length": (data["length"][0], data["length"][1]),
                "flat": tuple(Flat(**flat) for flat in data["flat"]),
                "warnings": tuple(data["warnings"]),
                "begun": tuple(Trained(**part) for part in data["begun"]),
                "free": Free.from_json(data["free"]) if data["free"] else None,
                "way": tuple(Step(**step) for step in data["way"]),
            }
        )

    def freeze(self, folder: Path) -> Proposal:
        """Write `<id>.json` into the folder, once; a file of that name is the same proposal.

        Returns:
            The proposal with the time at which it was first frozen.
        """
        path = folder / f"{self.id}.json"
        if not path.exists():
            write_json(path, {**self.as_json(), "created": datetime.now(UTC).isoformat(timespec="microseconds")})
        return replace(self, created=json.loads(path.read_text(encoding="utf-8")).get("created", ""))

    def __str__(self) -> str:
        head = [self.sentence, "", f"proposal {self.id} for {self.target}", ""]
        tables = (text_table(rows, numeric=True) for rows in (self._schedule(), self._forecast_rows()))
        return "\n".join([*head, "\n\n".join(tables), "", *self._notes()])

    def _repr_html_(self) -> str:
        tables = "".join(html_table(rows) for rows in (self._schedule(), self._forecast_rows()))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self._notes())
        return f"<p><b>{escape(self.sentence)}</b></p>{tables}<ul>{notes}</ul>"

    def _schedule(self) -> list[list[str]]:
        names = sorted({*self.recipe.domains}, key=lambda name: -self.recipe.domain_tokens(name))
        ends = [lr_end_of(p) for p in self.recipe.phases]
        body = [
            [p.name, f"{p.tokens:,}", end, *(f"{p.mixture.share(name):.1%}" for name in names)]
            for p, end in zip(self.recipe.phases, ends, strict=True)
        ]
        return [["phase", "tokens", "lr ends at", *names], *body]

    def _forecast_rows(self) -> list[list[str]]:
        head = ["task", "unit", *self.recipes, f"gain over {self.against}, {self.unit}"]
        return [head, *(self._forecast_row(task, gain) for task, gain in self.gains.items())]

    def _forecast_row(self, task: str, gain: Interval) -> list[str]:
        parts = [self.forecast(name, task) for name in self.recipes]
        values = [Interval(f.mean, f.lo90, f.hi90).text() for f in parts]
        return [task, parts[0].unit, *values, gain.text()]

    def _notes(self) -> list[str]:
        beaten = ", ".join(f"{name} {percent(p)}" for name, p in self.beats.items())
        near = f"{self.distance:.0%} of its tokens differ from the nearest measured run {self.nearest}"
        guarded = ", ".join(f"{task} {percent(p)}" for task, p in self.guarded.items())
        rest = self.target.to_come(self.recipe)
        return [
            *([f"resumes from {_begun(self.begun)}"] if self.begun else []),
            *([f"of {rest.name} from here on: {rest.tokens:,} tokens of {rest.mixture}"] if rest else []),
            f"chance to beat: {beaten}",
            *([f"chance that the guard holds: {guarded}"] if guarded else []),
            *(str(flat) for flat in self.flat),
            *([self._free()] if self.free else []),
            *(f"best at {step}" for step in self.way),
            *([near] if self.nearest else []),
            *self.warnings,
        ]

    def _free(self) -> str:
        assert self.free is not None
        broken = f", but it violates: {'; '.join(self.free.breaks)}" if self.free.breaks else ", within all limits"
        phases = "; ".join(f"{p.name} {p.mixture}" for p in self.free.recipe.phases[-len(self.target.phases) :])
        return f"without limits: {round(self.free.gain, 2):+.3g} {self.unit} ({phases}){broken}"


def frozen_baseline(proposals: Sequence[Proposal], recipe: Recipe, name: str) -> Recipe | None:
    """The baseline of this name that the last proposal for the recipe's size, tokens and phases was compared with."""
    for proposal in reversed(proposals):
        other = proposal.recipe
        same = (other.params, other.tokens, [p.name for p in other.phases])
        if name in proposal.baselines and same == (recipe.params, recipe.tokens, [p.name for p in recipe.phases]):
            return proposal.baselines[name]
    return None


def load_proposals(folder: Path) -> tuple[Proposal, ...]:
    """All frozen proposals of a folder, in the order in which they were created.

    Raises:
        InputError: a file is not a proposal, or was changed after it was frozen.
    """
    proposals = []
    for path in sorted(folder.glob("*.json")):
        try:
            proposal = Proposal.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not a proposal ({error}); move it away") from error
        if proposal.id != path.stem:
            raise InputError(
                f"{path} was changed after it was frozen: its content is {proposal.id}; restore or remove it"
            )
        proposals.append(proposal)
    return tuple(sorted(proposals, key=lambda proposal: (proposal.created, proposal.id)))


def asdict_shallow(value: Any) -> dict[str, Any]:
    """Fields of a dataclass by name, as they are."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _begun(parts: Sequence[Trained]) -> str:
    """A prefix in words."""
    return ", ".join(f"{p.tokens:,} tokens of {p.phase} ({p.mixture or 'mixture unknown'})" for p in parts)


def lr_end_of(phase: Phase) -> str:
    """Where the learning rate of a phase ends over the peak, and the shape of its fall if it is not linear."""
    shape = "" if phase.decay is Decay.LINEAR else f" ({phase.decay.value})"
    return "-" if phase.lr_end is None else f"{phase.lr_end:g}{shape}"


def phase_lines(recipe: Recipe) -> list[str]:
    """Each phase of a recipe on a line: tokens and mixture, and for the last one where its learning rate ends."""
    last = recipe.phases[-1]
    more = {last.name: f", lr to {lr_end_of(last)}" if last.lr_end is not None else ""}
    return [f"{p.name} {p.tokens:,}: {p.mixture}{more.get(p.name, '')}" for p in recipe.phases]
