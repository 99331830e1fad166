"""Numbers as people read them: sizes and shares with the digits that matter."""

from __future__ import annotations

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


def share(part: float) -> str:
    """A share in percent.

    Example:
        >>> share(0.125), share(1.0), share(0.0004), share(0.0)
        ('12.5 %', '100.0 %', '<0.1 %', '0.0 %')
    """
    return "<0.1 %" if 0 < part < 0.0005 else f"{100 * part:.1f} %"
