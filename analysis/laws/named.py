"""Laws by name: ours, and those of other modules as `module:Class`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mixlaw.analysis.laws import LAWS
from mixlaw.analysis.laws.base import Law
from mixlaw.errors import InputError, unknown


def name_of(law: type[Law]) -> str:
    """The name under which `law_named` finds a law."""
    return law.__name__ if LAWS.get(law.__name__) is law else f"{law.__module__}:{law.__qualname__}"


def law_named(name: str, places: Sequence[str | os.PathLike[str]] = ()) -> type[Law]:
    """One of our laws by its name, or that of another module, `module:Class`.

    Args:
        name: of the law.
        places: folders that modules may lie in, besides the working directory and Python's path.

    Raises:
        InputError: there is no such law, or it cannot be imported.
    """
    if ":" not in name:
        if name not in LAWS:
            raise unknown("law", name, LAWS)
        return LAWS[name]
    module, _, path = name.partition(":")
    with importable(places):
        try:
            found: Any = import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"the law {name!r} cannot be imported ({error}): put the file {module.split('.')[0]}.py into the "
                "working directory or the study's folder, or install its package"
            ) from error
    if not hasattr(found, "form"):
        raise InputError(f"{name!r} is no law: it has no form(); derive it from mixlaw.analysis.laws.ParametricLaw")
    law: type[Law] = found
    return law


@contextmanager
def importable(places: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Let modules of the working directory and of these folders be imported inside."""
    before = list(sys.path)
    sys.path[:0] = [str(Path.cwd()), *(str(Path(place).resolve()) for place in places)]
    try:
        yield
    finally:
        sys.path[:] = before
