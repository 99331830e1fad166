"""One task of fitted surfaces: what is known about it, and its laws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixlaw.analysis.surface.coefficients import FittedLaw, law_of
from mixlaw.analysis.surface.model import ResponseModel
from mixlaw.analysis.surface.text import as_json, curve_text, parts_of
from mixlaw.printable import Page, Printable
from mixlaw.tables import Table, number


@dataclass(frozen=True)
class TaskSurface(Printable):
    """The surface of one task.

    Attributes:
        surfaces: all tasks.
        task: the name of this one.
    """

    surfaces: ResponseModel
    task: str

    @property
    def laws(self) -> dict[str, FittedLaw]:
        """Every law of the stack, the one with the greatest share first."""
        index = self.surfaces.tasks.index(self.task)
        shares = parts_of(self.surfaces, index)
        fitted = [law_of(member, index, shares[member.name]) for member in self.surfaces.members]
        return {law.name: law for law in sorted(fitted, key=lambda law: -law.share)}

    @property
    def law(self) -> FittedLaw:
        """The law with the greatest share in the prediction."""
        return next(iter(self.laws.values()))

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        found: dict[str, Any] = as_json(self.surfaces)["tasks"][self.task]
        return found

    def page(self) -> Page:
        """Shares of its laws, signal and noise; the coefficients are in `law`."""
        model, index = self.surfaces, self.surfaces.tasks.index(self.task)
        unit, link = model.units[self.task], model.links.get(self.task)
        noise = number(float(model.noise[index]), ".3g").text
        shares = [[name, number(share, ".0%")] for name, share in parts_of(model, index).items()]
        notes = [
            model.status[self.task].value,
            f"signal: {model.readiness[self.task].words}",
            f"noise of a run: {noise} {unit}",
            *([f"predicted through {link.source}: {curve_text(link.link)}"] if link else []),
            *model.notes[self.task],
        ]
        answer = f"{self.task} [{unit}]: coefficients in .law, those of every law in .laws"
        return Page(answer, tables=[Table("laws", ["law", "share"], shares)], notes=notes)
