"""Results print themselves: what `print` shows is what IPython, rich and, without tables, a notebook show."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.text import Text


class Printer(Protocol):
    """The part of IPython's pretty printer that is used here."""

    def text(self, text: str) -> None:
        """Write literally."""


class Printable:
    """A result whose `str` is what people should see, in place of its fields; the first line says what matters."""

    def __init_subclass__(cls) -> None:
        # IPython asks each class before its bases, and shows the fields of a data class that does not say otherwise.
        cls._repr_pretty_ = Printable._repr_pretty_  # type: ignore[method-assign]

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
