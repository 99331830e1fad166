"""Documents that a Python function yields: `python:MODULE[:FUNCTION]?option=value`, or `python:FILE.py[:FUNCTION]`.

The way to a corpus that no other source reads. The function (by default `documents`) yields texts or `Document`s, the
same ones in the same order every time. Its parameters, which have a text or a whole number as default, are the options
of the source. A module may list in `PACKAGES` the distributions that it reads: their versions and the module's own code
decide whether the data are read again.
"""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.files import sha256_of
from mixlaw.runner.corpora.sources.address import Address, Scheme, Value
from mixlaw.runner.corpora.sources.document import Document
from mixlaw.runner.corpora.sources.part import Part
from mixlaw.runner.packages import versions

FUNCTION = "documents"


def _namespace(place: str, root: Path) -> Mapping[str, Any]:
    """Names of the module, which is imported, or run where it is a file below `root`."""
    name = place.partition(":")[0]
    try:
        return runpy.run_path(str(root / name)) if name.endswith(".py") else vars(import_module(name))
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            f"the source 'python:{place}' cannot import {name!r} ({error}): "
            "install the module, name a file below the study's folder, or correct the name"
        ) from error


def _function(place: str, root: Path) -> Callable[..., Iterable[Document | str]]:
    module, _, name = place.partition(":")
    function = _namespace(place, root).get(name or FUNCTION)
    if not inspect.isroutine(function):
        raise InputError(
            f"the source 'python:{place}' names no function: {module} has no {name or FUNCTION}(); "
            f"write python:{module}:FUNCTION"
        )
    return function


def _options(place: str, root: Path) -> dict[str, Value]:
    """Parameters of the function with their defaults."""
    options: dict[str, Value] = {}
    for name, parameter in inspect.signature(_function(place, root)).parameters.items():
        if not isinstance(parameter.default, str | int):
            raise InputError(
                f"the source 'python:{place}' cannot set the parameter {name!r} ({parameter}): "
                "give it a text or a whole number as default"
            )
        options[name] = parameter.default
    return options


def _read(place: str, root: Path, options: Mapping[str, Value]) -> Iterator[Document]:
    for number, document in enumerate(_function(place, root)(**options)):
        if not isinstance(document, Document | str):
            raise InputError(
                f"the source 'python:{place}' yielded {document!r:.40} as document {number}: yield str or Document"
            )
        yield document if isinstance(document, Document) else Document(document, f"{place} {number}")


def _parts(address: Address) -> list[Part]:
    return [Part(address.place, partial(_read, address.place, address.root, address.options))]


def _identity(address: Address) -> object:
    file = _namespace(address.place, address.root).get("__file__")
    return {"options": address.options, "code": sha256_of(Path(file)) if file else ""}


def _packages(address: Address) -> dict[str, str]:
    return versions(tuple(_namespace(address.place, address.root).get("PACKAGES", ())))


PYTHON = Scheme(_parts, _identity, _options, _packages)
