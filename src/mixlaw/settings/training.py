"""The tables of study.toml on training: how, in which phases, and the recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mixlaw.recipe import Context, Decay, Schedule
from mixlaw.settings.data import Share, Strict, Tokens

Beta2 = Annotated[float, Field(gt=0, lt=1)] | Literal["half-life"]


class Steps(Strict):
    """How every step is taken, for a study or for one of its sizes.

    Attributes:
        batch: sequences per step; absent, the published rule for the size.
        learning_rate, warmup_tokens, beta2: absent, the published rule for the size; a beta2 of "half-life" has the
            memory in tokens that the rule's has at the rule's batch.
        weight_decay: of matrices; absent, 0.1.
        clip: largest norm of the gradient; absent, 1.
        beta1, eps: of AdamW; absent, 0.9 and 1e-8.
        z_loss: weight of the squared log of the softmax's sum; absent, 0.
    """

    batch: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_tokens: int | None = Field(default=None, ge=0)
    beta2: Beta2 | None = None
    weight_decay: float | None = Field(default=None, ge=0)
    clip: float | None = Field(default=None, gt=0)
    beta1: float | None = Field(default=None, ge=0, lt=1)
    eps: float | None = Field(default=None, gt=0)
    z_loss: float | None = Field(default=None, ge=0)


class SizeOverrides(Steps):
    """What holds for one size, in place of the study's value or of the rule.

    Attributes:
        gpus: GPUs that train a segment together, of one machine where it has that many; absent, as few as hold it.
    """

    gpus: int | None = Field(default=None, ge=1)


class TrainingSettings(Steps):
    """What the ladder derives, and what overrides it; how every step is taken as in `Steps`.

    Attributes:
        sequence: tokens per sequence.
        qk_norm: normalise queries and keys, as Qwen3 does.
        untied: a matrix of its own for the output.
        rope_theta: base of the rotary embeddings.
        gqa: queries per key and value head.
        complete_p: a size, whose rate holds for all others by CompleteP.
        muon: train the matrices of the layers by Muon, everything else by AdamW.
        document_masks: tokens attend to their own document alone, with positions from its beginning.
        pad_vocabulary: the model's vocabulary is a multiple of this.
        sizes: overrides for single sizes.
        held_out: share of the documents kept for evaluation.
        longest_document: characters; longer documents are cut into documents of their own. Absent: they stay whole.
        drop_contaminated: sources of benchmark items whose n-grams no training document may hold, "items" for those of
            the data folder.
        drop_near_duplicates: keep one of documents that share most of their n-grams of words.
        held_out_tokens: tokens of them that are scored per domain; absent, 24,576, from 100M parameters on a million.
        evaluate_at: shares of a recipe at which they are scored while it trains, for rows with progress below 1.
        checkpoint_seconds: seconds between the checkpoints that a killed run resumes from.
        keep_optimizer: whether ends of recipes have the optimizer's state, so that longer ones can resume.
        simulate_epochs: give every proxy so small a part of each domain that it repeats as often as the target will.
        start: a Hugging Face directory, or a model on its hub, that recipes resume from.
        optimizer: of it: fresh, or loaded from its optimizer.safetensors.
        compile: torch.compile; absent, on accelerators.
        micro_batch: sequences on a device at once; absent, what fits.
        recompute: activation checkpointing; absent, where activations do not fit.
        sinks: any of tensorboard, wandb, mlflow and trackio.
    """

    sequence: int = Field(default=2048, ge=8)
    qk_norm: bool = False
    untied: bool = False
    rope_theta: float = Field(default=10_000.0, gt=1)
    gqa: int = Field(default=1, ge=1)
    complete_p: str | None = None
    muon: bool = False
    document_masks: bool = False
    pad_vocabulary: int = Field(default=1, ge=1)
    sizes: dict[str, SizeOverrides] = Field(default_factory=dict)
    held_out: float = Field(default=0.05, gt=0, lt=0.5)
    longest_document: int | None = Field(default=None, ge=100)
    drop_contaminated: tuple[str, ...] = ()
    drop_near_duplicates: bool = False
    held_out_tokens: int | None = Field(default=None, ge=1)
    evaluate_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    checkpoint_seconds: float = Field(default=300, gt=0)
    keep_optimizer: bool = True
    simulate_epochs: bool = False
    start: str | None = None
    optimizer: Literal["fresh", "loaded"] = "fresh"
    compile: bool | None = None
    micro_batch: int | None = Field(default=None, ge=1)
    recompute: bool | None = None
    sinks: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()

    @model_validator(mode="after")
    def _one_optimizer(self) -> TrainingSettings:
        if self.muon and self.complete_p is not None:
            raise ValueError("training.complete_p is for AdamW; leave it out, or muon")
        if self.muon and self.optimizer == "loaded":
            raise ValueError('training.muon has momentum of its own; set optimizer = "fresh", or leave muon out')
        return self


class PhaseSettings(Strict):
    """A phase of the study: its share of a recipe's tokens, where its learning rate ends, and the shape of the fall.

    Attributes:
        sequence: tokens per sequence, a multiple of the study's; the tokens of a step stay.
        rope_theta: base of the rotary embeddings from this phase on.
        rope_scaling: linear or yarn, by the ratio of sequence to the study's.
    """

    name: str = Field(min_length=1, pattern=r"^[^:\x00-\x1f\x7f]+$")
    share: float = Field(gt=0, le=1)
    lr_end: Share = 1.0
    decay: Decay = Decay.LINEAR
    sequence: int | None = Field(default=None, ge=8)
    rope_theta: float | None = Field(default=None, gt=1)
    rope_scaling: Literal["linear", "yarn"] | None = None

    @model_validator(mode="after")
    def _scaled_by_its_length(self) -> PhaseSettings:
        if self.rope_scaling is not None and self.sequence is None:
            raise ValueError(f"rope_scaling is by the length of sequences: set sequence in phase {self.name!r}, too")
        return self

    @property
    def context(self) -> Context | None:
        """Sequences and rotary embeddings, where the phase sets any."""
        context = Context(self.sequence, self.rope_theta, self.rope_scaling)
        return context if context.as_json() else None


class PhaseUse(Strict):
    """How one recipe uses a phase: a mixture by name, and a share or learning rate other than the study's."""

    mixture: str
    share: float | None = Field(default=None, gt=0, le=1)
    lr_end: Share | None = None
    decay: Decay | None = None


class RecipeSettings(Strict):
    """One recipe per size and seed: a mixture for every phase that it has; wsd, or cosine over all phases.

    Attributes:
        size: one size, or a list: the same recipe at several sizes shows how what it gains grows.
        lr: peak learning rate over the rule's, or over `training.learning_rate`.
        warmup: tokens of warm-up; absent, those of the study.
    """

    size: tuple[str, ...] = Field(min_length=1)
    schedule: Schedule = Schedule.WSD
    lr: float = Field(default=1.0, gt=0)
    warmup: Tokens | None = None
    phases: dict[str, PhaseUse] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    tokens: Tokens | None = None

    @field_validator("size", mode="before")
    @classmethod
    def _one_size_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("phases", mode="before")
    @classmethod
    def _names_are_mixtures(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {phase: {"mixture": use} if isinstance(use, str) else use for phase, use in value.items()}
