"""Result of an audit: held-out figures of a fit and of its peers, as a table that prints itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mixlaw.analysis.audit.held import Held
from mixlaw.analysis.audit.peers import REGRESSIONS
from mixlaw.printable import Printable, text_table

#: A task moves with recipes if held-out errors are below this share of those of its mean.
SIGNAL = 0.9
OURS, LAW, DIRECT = "surfaces", "law alone", "without link"
#: Figures of a method, and their printed format.
NUMBERS = {"error": ".2%", "spearman": ".3f", "regret": ".2%", "coverage": ".0%", "width": ".2%", "gains": ".0%"}


@dataclass(frozen=True, eq=False)
class Audit(Printable):
    """Held-out figures of a fit.

    Attributes:
        table: one row per fold kind, task and method: `rows` held out, `error` (root mean square of relative error of
            the loss), `spearman`, `regret` (how much worse, relative, than the best held-out run is the one that the
            method would have chosen), `coverage` of the 90 % intervals, their median relative `width`, and coverage of
            the intervals of `gains`, differences from the mean over the rows; empty where a method has none.
        held: predictions for the rows of each fold, not calibrated.
    """

    table: pl.DataFrame
    held: tuple[Held, ...] = ()

    def has_signal(self, task: str) -> bool:
        """Whether held-out mixtures of a task are predicted better than by its mean; True where none was held out."""
        part = self.table.filter(pl.col("task") == task, pl.col("fold") == "mixtures")
        if not part.height:
            return True
        error = dict(zip(part["method"], part["error"], strict=True))
        return bool(error[OURS] < SIGNAL * error["mean"])

    def of_link(self, task: str) -> tuple[float, float] | None:
        """Held-out error of a linked task through its link and by its own fit; None where none was held out."""
        part = self.table.filter(pl.col("task") == task, pl.col("method").is_in([OURS, DIRECT]))
        errors = {method: (rows["error"] ** 2).mean() for (method,), rows in part.group_by("method")}
        if DIRECT not in errors:
            return None
        return float(errors[OURS]) ** 0.5, float(errors[DIRECT]) ** 0.5  # type: ignore[arg-type]

    def __str__(self) -> str:
        if not self.table.height:
            return "audit: too few runs to hold any out"
        lines = ["audit: held-out runs, medians over tasks (error, regret and width relative to the loss)"]
        for (kind,), part in self.table.group_by("fold", maintain_order=True):
            rows = int(part["rows"].max())  # type: ignore[arg-type]
            lines.append(f"  leave {kind} out ({rows} rows)")
            compared = part.filter(pl.col("method") != DIRECT)  # it has rows of linked tasks alone
            tasks = {method: tuple(rows["task"]) for (method,), rows in compared.group_by("method")}
            fewer = {some for some in tasks.values() if set(some) < set(tasks[OURS])}
            cells = _medians(
                compared.filter(~pl.col("method").is_in([m for m, some in tasks.items() if some in fewer]))
            )
            for some in sorted(fewer):  # medians over other tasks say nothing beside the ones above
                same = [OURS, *(method for method in tasks if tasks[method] == some)]
                shown = compared.filter(pl.col("task").is_in(some), pl.col("method").is_in(same))
                number = f"{len(some)} of {len(tasks[OURS])} tasks"
                cells += [[f"{method} ({number})", *numbers] for method, *numbers in _medians(shown)]
            lines += [f"    {line}" for line in text_table([["", *NUMBERS], *cells], numeric=True).splitlines()]
        return "\n".join([*lines, *self.ahead()])

    def ahead(self) -> list[str]:
        """A sentence for every regression that predicted held-out mixtures better than the surfaces, in the median."""
        rows = self.table.filter(pl.col("fold") == "mixtures", pl.col("method").is_in([OURS, *REGRESSIONS]))
        middle = dict(rows.group_by("method").agg(pl.col("error").median()).iter_rows())
        return [
            f"  {name} predicts held-out mixtures better: {middle[name]:.2%} against {middle[OURS]:.2%}; "
            "put it beside the laws, fit(beside=...)"
            for name in REGRESSIONS
            if name in middle and middle[name] < SIGNAL * middle[OURS]
        ]


def _medians(rows: pl.DataFrame) -> list[list[str]]:
    """A line per method: its name and medians over its tasks."""
    middle = rows.group_by("method", maintain_order=True).agg(pl.col(*NUMBERS).median())
    return [[row["method"], *_cells(row)] for row in middle.iter_rows(named=True)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return ["" if row[name] is None else format(row[name], how) for name, how in NUMBERS.items()]


def audit_table(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    """The audit's columns with their types, also when there are no rows."""
    schema: dict[str, pl.DataType] = dict.fromkeys(("fold", "task", "method"), pl.String()) | {"rows": pl.Int64()}
    return pl.DataFrame(list(rows), schema=schema | dict.fromkeys(NUMBERS, pl.Float64()))
