"""What is to be trained, and what no recipe for it may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixlaw.errors import InputError

Shares = Mapping[str, Mapping[str, float]]  # phase -> domain -> share of that phase's tokens


@dataclass(frozen=True)
class Target:
    """A model size and token budget, with the limits a recipe has to keep.

    Attributes:
        params: non-embedding parameters.
        tokens: tokens of all phases, repeats included.
        phases: names in order; the last one is the cooldown, whose length is free within `cooldown`.
        cooldown: least and greatest share of the tokens that the last phase may take; ignored with one phase.
        lengths: relative lengths of the phases before the last, equal where not given.
        max_epochs: how often a domain's unique tokens may be seen, over all phases together.
        domain_epochs: the same for single domains, overriding `max_epochs`.
        floors, caps: least and greatest share of a domain in a phase, phase -> domain -> share.
        lr_end: learning rate at the end of the last phase over the peak.

    Raises:
        InputError: a size, range or share that makes no sense, or a bound on a phase that is not there.
    """

    params: int
    tokens: int
    phases: tuple[str, ...] = ("init", "continue", "cooldown")
    cooldown: tuple[float, float] = (0.1, 0.2)
    lengths: Mapping[str, float] = field(default_factory=dict)
    max_epochs: float = 4.0
    domain_epochs: Mapping[str, float] = field(default_factory=dict)
    floors: Shares = field(default_factory=dict)
    caps: Shares = field(default_factory=dict)
    lr_end: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "cooldown", (float(self.cooldown[0]), float(self.cooldown[1])))
        if self.params <= 0 or self.tokens < max(1, len(self.phases)):
            raise InputError(
                f"a target needs positive params and tokens, got {self.params} and {self.tokens}; "
                "give what is to be trained"
            )
        if not self.phases or len(set(self.phases)) < len(self.phases):
            raise InputError(f"a target needs phases of different names, got {list(self.phases)}; name each once")
        low, high = self.cooldown
        if len(self.phases) > 1 and not 0 < low <= high < 1:
            raise InputError(
                f"the cooldown range must be 0 < least <= greatest < 1 of all tokens, got {low:g} to {high:g}; "
                "mend the range"
            )
        self._check_shares()
        epochs = {"max_epochs": self.max_epochs, **self.domain_epochs}
        wrong = {name: value for name, value in (epochs | dict(self.lengths)).items() if not value > 0}
        if wrong:
            raise InputError(
                f"epochs and phase lengths must be positive, got {wrong}; cap the share at 0 to leave a domain out"
            )
        if not 0 <= self.lr_end <= 1:
            raise InputError(
                f"lr_end must be between 0 and 1, got {self.lr_end}; 0 decays to nothing, 1 stays constant"
            )

    def _check_shares(self) -> None:
        """Refuse bounds outside 0..1 and bounds on unknown phases."""
        for name, bounds in (("floors", self.floors), ("caps", self.caps)):
            unknown = [phase for phase in bounds if phase not in self.phases]
            if unknown:
                raise InputError(
                    f"{name} are set for phase {unknown[0]!r}, the target has {', '.join(self.phases)}; "
                    "rename one of them"
                )
            wrong = {f"{p}/{d}": v for p, by in bounds.items() for d, v in by.items() if not 0 <= v <= 1}
            if wrong:
                raise InputError(f"{name} must be shares between 0 and 1, got {wrong}; give 0.1 for 10 %")

    @property
    def cooldown_range(self) -> tuple[float, float]:
        """Share of the last phase: `cooldown`, or all of it where there is one phase."""
        return self.cooldown if len(self.phases) > 1 else (1.0, 1.0)

    @property
    def before(self) -> tuple[float, ...]:
        """Length of each phase over the tokens before the last phase: sums to 1; the last entry is 0."""
        weights = [float(self.lengths.get(phase, 1.0)) for phase in self.phases[:-1]]
        return (*(weight / sum(weights) for weight in weights), 0.0)

    def phase_tokens(self, cooldown: float) -> dict[str, int]:
        """Whole tokens of each phase, summing to `tokens`, where the last phase takes the share `cooldown`."""
        last = self.tokens if len(self.phases) == 1 else round(self.tokens * cooldown)
        sizes, used, ahead = {}, 0, 0.0
        for phase, length in zip(self.phases[:-1], self.before, strict=False):
            ahead += length
            sizes[phase] = round((self.tokens - last) * ahead) - used
            used += sizes[phase]
        return {**sizes, self.phases[-1]: last}

    def epochs(self, domain: str) -> float:
        """How often the unique tokens of a domain may be seen."""
        return self.domain_epochs.get(domain, self.max_epochs)

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Target.from_json`."""
        return {
            "params": self.params,
            "tokens": self.tokens,
            "phases": list(self.phases),
            "cooldown": list(self.cooldown),
            "lengths": dict(self.lengths),
            "max_epochs": self.max_epochs,
            "domain_epochs": dict(self.domain_epochs),
            "floors": {phase: dict(by) for phase, by in self.floors.items()},
            "caps": {phase: dict(by) for phase, by in self.caps.items()},
            "lr_end": self.lr_end,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """Read what `as_json` wrote."""
        return cls(**{**data, "phases": tuple(data["phases"]), "cooldown": tuple(data["cooldown"])})

    def __str__(self) -> str:
        low, high = self.cooldown_range
        span = f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"
        size = f"{self.params:,} params, {self.tokens:,} tokens"
        return f"{size}, {self.phases[-1]} {span} of them, at most {self.max_epochs:g} epochs"
