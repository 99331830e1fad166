"""Results print themselves: what `print` shows is what IPython and rich show; notebooks show tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mixlaw.errors import InputError, unknown
from mixlaw.page import Page as Page
from mixlaw.tables import Rows as Rows
from mixlaw.tables import html_table as html_table

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from rich.console import RenderableType


class Printer(Protocol):
    """The part of IPython's pretty printer that is used here."""

    def text(self, text: str) -> None:
        """Write literally."""


class Printable:
    """A result that shows a page in place of its fields; a class gives `page`, or a text by `__str__`."""

    def __init_subclass__(cls) -> None:
        # IPython asks each class before its bases, and shows the fields of a data class that does not say otherwise.
        cls._repr_pretty_ = Printable._repr_pretty_  # type: ignore[method-assign]
        cls.__repr__ = Printable.__repr__  # type: ignore[method-assign]

    def page(self) -> Page:
        """What is shown."""
        return Page(head=str(self))

    def to_polars(self, table: str | None = None) -> pl.DataFrame:
        """A table of the result as a data frame, intervals as several columns; the first one where no name is given.

        A result that has no tables yet, as a verification before anything is trained, gives an empty data frame.

        Raises:
            InputError: it has no table of this name.
        """
        tables = {one.name: one for one in self.page().tables}
        if table is None:
            import polars as pl

            return next(iter(tables.values())).frame() if tables else pl.DataFrame()
        if table not in tables:
            raise unknown(f"table of {type(self).__name__}", str(table), tables)
        return tables[table].frame()

    def to_pandas(self, table: str | None = None) -> pd.DataFrame:
        """As `to_polars`, as a pandas data frame.

        Raises:
            InputError: it has no table of this name, or pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise InputError("to_pandas needs pandas: pip install pandas, or take to_polars") from error
        return pd.DataFrame(self.to_polars(table).to_dict(as_series=False))

    def __str__(self) -> str:
        from mixlaw.terminal import plain

        return plain(self.page())

    def __repr__(self) -> str:
        page = self.page()
        return f"<{type(self).__name__}: {(page.answer or page.head).partition(chr(10))[0]}>"

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return self.page().html()

    def __rich__(self) -> RenderableType:
        from mixlaw.terminal import group_of

        return group_of(self.page())
