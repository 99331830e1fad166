"""New studies start from a study.toml that explains itself."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.settings import study_folder


def create(path: str | os.PathLike[str], template: str = "templates/new.toml") -> Path:
    """Create a study folder with a study.toml made from a template that comes with mixlaw; return the path of that.

    Raises:
        InputError: there is a study already.
    """
    toml = study_folder(path) / "study.toml"
    if toml.exists():
        raise InputError(f"there is a study at {toml.parent} already; open it, or choose another folder")
    write_text(toml, (files("mixlaw") / template).read_text(encoding="utf-8"))
    return toml
