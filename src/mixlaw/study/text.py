"""How a study shows itself: its content, then its state and the next step; nothing is computed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mixlaw.analysis.surface.saved import FORMAT, format_and_runs
from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.numbers import size
from mixlaw.printable import Page
from mixlaw.records import Measurement
from mixlaw.tables import TWO, Cell, Column, Table, number
from mixlaw.terminal import plain

if TYPE_CHECKING:
    from mixlaw.optimizer.answers.proposal import Proposal

SHOWN = 30  # domains that are printed
PYTHON = "{}()"  # how a next step is written there


def text(study: Folder) -> str:
    """One sentence on the state of the study, with methods as next steps, after a row for each of its parts."""
    return plain(page(study))


def page(study: Folder, step: str = PYTHON) -> Page:
    """The parts of the study, its state and the next step; where its settings or files are wrong, the error.

    Args:
        study: what is shown.
        step: how a verb is written: "{}()" in Python, "mixlaw {} STUDY" on the command line.
    """
    try:
        return Page(f"study {study.settings.name}: {state(study, step)}", tables=_tables(study))
    except InputError as error:
        return Page(f"study {study.settings.name}: {error}", "worse")


def state(study: Folder, step: str) -> str:
    """What is done, and the next step."""
    measured, proposals = len(study.measured), study.proposals()
    version, fitted = format_and_runs(study.path / "surfaces")
    done = f"{measured} runs measured"
    waiting = _waiting(study)
    own = step.format("import_runs" if step == PYTHON else "import")
    if not measured:
        run = f"{step.format('run')} trains its recipes"
        ours = run if study.has_data else f"{step.format('prepare')} makes its data, then {run}"
        yours = f"{own} takes runs of your own"
        if not study.has_data and all(domain.source is None for domain in study.settings.domains.values()):
            ours = step.format("suggest") + ("" if step == PYTHON else " --budget FLOPS --queue")
            ours += " lists runs for your trainer"
        if waiting:
            yours = f"{own} takes the results of {_count(waiting, 'suggested run')}, listed in suggestions/"
        return f"nothing is measured yet; {ours}, {yours}"
    done += f", {_count(waiting, 'suggested run')} not yet" if waiting else ""
    if not fitted:
        return f"{done}; next: {step.format('fit')}"
    if version != FORMAT:
        return f"{done}, surfaces fitted by another version of mixlaw; next: {step.format('fit')}"
    late = f", {measured - fitted} of them not in the fit" if measured > fitted else ""
    if not proposals:
        propose = step.format("propose")
        if study.settings.target is None:
            now = "" if step == PYTHON else f", or {propose} --params 7B --tokens 1T"
            propose = f"write [target] into study.toml, then {propose}{now}"
        return f"{done}{late}, surfaces fitted; next: {propose}"
    last = [step.format(verb) for verb in ("verify", "suggest", "report")]
    return (
        f"{done}{late}, surfaces fitted, {_count(len(proposals), 'proposal')}; next: {last[0]}, {last[1]} or {last[2]}"
    )


def _waiting(study: Folder) -> int:
    """Suggested runs that are not measured yet."""
    jobs = {job["run"] for job in study.suggested()}
    return len(jobs - study.measured - {record.run for record in study.records()}) if jobs else 0


def _tables(study: Folder) -> list[Table]:
    settings, unique, proposals = study.settings, study.unique, study.proposals()
    kinds = ((name, settings.domains[name].kind.value, unique.get(name)) for name in settings.domains)
    domains = [[name, kind, Cell("unknown" if n is None else size(n), n)] for name, kind, n in kinds]
    units: dict[str, list[str]] = {}
    for task, unit in study.units.items():
        units.setdefault(unit, []).append(task)
    parts = [
        ("folder", str(study.path)),
        ("tasks", "; ".join(f"{', '.join(tasks)} in {unit}" for unit, tasks in units.items()) or "none"),
        ("phases", ", ".join(phase.name for phase in settings.phases)),
        ("target", str(study.target()) if settings.target else _other_target(proposals)),
        *([("proposal", proposals[-1].sentence)] if proposals else []),
    ]
    domain_table = Table("domains", ["domain", "kind", Column("unique tokens", "unique_tokens")], domains, shown=SHOWN)
    return [domain_table, Table("parts", TWO, parts)]


def _other_target(proposals: Sequence[Proposal]) -> str:
    """What is said of the target where study.toml has none."""
    last = f" in study.toml; that of proposal {proposals[-1].number}: {proposals[-1].target}" if proposals else ""
    return f"none{last}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def task_table(values: Mapping[str, Measurement], units: Mapping[str, str]) -> Table:
    """A table of measurements: value, standard error, and the smallest effect that it can show."""
    columns = ["task", Column("value"), Column("standard error", "stderr"), Column("smallest effect"), "unit"]
    rows = [
        [task, number(m.value, ".4g"), number(m.stderr, ".2g"), number(m.smallest_effect, ".2g"), units.get(task, "")]
        for task, m in values.items()
    ]
    return Table("tasks", columns, rows)
