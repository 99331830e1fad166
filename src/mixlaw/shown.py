"""Results print themselves: what `print` shows is what a prompt of IPython and, without tables, a notebook show."""

from __future__ import annotations

from html import escape
from typing import Protocol


class Printer(Protocol):
    """The part of IPython's pretty printer that is used here."""

    def text(self, text: str) -> None:
        """Write literally."""


class Shown:
    """A result whose `str` is what people should see, in place of its fields."""

    def __init_subclass__(cls) -> None:
        # IPython asks each class before its bases, and shows the fields of a data class that does not say otherwise.
        cls._repr_pretty_ = Shown._repr_pretty_  # type: ignore[method-assign]

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
