"""Values inside the JSON documents of `mixlaw.documents`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from mixlaw.optimizer.answers.compare import Standing
from mixlaw.optimizer.answers.dependence import MoreTokens
from mixlaw.optimizer.answers.pairs import RungResult
from mixlaw.optimizer.answers.risk import Risk
from mixlaw.optimizer.answers.sensitivity import Flat, Step
from mixlaw.optimizer.answers.what_if import Worthwhile
from mixlaw.optimizer.goal.evidence import Direction
from mixlaw.optimizer.goal.values import Forecast, Interval
from mixlaw.optimizer.next_runs.suggestion import Spending
from mixlaw.optimizer.target.rates import Rates
from mixlaw.optimizer.target.target import Guard, Target, Trained
from mixlaw.recipe import Context, Decay, Mixture, Schedule
from mixlaw.runner.batches.manifest import DomainManifest, ItemsManifest, ShardFile, TokenSource
from mixlaw.runner.corpora.contamination import Hit, TaskOverlap
from mixlaw.runner.plan.devices import Machine

Numbers = dict[str, float]


class Document(BaseModel):
    """What every document has."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Number of the format; that of a proposal, a record or a data folder is its file's."""


class Part(BaseModel):
    """A value inside documents."""

    model_config = ConfigDict(extra="forbid")


class Coefficient(Part):
    """A coefficient of a law: value, standard error (0 for a constant), 90 % interval and meaning."""

    value: float
    error: float
    lo90: float
    hi90: float
    meaning: str


class FittedLaw(Part):
    """A law in a task: its share of the prediction and its coefficients; a regressor has none."""

    share: float
    coefficients: dict[str, Coefficient]


class Gain(Part):
    """What a recipe gains over another: in all, by task and group, with probabilities to be better."""

    total: Interval
    by_task: dict[str, Interval]
    probability: float
    better: Numbers
    by_group: dict[str, Interval]
    better_groups: Numbers
    parts: Numbers
    without: dict[str, Interval]


class SizeSignal(Part):
    """How far recipes of one size differ on a task, beside the noise of a run."""

    params: float
    runs: int
    spread: float
    noise: float
    ratio: float
    signal: bool
    at_chance: bool


class Readiness(Part):
    """Whether a task can be optimised for, and why."""

    verdict: str
    explained: float | None
    noise_measured: bool
    sizes: list[SizeSignal]


class Link(Part):
    """The curve from a loss to an accuracy: value and standard deviation of each coefficient."""

    source: str
    noise: float
    chance: tuple[float, float]
    ceiling: tuple[float, float]
    k: tuple[float, float]
    middle: tuple[float, float]


class TaskFit(Part):
    """One task of a fit."""

    unit: str
    laws: dict[str, FittedLaw]
    status: str
    readiness: Readiness
    link: Link | None
    notes: list[str]
    noise: float
    spread: float


class AuditRow(Part):
    """How a method predicted the held-out runs of a task."""

    fold: str
    task: str
    method: str
    rows: int
    error: float | None
    spearman: float | None
    regret: float | None
    coverage: float | None
    width: float | None
    gains: float | None


class RecipePhase(Part):
    """A phase of a recipe: tokens, shares of them, and where the learning rate ends, over its peak."""

    name: str
    tokens: int
    mixture: Numbers
    lr_end: float | None
    decay: str = "linear"
    context: Context | None = None


class Recipe(Part):
    """What to train, as in a file of a recipe; without `lr` and `warmup` the rule for its size holds."""

    params: int
    seed: int
    unique: dict[str, int]
    data: str
    schedule: str
    lr: float = 1.0
    warmup: int | None = None
    shards: dict[str, str] = {}
    phases: list[RecipePhase]


class Free(Part):
    """The best recipe without limits: its gain, what it would break, its distance from the nearest run."""

    recipe: Recipe
    gain: float
    breaks: list[str]
    distance: float


class Rung(Part):
    """A smaller size at which a proposal can be verified: what it is predicted to gain there."""

    recipe: Recipe
    baseline: Recipe
    gain: Interval
    mark: float


class Prediction(Part):
    """What a row of a table is predicted to measure on a task."""

    run: str
    progress: float
    task: str
    mean: float
    lo90: float
    hi90: float
    law_only: float
    distance: float | None


class FrontPoint(Part):
    """A recipe of the front, and its gain for each group."""

    recipe: Recipe
    gains: dict[str, Interval]


class Weight(Part):
    """How far a weight may move, and the share of tokens that changes at multiples of it."""

    name: str
    range: tuple[float, float]
    changed: Numbers


class Start(Part):
    """A run that is resumed, and the tokens it has by then."""

    run: str
    tokens: int


class Job(Part):
    """A run to train next."""

    run: str
    params: int
    seed: int
    tokens: int
    phases: list[RecipePhase]
    lr: float = 1.0
    warmup: int | None = None
    unique: dict[str, int] = {}
    schedule: str = "wsd"
    start: Start | None
    flops: float
    flops_paid: float
    brings: float | None
    task: str
    why: str


class PairedGain(Part):
    """The gain of a task, measured and predicted."""

    task: str
    predicted: Interval
    measured: float
    noise: float
    inside: bool


class Pair(Part):
    """A proposal beside a baseline, both trained: gains by task and in total, and the verdict."""

    proposal: str
    number: int
    against: str
    unit: str
    gains: list[PairedGain]
    total: PairedGain | None
    runs: tuple[int, int]
    earlier: bool
    most: Numbers
    sentence: str


class Check(Part):
    """A level: what was predicted of a recipe, and what a run measured."""

    proposal: str
    forecast: Forecast
    run: str
    measured: float
    inside: bool
    error: float


class Place(Part):
    """Devices of a machine."""

    machine: int
    devices: list[int]


class Segment(Part):
    """A part of training that recipes share, with its place and hours where it is still to be trained."""

    lineage: str
    parent: str | None
    params: int
    phase: str
    tokens: int
    run: bool
    measured: bool
    trained: bool
    machine: int | None
    devices: list[int] | None
    beside: list[Place] | None
    share: int | None
    begin: float | None
    end: float | None


#: All of them, and values of other modules that documents hold.
PARTS: tuple[type, ...] = (
    *(Recipe, RecipePhase, Context, Schedule, Decay, Mixture, Target, Rates, Guard, Trained),
    *(Interval, Forecast, Gain, TaskFit, FittedLaw, Coefficient, Readiness, SizeSignal, Link, AuditRow, Direction),
    *(Flat, Free, Step, Risk, Rung, Standing, Worthwhile, FrontPoint, Weight, MoreTokens, Prediction),
    *(Job, Start, Spending, Pair, PairedGain, Check, RungResult),
    *(Segment, Place, Machine, DomainManifest, ShardFile, TokenSource, ItemsManifest, TaskOverlap, Hit),
)
