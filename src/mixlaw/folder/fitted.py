"""Whether surfaces on disk are what a fit would give now: from the same runs and settings, by the same code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixlaw.files import write_json

if TYPE_CHECKING:
    import polars as pl

_NAME = "fitted_from.json"


def key_of(table: pl.DataFrame, settings: Mapping[str, Any]) -> str:
    """Hash of everything that a fit depends on: rows, what was told about them, and the code that fits."""
    import torch

    import mixlaw.analysis

    found = hashlib.sha256(json.dumps([table.columns, table.rows(), settings], sort_keys=True, default=str).encode())
    folder = Path(str(mixlaw.analysis.__file__)).parent
    for path in sorted(folder.rglob("*.py")):  # numbers of formats are changed by hand, and forgotten
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    found.update(torch.__version__.encode())
    return found.hexdigest()


def remember(folder: Path, key: str) -> None:
    """Note what the surfaces in a folder were fitted from."""
    write_json(folder / _NAME, {"key": key, "content": _content(folder)})


def is_current(folder: Path, key: str) -> bool:
    """Whether the surfaces in a folder are those of this key, and were not changed or replaced since."""
    try:
        noted = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(noted == {"key": key, "content": _content(folder)})


def _content(folder: Path) -> str:
    files = sorted(path for path in folder.glob("*") if path.name != _NAME and not path.name.startswith("."))
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
