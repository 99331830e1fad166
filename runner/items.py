"""Items of the tasks that are asked besides held-out text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mixlaw.runner.corpora.manifest import ItemsManifest


def build_items(
    folder: Path, domains: Mapping[str, str], held_out: Mapping[str, Iterable[Any]]
) -> dict[str, ItemsManifest]:
    """Write items."""
    return {}
