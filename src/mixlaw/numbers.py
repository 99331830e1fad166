"""Numbers as people read them: sizes and shares with the digits that matter."""

from __future__ import annotations

import re

_PARTED = re.compile(r"(?<=\d) (?=[%±])|(?<=±) (?=\d)")
_SUFFIXES = ("", "K", "M", "B", "T")


def size(count: float) -> str:
    """Parameters or tokens with three digits.

    Example:
        >>> size(7e9), size(472_904_960), size(999_999), size(96), size(2.5e16)
        ('7B', '473M', '1M', '96', '25,000T')
    """
    power = 0
    while power < len(_SUFFIXES) - 1 and float(f"{count:.3g}") >= 1000:
        count, power = count / 1000, power + 1
    return (f"{count:,.0f}" if count >= 1000 else f"{count:.3g}") + _SUFFIXES[power]


def percent(part: float, digits: int = 0, *, sign: bool = False) -> str:
    """A part of one in percent; with `sign`, gains have a plus, zero nothing.

    Example:
        >>> percent(0.125), percent(-0.0214, 1), percent(0.03, 1, sign=True), percent(-0.0001, sign=True)
        ('12 %', '-2.1 %', '+3.0 %', '0 %')
    """
    text = f"{part:z.{digits}%}".replace("%", " %")
    return f"+{text}" if sign and part > 0 and text.strip("0. %") else text


def unparted(text: str) -> str:
    """The same with spaces where no line ends, before `%` and around `±`: for pages that wrap by themselves."""
    return _PARTED.sub("\u00a0", text)


def share(part: float) -> str:
    """A share in percent.

    Example:
        >>> share(0.125), share(1.0), share(0.0004), share(0.0)
        ('12.5 %', '100.0 %', '<0.1 %', '0.0 %')
    """
    return "<0.1 %" if 0 < part < 0.0005 else percent(part, 1)
