"""How a study prints itself: its state and the next step, then its content; nothing is computed for it."""

from __future__ import annotations

import json

from mixlaw.errors import InputError
from mixlaw.folder import Folder


def text(study: Folder) -> str:
    """One sentence on the state of the study, then a row for each of its parts; of a damaged one, the error."""
    try:
        head, rows = f"study {study.settings.name}: {state(study)}", _rows(study)
    except InputError as error:
        return f"study {study.settings.name} is damaged: {error}"
    width = max(len(name) for name, _ in rows)
    return "\n".join([head, *(f"{name:>{width}}  {value}" for name, value in rows)])


def state(study: Folder) -> str:
    """What is done, and the next step."""
    measured, fitted, proposals = len(study.measured), _fitted(study), study.proposals()
    done = f"{measured} runs measured"
    if not measured:
        ready = study.has_data
        own = "run() trains its recipes" if ready else "prepare() makes its data, then run() trains its recipes"
        return f"nothing is measured yet; {own}, import_runs() takes runs of your own"
    if not fitted:
        return f"{done}; next: fit()"
    late = f", {measured - fitted} of them not in the fit" if measured > fitted else ""
    if study.settings.target is None:
        return f"{done}{late}, surfaces fitted; next: write [target] into study.toml, then propose()"
    if not proposals:
        return f"{done}{late}, surfaces fitted; next: propose()"
    return f"{done}{late}, surfaces fitted, {_count(len(proposals), 'proposal')}; next: verify(), suggest() or report()"


def _fitted(study: Folder) -> int:
    """Runs that the surfaces were fitted to."""
    path = study.path / "surfaces" / "surfaces.json"
    try:
        return len(set(json.loads(path.read_text(encoding="utf-8"))["runs"])) if path.exists() else 0
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error!r}); fit again") from error


def _rows(study: Folder) -> list[tuple[str, str]]:
    settings, unique, proposals = study.settings, study.unique, study.proposals()
    sizes = (f"{name} ({settings.domains[name].kind.value}, {_tokens(unique.get(name))})" for name in settings.domains)
    units: dict[str, list[str]] = {}
    for task, unit in study.units.items():
        units.setdefault(unit, []).append(task)
    target = str(study.target()) if settings.target else "none"
    return [
        ("folder", str(study.path)),
        ("domains", ", ".join(sizes)),
        ("tasks", "; ".join(f"{', '.join(tasks)} in {unit}" for unit, tasks in units.items()) or "none"),
        ("phases", ", ".join(phase.name for phase in settings.phases)),
        ("target", target),
        *([("proposal", proposals[-1].sentence)] if proposals else []),
    ]


def _tokens(count: float | None) -> str:
    return "unique tokens unknown" if count is None else f"{count:,.0f} unique tokens"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")
