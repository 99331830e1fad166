"""What `--json` prints, as models: the page of documents is made from them, and tests read every document by them.

A document of another shape has another number in `format`; fields may be added under the same number.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from mixlaw.document_parts import Coefficient, FittedLaw, Gain, Interval, Numbers, TaskFit
from mixlaw.optimizer.goal.values import Forecast


class Document(BaseModel):
    """What every document has."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Number of the format; that of a proposal, a record or a data folder is its file's."""


class Failure(Document):
    """Any command that failed; exit code 2 for bad input, 1 for work that was stopped."""

    error: str
    """What is wrong, the value seen, and what to do next."""


class Status(Document):
    """`mixlaw status`."""

    study: str
    next: str
    """What is done, and the next step."""
    runs: list[str]
    """Names of the measured runs."""
    proposals: list[str]
    """Ids, oldest first."""


class Prepared(Document):
    """`mixlaw prepare`, and the file `data/manifest.json`."""

    fingerprint: str
    """Of sources and settings."""
    hash: str
    """Of everything that was built."""
    vocabulary: int
    end: int = 0
    """Token after every document."""
    begin: str = ""
    """What the tokenizer's own model has before a text, and documents here have not."""
    unused: int = 0
    """Tokens of the vocabulary that the sample did not fill."""
    dtype: str
    tokenizer: str
    held_out: float
    seed: int
    domains: dict[str, dict[str, Any]]
    """Of each: source, counts, files with checksums."""
    items: dict[str, dict[str, Any]]
    """Of each task with items: count, checksum."""
    contamination: list[dict[str, Any]] | None = None
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

    recipe: dict[str, Any]
    folder: str
    files: dict[str, list[str]]
    """By trainer, a file per phase."""
    left_out: dict[str, str]
    """Trainer and why it has none."""
    without_path: list[str]
    """Domains for which `data/<domain>` is written."""


class Shared(Document):
    """`mixlaw push` and `pull`."""

    repository: str
    study: str
    files: int


class Import(Document):
    """`mixlaw import`."""

    rows: int
    runs: int
    phases: list[str]
    """In the order of training."""
    domains: list[str]
    tasks: dict[str, str]
    """Task and its unit."""
    params: tuple[int, int]
    """Smallest and largest model."""
    tokens: tuple[int, int]
    """Fewest and most tokens of a row."""
    ignored: list[str]
    """Columns without a meaning."""
    empty: int
    """Cells without a measurement."""
    notes: list[str]
    """Assumptions and changes."""
    warnings: list[str]
    """What makes rows hard to compare."""


class Fit(Document):
    """`mixlaw fit`."""

    summary: str
    sentence: str
    """How far to trust it."""
    notes: list[str]
    """What the design does not identify."""
    tasks: dict[str, TaskFit]
    audit: list[dict[str, Any]] | None
    """A row per kind of fold, task and method: error, spearman, regret, coverage, width, gains."""
    unchanged: bool
    """Whether nothing was fitted anew, as nothing had changed."""


class Predictions(Document):
    """`mixlaw predict` without `-o`."""

    rows: list[dict[str, Any]]
    """A row per row of the table and task: run, progress, task, mean, lo90, hi90, law_only, distance."""


class Written(Document):
    """`mixlaw new`, `report`, `predict -o`, and `import --sketch`."""

    path: str
    rows: int | None = None
    """Of a table."""
    blanks: int | None = None
    """To fill in a draft of a mapping."""


class WhatIf(Document):
    """`mixlaw what-if`."""

    recipe: dict[str, Any]
    """As in a file of a recipe."""
    forecasts: list[Forecast]
    against: str | None
    """What gains refer to."""
    unit: str | None
    """Of gains."""
    sentence: str
    gain: Interval | None
    """Of all tasks, by weight."""
    gains: dict[str, Interval]
    """By task."""
    points: list[dict[str, Any]]
    """What one more point of a domain in a phase is worth to a task: phase, domain, task, gain."""


class Comparison(Document):
    """`mixlaw compare`."""

    names: tuple[str, str]
    recipes: list[dict[str, Any]]
    gain: Gain
    """Of the first over the second."""
    unit: str
    same: bool
    supported: bool | None
    """Whether the data support the better one; null where that is not known."""
    sentence: str
    standings: list[dict[str, Any]]
    """Of both: distance, radius, nearest run, limits that are broken."""


class Front(Document):
    """`mixlaw pareto`."""

    groups: dict[str, list[str]]
    against: str
    unit: str
    sentence: str
    evaluations: int
    points: list[dict[str, Any]]


class Dependence(Document):
    """`mixlaw dependence`."""

    recipe: dict[str, Any]
    unit: str
    weights: list[dict[str, Any]]
    """Of each task or group: how far its weight may move, and the share of tokens that changes."""
    tokens: list[dict[str, Any]]
    """What more unique tokens of a domain would bring."""


