"""A study: a folder and its verbs, in the order of the data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.printable import Printable
from mixlaw.settings import study_folder
from mixlaw.study import choosing, contents, evaluating, learning, next_runs, sharing, showing, text, training

if TYPE_CHECKING:
    from mixlaw.adapters.importing import Understood
    from mixlaw.adapters.reading import Table
    from mixlaw.adapters.units import Units


def new_study(path: str | os.PathLike[str]) -> Study:
    """Create a study with a commented study.toml to fill in.

    Raises:
        InputError: there is a study already.
    """
    from mixlaw.templates import create

    return Study(create(path))


def open_study(path: str | os.PathLike[str], *, target: Mapping[str, Any] | None = None) -> Study:
    """Open the study in a folder; a path to its study.toml means the same.

    Args:
        path: of the study.
        target: changes to [target] of study.toml for this value alone, in the words of study.toml: every verb of it
            answers for them, and nothing is written.

    Raises:
        InputError: there is none, or its study.toml or the changes are wrong.

    Example:
        >>> open_study("runs", target={"params": "7B", "tokens": "1T", "weights": {"code": 2}})  # doctest: +SKIP
    """
    return Study(path, changes=target)


def import_runs(
    study: Study | str | os.PathLike[str],
    table: Table,
    *,
    unit: Units = None,
    domains: str | Path | None = None,
    mapping: str | Path | None = None,
    results: Sequence[str | Path] = (),
    replace: bool = False,
) -> Study:
    """Import runs of any trainer into a study, which is created if there is none.

    Args:
        study: a study, or its folder.
        table: a row per run: a polars or pandas frame, or the path of a CSV, Parquet or NDJSON file, of an export of
            Weights & Biases, or of a folder of tables that the mapping names.
        unit: of tasks whose unit neither study.toml nor the mapping names: one for all, {task: unit}, or a list in
            which some are "TASK=UNIT"; a task may be a glob.
        domains: TOML file with kind and unique tokens of domains.
        mapping: TOML file that says what the columns mean, as in `mixlaw.adapters.mapping`; without it, columns are
            those of `mixlaw.records`.
        results: files and folders of lm-evaluation-harness.
        replace: whether values that contradict those of the study take their place. Without it they are refused; rows,
            tasks and phases that the study lacks are added either way.

    Returns:
        The study; its attribute `imported` is what the table was understood to hold, with notes and warnings.

    Raises:
        InputError: something contradicts itself or the study, which is then unchanged.
    """
    path = study.path if isinstance(study, Study) else study_folder(study)
    given = {"unit": unit, "domains": domains, "mapping": mapping, "results": results, "replacing": replace}
    return Study(path, imported=_understood(path, table, given))


def preview_import(
    study: Study | str | os.PathLike[str], table: Table, *, replace: bool = False, **options: Any
) -> Understood:
    """What `import_runs`, which has the same arguments, would understand of a table; nothing is written.

    Raises:
        InputError: as `import_runs`.
    """
    path = study.path if isinstance(study, Study) else study_folder(study)
    return _understood(path, table, {**options, "replacing": replace, "dry_run": True})


def _understood(path: Path, table: Table, given: Mapping[str, Any]) -> Understood:
    from mixlaw.adapters.importing import import_into

    there = Folder(path) if (path / "study.toml").exists() else None
    known: dict[str, Any] = {"units": there.units, "suggested": there.suggested()} if there else {"units": {}}
    return import_into(path, table, **known, **given)


class Study(Folder, Printable):
    """A study on disk; every verb reads files anew and writes whole ones, so several processes may share it.

    Attributes:
        path: its folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        changes: Mapping[str, Any] | None = None,
        imported: Understood | None = None,
    ) -> None:
        super().__init__(path, changes)
        self.__dict__["_imported"] = imported

    @property
    def imported(self) -> Understood:
        """What `import_runs`, which returned this value, understood of its table.

        Raises:
            InputError: it was opened, not returned by an import.
        """
        understood: Understood | None = self.__dict__["_imported"]
        if understood is None:
            raise InputError("nothing was imported here; `import_runs` returns a study that knows what it imported")
        return understood

    import_runs = import_runs
    prepare = training.prepare
    contamination = training.contamination
    plan = training.plan
    run = training.run
    evaluate = evaluating.evaluate
    dry_run = training.dry_run

    fit = learning.fit
    predict = learning.predict

    propose = choosing.propose
    what_if = choosing.what_if
    compare = choosing.compare
    pareto = choosing.pareto
    dependence = choosing.dependence
    verify = choosing.verify
    suggest = next_runs.suggest

    status = contents.status
    show = contents.show
    plots = property(showing.plots)
    report = showing.report
    export = showing.export
    dashboard = showing.dashboard
    push = sharing.push

    page = text.page
