"""The sliders: range, label and format of each, and the view that they describe together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from mixlaw.dashboard.view import ALL, FREE, MOST, View
from mixlaw.optimizer.target.target import WHOLE
from mixlaw.recipe import Domain

#: Of sliders for counts, in powers of ten: 4.7 % a step.
STEP = 0.02
#: How far a size or budget may be moved beyond the largest one that was measured or asked for.
BEYOND = 100.0


@dataclass(frozen=True)
class Dial:
    """One slider.

    Attributes:
        name: part of the address that it sets, `weight:TASK` and `limit:PLACE:DOMAIN` among them.
        label: on the page.
        kind: how its value is written: count, share, guard, weight, or part of a mixture that is set by hand.
        low, high, step: of the slider.
        value: its position; two ends if it is a range; of a count, the power of ten times `usual`.
        usual: value of a count in the study.
    """

    name: str
    label: str
    kind: str
    low: float
    high: float
    step: float
    value: float | tuple[float, float]
    usual: int = 1

    @property
    def spoken(self) -> str:
        """The label for screen readers, which do not see the group around it."""
        kind, _, which = self.name.partition(":")
        if self.kind == "part":
            return f"share of {self.label} in {'the whole recipe' if kind == WHOLE else kind}"
        place = "the whole recipe" if which.startswith(f"{WHOLE}:") else which.partition(":")[0]
        return {"limit": f"{self.label} in {place}", "weight": f"weight of {self.label}"}.get(kind, self.label)


def dials(
    view: View, default: View, measured: Mapping[str, tuple[float, float]], phases: Sequence[str], unit: str
) -> list[Dial]:
    """All sliders but those of limits, at a view.

    Args:
        view: their positions.
        default: of the study.
        measured: least and greatest `params` and `tokens` of the measured runs.
        phases: those to be trained, the cooldown last.
        unit: of gains.
    """
    sliders = [
        _count(name, getattr(view, name), getattr(default, name), measured[name]) for name in ("params", "tokens")
    ]
    if len(phases) > 1:
        sliders.append(Dial("cooldown", f"{phases[-1]}, share of the tokens", "share", 0.01, 0.6, 0.01, view.cooldown))
    most = max(MOST, 2 * (default.eps or 0.0))
    eps = most if view.eps is None else view.eps
    label = f"largest regression allowed on any task ({unit})"
    sliders.append(Dial("eps", label, "guard", 0.0, most, most / 100, eps))
    top = max(2.0, 2 * max(default.weights.values()))
    sliders += [Dial(f"weight:{t}", t, "weight", 0.0, top, top / 20, min(w, top)) for t, w in view.weights.items()]
    return sliders


def _count(name: str, value: int, usual: int, measured: tuple[float, float]) -> Dial:
    """A slider over powers of ten times the study's own value, which so is one of its steps."""
    low, high = min(measured[0], usual, value), BEYOND * max(measured[1], usual, value)
    below, above = (math.ceil(abs(math.log10(end / usual)) / STEP) * STEP for end in (low, high))
    label = {"params": "parameters"}.get(name, name)
    return Dial(name, label, "count", -below, above, STEP, math.log10(value / usual), usual)


def limits(view: View, place: str, domains: Sequence[Domain]) -> list[Dial]:
    """The sliders for floors and caps of all domains in one place."""
    return [
        Dial(f"limit:{place}:{d.name}", d.name, "share", 0.0, 1.0, 0.01, view.limits.get((place, d.name), FREE))
        for d in domains
    ]


def view_of(values: Mapping[str, Any], default: View) -> View:
    """The view of sliders and choices, by name; what has no slider is as in the study."""
    weights, bounds, view = dict(default.weights), dict(default.limits), default
    for name, value in values.items():
        kind, _, which = name.partition(":")
        if kind == "weight":
            weights[which] = float(value)
        elif kind == "limit":
            place, _, domain = which.partition(":")
            bounds[place, domain] = (float(value[0]), float(value[1]))
        elif kind == "params":
            view = replace(view, params=_whole(float(value), default.params))
        elif kind == "tokens":
            view = replace(view, tokens=_whole(float(value), default.tokens))
        elif kind == "cooldown":
            view = replace(view, cooldown=(float(value[0]), float(value[1])))
        elif kind == "eps":
            most = max(MOST, 2 * (default.eps or 0.0))
            view = replace(view, eps=None if value >= most else float(value))
        elif kind == "task":
            view = replace(view, task=value)
        elif kind == "plane" and value:
            view = replace(view, plane=tuple(value.split(",")))
    return replace(view, weights=weights, limits={key: span for key, span in bounds.items() if span != FREE})


def _whole(power: float, usual: int) -> int:
    """The count at a place of its slider, to three digits; the study's own one is exact."""
    return usual if abs(power) < 1e-9 else round(float(f"{usual * 10.0**power:.3g}"))


def panel(sliders: Sequence[Dial]) -> list[Component]:
    """The sliders of target and weights, in groups that open and close."""
    weights = [dial for dial in sliders if dial.kind == "weight"]
    others = [dial for dial in sliders if dial.kind != "weight"]
    return [group("Target", others, opened=True), group("Weights of the tasks", weights, opened=len(weights) <= 10)]


def limit_groups(view: View, places: Sequence[str], domains: Sequence[Domain]) -> list[Component]:
    """The sliders of floors and caps, a group for each place."""
    groups = []
    for place in places:
        some = limits(view, place, domains)
        moved = any((place, d.name) in view.limits for d in domains)
        name = "the whole recipe" if place == WHOLE else place
        groups.append(group(f"Floors and caps in {name}", some, opened=moved or place == WHOLE))
    return groups


def group(title: str, sliders: Sequence[Dial], opened: bool) -> Component:
    """Sliders under a title that opens and closes them."""
    return html.Details([html.Summary(title), *map(_field, sliders)], open=opened, className="group")


def _field(dial: Dial) -> Component:
    """A slider under its label and value; the script names it for screen readers."""
    common: dict[str, Any] = {
        "id": {"type": "part" if dial.kind == "part" else "dial", "name": dial.name},
        "min": dial.low,
        "max": dial.high,
        "step": dial.step,
        "marks": None,
        "updatemode": "mouseup",
        "allow_direct_input": False,
    }
    ranged = isinstance(dial.value, tuple)
    slider = dcc.RangeSlider(value=list(dial.value), **common) if ranged else dcc.Slider(value=dial.value, **common)  # type: ignore[arg-type]
    words = [html.Span(dial.label), html.Output("")]
    return html.Div(
        [html.Div(words, className="label"), slider],
        className="field",
        **{"data-kind": dial.kind, "data-label": dial.spoken, "data-name": dial.name, "data-usual": str(dial.usual)},  # type: ignore[arg-type]
    )


def choices(view: View, phases: Sequence[str]) -> Iterator[Component]:
    """Which landscape is drawn: of which task, over which phases."""
    yield dcc.Dropdown(
        [ALL, *view.weights], view.task, id={"type": "choice", "name": "task"}, clearable=False, searchable=False
    )
    planes = [(a, b) for i, a in enumerate(phases) for b in phases[i + 1 :]]
    if planes:
        options = [{"label": f"{a} × {b}", "value": f"{a},{b}"} for a, b in planes]
        yield dcc.Dropdown(
            options, ",".join(view.plane), id={"type": "choice", "name": "plane"}, clearable=False, searchable=False
        )
