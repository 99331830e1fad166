"""What the runs teach: fit, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixlaw.errors import InputError, unknown
from mixlaw.folder import Folder
from mixlaw.progress import Progress, progress_or_bar

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.adapters.tables import Table
    from mixlaw.analysis.surface.surface import Surfaces


def fit(
    study: Folder,
    *,
    law: str | None = None,
    table: Table | None = None,
    save: bool | None = None,
    progress: Progress | None = None,
) -> Surfaces:
    """Fit the response of every task to the measured runs, and save it in surfaces/.

    Args:
        study: the study.
        law: name of one law to fit alone.
        table: rows to fit in place of all records, as `import_runs` takes them.
        save: whether the study's surfaces are replaced; None: unless a law or a table is given.
        progress: called with the share done and the current step.

    Raises:
        InputError: nothing is measured yet, or there is no such law.
    """
    from mixlaw.adapters.tables import frame_of

    rows = study.table() if table is None else frame_of(table)
    if rows.is_empty():
        raise InputError(
            f"study {study.path} has no records; train with `mixlaw run` or bring runs with `mixlaw import`"
        )
    from mixlaw.analysis.fit import fit  # seconds of imports: errors in the study are reported before
    from mixlaw.analysis.laws import LAWS

    if law is not None and law not in LAWS:
        raise unknown("law", law, LAWS)
    with progress_or_bar("fit", progress) as report:
        surfaces = fit(
            rows,
            units=study.units,
            unique=study.unique,
            law=None if law is None else LAWS[law],
            links=study.settings.links(),
            chance=study.chance,
            progress=report,
        )
    if save or (save is None and law is None and table is None):
        surfaces.save(study.path / "surfaces")
    return surfaces


def predict(study: Folder, table: Table, *, mapping: str | Path | None = None) -> pl.DataFrame:
    """Predict every task for the recipes of a table, a row per row and task.

    Args:
        study: the study, with surfaces.
        table: a polars or pandas frame, or a file, with the columns run, params, tokens:<phase>:<domain> and the
            optional ones; metrics are not needed.
        mapping: TOML file that says what the columns of another table mean.

    Returns:
        Columns run, progress, task, mean, lo90, hi90, law_only, distance (to the measured runs).

    Raises:
        InputError: there are no surfaces, or the table lacks a column or holds a value that makes no sense.
    """
    surfaces = study.surfaces()
    import polars as pl

    from mixlaw.adapters.gather import recipes
    from mixlaw.analysis.data.design import Design

    design = Design.from_table(recipes(table, None if mapping is None else Path(mapping)), study.unique)
    prediction = surfaces.predict(design)
    rows, tasks = len(design), len(surfaces.tasks)
    return pl.DataFrame(
        {
            "run": [run for run in design.runs for _ in range(tasks)],
            "progress": design.progress.numpy().repeat(tasks),
            "task": list(surfaces.tasks) * rows,
            "mean": prediction.mean.ravel(),
            "lo90": prediction.lo90.ravel(),
            "hi90": prediction.hi90.ravel(),
            "law_only": prediction.law_only.ravel(),
            "distance": prediction.distance.repeat(tasks),
        }
    )
