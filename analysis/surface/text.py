"""How surfaces show themselves: a row per task, the audit, notes, and how far to trust them in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mixlaw.analysis.audit.readiness import Readiness, Verdict
from mixlaw.analysis.surface.coefficients import Estimate, coefficients, law_of
from mixlaw.analysis.surface.link import AccuracyLink, FittedLink
from mixlaw.analysis.surface.member import Member
from mixlaw.analysis.surface.model import ResponseModel, Status
from mixlaw.numbers import percent
from mixlaw.printable import Page
from mixlaw.tables import Cell, Column, Table, Tone, number

SHOWN = 30  # tasks that are printed

#: Verdicts as a table has them.
SHORT: dict[Verdict, tuple[str, Tone]] = {
    Verdict.READY: ("ready", "better"),
    Verdict.FROM_SIZE: ("ready from {size}", "better"),
    Verdict.WEAK: ("weak", "unsure"),
    Verdict.NOISE: ("noise", "worse"),
    Verdict.CHANCE: ("at chance", "worse"),
    Verdict.UNKNOWN: ("too few runs", "unsure"),
}


def _leading(surfaces: ResponseModel, task: int) -> Member:
    """The law that has the most weight in a task."""
    return surfaces.members[int(surfaces.weights[task].argmax())]


def parts_of(surfaces: ResponseModel, task: int) -> dict[str, float]:
    """Share of every law and regressor in the prediction of a task."""
    shares = [] if surfaces.beside is None else surfaces.beside.shares[task].tolist()
    others = dict(zip((one.name for one in surfaces.regressors), shares, strict=True))
    rest = 1 - sum(others.values())
    return {m.name: rest * float(w) for m, w in zip(surfaces.members, surfaces.weights[task], strict=True)} | others


def curve_text(link: AccuracyLink) -> str:
    """A link as a formula."""
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


def page_of(surfaces: ResponseModel) -> Page:
    """A row per task, the audit, what to know, and how far to trust it."""
    tables = [_tasks(surfaces), *(surfaces.audit.tables() if surfaces.audit else ())]
    ahead = surfaces.audit.ahead() if surfaces.audit else []
    notes = [*_states(surfaces), *_shared_notes(surfaces), *_links(surfaces), *ahead]
    head = f"{_summary(surfaces)}, {_laws(surfaces)}"
    return Page(sentence_of(surfaces), _tone(surfaces), head, tables, notes, _ready(surfaces))


def sentence_of(surfaces: ResponseModel) -> str:
    """How many tasks can be optimised for, and how well held-out runs were predicted."""
    usable = (Verdict.READY, Verdict.FROM_SIZE)
    ready = sum(one.verdict in usable for one in surfaces.readiness.values())
    head = f"{ready} of {_counted(len(surfaces.tasks), 'task')} can be optimised for"
    audit = surfaces.audit.sentence if surfaces.audit else "nothing was held out"
    return f"{head}; {audit}."


def _tone(surfaces: ResponseModel) -> Tone:
    doubtful = surfaces.audit is None or bool(surfaces.audit.broken)
    ready = any(one.verdict in (Verdict.READY, Verdict.FROM_SIZE) for one in surfaces.readiness.values())
    return "worse" if not ready else "unsure" if doubtful or Status.EXHAUSTED in surfaces.status.values() else "better"


def _states(surfaces: ResponseModel) -> list[str]:
    """One line for each outcome, with its tasks."""
    alike = {s: [t for t in surfaces.tasks if surfaces.status[t] is s] for s in dict.fromkeys(surfaces.status.values())}
    return [f"{status.value}: {', '.join(tasks)}" for status, tasks in alike.items()]


def _ready(surfaces: ResponseModel) -> list[str]:
    """One line for each verdict on signal and noise."""
    alike: dict[str, list[tuple[float, str]]] = {}
    order = list(Verdict)
    for task, ready in sorted(surfaces.readiness.items(), key=lambda item: order.index(item[1].verdict)):
        ratio = _ratio(ready)
        alike.setdefault(ready.words, []).append((ratio, f"{task} ({ratio:.1f})" if ready.sizes else task))
    measured = all(ready.measured for ready in surfaces.readiness.values())
    noise = (
        "seed standard deviation" if measured else "seed standard deviation (residual SD where no recipe was repeated)"
    )
    head = f"signal-to-noise: spread between recipes of one size / {noise}"
    return [head, *(f"{words}: {_strongest(tasks)}" for words, tasks in alike.items())]


def _ratio(ready: Readiness) -> float:
    return max((size.ratio for size in ready.sizes), default=0.0)


def _strongest(tasks: list[tuple[float, str]]) -> str:
    return ", ".join(name for _, name in sorted(tasks, key=lambda pair: -pair[0]))


def _links(surfaces: ResponseModel) -> list[str]:
    """Whether links predict held-out runs better than the direct fits."""
    if not surfaces.links:
        return []
    errors = {task: surfaces.audit.of_link(task) if surfaces.audit else None for task in surfaces.links}
    labels = {t: f"{t} ({percent(e[0], 1)} against {percent(e[1], 1)})" if e else t for t, e in errors.items()}
    worse = [labels[t] for t, e in errors.items() if e and e[0] > e[1]]
    better = [labels[t] for t, e in errors.items() if not e or e[0] <= e[1]]
    head = "predicted through the loss on the same task (held-out error against that of a direct fit)"
    lines = [f"{head}: {', '.join(better)}"] if better else []
    lines += [f"a direct fit does better, remove the link: {', '.join(worse)}"] if worse else []
    return [*lines, *(f"{task} = {curve_text(link.link)}, with {link.source}" for task, link in surfaces.links.items())]


def _laws(surfaces: ResponseModel) -> str:
    """The laws, the one that counts most first, with their weights over tasks."""
    by_task = [parts_of(surfaces, task) for task in range(len(surfaces.tasks))]
    if len(by_task[0]) == 1:
        return f"law: {surfaces.members[0].name}"
    weights = {name: [parts[name] for parts in by_task] for name in by_task[0]}
    middle = {name: sum(values) / len(values) for name, values in weights.items()}
    shares = [
        f"{name} {percent(middle[name])} ({percent(min(weights[name]))} to {percent(max(weights[name]))})"
        for name in sorted(middle, key=lambda name: -middle[name])
    ]
    return f"laws by weight on held-out runs (range over tasks): {', '.join(shares)}"


def _tasks(surfaces: ResponseModel) -> Table:
    """A row per task: whether it has a signal, its noise and spread, and what its law says."""
    rows = [_task_row(surfaces, i) for i in range(len(surfaces.tasks))]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [Column(name, COLUMNS.get(name, ""), not _is_words(rows, name), name not in PRINTED) for name in names]
    note = "spread = SD of the residuals; worth = relative value of a token, top two domains"
    note = note if any(name.startswith("worth") for name in names) else note.partition(";")[0]
    return Table("tasks", columns, [[row.get(name, "") for name in names] for row in rows], note=note, shown=SHOWN)


#: Columns that are printed where there is room, and names of some in data frames.
PRINTED = ("task", "signal", "signal / noise", "noise of a run", "unit", "spread", "worth", "alpha", "beta")
COLUMNS = {"signal / noise": "signal_to_noise", "noise of a run": "noise"}


def _is_words(rows: Sequence[dict[str, Cell | str]], name: str) -> bool:
    return name == "signal" or any(isinstance(row.get(name), str) for row in rows)


def _task_row(surfaces: ResponseModel, task: int) -> dict[str, Cell | str]:
    """One line of the table: signal, spread, noise, scalars and retentions of the law, two domains that count most."""
    member, name = _leading(surfaces, task), surfaces.tasks[task]
    values, ready = coefficients(member, task), surfaces.readiness[name]
    law = [one.name for one in fields(member.law)]  # type: ignore[arg-type]
    long = "retention" in law  # our laws of phases have a dozen coefficients more: `surfaces[task].law` has them
    vectors = [one for one in law if one != "retention" and any(n.startswith(f"{one} ") for n in values)]
    vectors = [one for one in vectors if not long or one == "worth"]
    scalars = ("alpha", "beta", "floor") if long else law
    shown = [n for n in (*scalars, *values) if n in values and (n in scalars or n.startswith("retention "))]
    text, tone = SHORT[ready.verdict]
    first = next((size for size in ready.sizes if size.significant), None)
    verdict = text.format(size=f"{first.params / 1e6:.3g}M" if first else "")
    return {
        "task": name,
        "signal": Cell(verdict, tone=tone),
        "signal / noise": number(_ratio(ready) if ready.sizes else None, ".1f"),
        **({"law": member.name} if len(surfaces.members) > 1 else {}),
        "noise of a run": number(float(surfaces.noise[task]), ".2g"),
        "unit": surfaces.observed.units[task],
        "spread": number(float(member.sigma[task]), ".1%"),
        **{one: _top(values, one) for one in vectors},
        **{n: _estimate(values[n]) for n in dict.fromkeys(shown) if values[n].error > 0},
    }


def _estimate(estimate: Estimate) -> Cell:
    return Cell(str(estimate), {"": estimate.value, "lo90": estimate.lo90, "hi90": estimate.hi90})


def _top(values: dict[str, Estimate], name: str) -> str:
    """The two domains with the largest entries of a vector of coefficients."""
    entries = {n.removeprefix(f"{name} "): e.value for n, e in values.items() if n.startswith(f"{name} ")}
    return ", ".join(f"{d} {entries[d]:.2f}" for d in sorted(entries, key=lambda d: -entries[d])[:2])


def as_json(surfaces: ResponseModel) -> dict[str, Any]:
    """Plain data: status, notes, noise, and every coefficient of every law by task; the audit's rows."""
    tasks = {}
    for i, name in enumerate(surfaces.tasks):
        shares = parts_of(surfaces, i)
        fitted = {member.name: law_of(member, i, shares[member.name]).as_json() for member in surfaces.members}
        tasks[name] = {
            "unit": surfaces.units[name],
            "laws": {part: fitted.get(part, {"share": share, "coefficients": {}}) for part, share in shares.items()},
            "status": surfaces.status[name].value,
            "readiness": surfaces.readiness[name].as_json(),
            "link": _link_json(surfaces.links[name]) if name in surfaces.links else None,
            "notes": list(surfaces.notes[name]),
            "noise": float(surfaces.noise[i]),
            "spread": float(_leading(surfaces, i).sigma[i]),
        }
    audit = None if surfaces.audit is None else surfaces.audit.table.to_dicts()
    return {
        "summary": _summary(surfaces),
        "sentence": sentence_of(surfaces),
        "notes": _shared_notes(surfaces),
        "tasks": tasks,
        "audit": audit,
    }
