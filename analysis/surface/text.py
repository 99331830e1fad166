"""How surfaces print themselves: status first, coefficients with errors, spread; text and HTML from the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from mixlaw.analysis.audit.readiness import Verdict
from mixlaw.analysis.surface.link import AccuracyLink, FittedLink
from mixlaw.analysis.surface.member import Member
from mixlaw.analysis.surface.model import ResponseModel
from mixlaw.printable import text_table


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
    draws = [_flat(member.form.law(theta, scale)) for theta in member.draws[:most, task]]
    return {name: Estimate(value, _error([d[name] for d in draws])) for name, value in best.items()}


def _error(values: list[float]) -> float:
    """Half the width of the central 68 %: a standard error robust to outlying draws."""
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2


def _flat(law: Any) -> dict[str, float]:
    flat: dict[str, float] = {}
    for field in fields(law):
        value = getattr(law, field.name)
        if is_dataclass(value) and not isinstance(value, type):  # the law, and the schedule term beside it
            flat |= _flat(value)
        elif isinstance(value, float):
            flat[field.name] = value
        elif isinstance(value, Tensor) or (isinstance(value, tuple) and value and isinstance(value[0], float)):
            numbers = value.tolist() if isinstance(value, Tensor) else value
            names = getattr(law, "phases" if field.name == "retention" else "domains", ())
            names = names if len(names) == len(numbers) else range(len(numbers))
            flat |= {f"{field.name} {n}": v for n, v in zip(names, numbers, strict=True)}
    return flat


def _leading(surfaces: ResponseModel, task: int) -> Member:
    """The law that has the most weight in a task."""
    return surfaces.members[int(surfaces.weights[task].argmax())]


def _parts(surfaces: ResponseModel, task: int) -> dict[str, float]:
    """Share of every law and regressor in the prediction of a task."""
    shares = [] if surfaces.beside is None else surfaces.beside.shares[task].tolist()
    others = dict(zip((one.name for one in surfaces.regressors), shares, strict=True))
    rest = 1 - sum(others.values())
    return {m.name: rest * float(w) for m, w in zip(surfaces.members, surfaces.weights[task], strict=True)} | others


def _rows(surfaces: ResponseModel, task: int) -> list[tuple[str, str]]:
    name, member = surfaces.tasks[task], _leading(surfaces, task)
    unit, link = surfaces.observed.units[task], surfaces.links.get(name)
    head = [
        ("status", surfaces.status[name].value),
        ("law", ", ".join(f"{part} {share:.0%}" for part, share in _parts(surfaces, task).items())),
        ("signal", surfaces.readiness[name].words),
        *([("predicted", f"through {link.source}: {_curve(link.link)}")] if link else []),
        ("spread", f"{float(member.sigma[task]):.2%} of the loss around the law"),
        ("noise of a run", f"{float(surfaces.noise[task]):.3g} {unit}"),
    ]
    return head + [(n, str(e)) for n, e in coefficients(member, task).items()]


def _curve(link: AccuracyLink) -> str:
    rise = f"({link.ceiling:.3g} - {link.chance:.3g})"
    return f"{link.chance:.3g} + {rise} sigmoid({link.k:.3g} ({link.middle:.3g} - loss))"


def _link_json(link: FittedLink) -> dict[str, Any]:
    names = ("chance", "ceiling", "k", "middle")
    pairs = zip(link.best.tolist(), link.draws.std(0).tolist(), strict=True)
    return {"source": link.source, "noise": link.noise} | dict(zip(names, map(list, pairs), strict=True))


def _summary(surfaces: ResponseModel) -> str:
    runs = len(set(surfaces.observed.design.runs))
    sizes = len(set(surfaces.observed.design.params.tolist()))
    head = f"{_counted(len(surfaces.tasks), 'task')} fitted to {_counted(runs, 'run')}"
    counts = {"row": len(surfaces.observed.design), "size": sizes}
    counts |= {"phase": len(surfaces.phases), "domain": len(surfaces.domains)}
    return f"{head} ({', '.join(_counted(number, noun) for noun, number in counts.items())})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shared_notes(surfaces: ResponseModel) -> list[str]:
    """Notes on the design that the leading laws of all tasks share."""
    first, *others = [_leading(surfaces, task).form.notes for task in range(len(surfaces.tasks))]
    return [note for note in first if all(note in notes for notes in others)]


def as_text(surfaces: ResponseModel) -> str:
    """Text for the terminal: what is identified first, a row per task, then the audit."""
    lines = [f"{_summary(surfaces)}, {_laws(surfaces)}", *_states(surfaces)]
    lines += [f"  - {note}" for note in _shared_notes(surfaces)]
    rows = [_task_row(surfaces, i) for i in range(len(surfaces.tasks))]
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    lines += [*_ready(surfaces), *_links(surfaces)]
    lines += ["", text_table(cells, numeric=True)]
    lines.append(_legend(names, surfaces))
    return "\n".join([*lines, *(["", str(surfaces.audit)] if surfaces.audit is not None else [])])


def _states(surfaces: ResponseModel) -> list[str]:
    """One line for each outcome, with its tasks."""
    alike = {s: [t for t in surfaces.tasks if surfaces.status[t] is s] for s in dict.fromkeys(surfaces.status.values())}
    return [f"{status.value}: {', '.join(tasks)}" for status, tasks in alike.items()]


def _ready(surfaces: ResponseModel) -> list[str]:
    """One line for each verdict on signal and noise."""
    alike: dict[str, list[tuple[float, str]]] = {}
    order = list(Verdict)
    for task, ready in sorted(surfaces.readiness.items(), key=lambda item: order.index(item[1].verdict)):
        ratio = max((size.ratio for size in ready.sizes), default=0.0)
        alike.setdefault(ready.words, []).append((ratio, f"{task} ({ratio:.1f})" if ready.sizes else task))
    measured = all(ready.measured for ready in surfaces.readiness.values())
    noise = (
        "seed standard deviation" if measured else "seed standard deviation (residual SD where no recipe was repeated)"
    )
    head = f"signal-to-noise: spread between recipes of one size / {noise}"
    return ["", head, *(f"  {words}: {_strongest(tasks)}" for words, tasks in alike.items())]


def _strongest(tasks: list[tuple[float, str]], most: int = 16) -> str:
    names = [name for _, name in sorted(tasks, key=lambda pair: -pair[0])]
    more = f" and {len(names) - most} more (--json has all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _links(surfaces: ResponseModel) -> list[str]:
    """Whether links predict held-out runs better than the direct fits."""
    if not surfaces.links:
        return []
    errors = {task: surfaces.audit.of_link(task) if surfaces.audit else None for task in surfaces.links}
    labels = {t: f"{t} ({e[0]:.1%} against {e[1]:.1%})" if e else t for t, e in errors.items()}
    worse = [labels[t] for t, e in errors.items() if e and e[0] > e[1]]
    better = [labels[t] for t, e in errors.items() if not e or e[0] <= e[1]]
    lines = ["", "predicted through the loss on the same task (held-out error against that of a direct fit)"]
    lines += [f"  {', '.join(better)}"] if better else []
    return lines + ([f"  a direct fit does better, remove the link: {', '.join(worse)}"] if worse else [])


def _laws(surfaces: ResponseModel) -> str:
    """The laws, the one that counts most first, with their weights over tasks."""
    by_task = [_parts(surfaces, task) for task in range(len(surfaces.tasks))]
    if len(by_task[0]) == 1:
        return f"law: {surfaces.members[0].name}"
    weights = {name: [parts[name] for parts in by_task] for name in by_task[0]}
    middle = {name: sum(values) / len(values) for name, values in weights.items()}
    shares = [
        f"{name} {middle[name]:.0%} ({min(weights[name]):.0%} to {max(weights[name]):.0%})"
        for name in sorted(middle, key=lambda name: -middle[name])
    ]
    return f"laws by weight on held-out runs (range over tasks): {', '.join(shares)}"


def _task_row(surfaces: ResponseModel, task: int) -> dict[str, str]:
    """One line of the table: spread, noise, scalars and retentions of the law, the two domains that count most."""
    member, unit = _leading(surfaces, task), surfaces.observed.units[task]
    values = coefficients(member, task)
    law = [one.name for one in fields(member.law)]  # type: ignore[arg-type]
    long = "retention" in law  # our laws of phases have a dozen coefficients more: --json has them
    vectors = [name for name in law if name != "retention" and any(n.startswith(f"{name} ") for n in values)]
    scalars = ("floor", "alpha", "beta") if long else law
    shown = [n for n in values if (n in scalars or n.startswith("retention ")) and values[n].error > 0]
    vectors = [name for name in vectors if not long or name == "worth"]
    return {
        "task": surfaces.tasks[task],
        **({"law": member.name} if len(surfaces.members) > 1 else {}),
        "noise of a run": f"{float(surfaces.noise[task]):.2g} {unit}",
        "spread": f"{float(member.sigma[task]):.1%}",
        **{name: str(values[name]) for name in shown},
        **{name: _top(values, name) for name in vectors},
    }


def _legend(columns: Sequence[str], surfaces: ResponseModel) -> str:
    """What columns mean that do not say it themselves."""
    numbers = {name for i in range(len(surfaces.tasks)) for name in coefficients(_leading(surfaces, i), i, 2)}
    vectors = [name for name in columns if any(number.startswith(f"{name} ") for number in numbers)]
    meaning = {"worth": "relative value of a token, top two domains"}
    lines = [f"{name} = {meaning.get(name, 'top two domains')}" for name in vectors]
    return "; ".join(["spread = SD of the residuals", *lines])


def _top(values: Mapping[str, Estimate], name: str) -> str:
    """The two domains with the largest entries of a vector of coefficients."""
    entries = {n.removeprefix(f"{name} "): e.value for n, e in values.items() if n.startswith(f"{name} ")}
    return ", ".join(f"{d} {entries[d]:.2f}" for d in sorted(entries, key=lambda d: -entries[d])[:2])


def as_json(surfaces: ResponseModel) -> dict[str, Any]:
    """Plain data: status, notes, noise and every coefficient with its standard error, by task; the audit's rows."""
    tasks = {}
    for i, name in enumerate(surfaces.tasks):
        member = _leading(surfaces, i)
        values = coefficients(member, i)
        tasks[name] = {
            "unit": surfaces.units[name],
            "laws": _parts(surfaces, i),
            "status": surfaces.status[name].value,
            "readiness": surfaces.readiness[name].as_json(),
            "link": _link_json(surfaces.links[name]) if name in surfaces.links else None,
            "notes": list(surfaces.notes[name]),
            "noise": float(surfaces.noise[i]),
            "spread": float(member.sigma[i]),
            "coefficients": {key: [estimate.value, estimate.error] for key, estimate in values.items()},
        }
    audit = None if surfaces.audit is None else surfaces.audit.table.to_dicts()
    return {"summary": _summary(surfaces), "notes": _shared_notes(surfaces), "tasks": tasks, "audit": audit}


def as_html(surfaces: ResponseModel) -> str:
    """The same for a notebook: a table per task, folded away but for the first."""
    parts = [f"<p><b>{escape(line)}</b></p>" for line in _states(surfaces)]
    parts += [f"<p>{escape(_summary(surfaces))}</p>"]
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
        parts.append(f"<pre style='font-family: monospace'>{escape(str(surfaces.audit))}</pre>")
    return "".join(parts)