class Suggestion(Document):
    """`mixlaw suggest`."""

    id: str
    sentence: str
    stop: bool
    """Whether more runs would not change the recommendation."""
    pays: bool | None
    """Whether the runs bring more than longer training for the same FLOPs."""
    cold_start: bool
    budget: float
    """FLOPs."""
    flops: float
    regret: float | None
    """Expected loss of the recommendation against the best recipe, percent of loss."""
    gain: float | None
    """Expected of the jobs, percent of loss."""
    changes: float | None
    """Chance that they change the recommendation."""
    longer: float | None
    """Gain of longer training for the same FLOPs."""
    broken: str | None
    curve: list[dict[str, Any]]
    """What other budgets would gain."""
    job_file: str | None
    recipe_files: list[str]
    jobs: list[dict[str, Any]]
    """As the lines of the job file."""


class Proposal(Document):
    """`mixlaw propose`, `mixlaw show PROPOSAL`, and the files in `proposals/`."""

    target: dict[str, Any]
    recipe: dict[str, Any]
    supported: bool
    """Whether the data support it."""
    sentence: str
    reasons: list[str]
    """Why they do not."""
    against: str
    """What gains refer to."""
    unit: str
    over: dict[str, Gain]
    """Gain over each baseline."""
    weights: Numbers
    groups: dict[str, list[str]]
    noise: Numbers
    """Standard deviation of one run by task, in the unit of gains."""
    percent: Numbers
    """What one percent of loss is in that unit."""
    combined: str
    baselines: dict[str, dict[str, Any]]
    forecasts: list[Forecast]
    spread: dict[str, dict[str, tuple[float, float]]]
    """90 % range of the best share over posterior samples, by phase and domain."""
    length: tuple[float, float]
    flat: list[dict[str, Any]]
    """Ranges that are statistically equivalent."""
    distance: float
    """Share of the tokens of a phase that differ from the nearest run."""
    radius: float
    nearest: str
    warnings: list[str]
    directions: list[dict[str, Any]]
    begun: list[dict[str, Any]]
    free: dict[str, Any] | None
    way: list[dict[str, Any]]
    guarded: Numbers
    """Probability by task that the guard holds."""
    may_lose: Numbers
    risks: dict[str, dict[str, float]]
    ladder: list[dict[str, Any]]
    known: list[str]
    fit: str
    """Hash of the surfaces."""
    data: str
    """Hash of the runs."""
    number: int
    created: str
    """UTC, ISO 8601; empty for a draft."""


class Run(Document):
    """`mixlaw show RUN`, and the files in `runs/`."""

    run: str
    progress: float
    values: dict[str, list[float | int | None]]
    """By task: value, standard error, count."""
    noise: Numbers
    tokens: dict[str, Numbers]
    recipe: dict[str, Any]
    details: dict[str, Any]


class Verification(Document):
    """`mixlaw verify`."""

    coverage: float | None
    """Share of measured gains inside their 90 % intervals."""
    levels: float | None
    """Share of measured levels inside theirs."""
    pairs: list[dict[str, Any]]
    """Each proposal with a baseline: gains measured and predicted by task and in total, verdict."""
    rungs: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    """Levels: forecast, run, measured, inside, error."""
    pending: list[list[str]]
    """Recipes that wait for a run: proposal, name."""


class Plan(Document):
    """`mixlaw plan` and `mixlaw run --dry-run`."""

    recipes: int
    flops_shared: float
    flops_separate: float
    flops_pending: float
    tokens_shared: int
    seconds: float
    devices: int
    machines: list[dict[str, Any]]
    device_hours: float
    device_hours_training: float
    price: float | None
    bill: float | None
    disk_bytes: int
    disk_bytes_pending: int
    tokens_per_second: Numbers
    assumed: dict[str, str]
    segments: list[dict[str, Any]]


class RunOutcome(Document):
    """`mixlaw run`."""

    done: list[str]
    failed: dict[str, str]
    """Lineage and reason."""
    blocked: list[str]
    unmeasured: dict[str, dict[str, str]]
    """Lineage, task and reason."""
    queued: dict[str, str]  # lineage and job of Slurm


class Demo(Document):
    """`mixlaw demo`."""

    study: str
    plan: dict[str, Any]
    proposal: dict[str, Any]
    verification: dict[str, Any]
    report: str
    seconds: float


#: Documents by command, in the order of the data; a dashboard prints none.
COMMANDS: dict[str, tuple[type[Document], ...]] = {
    "demo": (Demo,),
    "new": (Written,),
    "status": (Status,),
    "show": (Proposal, Run),
    "prepare": (Prepared,),
    "plan": (Plan,),
    "run": (RunOutcome, Plan),
    "evaluate": (Evaluated,),
    "import": (Import, Written),
    "fit": (Fit,),
    "predict": (Predictions, Written),
    "suggest": (Suggestion,),
    "propose": (Proposal,),
    "what-if": (WhatIf,),
    "compare": (Comparison,),
    "pareto": (Front,),
    "dependence": (Dependence,),
    "verify": (Verification,),
    "report": (Written,),
    "export": (Exported,),
    "push": (Shared,),
    "pull": (Shared,),
}
DOCUMENTS: tuple[type[Document], ...] = (Failure, *dict.fromkeys(one for some in COMMANDS.values() for one in some))
PARTS: tuple[type, ...] = (Interval, Gain, Forecast, TaskFit, FittedLaw, Coefficient)
