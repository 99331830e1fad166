"""What is to be trained, and what no recipe for it may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlaw.errors import InputError
from mixlaw.printable import Printable
from mixlaw.recipe import Domain, Mixture, Phase, Recipe

Floats = NDArray[np.float64]
Span = tuple[float, float]
#: Phase, or `recipe` for all of them -> domain or kind -> share of its tokens.
Shares = Mapping[str, Mapping[str, float]]

#: Where limits name all phases together.
WHOLE = "recipe"
#: Flops per parameter and token of training: forward and backward (Kaplan et al. 2020, arXiv:2001.08361).
FLOPS = 6.0
#: Share of the tokens that a phase whose length is what the others leave has at least.
LEAST = 0.01


@dataclass(frozen=True)
class Trained:
    """A phase that is over, or a part of one: of the run under way, or of a checkpoint whose mixture nobody knows.

    Attributes:
        phase: one of the phases that were measured.
        tokens: trained on.
        mixture: of those tokens; None where the history is unknown.
        lr_end: learning rate at its end over the peak.
    """

    phase: str
    tokens: int
    mixture: Mixture | None = None
    lr_end: float = 1.0

    def as_phase(self) -> Phase:
        """The phase of a recipe; the mixture has to be known."""
        if self.mixture is None:
            raise InputError(f"nobody knows the mixture of {self.phase!r}; give it, or leave the phase out")
        return Phase(self.phase, self.tokens, self.mixture, self.lr_end)


@dataclass(frozen=True)
class Guard:
    """No task may be worse than a baseline by more than `most`, in the unit of the gains.

    Attributes:
        most: for every task, or by task; tasks that are not named are not guarded.
        than: name of the baseline; the best one where not given.
        sure: probability over worlds with which it has to hold, for each task.
    """

    most: float | Mapping[str, float] = 0.0
    than: str = ""
    sure: float = 0.9

    def __post_init__(self) -> None:
        values = [*self.most.values()] if isinstance(self.most, Mapping) else [self.most]
        if not 0.5 <= self.sure < 1 or any(value < 0 for value in values):
            raise InputError(
                f"a guard needs a probability from 0.5 to below 1 and amounts >= 0, got {self.sure:g} and {self.most}; "
                "give how much worse a task may become"
            )


@dataclass(frozen=True)
class Target(Printable):
    """A model size and token budget, with the limits a recipe has to keep.

    Names in limits are domains, kinds (`kind:code`), or `all:code` and `all:text`: what counts as code, and the rest.

    Attributes:
        params: non-embedding parameters.
        tokens: tokens of all phases, repeats and those of the prefix included.
        phases: still to be trained, in order; the last one is the cooldown, whose length is free within `cooldown`.
        cooldown: least and greatest share of the tokens still to be trained that the last phase may take; ignored
            with one phase.
        lengths: of phases before the last: a number is a length relative to the others (equal where not given), a pair
            the least and greatest share of the tokens still to be trained.
        max_epochs: how often a domain's unique tokens may be seen, over all phases together.
        domain_epochs: the same for single domains or kinds, overriding `max_epochs`.
        phase_epochs: how often they may be seen within one phase, by phase.
        floors, caps: least and greatest share of a domain or kind in a phase, or in the `recipe`.
        lr_end: learning rate at the end of the last phase over the peak, or the range in which it is free.
        prefix: phases that are over.
        under_way: what has been trained of the first of `phases`, where the run is in the middle of it: the rest of it
            is free. Bounds are on the whole phase. To keep its mixture, put the whole phase into `prefix`.
        branches: checkpoints to choose from, each a prefix; instead of `prefix`.
        sizes: range in which the size is free, at the training FLOPs of `params` and `tokens`.
        ladder: sizes to which a free size is rounded; any whole number where empty.
        guard: what no task may lose.

    Raises:
        InputError: a size, range or share that makes no sense, or a bound on a phase that is not there.
    """

    params: int
    tokens: int
    phases: tuple[str, ...] = ("init", "continue", "cooldown")
    cooldown: Span = (0.1, 0.2)
    lengths: Mapping[str, float | Span] = field(default_factory=dict)
    max_epochs: float = 4.0
    domain_epochs: Mapping[str, float] = field(default_factory=dict)
    phase_epochs: Mapping[str, float] = field(default_factory=dict)
    floors: Shares = field(default_factory=dict)
    caps: Shares = field(default_factory=dict)
    lr_end: float | Span = 0.0
    prefix: tuple[Trained, ...] = ()
    under_way: Trained | None = None
    branches: tuple[tuple[Trained, ...], ...] = ()
    sizes: Span | None = None
    ladder: tuple[int, ...] = ()
    guard: Guard | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "cooldown", (float(self.cooldown[0]), float(self.cooldown[1])))
        from mixlaw.optimizer.target.check import check  # it knows this module

        check(self)

    @property
    def flops(self) -> float:
        """Training FLOPs, 6 N D."""
        return FLOPS * self.params * self.tokens

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
        left = {d: phase.tokens * phase.mixture.share(d) - done.tokens * done.mixture.share(d) for d in names}
        kept = {d: count for d, count in left.items() if count > 0.0005 * rest}  # what rounding leaves is nothing
        return replace(phase, tokens=rest, mixture=Mixture.normalised(kept)) if rest > 0 and kept else None

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
        return replace(self, params=size, tokens=round(self.flops / FLOPS / size), sizes=None, ladder=())

    def on(self, branch: Sequence[Trained]) -> Target:
        """The target that goes on from one of its branches."""
        return replace(self, prefix=tuple(branch), branches=())

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
        from mixlaw.optimizer.target.json import as_json

        return as_json(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Read what `as_json` wrote."""
        from mixlaw.optimizer.target.json import from_json

        return from_json(data)

    def __str__(self) -> str:
        low, high = self.cooldown_range
        span = f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
        size = f"{self.params:,} params, {self.tokens:,} tokens"
        if self.sizes is not None:
            size = f"{self.flops:.3g} FLOPs at {self.sizes[0]:,.0f} to {self.sizes[1]:,.0f} params"
        done = self.trained + (self.under_way.tokens if self.under_way else 0)
        begun = f", {done:,} of them trained" if done else ""
        rest = "the rest" if self.prefix or self.branches else "them"
        last = f", {self.phases[-1]} {span} of {rest}" if len(self.phases) > 1 else ""
        return f"{size}{begun}{last}, {self._repeats()}"

    def _repeats(self) -> str:
        own = "".join(f", {most:g} of {name.removeprefix('kind:')}" for name, most in self.domain_epochs.items())
        return f"at most {self.max_epochs:g} epochs{own}"
