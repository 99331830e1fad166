"""Pages in a terminal: as wide as it is, the answer last, in colours where the terminal has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from textwrap import wrap
from typing import TYPE_CHECKING, TextIO

from mixlaw.errors import printable
from mixlaw.page import Page
from mixlaw.tables import Table, Tone, cell_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


#: Columns of output, unless the terminal is narrower or COLUMNS asks for another number.
WIDTH = 100
#: Between columns; width up to which heads are not broken, and up to which words are not.
GAP, HEAD, WORDS = "  ", 12, 24
NO_BREAK = "\N{NO-BREAK SPACE}"
STYLES: dict[Tone, str] = {"": "", "better": "green", "worse": "red", "unsure": "yellow"}


def width_of(stream: TextIO | None = None) -> int:
    """Columns to print in: those of the terminal, at most 100; what COLUMNS says where it is set."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    try:
        return min(WIDTH, os.get_terminal_size(stream.fileno()).columns or WIDTH) if stream is not None else WIDTH
    except (OSError, ValueError):  # no terminal
        return WIDTH


def console_of(stream: TextIO, width: int | None = None) -> Console:
    """A console that changes no text: no markup, no highlighting."""
    from rich.console import Console

    return Console(
        file=stream, width=width or width_of(stream), highlight=False, markup=False, emoji=False, soft_wrap=False
    )


def plain(page: Page, *, everything: bool = False, width: int = WIDTH) -> str:
    """A page as text without colours."""
    from rich.console import Console

    out = StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None, force_jupyter=False)
    console.print(group_of(page, width, everything=everything), crop=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def group_of(page: Page, width: int = WIDTH, *, everything: bool = False) -> RenderableType:
    """A page as rich shows it: head, tables, notes, and the answer at the end, where the eye is."""
    from rich.console import Group

    parts: list[RenderableType] = [_text(page.head, width)] if page.head else []
    for table in page.tables:
        parts += [*_gap(parts), *_table(table, width, everything)]
    notes = [*page.notes, *(page.more if everything else ())]
    hidden = len(page.more) if not everything else 0
    if hidden:
        notes.append(f"{hidden} more note{'s' * (hidden != 1)}: --all")
    if notes:
        parts += [*_gap(parts), _bullets(notes, width)]
    if page.answer:
        parts += [*_gap(parts), _text(page.answer, width, f"bold {STYLES[page.tone]}".strip())]
    return Group(*parts)


def _text(text: str, width: int, style: str = "") -> RenderableType:
    """Text in lines of a width, in which no word is broken: a path can be copied."""
    from rich.text import Text

    lines = printable(text).split("\n")
    lines = [part for line in lines for part in _lines(line, width) or [""]]
    return Text("\n".join(lines), style=style, overflow="ignore")


def _lines(line: str, width: int) -> list[str]:
    """A line in several, those that follow below its words; a number keeps its `%` and its `±`."""
    indent, whole = line[: len(line) - len(line.lstrip())], line
    for sign in (" %", " ± "):
        whole = whole.replace(sign, sign.replace(" ", NO_BREAK))
    lines = wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [part.replace(NO_BREAK, " ") for part in lines]


def _gap(before: list[RenderableType]) -> list[RenderableType]:
    from rich.text import Text

    return [Text("")] if before else []


def _bullets(notes: list[str], width: int) -> RenderableType:
    from rich.table import Table as Grid

    grid = Grid.grid(padding=(0, 1, 0, 0))
    for note in notes:
        grid.add_row("-", _text(note, width - 2))
    return grid


def _table(table: Table, width: int, everything: bool) -> list[RenderableType]:
    """A table in one piece, without the columns that have no room; in several pieces where everything is wanted."""
    from rich.text import Text

    table = _printable(table)
    rows = table.rows if everything else table.rows[: table.shown]
    columns = [i for i, column in enumerate(table.heads) if everything or not column.extra]
    pieces = _pieces(table, columns, width)
    hidden = len(table.rows) - len(rows)
    more = [f"{hidden} more row{'s' * (hidden != 1)}: --all"] if hidden else []
    if not everything and len(pieces) > 1:
        left = [table.heads[i].head for piece in pieces[1:] for i in piece[1:]]
        more.append(f"no room for: {', '.join(left)}: --all")
        pieces = pieces[:1]
    below = [Text(text, style="dim") for text in (*more, *([table.note] if table.note else []))]
    title = [Text(table.title, style="bold")] if table.title else []
    grids = [_grid(table, piece, rows) for piece in pieces] if rows else []
    return [*title, *(part for grid in grids for part in ([Text("")] if grid is not grids[0] else []) + [grid]), *below]


def _printable(table: Table) -> Table:
    """A table, all its words as a terminal may have them."""
    heads = [replace(column, head=printable(column.head)) for column in table.heads]
    cells = [[replace(cell, text=printable(cell.text)) for cell in map(cell_of, row)] for row in table.rows]
    return replace(table, columns=heads, rows=cells, title=printable(table.title), note=printable(table.note))


def _pieces(table: Table, columns: list[int], width: int) -> list[list[int]]:
    """Columns side by side as far as the width allows, the first column in every piece."""
    first, *rest = columns
    pieces, room = [[first]], width - _least(table, first)
    for i in rest:
        need = _least(table, i) + len(GAP)
        if need > room and len(pieces[-1]) > 1:
            pieces.append([first])
            room = width - _least(table, first)
        pieces[-1].append(i)
        room -= need
    return pieces


def _grid(table: Table, columns: list[int], rows: Sequence[Sequence[object]]) -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text

    heads = any(column.head for column in table.heads)
    grid = Grid(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold", show_header=heads)
    for i in columns:
        column, least = table.heads[i], _least(table, i)
        head = "\n".join(_head(column.head, least))
        side = "right" if column.numeric else "left"
        grid.add_column(Text(head), justify=side, overflow="fold", min_width=least)  # type: ignore[arg-type]
    for row in rows:
        cells = (cell_of(row[i]) for i in columns)
        grid.add_row(*(Text(cell.text, style=STYLES[cell.tone]) for cell in cells))
    return grid


def _least(table: Table, column: int) -> int:
    """The least width of a column: numbers are not broken, words are, beyond some width."""
    head, cells = table.heads[column], (cell_of(row[column]) for row in table.rows)
    lines = (line for cell in cells for line in cell.text.split("\n"))
    widest = max((len(line) for line in lines), default=0)
    least = widest if head.numeric else max(min(widest, WORDS), min(len(head.head), HEAD + 4))
    return max(least, *(len(line) for line in _head(head.head, least)), 1)


def _head(head: str, least: int) -> list[str]:
    """A head in lines that are hardly wider than the cells."""
    return wrap(head, max(least, HEAD), break_long_words=False)
