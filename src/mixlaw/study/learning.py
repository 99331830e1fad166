"""What the runs teach: fit, predict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.folder import Folder
from mixlaw.folder.fitted import is_current, key_of, remember
from mixlaw.progress import Progress, progress_or_bar

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.adapters.reading import Table
    from mixlaw.analysis.laws.base import Law
    from mixlaw.analysis.surface.surface import Surfaces


def fit(
    study: Folder,
    *,
    law: str | type[Law] | None = None,
    beside: Mapping[str, str | type[Law] | Any] | None = None,
    table: Table | None = None,
    save: bool | None = None,
    refit: bool = False,
    progress: Progress | None = None,
) -> Surfaces:
    """Fit the response of every task to the measured runs, and save it in surfaces/.

    Args:
        study: the study.
        law: one law to fit alone: its name, or "module:Class" of one of your own, or the class; the module lies in the
            working directory, in the study's folder or is installed. A published law is fitted as its authors do.
        beside: more laws, named in the same way, and scikit-learn regressors: audited in the same folds, stacked where
            they predict held-out runs better.
        table: rows to fit in place of all records, as `import_runs` takes them.
        save: whether the study's surfaces are replaced; None: unless a law or a table is given.
        refit: fit anew though neither runs, nor what study.toml says of them, nor mixlaw have changed since the last
            fit; its surfaces are the answer otherwise, and `unchanged` says so.
        progress: called with the share done and the current step.

    Raises:
        InputError: nothing is measured yet, or there is no such law.
    """
    from mixlaw.adapters.reading import frame_of

    rows = study.table() if table is None else frame_of(table)
    if rows.is_empty():
        raise InputError(
            f"study {study.path} has no records; train with `mixlaw run` or bring runs with `mixlaw import`"
        )
    told, folder = _told(study), study.path / "surfaces"
    key = key_of(rows, told) if law is None and not beside and table is None and save is not False else ""
    if key and not refit and is_current(folder, key):
        surfaces = study.surfaces()
        surfaces.__dict__["unchanged"] = True  # a frozen value, told where it comes from
        return surfaces
    from mixlaw.analysis.fit import fit  # seconds of imports: errors in the study are reported before
    from mixlaw.analysis.laws.named import law_named

    def of(one: Any) -> Any:
        return law_named(one, (study.path,)) if isinstance(one, str) else one

    named = None if law is None else of(law)
    others = {name: of(one) for name, one in (beside or {}).items()}
    with progress_or_bar("fit", progress) as report:
        surfaces = fit(rows, **told, law=named, beside=others, progress=report)
    if save or (save is None and law is None and table is None):
        surfaces.save(folder)
        if key:
            remember(folder, key)
    return surfaces


def _told(study: Folder) -> dict[str, Any]:
    """What a fit is told about the rows, by the names of its arguments."""
    known = {"units": study.units, "unique": study.unique, "phases": study.phases}
    return {**known, "links": study.settings.links(), "chance": study.chance}


def extrapolated(study: Folder, predictions: pl.DataFrame) -> str:
    """A warning of recipes that are farther from every measured run than these are apart; empty where none is."""
    reach = study.surfaces().reach()
    far = predictions.filter(predictions["distance"] > reach)
    names = far["run"].unique(maintain_order=True).to_list()
    if not names:
        return ""
    count, most = predictions["run"].n_unique(), max(far["distance"].to_list())
    return (
        f"{len(names)} of {count} recipes are extrapolated, up to {most:.3g} from the nearest measured run, which are "
        f"{reach:.3g} apart at most (standard deviations of the measured runs): {', '.join(names[:3])}"
    )


def predict(study: Folder, table: Table, *, mapping: str | Path | None = None) -> pl.DataFrame:
    """Predict every task for the recipes of a table, a row per row and task.

    Args:
        study: the study, with surfaces.
        table: a polars or pandas frame, or a file, with the columns run, params, tokens:<phase>:<domain> and the
            optional ones; metrics are not needed.
        mapping: TOML file that says what the columns of another table mean.

    Returns:
        Columns run, progress, task, mean, lo90, hi90, law_only, distance (to the nearest measured run, in standard
            deviations of the measured runs).

    Raises:
        InputError: there are no surfaces, or the table lacks a column or holds a value that makes no sense.
    """
    surfaces = study.surfaces()
    import polars as pl

    from mixlaw.adapters.gather import recipes
    from mixlaw.analysis.data.design import Design

    wanted = recipes(table, None if mapping is None else Path(mapping), study.phases)
    design = Design.from_table(wanted, study.unique, study.phases)
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
