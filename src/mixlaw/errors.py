"""The one family of errors that is the user's to fix: the command line prints it and exits with 2."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Something given to mixlaw is wrong; the message says what, the value seen, and what to do next."""


def unknown(what: str, name: str, known: Iterable[str], *, most: int = 12) -> InputError:
    """The error for a name that does not exist: the name that was probably meant, or what there is.

    Example:
        >>> str(unknown("law", "Exposur", ["Additive", "Exposure"]))
        "there is no law 'Exposur'; did you mean 'Exposure'?"
    """
    from difflib import get_close_matches

    names = list(known)
    if close := get_close_matches(name, names, 1):
        return InputError(f"there is no {what} {name!r}; did you mean {close[0]!r}?")
    listed = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return InputError(f"there is no {what} {name!r}; choose one of {listed or 'none yet'}")
