"""Small results that only the command line and notebooks need: what the data holds, what was written where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.files import replacing
from mixlaw.printable import Printable

if TYPE_CHECKING:
    import polars as pl

    from mixlaw.runner.batches.manifest import Manifest
    from mixlaw.runner.corpora.contamination import Contamination


@dataclass(frozen=True)
class DataSummary(Printable):
    """What a data folder holds, as a table; and the evaluation items in its training text, if they were looked for."""

    manifest: Manifest
    contamination: Contamination | None = None

    def as_json(self) -> dict[str, Any]:
        """The manifest as plain data."""
        found = {} if self.contamination is None else self.contamination.as_json()
        return {**self.manifest.model_dump(mode="json"), **found}

    def __str__(self) -> str:
        head = f"{'domain':>12} {'documents':>10} {'bytes':>12} {'unique tokens':>14} {'held-out tokens':>16}"
        rows = [
            f"{name:>12} {d.documents:>10,} {d.bytes:>12,} {d.unique_tokens:>14,} {d.held_out_tokens:>16,}"
            for name, d in self.manifest.domains.items()
        ]
        items = ", ".join(
            f"{name} {found.count}" + (f" ({found.missing})" if found.missing else "")
            for name, found in self.manifest.items.items()
        )
        tail = f"vocabulary {self.manifest.vocabulary:,}; items: {items or 'none'}; data {self.manifest.hash[:12]}"
        found = [] if self.contamination is None else ["", str(self.contamination)]
        return "\n".join([head, *rows, tail, *found])


@dataclass(frozen=True)
class Written(Printable):
    """A file that a command wrote."""

    path: Path
    rows: int | None = None

    @classmethod
    def csv(cls, table: pl.DataFrame, path: Path) -> Written:
        """Write a table as CSV, whole or not at all."""
        with replacing(path) as temporary:
            table.write_csv(temporary)
        return cls(path, table.height)

    def as_json(self) -> dict[str, Any]:
        """Path, and rows of a table."""
        return {"path": str(self.path), **({} if self.rows is None else {"rows": self.rows})}

    def __str__(self) -> str:
        return f"wrote {self.path}" + ("" if self.rows is None else f", {self.rows:,} rows")
