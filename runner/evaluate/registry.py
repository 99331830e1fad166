"""Measures by their kind: how a worker reads what study.toml says of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlaw.runner.evaluate.choices import Items
from mixlaw.runner.evaluate.harness import Harness
from mixlaw.runner.evaluate.judge import Judged
from mixlaw.runner.evaluate.measure import Measure
from mixlaw.runner.evaluate.programs import Programs

KINDS: Mapping[str, type[Measure]] = {kind.kind: kind for kind in (Items, Harness, Programs, Judged)}


def read(data: Mapping[str, Any]) -> Measure:
    """The inverse of `Measure.as_json`."""
    return KINDS[data["kind"]](**{name: value for name, value in data.items() if name != "kind"})
