"""The one family of errors that is the user's to mend: the command line prints it and exits with 2."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to mixlaw is wrong; the message says what, the value seen, and what to do next."""
