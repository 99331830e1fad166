"""A view: what the sliders of the dashboard say, and how the address of the page says it."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import parse_qsl, quote

from mixlaw.errors import InputError
from mixlaw.optimizer.goal.goal import Goal, weights_by_task
from mixlaw.optimizer.target.target import WHOLE, Guard, Span, Target
from mixlaw.recipe import Recipe

#: Place (a phase, or the whole recipe) and domain -> least and greatest share.
Limits = Mapping[tuple[str, str], Span]
FREE: Span = (0.0, 1.0)
#: Worse than the baseline by so much is no guard at all; in the unit of gains.
MOST = 5.0
#: The landscape of all tasks together, as other commands name their row.
ALL = "all, by weight"


@dataclass(frozen=True)
class View:
    """Everything that the page shows follows from this and the study.

    Attributes:
        params, tokens: of the target.
        cooldown: least and greatest share of the tokens that the last phase may take.
        weights: of the tasks.
        limits: least and greatest share of a domain in a phase or in the recipe.
        eps: no task may be worse than the baseline by more than this; None for no guard.
        task: whose landscape is drawn.
        plane: the phases of its axes.
        hand: whether the recipe is set by hand, and nothing is searched.
        recipe: at hand; None before there is one.
        pins: recipes to compare with, by name.
    """

    params: int
    tokens: int
    cooldown: Span
    weights: Mapping[str, float]
    limits: Limits = field(default_factory=dict)
    eps: float | None = None
    task: str = ""
    plane: tuple[str, ...] = ()
    hand: bool = False
    recipe: Recipe | None = None
    pins: Mapping[str, Recipe] = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target, goal: Goal, tasks: Sequence[str], domains: Sequence[str]) -> View:
        """The view of a study as its study.toml has it."""
        phases = target.phases
        given = weights_by_task(goal, tasks)
        most = max(given.values())
        limits = {}
        for place in (WHOLE, *phases):
            for name in domains:
                span = target.floors.get(place, {}).get(name, 0.0), target.caps.get(place, {}).get(name, 1.0)
                limits[place, name] = span
        return cls(
            params=target.params,
            tokens=target.tokens,
            cooldown=target.cooldown,
            weights={task: round(weight / most, 4) for task, weight in given.items()},
            limits={key: span for key, span in limits.items() if span != FREE},
            eps=_leeway(target.guard),
            task=ALL,
            plane=(phases[0], phases[-1]) if len(phases) > 1 else (),
        )

    def target(self, given: Target) -> Target:
        """The target of a study as this view has it; what has no slider stays, a size that was free is not."""
        return given.changed(
            params=self.params,
            tokens=self.tokens,
            cooldown=self.cooldown,
            floors=self._bounds(given.floors, 0),
            caps=self._bounds(given.caps, 1),
            guard=self._guard(given.guard),
            sizes=None,
            ladder=(),
        )

    def goal(self, given: Goal) -> Goal:
        """What counts as better in this view."""
        return replace(given, weights=dict(self.weights), groups={})

    def _bounds(self, given: Mapping[str, Mapping[str, float]], end: int) -> dict[str, dict[str, float]]:
        """Floors (end 0) or caps (1): those of groups as given, those of domains as the sliders say."""
        bounds = {place: {name: v for name, v in by.items() if ":" in name} for place, by in given.items()}
        for (place, name), span in self.limits.items():
            if span[end] != FREE[end]:
                bounds.setdefault(place, {})[name] = span[end]
        return {place: by for place, by in bounds.items() if by}

    def _guard(self, given: Guard | None) -> Guard | None:
        """The guard of the study with this much leeway; where tasks have their own, in proportion."""
        if self.eps is None or given is None:
            return None if self.eps is None else Guard(self.eps)
        widest = max(given.most.values(), default=0.0) if isinstance(given.most, Mapping) else 0.0
        if not isinstance(given.most, Mapping):
            return Guard(self.eps, given.than, given.sure)
        scaled = {task: self.eps * (most / widest if widest else 1.0) for task, most in given.most.items()}
        return Guard(scaled, given.than, given.sure)

    # --- the address --------------------------------------------------------------------------------------------------

    @property
    def question(self) -> str:
        """All that the best recipe depends on, as text: not the current recipe, nor how it is drawn."""
        return replace(self, task="", plane=(), hand=False, recipe=None, pins={}).query()

    def query(self, default: View | None = None) -> str:
        """The URL query of this view; fields as in `default` are left out."""
        parts = [f"{quote(name, safe=':')}={quote(text, safe=',:')}" for name, text in self._texts(default).items()]
        return f"?{'&'.join(parts)}" if parts else ""

    def _texts(self, default: View | None) -> dict[str, str]:
        mine, usual = _flat(self), {} if default is None else _flat(default)
        free = {name: _text(FREE) for name in {*mine, *usual} if name.startswith("limit:")}
        zero = {"eps": "off", "recipe": "", "hand": ""} | free
        names = dict.fromkeys([*mine, *usual])
        return {n: mine.get(n, zero.get(n, "")) for n in names if mine.get(n, zero.get(n)) != usual.get(n, zero.get(n))}

    @classmethod
    def read(cls, query: str, default: View) -> View:
        """The view that an address leads to.

        Raises:
            InputError: it names a task, domain or phase that is not there, or a value cannot be read.
        """
        view = default
        for name, text in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
            try:
                view = view._with(name, text)
            except (ValueError, KeyError, TypeError, zlib.error) as error:
                raise InputError(
                    f"the address says {name}={text[:40]!r}, which cannot be read here ({error}); take it out"
                ) from error
        return view

    def _with(self, name: str, text: str) -> View:
        """This view with one part of an address."""
        kind, _, which = name.partition(":")
        if kind == "weight":
            if which not in self.weights:
                raise KeyError(f"tasks are {', '.join(self.weights)}")
            return replace(self, weights={**self.weights, which: _number(text)})
        if kind == "limit":
            place, _, domain = which.partition(":")
            return replace(self, limits={**self.limits, (place, domain): _span(text)})
        if kind == "pin":
            recipe = unpacked(text)
            return self if recipe is None else replace(self, pins={**self.pins, which: recipe})
        if kind == "task" and text not in (ALL, *self.weights):
            raise KeyError(f"tasks are {', '.join(self.weights)}")
        readers: dict[str, Any] = {
            "params": int,
            "tokens": int,
            "cooldown": _span,
            "eps": lambda t: None if t == "off" else _number(t),
            "task": str,
            "plane": lambda t: tuple(t.split(",")),
            "hand": bool,
            "recipe": unpacked,
        }
        return replace(self, **{kind: readers[kind](text)})


def _leeway(guard: Guard | None) -> float | None:
    """By how much the least guarded task may be worse."""
    if guard is None:
        return None
    return max(guard.most.values(), default=0.0) if isinstance(guard.most, Mapping) else guard.most


def _flat(view: View) -> dict[str, str]:
    """Every part of an address with its text."""
    parts: dict[str, str] = {}
    for one in fields(view):
        value = getattr(view, one.name)
        if one.name == "weights":
            parts |= {f"weight:{task}": _text(weight) for task, weight in value.items()}
        elif one.name == "limits":
            parts |= {f"limit:{place}:{name}": _text(span) for (place, name), span in value.items()}
        elif one.name == "pins":
            parts |= {f"pin:{name}": packed(recipe) for name, recipe in value.items()}
        elif one.name == "hand":
            parts |= {"hand": "1"} if value else {}
        elif value is not None:
            parts[one.name] = _text(value)
    return parts


def _text(value: Any) -> str:
    if isinstance(value, Recipe):
        return packed(value)
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _number(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("it must be a number from 0 on")
    return value


def _span(text: str) -> Span:
    low, high = map(_number, text.split(","))
    if low > high or high > 1:
        raise ValueError("it must be two shares, the least first")
    return low, high


def packed(recipe: Recipe) -> str:
    """A recipe as text that an address can hold."""
    text = json.dumps(recipe.as_json(), sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def unpacked(text: str) -> Recipe | None:
    """The inverse of `packed`, at most 1 MB of recipe; None for nothing."""
    if not text:
        return None
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return Recipe.from_json(json.loads(zlib.decompressobj().decompress(raw, 1_000_000)))
