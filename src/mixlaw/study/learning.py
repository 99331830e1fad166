"""Predictions of a study as one long table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.study import Study


def predicted(study: Study, table: pl.DataFrame) -> pl.DataFrame:
    """What the surfaces of a study say about the recipes of a table, a row per row and task."""
    surfaces = study.surfaces()
    import polars as pl

    from mixlaw.analysis.data.design import Design

    design = Design.from_table(table, study.unique)
    found = surfaces.predict(design)
    rows, tasks = len(design), len(surfaces.tasks)
    return pl.DataFrame(
        {
            "run": [run for run in design.runs for _ in range(tasks)],
            "progress": design.progress.numpy().repeat(tasks),
            "task": list(surfaces.tasks) * rows,
            "mean": found.mean.ravel(),
            "lo90": found.lo90.ravel(),
            "hi90": found.hi90.ravel(),
            "law_only": found.law_only.ravel(),
            "distance": found.distance.repeat(tasks),
        }
    )
