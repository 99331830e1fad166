"""The one family of errors that is the user's to fix: the command line prints it and exits with 2."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unicodedata import category

#: What the machine refuses, and what to do about it.
_OF_MACHINE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and repeat the command, which continues"),
    errno.EFBIG: "raise the limit on the size of files and repeat the command, which continues",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "change its permissions, or work on a copy"),
    errno.EMFILE: "raise the limit on open files (ulimit -n) and repeat the command",
    **dict.fromkeys((errno.EIO, errno.ESTALE), "check the disk and repeat the command, which continues"),
}


class InputError(ValueError):
    """Something given to mixlaw is wrong; the message says what, the value seen, and what to do next."""


class InvalidMixture(InputError):
    """A data mixture that is not a point of the simplex."""


class InvalidRecipe(InputError):
    """A recipe that cannot be trained: a bad size, token count, learning rate or phase order."""


def printable(text: str) -> str:
    """A text for a terminal, in which a name cannot move the cursor or turn the text around.

    What cannot be printed is escaped as in JSON, apart from line ends, tabs and blanks.

    Example:
        >>> printable("\x1b[2J café\u202e")
        '\\\\u001b[2J café\\\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" or category(letter) == "Zs" else json.dumps(letter)[1:-1]
        for letter in text
    )


def of_machine(error: Exception) -> str:
    """One sentence for what a disk or a file system refused; empty for an error of any other kind.

    Libraries in Rust report the error of the system within a text of their own.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(found[1])
    if number not in _OF_MACHINE:
        return ""
    name = error.filename if isinstance(error, OSError) else None
    return f"{name or 'a file'} cannot be read or written: {os.strerror(number)}; {_OF_MACHINE[number]}"


@contextmanager
def packages_of_extras() -> Iterator[None]:
    """Let the lack of a package that only training needs be an error that names the extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in ("tokenizers", "transformers"):
            raise
        raise InputError(f"this needs the package {name}: pip install 'mixlaw[train]'") from error


def did_you_mean(name: str, known: Iterable[str], nearness: float = 0.6) -> str:
    """A question for the names most like this one, three at most; empty if none is as near as this, of 0 to 1."""
    from difflib import SequenceMatcher, get_close_matches

    close = get_close_matches(name, [*known], 3, nearness)
    near = [SequenceMatcher(None, one, name).ratio() for one in close]
    best = sorted(one for one, ratio in zip(close, near, strict=True) if ratio == near[0])
    return f"did you mean {' or '.join(map(repr, best))}?" if best else ""


def some(names: Iterable[str], most: int = 12) -> str:
    """The first of these names, on one line whatever they hold."""
    return " ".join(", ".join(list(names)[:most]).split())


def unknown(what: str, name: str, known: Iterable[str], *, most: int = 12) -> InputError:
    """The error for a name that does not exist: the name that was probably meant, or what there is.

    Example:
        >>> str(unknown("law", "Exposur", ["Additive", "Exposure"]))
        "there is no law 'Exposur'; did you mean 'Exposure'?"
    """
    names = list(known)
    if question := did_you_mean(name, names):
        return InputError(f"there is no {what} {name!r}; {question}")
    listed = some(names, most) + (f" and {len(names) - most} more" if len(names) > most else "")
    return InputError(f"there is no {what} {name!r}; choose one of {listed or 'none yet'}")


def key_of(place: Iterable[str | int]) -> str:
    """A place in a document as its keys with dots between, on one line whatever they hold."""
    key = ".".join(map(str, place))
    return key if key.isprintable() else repr(key)
