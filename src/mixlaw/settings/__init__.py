"""`study.toml`: what a study is about, validated so that an error names the key, the value and the fix."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from mixlaw.errors import InputError, InvalidMixture, did_you_mean, key_of
from mixlaw.files import read_text
from mixlaw.optimizer.target.target import Limits, training_flops
from mixlaw.recipe import Domain, Mixture, Schedule
from mixlaw.records import Unit
from mixlaw.runner.models.ladder import parse_size
from mixlaw.settings.data import DomainSettings as DomainSettings
from mixlaw.settings.data import Number, Share, Strict, Tokens, no_truth
from mixlaw.settings.data import TokenizerSettings as TokenizerSettings
from mixlaw.settings.tasks import Suite, TaskSettings, expanded
from mixlaw.settings.training import PhaseSettings as PhaseSettings
from mixlaw.settings.training import RecipeSettings as RecipeSettings
from mixlaw.settings.training import TrainingSettings as TrainingSettings

VERSION = 1  # of the study folder
Size = Annotated[str | int, BeforeValidator(no_truth)]


class TrainedSettings(Strict):
    """A phase that is finished, or under way; without a mixture its data are unknown."""

    phase: str
    tokens: Tokens
    mixture: str | dict[str, Share] | None = None
    lr_end: Share = 1.0
    goes_on: bool = False


class TargetSettings(Limits):
    """The target as study.toml writes it: its limits, and what only a study knows.

    Either params and tokens, or flops and sizes: then the size is free within them. What gains refer to (a baseline, a
    mixture, a run) and are measured in, and whether the worst task counts instead of the weighted mean, is set here.
    Peak rate (over the rule's) and schedule are those of the runs where not given. With `standardise`, a task counts
    for less the further recipes move it: see `goal_of`.
    """

    params: Size | None = None
    tokens: Tokens | None = None
    flops: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    sizes: tuple[Size, Size] | None = None
    ladder: tuple[Size, ...] = ()
    lr_end: Share | tuple[Share, Share] | None = None
    lr: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    warmup: Tokens | None = None
    schedule: Schedule | None = None
    prefix: tuple[TrainedSettings, ...] = ()
    branches: tuple[tuple[TrainedSettings, ...], ...] = ()
    baseline: str | None = None
    weights: dict[str, Annotated[float, BeforeValidator(no_truth), Field(ge=0, allow_inf_nan=False)]] = {}
    measure: Literal["percent", "noise", "points"] = "percent"
    standardise: bool = False
    worst: bool = False

    @property
    def size_range(self) -> tuple[int, int] | None:
        """Least and greatest size, where it is free."""
        return None if self.sizes is None else (parse_size(self.sizes[0]), parse_size(self.sizes[1]))

    @property
    def nominal(self) -> tuple[int, int]:
        """Parameters and tokens: as given, or those in the middle of the sizes."""
        if self.params is not None and self.tokens is not None:
            return parse_size(self.params), self.tokens
        assert self.size_range is not None, "validated"
        assert self.flops is not None, "validated"
        size = round((self.size_range[0] * self.size_range[1]) ** 0.5)
        return size, round(self.flops / training_flops(size, 1))


class Settings(Strict):
    """The whole of study.toml.

    Attributes:
        version: of the study folder; this mixlaw reads version 1.
        domains: name -> kind, source, unique tokens.
        tasks: name -> unit, or unit, link, chance and what measures it.
        suites: names of suites, whose tasks and groups are added: "paper".
        sizes: name such as "0.1M" -> tokens that a recipe of this size is trained on.
        phases: in order; their shares sum to one.
        mixtures: name -> domain -> share.
        recipes: the proxies to train, by size, mixture per phase, and seeds.
        groups: name -> tasks, for the front between groups.
        target: what the proposal is for.
    """

    version: int = VERSION
    name: str = "study"
    domains: dict[str, DomainSettings] = {}
    tasks: dict[str, TaskSettings] = {}
    suites: list[Suite] = []
    tokenizer: TokenizerSettings = TokenizerSettings()
    training: TrainingSettings = TrainingSettings()
    sizes: dict[str, Tokens] = {}
    phases: list[PhaseSettings] = []
    mixtures: dict[str, dict[str, Number]] = {}
    recipes: list[RecipeSettings] = []
    groups: dict[str, list[str]] = {}
    target: TargetSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _suites_are_tasks(cls, value: Any) -> Any:
        return expanded(value)

    @model_validator(mode="after")
    def _tasks_refer(self) -> Settings:
        units = {task: Unit.parse(settings.unit, task) for task, settings in self.tasks.items()}
        losses = [task for task, unit in units.items() if unit.lower_is_better]
        for task, settings in self.tasks.items():
            if units[task].lower_is_better and (settings.link or settings.chance is not None):
                raise ValueError(f"tasks.{task}: link and chance belong to a score, its unit is {settings.unit}")
            if settings.link is not None:
                _known(f"tasks.{task}.link", [settings.link], losses, "loss")
        for name, group in self.groups.items() if self.tasks else ():
            _known(f"groups.{name}", group, self.tasks, "task")
        return self

    @model_validator(mode="after")
    def _names_refer(self) -> Settings:
        for domain in self.domains:
            if not domain or ":" in domain or _CONTROL.search(domain):
                raise ValueError(f"domains: {domain!r} needs a name without a colon, tabs and line ends")
        if len(several := [name for name, domain in self.domains.items() if domain.items]) > 1:
            raise ValueError(f"domains: items are built from one domain, got {several}; set items for one of them")
        for name, shares in self.mixtures.items():
            _known(f"mixtures.{name}", shares, self.domains, "domain")
            _simplex(name, shares)
        for size in self.sizes:
            _size("sizes", size)
        if self.training.complete_p is not None:
            _size("training.complete_p", self.training.complete_p)
        names = [phase.name for phase in self.phases]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"phases: {twice[0]!r} occurs twice; give a returning phase another name")
        if self.phases and abs(sum(p.share for p in self.phases) - 1) > 1e-6:
            raise ValueError(f"phases: the shares must sum to 1, got {sum(p.share for p in self.phases):g}")
        if self.training.simulate_epochs and self.target is None:
            raise ValueError("training.simulate_epochs = true needs [target] with its tokens; add it")
        for number, recipe in enumerate(self.recipes, 1):
            where = f"recipes[{number}]"
            _known(f"{where}.size", recipe.size, self.sizes, "size")
            _known(f"{where}.phases", recipe.phases, names, "phase")
            _known(f"{where}.phases", [use.mixture for use in recipe.phases.values()], self.mixtures, "mixture")
            shares = {p.name: recipe.phases[p.name].share or p.share for p in self.phases if p.name in recipe.phases}
            if abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError(
                    f"{where}.phases: the shares must sum to 1, got {sum(shares.values()):g} from {shares}; "
                    'give each as { mixture = "...", share = ... }'
                )
        return self

    @model_validator(mode="after")
    def _target_refers(self) -> Settings:
        if self.target is None:
            return self
        target, phases = self.target, [p.name for p in self.phases]
        for where in ("params", "sizes", "ladder"):
            given = getattr(target, where)
            for size in given if isinstance(given, tuple) else [given] * (given is not None):
                _size(f"target.{where}", size)
        fixed, free = [target.params, target.tokens], [target.flops, target.sizes]
        if not sorted([fixed.count(None), free.count(None)]) == [0, 2]:
            raise ValueError(
                "target: give params and tokens, or else flops and sizes, the range in which the size is free; "
                f"got params {target.params}, tokens {target.tokens}, flops {target.flops}, sizes {target.sizes}"
            )
        if target.standardise and (target.worst or target.measure != "percent"):
            raise ValueError("target.standardise weighs gains in percent of loss; leave out measure and worst, or it")
        over = (*target.prefix[:-1], *(part for branch in target.branches for part in branch))
        if any(part.goes_on for part in over):
            raise ValueError("target: only the last phase of prefix may go on; end the others")
        for part in (*target.prefix, *(part for branch in target.branches for part in branch)):
            _known("target.prefix", [part.phase], phases, "phase")
            if isinstance(part.mixture, str):
                _known("target.prefix", [part.mixture], self.mixtures, "mixture")
            elif part.mixture is not None:
                _known("target.prefix", part.mixture, self.domains, "domain")
        trained = {part.phase for part in (*over, *target.prefix) if not part.goes_on}
        to_train = [phase for phase in phases if phase not in trained]
        if to_train and to_train[-1] in target.lengths:
            raise ValueError(
                f"target.lengths: {to_train[-1]!r} is the last phase, which takes what the others leave; give its "
                "range as cooldown = [least, greatest]"
            )
        _known("target.lengths", target.lengths, to_train[:-1], "phase")
        _known("target.phase_epochs", target.phase_epochs, phases, "phase")
        _known("target.domain_epochs", _single(target.domain_epochs), self.domains, "domain")
        for phase, bounds in (*target.floors.items(), *target.caps.items()):
            _known("target", [phase], [*phases, "recipe"], "phase")
            _known(f"target.{phase}", _single(bounds), self.domains, "domain")
        return self

    def units(self) -> dict[str, str]:
        """Unit of each task."""
        return {task: settings.unit for task, settings in self.tasks.items()}

    def links(self) -> dict[str, str]:
        """Score -> the loss that it is predicted through."""
        return {task: settings.link for task, settings in self.tasks.items() if settings.link is not None}

    def chance(self) -> dict[str, float]:
        """Score of guessing, where it is known."""
        return {task: settings.chance for task, settings in self.tasks.items() if settings.chance is not None}

    def prose(self) -> str | None:
        """The domain that items are built from: the one that says so, else one called prose or text."""
        named = [name for name, domain in self.domains.items() if domain.items]
        usual = [name for name in ("prose", "text") if name in self.domains and self.domains[name].items is None]
        return next(iter((*named, *sorted(usual, key=list(self.domains).index))), None)

    def domain_values(self, counted: Mapping[str, int] | None = None) -> list[Domain]:
        """Domains with their unique tokens: as written in study.toml, else as counted in the shards.

        Raises:
            InputError: a domain's unique tokens are neither written nor counted.
        """
        unique = {name: domain.unique_tokens or (counted or {}).get(name) for name, domain in self.domains.items()}
        if lacking := [name for name, tokens in unique.items() if tokens is None]:
            first, others = lacking[0], f", nor {', '.join(lacking[1:])}" if lacking[1:] else ""
            count = "run `mixlaw prepare` to count them, or " if self.domains[first].source is not None else ""
            raise InputError(
                f"domain {first!r} has no unique_tokens{others}: {count}write "
                f'{first} = {{ unique_tokens = "900B" }} under [domains] of study.toml, with the number of different '
                "tokens that there are of it"
            )
        return [Domain(name, self.domains[name].kind, tokens) for name, tokens in unique.items() if tokens is not None]


def _single(names: Mapping[str, float]) -> list[str]:
    """Names of single domains: those of kinds have a colon."""
    return [name for name in names if ":" not in name]


def _known(where: str, names: Any, known: Any, what: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        likely = did_you_mean(str(unknown[0]), map(str, known))
        likely = f"{likely} " if likely else ""
        raise ValueError(
            f"{where}: unknown {what} {unknown[0]!r}; {likely}choose one of {', '.join(map(repr, known)) or 'none yet'}"
        )


def _size(where: str, size: str | int) -> None:
    try:
        parse_size(size)
    except InputError as error:
        raise ValueError(f"{where}: {error}") from None


def _simplex(name: str, shares: Mapping[str, float]) -> None:
    try:
        Mixture(shares)
    except InvalidMixture as error:
        raise ValueError(f"mixtures.{name}: {error}") from None


def study_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of a study, there or not; a path to its study.toml means the same.

    Raises:
        InputError: the path is that of another file.
    """
    folder = Path(path)
    if folder.name == "study.toml" and not folder.is_dir():
        return folder.parent
    if folder.is_file():
        raise InputError(
            f"{folder} is a file, not a study; give the folder of a study, or its study.toml (a table comes after it: "
            f"`mixlaw import STUDY {folder}`)"
        )
    return folder


def read_settings(path: Path, target: Mapping[str, Any] | None = None) -> Settings:
    """Read and validate a study.toml, with changes to its [target].

    Raises:
        InputError: no such file, not TOML, another version, or a key or value that is wrong.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise InputError(
            f"there is no study at {path.parent} (no {path.name}); "
            f"create one with `mixlaw new {path.parent}`, or from runs with `mixlaw import {path.parent} RUNS.csv`"
        ) from None
    except InputError as error:
        raise InputError(f"{path} is not TOML: it {str(error).removeprefix(f'{path} ')}") from error
    try:
        if not target:
            return _parsed(text, path)
        return validate(with_target(tomllib.loads(text), target), path, " with these changes to [target]")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}; fix that line") from error


@lru_cache(maxsize=32)
def _parsed(text: str, path: Path) -> Settings:
    """Settings of a text, which is validated once however often a study is looked at."""
    return validate(tomllib.loads(text), path)


def with_target(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a study.toml with changes to [target]; tables are merged, a fixed size replaces a free one."""
    before = dict(data.get("target", {}))
    if {"params", "tokens"} & {*changes}:
        before = {key: value for key, value in before.items() if key not in ("flops", "sizes")}
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(before.get(key), Mapping)
        before[key] = {**before[key], **value} if both else value
    return {**data, "target": before}


def validate(data: Mapping[str, Any], path: Path, changed: str = "") -> Settings:
    """Settings from the content of a study.toml; errors name `path`, and that it is `changed`.

    Raises:
        InputError: another version, or a key or value that is wrong.
    """
    version = data.get("version", VERSION)
    if version != VERSION:
        raise InputError(
            f"{path} is a study of version {version!r}, "
            f"this mixlaw reads version {VERSION}; use the mixlaw that wrote it"
        )
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}{changed}: {sentence(error, Settings)}") from error


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Type of a problem -> what the value should look like.
_SHAPES = {
    "dict_type": ", which is written { NAME = value }",
    "list_type": ', which is written ["a", "b"]',
    "tuple_type": ", which is written [a, b]; a range is [least, greatest]",
}


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation by a model, as key, value and fix."""
    first = error.errors()[0]
    key = key_of(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if not key:
        return message + more
    if first["type"] == "extra_forbidden":
        likely = did_you_mean(str(first["loc"][-1]), _keys(model, first["loc"][:-1]))
        return f"unknown key {key!r}; remove it or fix its spelling{', ' * bool(likely)}{likely}{more}"
    if first["type"] == "missing":
        return f"{key} is missing; add it{more}"
    if (
        isinstance(first["input"], Mapping) and first["type"] == "value_error"
    ):  # of several keys: the message names them
        inner = isinstance(first["ctx"]["error"], InputError) and " = " in message.split(":")[0]
        return f"{key}{'.' if inner else ': '}{message}{more}"
    hint = _SHAPES.get(first["type"], "")
    return f"{key} = {first['input']!r:.200}: {message[0].lower() + message[1:]}{hint}{more}"


def _keys(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Keys of the table at a place below a model, as far as its fields are models, or lists and tables of one."""
    for part in place:
        names = [part] if part in model.model_fields else []
        kinds = _models(model.model_fields[str(part)].annotation) if names else [model]
        model = kinds[0] if kinds else model
    return list(model.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
