"""Results of suggested runs, which a table may give by their names alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from mixlaw.adapters.sheet import Sheet
from mixlaw.cells import series_of, texts
from mixlaw.errors import InputError, did_you_mean
from mixlaw.numbers import size
from mixlaw.recipe import Recipe
from mixlaw.records import Record, to_table

#: Share of its tokens by which a run may differ from the suggestion: data come in whole sequences.
SAME = 0.01


def completed(sheet: Sheet, jobs: Sequence[Mapping[str, Any]]) -> Sheet:
    """The sheet where rows that are called like a job line have its recipe in all cells that are empty.

    Raises:
        InputError: a cell contradicts the suggestion, or a row without a recipe has the name of none.
    """
    runs = texts(sheet.frame["run"]) if "run" in sheet.frame.columns else []
    recipes = {str(job["run"]): Recipe.from_json(job) for job in jobs}
    if not {*runs} & {*recipes}:
        return sheet
    known = [recipes.get(run or "") for run in runs]
    wanted = to_table([Record(str(run), recipe, {}) for run, recipe in zip(runs, known, strict=True) if recipe])
    rows = [row for row, recipe in enumerate(known) if recipe]
    columns = {name: sheet.frame[name] for name in sheet.frame.columns}
    _refuse_strangers(sheet, [run for run, recipe in zip(runs, known, strict=True) if not recipe], recipes)
    for name in [name for name in wanted.columns if name not in ("run", "progress")]:
        cells = columns[name].to_list() if name in columns else [None] * len(runs)
        given = texts(columns[name]) if name in columns else [None] * len(runs)
        for row, value in zip(rows, wanted[name].to_list(), strict=True):
            cells[row] = value if given[row] is None else cells[row]
        columns[name] = series_of(name, cells)
    filled = replace(sheet, frame=pl.DataFrame(columns))
    _refuse_others(filled, dict(zip(rows, [recipe for recipe in known if recipe], strict=True)), wanted)
    count = len({runs[row] for row in rows})
    note = f"{count} runs are suggested ones: what the table does not say of them is that of suggestions/"
    return replace(filled, notes=(*sheet.notes, note))


def _refuse_strangers(sheet: Sheet, others: Sequence[str | None], recipes: Mapping[str, Recipe]) -> None:
    """Refuse rows without a recipe in a table that has none."""
    if others and "params" not in sheet.frame.columns:
        meant = did_you_mean(str(others[0]), list(recipes)) or "give its params and tokens, or leave it out"
        raise InputError(f"run {others[0]!r} is none of the suggested runs, and the table has no params; {meant}")


def _refuse_others(sheet: Sheet, recipes: Mapping[int, Recipe], wanted: pl.DataFrame) -> None:
    """Refuse rows of another recipe than the suggestion that they are called like."""
    wrong, tokens = list[str](), [name for name in sheet.frame.columns if name.startswith("tokens:")]
    for name in [name for name in ("params", "seed", "lr", *tokens) if name in sheet.frame.columns]:
        usual, cells = float(name == "lr"), sheet.column(name)
        meant = wanted[name].to_list() if name in wanted.columns else [usual] * len(recipes)
        for (row, recipe), value in zip(recipes.items(), meant, strict=True):
            cell = usual if cells[row] is None else cells[row]
            if cell is not None and abs(cell - value) > SAME * (recipe.tokens if name in tokens else value):
                wrong.append(f"{sheet.places[row]}: {name} {size(cell)}, suggested {size(value)}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(
            f"{len(wrong)} cells contradict the suggestions of their runs: {'; '.join(wrong[:5])}{more}; correct them, "
            "or give runs of other recipes other names"
        )
