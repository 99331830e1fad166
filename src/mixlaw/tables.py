"""Tables of results: one value that a terminal, a notebook and a data frame show, each in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl

#: What a number means for a decision.
Tone = Literal["", "better", "worse", "unsure"]
#: Cells of a table as text, the first row its head.
Rows = Sequence[Sequence[str]]
#: Colours that can be read on white and on black, for notebooks.
COLOURS: dict[Tone, str] = {"better": "#1a9850", "worse": "#d6453d", "unsure": "#b8860b"}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        value: what a data frame holds; of an interval, its parts by the end of their columns' names.
        tone: green, red or yellow where there are colours.
    """

    text: str
    value: Any = None
    tone: Tone = ""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        head: what is shown above it.
        name: in data frames; the head where empty.
        numeric: aligned to the right.
        extra: left out of a terminal unless all is asked for.
    """

    head: str
    name: str = ""
    numeric: bool = True
    extra: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: by which `to_polars` knows it.
        columns: each a `Column`, or the head of a column of words.
        rows: cells, each a `Cell` or what its text is of.
        title: a line above it.
        note: what its words mean, below it.
        shown: rows in a terminal unless all is asked for; all where None.
    """

    name: str
    columns: Sequence[object]
    rows: Sequence[Sequence[object]]
    title: str = ""
    note: str = ""
    shown: int | None = None
    heads: tuple[Column, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        heads = (one if isinstance(one, Column) else Column(str(one), numeric=False) for one in self.columns)
        object.__setattr__(self, "heads", tuple(heads))

    def cells(self) -> list[list[str]]:
        """All cells as text, the first row the heads."""
        return [[one.head for one in self.heads], *([cell_of(one).text for one in row] for row in self.rows)]

    def html(self) -> str:
        """The table for a notebook: numbers to the right, the colours of its tones, and rows beyond `shown` folded."""

        title, note = (f"<p>{escape(text)}</p>" if text else "" for text in (self.title, self.note))
        first, rest = self.rows[: self.shown], self.rows[len(self.rows[: self.shown]) :]
        more = f"<details><summary>{len(rest)} more rows</summary>{self._html(rest)}</details>" if rest else ""
        return f"{title}{self._html(first)}{more}{note}"

    def _html(self, rows: Sequence[Sequence[object]]) -> str:
        def style(column: Column, tone: Tone) -> str:
            colour = f";color:{COLOURS[tone]}" if tone else ""
            return f' style="text-align:{"right" if column.numeric else "left"}{colour}"'

        def line(row: Sequence[object]) -> str:
            pairs = zip(self.heads, map(cell_of, row), strict=True)
            return "".join(
                f"<td{style(head, cell.tone)}>{escape(cell.text).replace(chr(10), '<br>')}</td>" for head, cell in pairs
            )

        heads = "".join(f"<th{style(one, '')}>{escape(one.head)}</th>" for one in self.heads)
        body = "".join(f"<tr>{line(row)}</tr>" for row in rows)
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"

    def frame(self) -> pl.DataFrame:
        """The table with its values: intervals as several columns, empty cells as null."""
        import polars as pl

        columns: dict[str, list[Any]] = {}
        for number, head in enumerate(self.heads):
            cells = [cell_of(row[number]) for row in self.rows]
            values = [(cell.text or None) if cell.value is None and not head.numeric else cell.value for cell in cells]
            parts = list(dict.fromkeys(key for value in values if isinstance(value, Mapping) for key in value))
            for part in parts or [""]:
                name = "_".join(filter(None, (head.name or head.head or self.name, part)))
                columns[name] = [value.get(part) if isinstance(value, Mapping) else value for value in values]
        return pl.DataFrame(columns, strict=False)


#: Columns of a table of names and what they have, which shows no heads.
TWO = (Column("", "part", numeric=False), Column("", "content", numeric=False))


def cell_of(cell: object) -> Cell:
    """A cell, of a text or what else is printed."""
    return cell if isinstance(cell, Cell) else Cell(str(cell))


def number(value: float | None, how: str = "", tone: Tone = "") -> Cell:
    """A number in a format, empty where None; percent as everywhere, with a space."""
    return Cell("" if value is None else format(value, how).replace("%", " %"), value, tone)


def html_table(rows: Rows, classes: Rows | None = None) -> str:
    """Cells as HTML, escaped; `classes` holds the CSS class of each cell, "" for none."""

    def line(row: Sequence[str], names: Sequence[str], tag: str) -> str:
        # A head may wrap, though not inside the arrow of `balanced->text`.
        texts = (escape(cell).replace("-&gt;", '<span style="white-space:nowrap">-&gt;</span>') for cell in row)
        cells = (
            f'<{tag} class="{name}">{text}</{tag}>' if name else f"<{tag}>{text}</{tag}>"
            for text, name in zip(texts if tag == "th" else map(escape, row), names, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head, *styles = classes or [[""] * len(rows[0])] * len(rows)
    body = "".join(line(row, names, "td") for row, names in zip(rows[1:], styles, strict=True))
    return f"<table><thead>{line(rows[0], head, 'th')}</thead><tbody>{body}</tbody></table>"
