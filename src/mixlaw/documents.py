"""What `--json` prints, as models: the page of documents is made from them, and tests read every document by them.

A document of another shape has another number in `format`; fields may be added under the same number.
"""

from __future__ import annotations

from typing import Any

from mixlaw.document_parts import (
    AuditRow,
    Check,
    Document,
    Free,
    FrontPoint,
    Gain,
    Job,
    Numbers,
    Pair,
    Prediction,
    Recipe,
    Rung,
    TaskFit,
    Weight,
)
from mixlaw.optimizer.answers.compare import Standing
from mixlaw.optimizer.answers.dependence import MoreTokens
from mixlaw.optimizer.answers.pairs import RungResult
from mixlaw.optimizer.answers.risk import Risk
from mixlaw.optimizer.answers.sensitivity import Flat, Step
from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.optimizer.goal.evidence import Direction
from mixlaw.optimizer.goal.values import Forecast, Interval
from mixlaw.optimizer.next_runs.suggestion import Spending
from mixlaw.optimizer.target.target import Target, Trained
from mixlaw.training_documents import Evaluated, Exported, Plan, Prepared, RunOutcome


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
    audit: list[AuditRow] | None
    """A row per kind of fold, task and method."""
    unchanged: bool
    """Whether nothing was fitted anew, as nothing had changed."""


class Predictions(Document):
    """`mixlaw predict` without `-o`."""

    rows: list[Prediction]
    """A row per row of the table and task."""


class Written(Document):
    """`mixlaw new`, `report`, `predict -o`, and `import --sketch`."""

    path: str
    rows: int | None = None
    """Of a table."""
    blanks: int | None = None
    """To fill in a draft of a mapping."""


class WhatIf(Document):
    """`mixlaw what-if`."""

    recipe: Recipe
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
    points: list[Worthwhile]
    """What one more point of a domain in a phase is worth to a task: phase, domain, task, gain."""
    standing: Standing | None
    """What the target and measured runs say about it; null without a target."""


class Comparison(Document):
    """`mixlaw compare`."""

    names: tuple[str, str]
    recipes: list[Recipe]
    gain: Gain
    """Of the first over the second."""
    unit: str
    same: bool
    supported: bool | None
    """Whether the data support the better one; null where that is not known."""
    sentence: str
    standings: list[Standing]
    """Of both: distance, radius, nearest run, limits that are broken."""


class Front(Document):
    """`mixlaw pareto`."""

    groups: dict[str, list[str]]
    against: str
    unit: str
    sentence: str
    evaluations: int
    points: list[FrontPoint]


class Dependence(Document):
    """`mixlaw dependence`."""

    recipe: Recipe
    unit: str
    weights: list[Weight]
    """Of each task or group: how far its weight may move, and the share of tokens that changes."""
    tokens: list[MoreTokens]
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
    curve: list[Spending]
    """What other budgets would gain."""
    job_file: str | None
    recipe_files: list[str]
    jobs: list[Job]
    """As the lines of the job file."""


class Proposal(Document):
    """`mixlaw propose`, `mixlaw show PROPOSAL`, and the files in `proposals/`."""

    target: Target
    recipe: Recipe
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
    baselines: dict[str, Recipe]
    forecasts: list[Forecast]
    spread: dict[str, dict[str, tuple[float, float]]]
    """90 % range of the best share over posterior samples, by phase and domain."""
    length: tuple[float, float]
    flat: list[Flat]
    """Ranges that are statistically equivalent."""
    distance: float
    """Share of the tokens of a phase that differ from the nearest run."""
    radius: float
    nearest: str
    warnings: list[str]
    directions: list[Direction]
    """What the audit says in the directions that the recipe asks about."""
    begun: list[Trained]
    """What is trained of it already."""
    free: Free | None
    way: list[Step]
    """The best shares at other sizes."""
    guarded: Numbers
    """Probability by task that the guard holds."""
    may_lose: Numbers
    risks: dict[str, Risk]
    ladder: list[Rung]
    known: list[str]
    fit: str
    """Hash of the surfaces."""
    data: str
    """Hash of the runs."""
    bound: float | None = None
    """What the search maximises: mean of the gain less a part of its standard deviation."""
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
    recipe: Recipe
    details: dict[str, Any]
    """What the trainer recorded beside."""


class Verification(Document):
    """`mixlaw verify`."""

    coverage: float | None
    """Share of measured gains inside their 90 % intervals."""
    levels: float | None
    """Share of measured levels inside theirs."""
    pairs: list[Pair]
    """Each proposal with a baseline: gains measured and predicted by task and in total, verdict."""
    rungs: list[RungResult]
    checks: list[Check]
    pending: list[list[str]]
    """Recipes that wait for a run: proposal, name."""


class Demo(Document):
    """`mixlaw demo`."""

    study: str
    plan: Plan
    proposal: Proposal
    verification: Verification
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
