"""What an Optuna trial says about its mixtures: phases in the order of training, shares as parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mixlaw.errors import InputError
from mixlaw.optimizer.optuna.simplex import Simplex
from mixlaw.recipe import Domain, Mixture

#: Prefix of the user attribute in which a trial declares a phase.
DECLARED = "mixture:"


class Suggesting(Protocol):
    """What is asked of an Optuna trial: running, fixed or frozen."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """Attributes by name."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Set one of them."""

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Value of a parameter."""


class TrialLike(Protocol):
    """What is read of a trial: its parameters and its attributes."""

    @property
    def params(self) -> dict[str, Any]:
        """Parameters by name."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """Attributes by name."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A phase as one trial declares it.

    Attributes:
        phase: name.
        simplex: the mixtures it may have.
        tokens: of the phase, in any unit that is the same for all phases.
        unique: unique tokens by domain, where known.
    """

    phase: str
    simplex: Simplex
    tokens: float
    unique: Mapping[str, float]

    def name(self, domain: str) -> str:
        """The parameter that holds a domain's share."""
        return f"{self.phase}/{domain}"

    def mixture(self, params: Mapping[str, Any]) -> Mixture | None:
        """The mixture that parameters stand for; None where one of them is not there yet."""
        import numpy as np

        names = [self.name(domain) for domain in self.simplex.domains]
        if any(name not in params for name in names):
            return None
        shares = self.simplex.read(np.array([float(params[name]) for name in names]))
        return Mixture.normalised(dict(zip(self.simplex.domains, shares.tolist(), strict=True)))

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Stage.from_json`."""
        bounds = zip(self.simplex.low.tolist(), self.simplex.high.tolist(), strict=True)
        domains = {name: list(pair) for name, pair in zip(self.simplex.domains, bounds, strict=True)}
        return {"tokens": self.tokens, "domains": domains, "unique": dict(self.unique)}

    @classmethod
    def from_json(cls, phase: str, data: Mapping[str, Any]) -> Stage:
        """Read what `as_json` wrote."""
        floors = {name: pair[0] for name, pair in data["domains"].items()}
        caps = {name: pair[1] for name, pair in data["domains"].items()}
        return cls(phase, Simplex.of(tuple(data["domains"]), floors, caps), data["tokens"], data["unique"])


def suggest_mixture(
    trial: Suggesting,
    phase: str,
    domains: Iterable[str | Domain],
    *,
    tokens: float | None = None,
    floors: Mapping[str, float] | None = None,
    caps: Mapping[str, float] | None = None,
) -> Mixture:
    """Suggest the mixture of one phase; call it once for each phase, in the order of training.

    The trial gets a parameter `<phase>/<domain>` in [floor, cap] for each domain, and a user attribute
    `mixture:<phase>`. Under `MixtureSampler` the parameters are the shares. Any other sampler knows nothing of
    simplices: there, as in trials queued by hand, they are weights, and what they have above the floors is scaled
    until shares sum to 1 within the caps.

    Args:
        trial: of `Study.optimize` or `Study.ask`, a `FixedTrial`, or a `FrozenTrial` to read again.
        phase: name, without a colon or slash.
        domains: names; a `Domain` says how many of its tokens are unique, too.
        tokens: of this phase; as many in every phase if None.
        floors, caps: least and greatest share of single domains.

    Raises:
        InputError: a bad name, bounds that no mixture keeps, tokens that are not positive, unique tokens without
            tokens of the phase, or a phase that this trial has declared in another way.
    """
    listed = list(domains)
    names = tuple(d.name if isinstance(d, Domain) else d for d in listed)
    if not phase or ":" in phase or "/" in phase:
        raise InputError(f"a phase needs a name without a colon or slash, got {phase!r}; rename it")
    if tokens is not None and not (math.isfinite(tokens) and tokens > 0):
        raise InputError(f"phase {phase!r} needs a positive number of tokens, got {tokens}; leave an empty phase out")
    unique = {d.name: float(d.unique_tokens) for d in listed if isinstance(d, Domain)}
    if unique and tokens is None:
        raise InputError(f"domains {sorted(unique)} have unique tokens, but phase {phase!r} has none; give tokens=")
    stage = Stage(phase, Simplex.of(names, floors or {}, caps or {}), float(tokens or 1.0), unique)
    declare(trial, stage)
    bounds = zip(names, stage.simplex.low.tolist(), stage.simplex.high.tolist(), strict=True)
    mixture = stage.mixture({stage.name(d): trial.suggest_float(stage.name(d), low, high) for d, low, high in bounds})
    assert mixture is not None, "all parameters have just been suggested"
    return mixture


def declare(trial: Suggesting, stage: Stage) -> None:
    """Write a phase into the trial, for samplers in any process to see, with its place in the order of training.

    Raises:
        InputError: the trial has declared the phase in another way.
    """
    key, attributes = DECLARED + stage.phase, trial.user_attrs
    known = [name for name in attributes if name.startswith(DECLARED)]
    if key not in known:
        trial.set_user_attr(key, {**stage.as_json(), "order": len(known)})
        return
    if stage.as_json() != {name: value for name, value in attributes[key].items() if name != "order"}:
        raise InputError(
            f"phase {stage.phase!r} was suggested before in this trial, with other domains, tokens or bounds; "
            "give the second phase a name of its own"
        )


def stages(trial: TrialLike) -> list[Stage]:
    """The phases that a trial has declared, in the order of training."""
    declared = {name: value for name, value in trial.user_attrs.items() if name.startswith(DECLARED)}
    ordered = sorted(declared.items(), key=lambda item: int(item[1]["order"]))
    return [Stage.from_json(name.removeprefix(DECLARED), value) for name, value in ordered]


def mixed(trial: TrialLike) -> list[tuple[Stage, Mixture]]:
    """The phases of a trial whose mixture is complete, in the order of training."""
    pairs = [(stage, stage.mixture(trial.params)) for stage in stages(trial)]
    return [(stage, mixture) for stage, mixture in pairs if mixture is not None]


def mixtures(trial: TrialLike) -> dict[str, Mixture]:
    """Mixture by phase, as the objective of a trial read them."""
    return {stage.phase: mixture for stage, mixture in mixed(trial)}
