"""What is to be trained, and what no recipe for it may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from mixlaw.errors import InputError, key_of
from mixlaw.numbers import percent, size
from mixlaw.optimizer.target.rates import Rates
from mixlaw.printable import Printable
from mixlaw.recipe import Domain, Mixture, Phase, Recipe

Span = tuple[float, float]


def _number(value: Any) -> Any:
    if isinstance(value, bool) or value != value:
        raise ValueError("it must be a number")
    return value


#: An int stays one, so that what was written is what is read; pydantic would take a truth value for 1 or 0.
Number = Annotated[int | float, BeforeValidator(_number)]
Share = Annotated[Number, Field(ge=0, le=1)]
#: Phase, or `recipe` for all of them -> domain or kind -> share of its tokens.
Shares = dict[str, dict[str, Number]]
AtLeast0 = Annotated[Number, Field(ge=0)]

FROZEN = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

#: Where limits name all phases together.
WHOLE = "recipe"
#: Flops per parameter and token of training: forward and backward (Kaplan et al. 2020, arXiv:2001.08361).
FLOPS = 6.0
#: Share of the tokens that a phase whose length is what the others leave has at least.
LEAST = 0.01


def training_flops(params: float, tokens: float) -> float:
    """Training FLOPs by the rule 6 N D."""
    return FLOPS * params * tokens


def _mixture(value: Any) -> Any:
    return value if value is None or isinstance(value, Mixture) else Mixture(value)


def _shares_of(mixture: Mixture | None) -> dict[str, float] | None:
    return None if mixture is None else dict(mixture.shares)


def sentence(error: ValidationError) -> str:
    """The first problem of a validation: key, value and what is expected."""
    first = error.errors()[0]
    message, key = first["msg"].removeprefix("Value error, "), key_of(first["loc"])
    return f"{key} = {first['input']!r}: {message[0].lower() + message[1:]}" if key else message


class _Value(BaseModel):
    """A frozen value; what is wrong with its fields is an `InputError` of one sentence."""

    model_config = FROZEN

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(sentence(error)) from error


class Trained(_Value):
    """A phase that is over, or a part of one: of the run under way, or of a checkpoint of unknown mixture.

    Attributes:
        phase: one of the phases that were measured.
        tokens: trained on.
        mixture: of those tokens; None where the history is unknown.
        lr_end: learning rate at its end over the peak.
    """

    phase: str
    tokens: int
    mixture: Annotated[Mixture | None, BeforeValidator(_mixture), PlainSerializer(_shares_of)] = None
    lr_end: Number = 1.0

    def __init__(self, phase: str, tokens: int, mixture: Mixture | None = None, lr_end: float = 1.0) -> None:
        super().__init__(phase=phase, tokens=tokens, mixture=mixture, lr_end=lr_end)

    def as_phase(self) -> Phase:
        """The phase of a recipe; the mixture has to be known."""
        if self.mixture is None:
            raise InputError(f"the mixture of {self.phase!r} is unknown; give it, or leave the phase out")
        return Phase(self.phase, self.tokens, self.mixture, self.lr_end)


class Guard(_Value):
    """No task may be worse than a baseline by more than `most`, in the unit of the gains.

    Attributes:
        most: for every task, or by task; tasks that are not named are not guarded.
        than: name of the baseline; the best one where not given.
        sure: probability, over posterior draws, with which it has to hold for each task.
    """

    most: AtLeast0 | dict[str, AtLeast0] = 0.0
    than: str = ""
    sure: float = Field(default=0.9, ge=0.5, lt=1)

    def __init__(self, most: float | Mapping[str, float] = 0.0, than: str = "", sure: float = 0.9) -> None:
        super().__init__(most=most, than=than, sure=sure)


#: No task that counts may lose more than a percent of its loss, 90 % sure, whatever gains are measured in.
DEFAULT_GUARD = Guard(most=1.0)


def _guard(value: Any) -> Any:
    return {False: None, True: DEFAULT_GUARD}.get(value, value) if isinstance(value, bool) else value


class Limits(BaseModel):
    """What no recipe may do; the part of a target that study.toml writes in the same words.

    Names are domains, kinds (`kind:code`), or `all:code` and `all:text`: what counts as code, and the rest.

    Attributes:
        cooldown: least and greatest share of the tokens still to be trained that the last phase may take; ignored
            with one phase. Where the runs never vary it, `propose` keeps theirs.
        lengths: of phases before the last: a number is a length relative to the others (equal where not given), a pair
            the least and greatest share of the tokens still to be trained.
        max_epochs: how often a domain's unique tokens may be seen, over all phases together.
        domain_epochs: the same for single domains or kinds, overriding `max_epochs`.
        phase_epochs: how often they may be seen within one phase, by phase.
        floors, caps: least and greatest share of a domain or kind in a phase, or in the `recipe`.
        guard: what no task may lose; `DEFAULT_GUARD` where not given, none where it is False or None.
    """

    model_config = FROZEN

    cooldown: tuple[Share, Share] = (0.1, 0.6)
    lengths: dict[str, Span | Number] = {}
    max_epochs: Number = 4.0
    domain_epochs: dict[str, Number] = {}
    phase_epochs: dict[str, Number] = {}
    floors: Shares = {}
    caps: Shares = {}
    guard: Annotated[Guard | None, BeforeValidator(_guard)] = DEFAULT_GUARD

    @model_validator(mode="after")
    def _are_possible(self) -> Limits:
        _check_amounts(self)
        ranges = {f"the range of {name}": span for name, span in self.lengths.items() if isinstance(span, tuple)}
        _check_ranges(ranges)
        wrong = {name: v for name, v in self.lengths.items() if not isinstance(v, tuple) and not v > 0}
        if wrong:
            raise InputError(f"phase lengths must be positive, got {wrong}; leave the phase out")
        return self


class Target(Printable, _Value, Limits):
    """A model size and token budget, with the limits a recipe has to keep.

    Attributes:
        params: non-embedding parameters.
        tokens: tokens of all phases, repeats and those of the prefix included.
        phases: still to be trained, in order; the last one is the cooldown, whose length is free within `cooldown`.
        lr_end: learning rate at the end of the last phase over the peak, or the range in which it is free.
        rates: peak rate, schedule and decays; what it leaves open is as the measured runs have it.
        prefix: phases that are over.
        under_way: what has been trained of the first of `phases`, where the run is in the middle of it: the rest of it
            is free. Bounds are on the whole phase. To keep its mixture, put the whole phase into `prefix`.
        branches: checkpoints to choose from, each a prefix; instead of `prefix`.
        sizes: range in which the size is free, at the training FLOPs of `params` and `tokens`.
        ladder: sizes to which a free size is rounded; any whole number where empty.

    Raises:
        InputError: a size, range or share that makes no sense, or a bound on a phase that is not there.
    """

    params: int
    tokens: int
    phases: tuple[str, ...] = ("init", "continue", "cooldown")
    lr_end: Number | Span = 0.0
    rates: Rates = Rates()
    prefix: tuple[Trained, ...] = ()
    under_way: Trained | None = None
    branches: tuple[tuple[Trained, ...], ...] = ()
    sizes: tuple[Number, Number] | None = None
    ladder: tuple[int, ...] = ()

    def __init__(
        self, params: int, tokens: int, phases: Sequence[str] = ("init", "continue", "cooldown"), **limits: Any
    ) -> None:
        super().__init__(params=params, tokens=tokens, phases=phases, **limits)

    @model_validator(mode="after")
    def _makes_sense(self) -> Target:
        _check_sizes(self)
        _check_lengths(self)
        _check_bounds(self)
        return self

    def changed(self, **fields: Any) -> Target:
        """The same target with other values of some fields."""
        return Target(**{**dict(self), **fields})

    @property
    def flops(self) -> float:
        """Training FLOPs, 6 N D."""
        return training_flops(self.params, self.tokens)

    @property
    def trained(self) -> int:
        """Tokens of the prefix."""
        return sum(part.tokens for part in self.prefix)

    @property
    def rest(self) -> int:
        """Tokens still to be trained."""
        return self.tokens - self.trained

    def to_come(self, recipe: Recipe) -> Phase | None:
        """The rest of the phase under way in a recipe for this target; None where no phase is, or nothing is left."""
        if self.under_way is None:
            return None
        phase = next(phase for phase in recipe.phases if phase.name == self.under_way.phase)
        done, rest = self.under_way.as_phase(), phase.tokens - self.under_way.tokens
        names = {*phase.mixture, *done.mixture}
        counts = {d: phase.tokens * phase.mixture.share(d) - done.tokens * done.mixture.share(d) for d in names}
        present = {d: count for d, count in counts.items() if count > 0.0005 * rest}  # what rounding leaves is nothing
        return replace(phase, tokens=rest, mixture=Mixture.normalised(present)) if rest > 0 and present else None

    @property
    def known(self) -> bool:
        """Whether the mixture of everything trained so far is known."""
        return all(part.mixture is not None for part in self.prefix)

    @property
    def all_phases(self) -> tuple[str, ...]:
        """Phases that are over, and those still to be trained."""
        return (*(part.phase for part in self.prefix), *self.phases)

    @property
    def lr_range(self) -> Span:
        """Least and greatest learning rate at the end."""
        return self.lr_end if isinstance(self.lr_end, tuple) else (self.lr_end, self.lr_end)

    @property
    def cooldown_range(self) -> Span:
        """Share of the last phase: `cooldown`, or all of it where there is one phase."""
        return self.cooldown if len(self.phases) > 1 else (1.0, 1.0)

    def at(self, params: float) -> Target:
        """The same FLOPs at one size."""
        if self.sizes is None:
            return self
        size = round(params)
        return self.changed(params=size, tokens=round(self.flops / FLOPS / size), sizes=None, ladder=())

    def on(self, branch: Sequence[Trained]) -> Target:
        """The target that resumes from one of its branches."""
        return self.changed(prefix=tuple(branch), branches=())

    def split(self, lengths: Sequence[float]) -> dict[str, int]:
        """Whole tokens of each phase still to be trained, summing to `rest`, from shares that sum to 1."""
        last = round(self.rest * lengths[-1]) if len(self.phases) > 1 else self.rest
        sizes, used, ahead = {}, 0, 0.0
        early = sum(lengths[:-1])
        for phase, length in zip(self.phases[:-1], lengths, strict=False):
            ahead += length / early
            sizes[phase] = round((self.rest - last) * ahead) - used
            used += sizes[phase]
        return {**sizes, self.phases[-1]: last}

    def epochs(self, domain: Domain) -> float:
        """How often the unique tokens of a domain may be seen."""
        by_kind = self.domain_epochs.get(f"kind:{domain.kind.value}", self.max_epochs)
        return self.domain_epochs.get(domain.name, by_kind)

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Target.from_json`."""
        plain = {"under_way": self.under_way is None, "rates": self.rates == Rates()}
        return self.model_dump(mode="json", exclude={name for name, absent in plain.items() if absent})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Read what `as_json` wrote."""
        return cls(**data)

    def __str__(self) -> str:
        low, high = self.cooldown_range
        span = percent(low) if low == high else f"{percent(low)} to {percent(high)}"
        model = f"{size(self.params)} params, {size(self.tokens)} tokens"
        if self.sizes is not None:
            model = f"{self.flops:.3g} FLOPs at {size(self.sizes[0])} to {size(self.sizes[1])} params"
        done = self.trained + (self.under_way.tokens if self.under_way else 0)
        trained = f", {size(done)} of them trained" if done else ""
        rest = "the rest" if self.prefix or self.branches else "them"
        last = f", {self.phases[-1]} {span} of {rest}" if len(self.phases) > 1 else ""
        return f"{model}{trained}{last}, {self._repeats()}"

    def _repeats(self) -> str:
        own = "".join(f", {most:g} of {name.removeprefix('kind:')}" for name, most in self.domain_epochs.items())
        return f"at most {self.max_epochs:g} epochs{own}"


def _check_sizes(target: Target) -> None:
    if target.params <= 0 or target.rest < max(1, len(target.phases)):
        raise InputError(
            f"a target needs positive params and more tokens than are trained already, got {target.params} params, "
            f"{target.tokens} tokens and {target.trained} trained; give what is to be trained"
        )
    if target.prefix and target.branches:
        raise InputError("a target has either a prefix or branches, got both; list the prefix as one of the branches")
    _check_under_way(target)
    for branch in target.branches:
        target.on(branch)
    if target.sizes is None:
        return
    low, high = target.sizes
    if not 0 < low <= high:
        raise InputError(f"sizes must be 0 < least <= greatest, got {low:g} to {high:g}; fix the range")
    if target.prefix or target.branches or target.under_way:
        raise InputError("a run that is under way has its size; leave out sizes, or the prefix")
    if target.ladder and not any(low <= size <= high for size in target.ladder):
        raise InputError(f"no size of the ladder {list(target.ladder)} is within {low:g} to {high:g}; widen the range")


def _check_under_way(target: Target) -> None:
    part = target.under_way
    if part is None:
        return
    if target.branches:
        raise InputError(
            "a target has either branches or a phase under way, got both; end the phase, or make it the run"
        )
    if part.phase != target.phases[0] or part.mixture is None or not 0 < part.tokens < target.rest:
        raise InputError(
            f"the phase under way has to be {target.phases[0]!r}, the first still to be trained, with a known mixture "
            f"and fewer than {target.rest} tokens; got {part.tokens} tokens of {part.phase!r} "
            f"({part.mixture or 'mixture unknown'}); fix it, or leave it out"
        )


def _check_lengths(target: Target) -> None:
    names = target.all_phases
    if not target.phases or len(set(names)) < len(names) or WHOLE in names:
        raise InputError(
            f"a target needs phases of different names, none called {WHOLE}, got {list(names)}; name each once"
        )
    _check_ranges({"the cooldown range": target.cooldown} if len(target.phases) > 1 else {})
    low, high = target.lr_range
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"lr_end must be between 0 and 1, least first, got {target.lr_end}; 0 decays to nothing, 1 stays constant"
        )


def _check_bounds(target: Target) -> None:
    """Refuse bounds on unknown phases."""
    known = (*target.phases, WHOLE)
    for name, phases in (("floors", target.floors), ("caps", target.caps), ("epochs", target.phase_epochs)):
        unknown = [phase for phase in phases if phase not in known]
        if unknown:
            raise InputError(
                f"{name} are set for phase {unknown[0]!r}, still to be trained are {', '.join(target.phases)}; "
                f"rename one of them, or set them for the {WHOLE}"
            )


def _check_ranges(ranges: Mapping[str, Span]) -> None:
    for name, (low, high) in ranges.items():
        if not 0 < low <= high < 1:
            hint = ", or leave it out where nothing else is left to train" if high == 1 else ""
            raise InputError(
                f"{name} must be 0 < least <= greatest < 1 of all tokens, got {low:g} to {high:g}; fix the range{hint}"
            )


def _check_amounts(limits: Limits) -> None:
    """Refuse epochs that are not positive and shares outside 0..1."""
    epochs = {"max_epochs": limits.max_epochs, **limits.domain_epochs, **limits.phase_epochs}
    wrong = {name: value for name, value in epochs.items() if not value > 0}
    if wrong:
        raise InputError(f"epochs must be positive, got {wrong}; cap the share at 0 to leave a domain out")
    for name, bounds in (("floors", limits.floors), ("caps", limits.caps)):
        wrong = {f"{p}/{d}": v for p, by in bounds.items() for d, v in by.items() if not 0 <= v <= 1}
        if wrong:
            raise InputError(f"{name} must be shares between 0 and 1, got {wrong}; give 0.1 for 10 %")
