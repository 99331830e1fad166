"""How a study trains: the ladder's rules with the study's overrides, as one value that is sent to the workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mixlaw.errors import InputError
from mixlaw.recipe import Context, Phase, Recipe
from mixlaw.runner.models.architecture import PLAIN, Architecture
from mixlaw.runner.models.foreign import Built, InitialCheckpoint, built
from mixlaw.runner.models.ladder import RULES, Hyperparameters, batch_rule, half_life, hyperparameters, shape

HALF_LIFE = "half-life"  # in place of a beta2
LINEAGE_FIELDS = ("tokenizer_hash", "vocabulary", "sequence", "batch", "learning_rate", "warmup_tokens", "beta2")


HELD_OUT_TOKENS = 24_576  # of each domain, spread evenly over its held-out documents
LARGE, LARGE_HELD_OUT_TOKENS = 100_000_000, 2**20  # from this many parameters on, where training costs far more


def held_out_rule(params: int) -> int:
    """Tokens of held-out text per domain that are scored after training a model of a size."""
    return LARGE_HELD_OUT_TOKENS if params >= LARGE else HELD_OUT_TOKENS


@dataclass(frozen=True)
class Overrides:
    """What a study sets for one size in place of the rules, or of what it sets for all sizes; None where it does not.

    Attributes:
        params: the size.
        gpus: devices on which a segment trains; None: as few as hold it.
        batch, learning_rate, warmup_tokens, beta2, weight_decay, clip, beta1, eps, z_loss: as in `Setup`.
    """

    params: int
    gpus: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup_tokens: int | None = None
    beta2: float | str | None = None
    weight_decay: float | None = None
    clip: float | None = None
    beta1: float | None = None
    eps: float | None = None
    z_loss: float | None = None


@dataclass(frozen=True)
class Setup:
    """Training settings of a study; None means the rule of `runner.models.ladder` for the size.

    Attributes:
        data: folder of tokenizer, shards and items.
        data_hash: identity of its content, by which a node sees that its folder is the driver's.
        tokenizer_hash: identity of the tokenizer.
        shards: identity of the token shards by domain.
        measured_on: identity of the held-out text or items of each task that the data folder measures.
        vocabulary: token ids.
        end: token id that ends a text.
        sequence: tokens per sequence.
        batch: sequences per step.
        learning_rate, warmup_tokens, beta2, weight_decay, clip, beta1, eps, z_loss: overrides.
        architecture: of fresh models.
        sizes: overrides for single sizes.
        tasks: names of the tasks to evaluate at the end of a run.
        measures: JSON of the measure of each task that the data folder does not have (`evaluate.run.read_measure`).
        checkpoint_seconds: seconds between the checkpoints that a killed segment resumes from.
        compile: whether to use torch.compile; None: on GPUs.
        micro_batch: sequences per device and forward pass; None: what fits, and on a CPU what stays in its caches.
        recompute: whether to recompute activations in the backward pass; None: if they do not fit.
        sinks: where training is logged besides a JSONL file: "tensorboard", "wandb", "mlflow", "trackio".
        start: the pretrained model that recipes start from; None: a fresh one.
        keep_optimizer: whether the last checkpoint of a recipe from which no other resumes has the optimizer's state.
        muon: whether matrices of the layers are trained by Muon.
        document_masks: whether tokens see their own document alone, positions counted from its beginning.
        contexts: longer sequences by phase.
        held_out_tokens: tokens of held-out text scored per domain; None: by size (`held_out_rule`).
        evaluate_at: shares of a recipe's tokens at which held-out text is scored while it trains.
    """

    data: str
    data_hash: str
    vocabulary: int
    sequence: int
    tasks: tuple[str, ...]
    batch: int | None = None
    learning_rate: float | None = None
    warmup_tokens: int | None = None
    beta2: float | str | None = None
    checkpoint_seconds: float = 300.0
    end: int = 0
    compile: bool | None = None
    micro_batch: int | None = None
    recompute: bool | None = None
    sinks: tuple[str, ...] = ()
    start: InitialCheckpoint | None = None
    held_out_tokens: int | None = None
    keep_optimizer: bool = True
    evaluate_at: tuple[float, ...] = ()
    weight_decay: float | None = None
    clip: float | None = None
    beta1: float | None = None
    eps: float | None = None
    z_loss: float | None = None
    muon: bool = False
    document_masks: bool = False
    architecture: Architecture = PLAIN
    sizes: tuple[Overrides, ...] = ()
    tokenizer_hash: str = ""
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    shards: Mapping[str, str] = field(default_factory=dict, hash=False)
    measured_on: Mapping[str, str] = field(default_factory=dict, hash=False)
    contexts: Mapping[str, Context] = field(default_factory=dict, hash=False)

    @cached_property
    def identity(self) -> str:
        """Hash of everything that changes training, the shards aside: tokenizer, settings, rules, pretrained model.

        Shards are part of each recipe, those of its own domains. Tasks, folders and ways to compute the same sums do
        not count; the end-of-text token is part of the shards. The pretrained model counts only if there is one, so
        that other studies keep their runs.
        """
        fields = {name: value for name, value in asdict(self).items() if name in LINEAGE_FIELDS}
        # These count only where they are set, as does a pretrained model: other studies keep their runs.
        later = {name: getattr(self, name) for name in ("weight_decay", "clip", "beta1", "eps", "z_loss")}
        fields |= {name: value for name, value in later.items() if value is not None}
        fields |= {name: True for name in ("document_masks", "muon") if getattr(self, name)}
        if self.architecture != PLAIN:
            fields["architecture"] = self.architecture.changed()
        if self.start is not None:
            fields["start"] = [self.start.hash, self.start.optimizer]
        return hashlib.sha256(json.dumps([RULES, fields], sort_keys=True).encode()).hexdigest()[:16]

    def identity_of(self, params: int) -> str:
        """The identity for a size: the study's, and what is set for this size alone, if anything."""
        own = asdict(self.overrides(params))
        own = {name: value for name, value in own.items() if value is not None and name not in ("params", "gpus")}
        if not own:
            return self.identity
        return hashlib.sha256(json.dumps([self.identity, own], sort_keys=True).encode()).hexdigest()[:16]

    def overrides(self, params: int) -> Overrides:
        """What is set for a size alone."""
        return next((size for size in self.sizes if size.params == params), Overrides(params))

    def _set(self, name: str, params: int) -> Any:
        """A setting of a size, else of all sizes; None if it is not set."""
        own = getattr(self.overrides(params), name)
        return getattr(self, name) if own is None else own

    def sequences(self, params: int) -> int:
        """Sequences per step for a size."""
        return self._set("batch", params) or max(1, round(batch_rule(params) / self.sequence))

    def step_tokens(self, params: int) -> int:
        """Tokens per step for a size."""
        return self.sequences(params) * self.sequence

    def hyperparameters(self, params: int) -> Hyperparameters:
        """Learning rate, warm-up and so on for a size: as set, else by the rules."""
        rule = hyperparameters(params, self.step_tokens(params))
        if (base := self.architecture.complete_p) is not None:
            rate = hyperparameters(shape(base).params, self.step_tokens(params)).learning_rate
            rule = replace(rule, learning_rate=rate)
        own = {name: self._set(name, params) for name in asdict(rule)}
        if own["beta2"] == HALF_LIFE:
            own["beta2"] = half_life(params, self.step_tokens(params))
        return replace(rule, **{name: value for name, value in own.items() if value is not None})

    def rates(self, recipe: Recipe) -> Hyperparameters:
        """Learning rate, warm-up and so on of a recipe: those of its size, as far as it has none of its own."""
        rule = self.hyperparameters(recipe.params)
        warmup = rule.warmup_tokens if recipe.warmup is None else recipe.warmup
        return replace(rule, learning_rate=rule.learning_rate * recipe.lr, warmup_tokens=warmup)

    def in_phase(self, params: int, phase: Phase) -> Setup:
        """The setup in a phase: with its sequences, and as many of them as make the same tokens per step.

        Raises:
            InputError: a step is not a whole number of its sequences.
        """
        sequence = phase.context.sequence if phase.context else None
        if sequence is None:
            return self
        step = self.step_tokens(params)
        if step % sequence:
            raise InputError(
                f"phase {phase.name!r} has sequences of {sequence:,} tokens and a step of {params:,} parameters has "
                f"{step:,}: choose a sequence that divides it, or set training.batch higher"
            )
        sizes = tuple(replace(of, batch=None) if of.params == params else of for of in self.sizes)
        return replace(self, sequence=sequence, batch=step // sequence, sizes=sizes)

    def flops(self, params: int, tokens: int) -> float:
        """Training FLOPs of this many tokens at a size."""
        if self.start is not None:
            return self.start.flops_per_token * tokens
        return shape(params).flops_per_token(self.embedded, self.sequence) * tokens

    def moments(self, recipe: Recipe, start: int, stop: int) -> frozenset[int]:
        """Steps between two positions of a recipe, in tokens, after which it is scored while it trains."""
        step = self.step_tokens(recipe.params)
        ends = {round(share * recipe.tokens / step) for share in self.evaluate_at}
        return frozenset(end for end in ends if start < end * step <= stop and end * step < recipe.tokens)

    def scored(self, params: int, held_out: Mapping[str, int]) -> int:
        """Tokens of held-out text that are scored at a time, given those that each domain has."""
        most = self.held_out_tokens or held_out_rule(params)
        return sum(min(most, tokens) for name, tokens in held_out.items() if name in self.tasks)

    def recipe_flops(self, recipe: Recipe, phase: str | None = None, tokens: int = 0) -> float:
        """Training FLOPs of a recipe, or of some tokens of one of its phases: longer sequences take more a token."""
        parts = [(p, tokens if phase else p.tokens) for p in recipe.phases if phase in (None, p.name)]
        return sum(self.in_phase(recipe.params, p).flops(recipe.params, count) for p, count in parts)

    @property
    def embedded(self) -> int:
        """Rows of the embeddings: the tokenizer's vocabulary, padded."""
        return self.architecture.vocabulary(self.vocabulary)

    def built(self, params: int) -> Built:
        """What a model of a size is: the ladder's shape, or that of the pretrained model."""
        if self.start is not None:
            return built(self.start)
        size, untied = shape(params), self.architecture.untied
        return Built(size.params, size.width, size.depth, size.heads, size.inner, self.embedded, untied)

    def weights(self, params: int) -> int:
        """All parameters of a size, including embeddings."""
        tables = self.embedded * (1 + self.architecture.untied)
        return self.start.weights if self.start else params + tables * shape(params).width

    def adopt(self, recipe: Recipe) -> Recipe:
        """The recipe as it will be trained here: a size of the ladder, whole batches per phase, on these shards.

        Raises:
            InputError: there is no such size, or the pretrained model has another.
        """
        params = shape(recipe.params).params if self.start is None else self.start.params
        if abs(params - recipe.params) > params / 3:
            raise InputError(
                f"a recipe has {recipe.params:,} parameters and training.start is a model of {params:,}; "
                "give that size under [sizes]"
            )
        step = self.step_tokens(params)
        whole = tuple(
            replace(p, tokens=max(1, round(p.tokens / step)) * step, context=p.context or self.contexts.get(p.name))
            for p in recipe.phases
        )
        for phase in whole:
            self.in_phase(params, phase)
        shards = {name: self.shards[name] for name in recipe.domains if name in self.shards}
        return replace(recipe, params=params, phases=whole, data=self.identity_of(params), shards=shards)

    def as_json(self) -> dict[str, Any]:
        """Plain data, the inverse of `Setup.from_json`."""
        lists: dict[str, list[Any]] = {name: list(getattr(self, name)) for name in ("tasks", "sinks", "evaluate_at")}
        lists["sizes"] = [asdict(size) for size in self.sizes]
        return {**asdict(self), **lists, "contexts": {name: of.as_json() for name, of in self.contexts.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setup:
        """Read what `as_json` wrote."""
        start = InitialCheckpoint(**data["start"]) if data.get("start") else None
        lists = {name: tuple(data.get(name, ())) for name in ("tasks", "sinks", "evaluate_at")}
        sizes = tuple(Overrides(**size) for size in data.get("sizes", ()))
        architecture = Architecture(**data.get("architecture", {}))
        contexts = {name: Context(**of) for name, of in data.get("contexts", {}).items()}
        read = {"start": start, "sizes": sizes, "architecture": architecture, "contexts": contexts}
        return cls(**{**data, **lists, **read})

    @property
    def folder(self) -> Path:
        """The data folder as a path."""
        return Path(self.data)

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer, a copy of which is in every checkpoint."""
        return self.folder / "tokenizer"
