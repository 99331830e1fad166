"""What to train: mixtures, phases, recipes, and the lineages that let recipes share training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Real
from typing import Any

from mixlaw.domain import Domain as Domain
from mixlaw.domain import Kind as Kind
from mixlaw.errors import InvalidMixture, InvalidRecipe
from mixlaw.frozen import FrozenDict
from mixlaw.numbers import percent, size
from mixlaw.printable import Printable

TOLERANCE = 1e-6  # shares sum to one within this
LARGEST = 2**63 - 1  # params, tokens and seeds are columns of 64-bit whole numbers


def _whole(value: Any) -> bool:
    """Whether a value is a whole number of 64 bits; texts, truth values, infinity and NaN are not."""
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    return bool(abs(number) <= LARGEST and number == int(number))


class Schedule(Enum):
    """Shape of the learning rate over a recipe."""

    WSD = "wsd"  # warm up, stay, decay where a phase says so: phases can be shared by many recipes
    COSINE = "cosine"  # one half wave over all tokens: depends on the end from the first step, shares nothing


class Decay(Enum):
    """Shape in which the learning rate falls within a phase."""

    LINEAR = "linear"
    COSINE = "cosine"  # half a wave
    ONE_SQRT = "1-sqrt"  # 1 minus the root of the way: steep at first (Haegele et al. 2024, arXiv:2405.18392)


@dataclass(frozen=True)
class Mixture(Mapping[str, float]):
    """Share of training tokens per domain: non-negative, summing to one; an absent domain has share 0.

    Zero shares are dropped and names sorted, so that equal mixtures are equal values with equal hashes.

    Raises:
        InvalidMixture: a share is negative or not finite, or the shares do not sum to 1 within 1e-6.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        wrong = {name: share for name, share in self.shares.items() if not (math.isfinite(share) and share >= 0)}
        if wrong:
            raise InvalidMixture(f"shares must be finite and >= 0, got {wrong}; take the minus sign or the entry out")
        total = math.fsum(self.shares.values())
        if abs(total - 1) > TOLERANCE:
            raise InvalidMixture(
                f"shares must sum to 1, got {total:.6g} from {dict(self.shares)}; "
                "correct one share, or use Mixture.normalised(...) for raw weights"
            )
        shares = {name: float(share) for name, share in sorted(self.shares.items()) if share > 0}
        object.__setattr__(self, "shares", FrozenDict(shares))

    @classmethod
    def normalised(cls, weights: Mapping[str, float]) -> Mixture:
        """Build a mixture from weights of any positive total."""
        total = math.fsum(weights.values())
        if not total > 0:
            raise InvalidMixture(f"weights must have a positive total, got {total:.6g} from {dict(weights)}")
        return cls({name: weight / total for name, weight in weights.items()})

    def __getitem__(self, domain: str) -> float:
        return self.shares[domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shares)

    def __len__(self) -> int:
        return len(self.shares)

    def share(self, domain: str) -> float:
        """Share of a domain, 0 where it is not in the mixture."""
        return self.shares.get(domain, 0.0)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mixture):
            return self.shares == other.shares
        return self.shares == {n: s for n, s in other.items() if s} if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.shares.items()))

    def __repr__(self) -> str:
        return f"Mixture({dict(self.shares)})"

    def __str__(self) -> str:
        order = sorted(self.shares.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {percent(share, 1)}" for name, share in order)


@dataclass(frozen=True)
class Context:
    """Sequences and rotary embeddings from a phase on, where they differ from what they were before.

    Attributes:
        sequence: tokens per sequence.
        rope_theta: base of the rotary embeddings.
        rope_scaling: `linear` or `yarn`, by the ratio of the phase's sequence to the study's.
    """

    sequence: int | None = None
    rope_theta: float | None = None
    rope_scaling: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Phase:
    """One stage of training: its tokens, their mixture, and where the learning rate ends.

    Attributes:
        name: `init`, `continue`, `cooldown` or any other name without a colon.
        tokens: tokens trained on in this phase, repeats included.
        mixture: shares of those tokens.
        lr_end: learning rate at the end of the phase over the peak: 1 stays constant, 0 decays to zero, None is not
            known (a foreign run). Of a cosine recipe the last phase's counts, 1 there meaning zero.
        decay: shape of the fall to it; a phase that ends at 1 has none and is linear.
        context: longer sequences and their rotary embeddings; None for those of the study.

    Raises:
        InvalidRecipe: no tokens, a colon in the name, or lr_end outside 0..1.
    """

    name: str
    tokens: int
    mixture: Mixture
    lr_end: float | None = 1.0
    decay: Decay = Decay.LINEAR
    context: Context | None = None

    def __post_init__(self) -> None:
        if not self.name or ":" in self.name:
            raise InvalidRecipe(f"a phase needs a name without a colon, got {self.name!r}")
        if not _whole(self.tokens) or self.tokens <= 0:
            raise InvalidRecipe(f"phase {self.name!r} needs a positive whole number of tokens, got {self.tokens}")
        if self.lr_end is not None and not 0 <= self.lr_end <= 1:
            raise InvalidRecipe(f"phase {self.name!r} needs lr_end between 0 and 1, got {self.lr_end}")
        # Equal phases must have equal lineages, so 1 and 1.0 are written alike.
        object.__setattr__(self, "tokens", int(self.tokens))
        object.__setattr__(self, "lr_end", None if self.lr_end is None else float(self.lr_end))
        object.__setattr__(self, "decay", Decay.LINEAR if self.lr_end == 1 else self.decay)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    def __hash__(self) -> int:
        return hash((self.name, self.tokens, self.mixture, self.lr_end, self.decay, self.context))

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Phase.from_json`."""
        shares = dict(self.mixture.shares)
        shape: dict[str, Any] = {} if self.decay is Decay.LINEAR else {"decay": self.decay.value}
        shape |= {} if self.context is None else {"context": self.context.as_json()}
        return {"name": self.name, "tokens": self.tokens, "mixture": shares, "lr_end": self.lr_end, **shape}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Phase:
        """Read what `as_json` wrote."""
        mixture, decay = Mixture(data["mixture"]), Decay(data.get("decay", "linear"))
        context = Context(**data["context"]) if data.get("context") else None
        return cls(data["name"], data["tokens"], mixture, data.get("lr_end", 1.0), decay, context)


@dataclass(frozen=True)
class Recipe(Printable):
    """Everything that determines one training run; immutable, comparable, hashable.

    Attributes:
        params: non-embedding parameters of the model.
        phases: in order; names differ.
        seed: of the initialisation and the data order, the same for every mixture (paired comparison).
        unique: unique tokens the run may draw from a domain, where fewer than the domain has (simulated epoching).
        data: identity of the tokenizer and training settings it runs on; empty for foreign runs.
        shards: identity of the token shards of each of its domains; empty for foreign runs.
        schedule: warmup-stable-decay, or cosine over all phases.
        lr: peak learning rate over that of the rule for its size (of a foreign run: over its team's own rule).
        warmup: tokens of linear warm-up; None, the rule's.

    Raises:
        InvalidRecipe: no phases, two phases of one name, a size, rate or unique count that is not positive, a negative
            seed or warm-up.
    """

    params: int
    phases: tuple[Phase, ...]
    seed: int = 0
    unique: Mapping[str, int] = field(default_factory=dict)
    data: str = ""
    schedule: Schedule = Schedule.WSD
    lr: float = 1.0
    warmup: int | None = None
    shards: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if not names:
            raise InvalidRecipe("a recipe needs at least one phase, got none")
        if len(set(names)) < len(names):
            raise InvalidRecipe(f"phase names must differ, got {names}; give a returning phase a name of its own")
        if not _whole(self.params) or self.params <= 0:
            raise InvalidRecipe(f"params must be a positive whole number below 2^63, got {self.params}")
        if not _whole(self.seed) or self.seed < 0:
            raise InvalidRecipe(f"a seed must be a whole number from 0 on, got {self.seed}")
        if not 0 < self.lr < math.inf:
            raise InvalidRecipe(f"lr, the peak rate over the rule's, must be above 0, got {self.lr}; 1 is the rule's")
        if self.warmup is not None and not (_whole(self.warmup) and self.warmup >= 0):
            raise InvalidRecipe(f"warmup must be a whole number of tokens from 0 on, got {self.warmup}")
        short = {name: count for name, count in self.unique.items() if not _whole(count) or count <= 0}
        if short:
            raise InvalidRecipe(
                f"unique tokens must be positive whole numbers, got {short}; leave the domain out instead"
            )
        object.__setattr__(self, "params", int(self.params))
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "lr", float(self.lr))
        object.__setattr__(self, "warmup", None if self.warmup is None else int(self.warmup))
        unique = {name: int(count) for name, count in sorted(self.unique.items())}
        object.__setattr__(self, "unique", FrozenDict(unique))
        object.__setattr__(self, "shards", FrozenDict(sorted(self.shards.items())))

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    def __hash__(self) -> int:
        return hash(self.lineage)

    @property
    def tokens(self) -> int:
        """Tokens of all phases together."""
        return sum(phase.tokens for phase in self.phases)

    @property
    def cosine_end(self) -> float:
        """Learning rate over the peak that a cosine recipe falls to: what its last phase says, 0 where that is 1."""
        end = self.phases[-1].lr_end
        return 0.0 if end is None or end == 1 else end

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains that have a share in any phase, sorted."""
        return tuple(sorted({name for phase in self.phases for name in phase.mixture}))

    @property
    def mixture(self) -> Mixture:
        """Shares over the whole recipe."""
        return Mixture.normalised({name: self.domain_tokens(name) for name in self.domains})

    def domain_tokens(self, domain: str) -> float:
        """Tokens of one domain over all phases."""
        return math.fsum(phase.tokens * phase.mixture.share(domain) for phase in self.phases)

    @property
    def lineage(self) -> str:
        """Content hash of the whole recipe: the name of its run."""
        return self.prefix(len(self.phases))

    def prefix(self, phases: int, cut: int | None = None) -> str:
        """Lineage after the first `phases` phases, the last of them cut to `cut` tokens.

        Two recipes share the training up to a point exactly if they share the lineage of that point. A phase whose
        learning rate decays looks different before its end is fixed, so it can only be shared whole. Shards count up to
        there: a cooldown on another domain does not part trunks.
        """
        head = [phase.as_json() for phase in self.phases[:phases]]
        if cut is not None:
            head[-1]["tokens"] = cut
        identity: dict[str, Any] = {
            "params": self.params,
            "seed": self.seed,
            "unique": dict(self.unique),
            "data": self.data,
            "phases": head,
            **self._rate,
            **self._shards_of(self.phases[:phases]),
        }
        if self.schedule is Schedule.COSINE:
            identity["cosine"] = self.tokens
            if self.cosine_end:
                identity["cosine_end"] = self.cosine_end
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def shared_tokens(self, other: Recipe) -> int:
        """Tokens of training that two recipes have in common: up to there their lineages agree.

        Example:
            >>> text, code = Mixture({"text": 1.0}), Mixture({"code": 1.0})
            >>> one = Recipe(1000, (Phase("init", 800, text), Phase("cooldown", 200, text, 0.0)))
            >>> one.shared_tokens(one.with_mixture("cooldown", code))
            800
        """
        same = ("params", "seed", "unique", "data", "schedule", "lr", "warmup")
        if any(getattr(self, name) != getattr(other, name) for name in same):
            return 0
        if self.schedule is Schedule.COSINE and (self.tokens, self.cosine_end) != (other.tokens, other.cosine_end):
            return 0
        done, flat = 0, self.schedule is Schedule.WSD
        for mine, its in zip(self.phases, other.phases, strict=False):
            flat = flat and mine.lr_end == 1
            if any(self.shards.get(name) != other.shards.get(name) for name in mine.mixture):
                return done
            if mine == its:
                done += mine.tokens
                continue
            alike = flat and its.lr_end == 1 and (mine.name, mine.mixture) == (its.name, its.mixture)
            return done + (min(mine.tokens, its.tokens) if alike else 0)
        return done

    def with_mixture(self, phase: str, mixture: Mixture) -> Recipe:
        """The same recipe with another mixture in one phase."""
        return replace(self, phases=tuple(replace(p, mixture=mixture) if p.name == phase else p for p in self.phases))

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Recipe.from_json`."""
        return {
            "params": self.params,
            "seed": self.seed,
            "unique": dict(self.unique),
            "data": self.data,
            "schedule": self.schedule.value,
            **self._rate,
            **self._shards_of(self.phases),
            "phases": [phase.as_json() for phase in self.phases],
        }

    def _shards_of(self, phases: Sequence[Phase]) -> dict[str, Any]:
        """Shards of the domains of some phases, where they are known: foreign runs have none."""
        shards = {name: of for name, of in self.shards.items() if any(name in phase.mixture for phase in phases)}
        return {"shards": shards} if shards else {}

    @property
    def _rate(self) -> dict[str, Any]:
        """Rate and warm-up where they are not the rule's: the lineage of a recipe that follows it has neither."""
        lr = {} if self.lr == 1 else {"lr": self.lr}
        return lr if self.warmup is None else {**lr, "warmup": self.warmup}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what `as_json` wrote."""
        return cls(
            params=data["params"],
            phases=tuple(Phase.from_json(phase) for phase in data["phases"]),
            seed=data.get("seed", 0),
            unique=data.get("unique", {}),
            data=data.get("data", ""),
            schedule=Schedule(data.get("schedule", "wsd")),
            lr=data.get("lr", 1.0),
            warmup=data.get("warmup"),
            shards=data.get("shards", {}),
        )

    def __str__(self) -> str:
        cosine = self.schedule is Schedule.COSINE
        rate = f", cosine learning rate to {_level(self.cosine_end)}" if cosine else ""
        rate += "" if self.lr == 1 else f", {self.lr:g} times the rule's peak rate"
        rate += "" if self.warmup is None else f", warm-up over {size(self.warmup)} tokens"
        head = f"{size(self.params)} params, {size(self.tokens)} tokens, seed {self.seed}{rate}"
        of = (f"{p.name}: {size(p.tokens)} tokens, {p.mixture}{'' if cosine else f', {_rate(p)}'}" for p in self.phases)
        return "\n  ".join([head, *of])


def _equal(value: Phase | Recipe, other: object) -> bool:
    """Equality of values of one class by their fields, and with plain data as `as_json` gives it."""
    if isinstance(other, dict):
        return value.as_json() == other
    return vars(value) == vars(other) if type(value) is type(other) else NotImplemented


def _rate(phase: Phase) -> str:
    """Where the learning rate of a phase ends, in words."""
    if phase.lr_end is None:
        return "learning rate not known"
    if phase.lr_end == 1:
        return "constant learning rate"
    shape = "" if phase.decay is Decay.LINEAR else f" ({phase.decay.value})"
    return f"learning rate to {_level(phase.lr_end)}{shape}"


def _level(end: float) -> str:
    return f"{end:.3g} of its peak" if end else "zero"
