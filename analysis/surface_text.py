"""How surfaces print themselves: status first, coefficients with errors, spread; text and HTML from the same rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixlaw.analysis.laws import Law
    from mixlaw.analysis.member import Member
    from mixlaw.analysis.surface import Surfaces


@dataclass(frozen=True)
class Estimate:
    """A coefficient and its standard error, both in the coefficient's own unit."""

    value: float
    error: float

    def __str__(self) -> str:
        if not (np.isfinite(self.error) and self.error > 0):
            return f"{self.value:.4g}"
        if not 1e-3 < abs(self.value) < 1e5:
            return f"{self.value:.3g} ± {self.error:.2g}"
        digits = min(6, max(0, 1 - int(np.floor(np.log10(self.error)))))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


def coefficients(member: Member, task: int, most: int = 32) -> dict[str, Estimate]:
    """Natural coefficients of one task's law with standard errors over at most `most` draws."""
    scale = float(member.observed.centre[task])
    best = _flat(member.form.law(member.theta[task], scale))
    drawn = [_flat(member.form.law(theta, scale)) for theta in member.draws[:most, task]]
    return {name: Estimate(value, _error([d[name] for d in drawn])) for name, value in best.items()}


def _error(values: list[float]) -> float:
    """Half the width of the central 68 %: a standard error that a wild draw does not set."""
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2


def _flat(law: Law) -> dict[str, float]:
    found: dict[str, float] = {}
    for field in fields(law):  # type: ignore[arg-type]
        value = getattr(law, field.name)
        if isinstance(value, float):
            found[field.name] = value
        elif isinstance(value, tuple) and value and isinstance(value[0], float):
            names = getattr(law, "phases" if field.name == "retention" else "domains")
            found |= {f"{field.name} {n}": v for n, v in zip(names, value, strict=True)}
    return found


def _rows(surfaces: Surfaces, task: int) -> list[tuple[str, str]]:
    name, member = surfaces.tasks[task], surfaces.members[0]
    unit = surfaces.observed.units[task]
    head = [
        ("status", surfaces.status[name].value),
        (
            "law",
            ", ".join(
                f"{m.law.__name__} {w:.0%}" for m, w in zip(surfaces.members, surfaces.weights[task], strict=True)
            ),
        ),
        ("spread", f"{float(member.sigma[task]):.2%} of the loss around the law"),
        ("noise of a run", f"{float(surfaces.noise[task]):.3g} {unit}"),
    ]
    return head + [(n, str(e)) for n, e in coefficients(member, task).items()]


def _summary(surfaces: Surfaces) -> str:
    runs = len(set(surfaces.observed.design.runs))
    sizes = len(set(surfaces.observed.design.params.tolist()))
    return (
        f"{len(surfaces.tasks)} tasks fitted to {runs} runs ({len(surfaces.observed.design)} rows, {sizes} sizes, "
        f"{len(surfaces.phases)} phases, {len(surfaces.domains)} domains)"
    )


def _shared_notes(surfaces: Surfaces) -> list[str]:
    return list(surfaces.members[0].form.notes)


def as_text(surfaces: Surfaces) -> str:
    """Text for the terminal."""
    lines = [_summary(surfaces), *(f"  - {note}" for note in _shared_notes(surfaces))]
    for i, name in enumerate(surfaces.tasks):
        rows = _rows(surfaces, i)
        width = max(len(key) for key, _ in rows)
        lines += ["", f"{name} ({surfaces.observed.units[i]})", *(f"  {key:>{width}}  {text}" for key, text in rows)]
        lines += [f"  {'':>{width}}  {note}" for note in surfaces.notes[name] if note not in _shared_notes(surfaces)]
    if surfaces.audit is not None:
        lines += ["", str(surfaces.audit)]
    return "\n".join(lines)


def as_html(surfaces: Surfaces) -> str:
    """The same for a notebook: a table per task, folded away but for the first."""
    parts = [f"<p>{escape(_summary(surfaces))}</p>"]
    parts += [f"<p>{escape(note)}</p>" for note in _shared_notes(surfaces)]
    for i, name in enumerate(surfaces.tasks):
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in _rows(surfaces, i))
        notes = "".join(f"<p>{escape(n)}</p>" for n in surfaces.notes[name] if n not in _shared_notes(surfaces))
        state = escape(surfaces.status[name].value)
        opened = " open" if i == 0 else ""
        parts.append(
            f"<details{opened}><summary>{escape(name)}: {state}</summary><table>{cells}</table>{notes}</details>"
        )
    if surfaces.audit is not None:
        parts.append(f"<pre>{escape(str(surfaces.audit))}</pre>")
    return "".join(parts)
