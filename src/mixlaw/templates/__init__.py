"""New studies start from a study.toml that explains itself."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.study.summaries import Written


def create(folder: Path, template: str = "templates/new.toml") -> Written:
    """Create a study folder with a study.toml made from a template that comes with mixlaw.

    Raises:
        InputError: there is a study already.
    """
    path = folder / "study.toml"
    if path.exists():
        raise InputError(f"there is a study at {folder} already; open it, or choose another folder")
    write_text(path, (files("mixlaw") / template).read_text(encoding="utf-8"))
    return Written(path)
