"""What `--json` prints of data, training and export: a part of `mixlaw.documents`."""

from __future__ import annotations

from mixlaw.document_parts import Document, Numbers, Recipe, Segment
from mixlaw.runner.batches.manifest import ManifestKeys
from mixlaw.runner.corpora.contamination import TaskOverlap
from mixlaw.runner.plan.devices import Machine


class Prepared(Document, ManifestKeys):
    """`mixlaw prepare`, and the file `data/manifest.json`."""

    contamination: list[TaskOverlap] | None = None
    """With `--contamination`, a row per task: items, those found in the training text, examples."""


class Evaluated(Document):
    """`mixlaw evaluate`."""

    checkpoint: str
    units: dict[str, str]
    values: dict[str, dict[str, float | int | None]]
    """By task: value, stderr, count, smallest_effect."""
    unmeasured: dict[str, str]
    """Task and why it has no value."""
    run: str | None
    """Whose record has the values."""


class Exported(Document):
    """`mixlaw export`."""

    recipe: Recipe
    folder: str
    files: dict[str, list[str]]
    """By trainer, a file per phase."""
    left_out: dict[str, str]
    """Trainer and why it has none."""
    without_path: list[str]
    """Domains for which `data/<domain>` is written."""
    over: str
    """Tokens and phases that have been trained and have no files."""


class Plan(Document):
    """`mixlaw plan` and `mixlaw run --dry-run`."""

    recipes: int
    flops_shared: float
    flops_separate: float
    flops_pending: float
    tokens_shared: int
    seconds: float
    devices: int
    machines: list[Machine]
    device_hours: float
    device_hours_training: float
    price: float | None
    bill: float | None
    disk_bytes: int
    disk_bytes_pending: int
    tokens_per_second: Numbers
    assumed: dict[str, str]
    segments: list[Segment]


class RunOutcome(Document):
    """`mixlaw run`."""

    done: list[str]
    failed: dict[str, str]
    """Lineage and reason."""
    blocked: list[str]
    unmeasured: dict[str, dict[str, str]]
    """Lineage, task and reason."""
    queued: dict[str, str]  # lineage and job of Slurm
