"""What a result shows, as plain values: a terminal, a notebook and a test read the same page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mixlaw.tables import COLOURS, Table, Tone


@dataclass(frozen=True)
class Page:
    """What a result shows.

    Attributes:
        answer: the sentence that matters; last in a terminal, first in a notebook.
        tone: whether it is good news.
        head: what the result is of.
        tables: the figures.
        notes: what to know.
        more: what to know if one has the time.
    """

    answer: str = ""
    tone: Tone = ""
    head: str = ""
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    more: Sequence[str] = ()

    def html(self) -> str:
        """The page for a notebook."""
        if not self.answer and not self.tables:
            return f"<pre>{escape(self.head)}</pre>"
        colour = f' style="color:{COLOURS[self.tone]}"' if self.tone else ""
        answer = f"<p><b{colour}>{escape(self.answer)}</b></p>" if self.answer else ""
        head = f"<p>{escape(self.head).replace(chr(10), '<br>')}</p>" if self.head else ""
        more = f"<details><summary>more notes</summary>{_list(self.more)}</details>" if self.more else ""
        return f"{answer}{head}{''.join(table.html() for table in self.tables)}{_list(self.notes)}{more}"


def _list(notes: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else ""
