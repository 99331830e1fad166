"""The verdict on a recipe: whether the data support it, what carries its gain, and what it is expected to lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mixlaw.numbers import percent
from mixlaw.optimizer.goal.evidence import Direction
from mixlaw.optimizer.goal.gains import Gain
from mixlaw.optimizer.goal.values import chance_text
from mixlaw.optimizer.policy import BEYOND_RADIUS, CARRIES, SURE

SHOWN = 4  # tasks that a sentence names


@dataclass(frozen=True)
class Evidence:
    """What is known about one recipe beside its baseline.

    Attributes:
        gain: over the baseline.
        unit: of gains.
        against: name of the baseline.
        others: probability of being better than each other baseline.
        best: whether the baseline is the best of all on average; one that was asked for need not be.
        same: whether the recipe is the baseline.
        distance, radius: of the recipe to measured ones, and how far these speak; distance None for other phases.
        directions: what the audit says about the directions that the recipe asks about.
        size: what is wrong with its size; empty where nothing is.
        guarded: probability by task that the guard holds.
        sure: probability that is asked for.
        limits: what the recipe does not keep, in words.
    """

    gain: Gain
    unit: str
    against: str
    others: Mapping[str, float] = field(default_factory=dict)
    best: bool = True
    same: bool = False
    distance: float | None = 0.0
    radius: float = 0.0
    directions: Sequence[Direction] = ()
    size: str = ""
    guarded: Mapping[str, float] | None = None
    sure: float = SURE
    limits: Sequence[str] = ()

    @property
    def at_risk(self) -> tuple[str, ...]:
        """Guarded tasks that may lose more than the guard allows."""
        return tuple(task for task, chance in (self.guarded or {}).items() if chance < self.sure - GUARD_SLACK)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the data do not support the recipe over its baseline; empty where they do."""
        reasons = []
        if self.same:
            reasons.append("it is the baseline")
        if self.gain.probability < SURE:
            reasons.append(
                f"it is {chance_text(self.gain.probability)} likely to be better, which is below {percent(SURE)}"
            )
        if self.at_risk:
            reasons.append(f"the guard is not kept for {_listed(self.at_risk)}")
        if self.distance is None:
            reasons.append("its phases are not those of the target")
        elif self.distance > self.radius + BEYOND_RADIUS:
            reasons.append(
                f"{percent(self.distance)} of the tokens of a phase differ from the nearest measured run, "
                f"where measured runs have a neighbour within {percent(self.radius)}"
            )
        reasons += [f"the audit is broken there: {direction}" for direction in self.directions if direction.broken]
        reasons += [self.size] if self.size else []
        return (*reasons, *(f"it does not keep: {limit}" for limit in self.limits))

    @property
    def supported(self) -> bool:
        """Whether the data support recommending the recipe."""
        return not self.reasons

    @property
    def sentence(self) -> str:
        """The headline: verdict, what carries the gain, what loses, and where the audit is broken."""
        return " ".join([self._verdict(), *self._harder(), *self._carried(), *self._losing()])

    def _verdict(self) -> str:
        gain, odds = self.gain.total.text(f" {self.unit}"), chance_text(self.gain.probability)
        best = self.against
        if self.others and self.best:
            best += f", {'on average ' if self._harder() else ''}the best of {len(self.others) + 1} baselines"
        if self.same:
            return f"This is the baseline {self.against}."
        if self.supported:
            return f"The proposal gains {gain} over {best}; its chance to beat it is {odds}."
        if self.gain.probability < SURE:
            return (
                f"No clear winner: the best candidate beats {best}, by {gain} ({odds} likely to be better); "
                f"train more runs, or take {self.against}."
            )
        return f"No recommendation: the predicted gain is {gain} over {best}, but {'; '.join(self.reasons)}."

    def _harder(self) -> list[str]:
        """The baselines that the recipe is less likely to beat than the one its gain refers to."""
        odds = chance_text(self.gain.probability)
        harder = [
            f"{name} ({chance_text(chance)})"
            for name, chance in self.others.items()
            if chance < self.gain.probability and chance_text(chance) != odds
        ]
        return [f"Harder to beat: {_listed(harder)}."] if harder and not self.same else []

    def _carried(self) -> list[str]:
        """The task that carries most of the gain, where it does, and whether there is a winner without it."""
        parts, total = self.gain.parts, self.gain.total.mean
        if self.same or len(parts) < 2 or total <= 0 or self.gain.probability < SURE:
            return []
        task = max(parts, key=lambda name: parts[name])
        if parts[task] <= CARRIES * total or task not in self.gain.without:
            return []
        share = "all" if parts[task] >= total else percent(parts[task] / total)
        rest = self.gain.without[task]
        unclear = "" if rest.tone == "better" else ", and there is no clear winner"
        return [f"{task} carries {share} of it: without it the gain is {rest.text()}{unclear}."]

    def _losing(self) -> list[str]:
        losing = self.gain.losing
        if self.same or not losing:
            return []
        told = [f"{task} {self.gain.by_task[task].text()}" for task in losing]
        return [f"Expected to lose: {_listed(told)}."]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


#: Probability by which a guard may be missed: the search keeps it in some draws and is judged in all.
GUARD_SLACK = 0.02
