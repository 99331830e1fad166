"""Results print themselves: what `print` shows is what IPython, rich and, without tables, a notebook show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.text import Text


#: Cells of a table, the first row its head.
Rows = Sequence[Sequence[str]]


def text_table(rows: Rows, *, numeric: bool = False, below: Sequence[Sequence[str]] = ()) -> str:
    """Aligned columns.

    Args:
        rows: cells, the first row the head.
        numeric: align all columns but the first to the right.
        below: lines to print under each row of the body, indented past the first column.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if numeric and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if below and number:
            lines += [" " * (widths[0] + 2) + line for line in below[number - 1]]
    return "\n".join(lines)


def html_table(rows: Rows, classes: Rows | None = None) -> str:
    """The same cells as HTML, escaped; `classes` holds the CSS class of each cell, "" for none."""

    def line(row: Sequence[str], names: Sequence[str], tag: str) -> str:
        cells = (
            f'<{tag} class="{name}">{escape(cell)}</{tag}>' if name else f"<{tag}>{escape(cell)}</{tag}>"
            for cell, name in zip(row, names, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head, *styles = classes or [[""] * len(rows[0])] * len(rows)
    body = "".join(line(row, names, "td") for row, names in zip(rows[1:], styles, strict=True))
    return f"<table><thead>{line(rows[0], head, 'th')}</thead><tbody>{body}</tbody></table>"


class Printer(Protocol):
    """The part of IPython's pretty printer that is used here."""

    def text(self, text: str) -> None:
        """Write literally."""


class Printable:
    """A result whose `str` is what people should see, in place of its fields; the first line says what matters."""

    def __init_subclass__(cls) -> None:
        # IPython asks each class before its bases, and shows the fields of a data class that does not say otherwise.
        cls._repr_pretty_ = Printable._repr_pretty_  # type: ignore[method-assign]
        cls.__repr__ = Printable.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {str(self).partition(chr(10))[0]}>"

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        head, _, rest = str(self).partition("\n")
        return f"<p><b>{escape(head)}</b></p><pre>{escape(rest)}</pre>" if rest else f"<pre>{escape(head)}</pre>"

    def __rich__(self) -> Text:
        """The same for rich, the first line in bold."""
        from rich.text import Text

        head, end, rest = str(self).partition("\n")
        return Text.assemble((head, "bold"), end, rest, no_wrap=True, overflow="ignore")
