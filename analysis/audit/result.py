"""Result of an audit: held-out figures of a fit and of its peers, as a table that prints itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from mixlaw.analysis.audit.held import MIXTURES, WITHIN, Held
from mixlaw.numbers import percent
from mixlaw.printable import Page, Printable
from mixlaw.tables import Cell, Column, Table, Tone, number

if TYPE_CHECKING:
    from mixlaw.analysis.data.recipe_features import Shares

#: A task moves with recipes if held-out errors are below this share of those of its mean.
SIGNAL = 0.9
#: Peers that can be put beside the laws, and the shares that they are linear in.
REGRESSIONS: dict[str, Shares] = {"linear": "plain", "linear in roots": "root", "linear in logs": "log"}
OURS, LAW, DIRECT = "surfaces", "law alone", "without link"
#: Coverage of 90 % intervals below which they are clearly too narrow.
LOW = 0.75
#: Methods that are printed.
SHOWN = 6
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
        part = self.table.filter(pl.col("task") == task, pl.col("fold").is_in(WITHIN))
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

    @property
    def sentence(self) -> str:
        """How well held-out runs were predicted, in every direction; the worst coverage is named."""
        if not self.table.height:
            return "too few runs to hold any out"
        said = []
        for (kind,), part in self.table.filter(pl.col("method") == OURS).group_by("fold", maintain_order=True):
            error, coverage = part.select(pl.col("error", "coverage").median()).row(0)
            held = "" if coverage is None else f" with {percent(coverage)} of values in their 90 % intervals"
            said.append(f"leaving {kind} out, the error is {percent(error, 1)}{held}")
        return "; ".join(said)

    @property
    def broken(self) -> list[str]:
        """Kinds of folds in which intervals hold clearly too rarely, in the median over tasks."""
        ours = self.table.filter(pl.col("method") == OURS)
        middle = dict(ours.group_by("fold").agg(pl.col("coverage").median()).iter_rows())
        return [kind for kind, coverage in middle.items() if coverage is not None and coverage < LOW]

    def page(self) -> Page:
        """A table for every kind of fold."""
        tone: Tone = "unsure" if self.broken else ""
        return Page(f"audit: {self.sentence}", tone, tables=self.tables(), notes=self.ahead())

    def tables(self) -> list[Table]:
        """A table for every kind of fold: methods and their medians over tasks."""
        found = []
        for (kind,), part in self.table.group_by("fold", maintain_order=True):
            rows = int(part["rows"].max())  # type: ignore[arg-type]
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
            title = f"audit: leave {kind} out ({rows} rows); medians over tasks, relative to the loss"
            columns = [Column("method", numeric=False), *(Column(name) for name in NUMBERS)]
            found.append(Table(f"audit {kind}", columns, sorted(cells, key=_order), title, shown=SHOWN))
        return found

    def ahead(self) -> list[str]:
        """A sentence for every regression that predicted held-out mixtures better than the surfaces, in the median."""
        rows = self.table.filter(pl.col("fold") == MIXTURES, pl.col("method").is_in([OURS, *REGRESSIONS]))
        middle = dict(rows.group_by("method").agg(pl.col("error").median()).iter_rows())
        return [
            f"{name} predicts held-out mixtures better: {percent(middle[name], 2)} against {percent(middle[OURS], 2)}; "
            "put it beside the laws, in Python by fit(beside=...)"
            for name in REGRESSIONS
            if name in middle and middle[name] < SIGNAL * middle[OURS]
        ]


def _order(row: Sequence[object]) -> tuple[bool, float]:
    """The surfaces first, then the others by their error, those without one last."""
    error = row[1].value if isinstance(row[1], Cell) else None
    return not str(row[0]).startswith(OURS), math.inf if error is None else error


def _medians(rows: pl.DataFrame) -> list[list[Cell | str]]:
    """A line per method: its name and medians over its tasks."""
    middle = rows.group_by("method", maintain_order=True).agg(pl.col(*NUMBERS).median())
    return [[row["method"], *_cells(row)] for row in middle.iter_rows(named=True)]


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    def tone(name: str) -> Tone:
        low = name in ("coverage", "gains") and row[name] is not None and row[name] < LOW
        return "worse" if low else ""

    return [number(row[name], how, tone(name)) for name, how in NUMBERS.items()]


def audit_table(rows: Sequence[dict[str, object]]) -> pl.DataFrame:
    """The audit's columns with their types, also when there are no rows."""
    schema: dict[str, pl.DataType] = dict.fromkeys(("fold", "task", "method"), pl.String()) | {"rows": pl.Int64()}
    return pl.DataFrame(list(rows), schema=schema | dict.fromkeys(NUMBERS, pl.Float64()))
