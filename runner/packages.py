"""Where installed packages keep their files: found through metadata and import specs, nothing is ever imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sysconfig
from functools import lru_cache
from pathlib import Path

from mixlaw.errors import InputError


@lru_cache(maxsize=256)  # the metadata of a distribution is parsed once, not for each of its files
def version(distribution: str) -> str | None:
    """Version of an installed distribution (`python` is the interpreter's own), None where it is not installed."""
    if distribution == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Name and version of those distributions that are installed."""
    numbers = {name: version(name) for name in distributions}
    return {name: number for name, number in numbers.items() if number is not None}


def folder(module: str) -> Path | None:
    """Folder of an installed top-level package, None where there is none; the package is not imported."""
    spec = importlib.util.find_spec(module)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


def required_folder(module: str, distribution: str) -> Path:
    """Folder of a package that a corpus cannot do without.

    Raises:
        InputError: the package is not installed.
    """
    path = folder(module)
    if path is None:
        raise InputError(f'the package {distribution} is not installed: run pip install "mixlaw[demo]"')
    return path


def standard_library() -> Path:
    """Folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))
