"""Measures of a task on a model: the interface, and the model under evaluation."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from mixlaw.errors import InputError
from mixlaw.files import write_text
from mixlaw.records import Measurement

if TYPE_CHECKING:
    from mixlaw.runner.train.parallel import Ranks

T = TypeVar("T")
LONGEST = 2048  # tokens of context, where the model would take more
#: Most tokens of a forward pass in evaluation. On a CPU the logits must stay in cache: 2,048 was fastest from 0.02M to
#: 0.3M parameters.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}
USABLE = 0.7  # share of a GPU's free memory
ROOM = (
    4  # tokens of a batch that is continued, over those of one that is scored: a step has logits for one token of each
)


def batch_tokens(model: Any) -> int:
    """Tokens of a forward pass on the model's device: on a GPU no more than logits of which fit in its free memory.

    A token takes 12 bytes per entry of the vocabulary (logits, in fp32, and their softmax) and some activations, of
    which a layer's are the most.
    """
    if model.device.type == "cpu":
        return BATCH_TOKENS["cpu"]
    return _fitting(model, BATCH_TOKENS["cuda"], 12 * model.config.vocab_size + 64 * model.config.hidden_size)


def continued_tokens(model: Any) -> int:
    """Tokens, of prompts and answers, of a batch that is continued: on a GPU the keys and values of all are kept."""
    if model.device.type == "cpu":
        return ROOM * BATCH_TOKENS["cpu"]
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * heads * head * (2 if _has_bf16() else 4)
    # A prompt's activations exist at once, and a cache that grows by a token is copied.
    return _fitting(model, ROOM * BATCH_TOKENS["cuda"], 2 * cache + 64 * config.hidden_size)


def _fitting(model: Any, most: int, token_bytes: int) -> int:
    from mixlaw.runner.train.parallel import free_memory

    return max(1, min(most, int(USABLE * free_memory(model.device) / token_bytes)))


def _has_bf16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def precision(model: Any) -> AbstractContextManager[Any]:
    """The compute type of an evaluation: bf16 on GPUs that have it, as in training; losses are in fp32 all the same."""
    import torch

    if model.device.type == "cpu" or not _has_bf16():
        return nullcontext()
    return torch.autocast(model.device.type, torch.bfloat16)


def in_halves(batch: list[int], compute: Callable[[list[int]], Iterable[T]]) -> list[T]:
    """The values of a batch; where memory does not suffice, those of its halves one after the other.

    Raises:
        InputError: memory does not suffice for one member.
    """
    import torch

    from mixlaw.runner.train.parallel import release_memory

    try:
        return list(compute(batch))
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise InputError(f"one text does not fit into the device's memory ({error}); free some of it") from error
    release_memory()  # outside of the handler: what failed is no longer referred to
    middle = len(batch) // 2
    return in_halves(batch[:middle], compute) + in_halves(batch[middle:], compute)


@dataclass(frozen=True)
class Measured(Measurement):
    """A measurement with its details: versions, settings, judgements without a verdict, ..."""

    details: Mapping[str, Any] = field(default_factory=dict)


def _alone() -> Ranks:
    from mixlaw.runner.train.parallel import ALONE

    return ALONE


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    Attributes:
        model: a causal language model of transformers, on the device of the evaluation.
        tokens: folder of its tokenizer's files.
        length: tokens of context.
        folder: where transcripts and samples are written.
        data: data folder of its study.
        ranks: this process among those that evaluate the model together (`runner.evaluate.team`).
    """

    model: Any
    tokens: Path
    length: int
    folder: Path
    data: Path | None = None
    ranks: Ranks = field(default_factory=_alone)

    @classmethod
    def load(cls, checkpoint: str | Path, folder: Path, ranks: Ranks | None = None) -> Subject:
        """Load a checkpoint in the layout of Hugging Face, trained here or elsewhere, in fp32 on the rank's device.

        Raises:
            InputError: transformers cannot load it, it has no safetensors, or it does not exist.
        """
        from mixlaw.runner.models.load import load_model

        path, ranks = Path(checkpoint), ranks or _alone()
        if not (path / "config.json").exists():
            raise InputError(f"there is no checkpoint at {path} (no config.json); name the folder of one")
        try:
            model: Any = load_model(path)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"transformers cannot load the checkpoint {path}: {error}") from error
        model.to(ranks.device)
        longest = getattr(model.config, "max_position_embeddings", None) or LONGEST
        return cls(model, path, min(longest, LONGEST), folder, ranks=ranks)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers has it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokens, trust_remote_code=False)

    @property
    def batch_tokens(self) -> int:
        """Tokens of a forward pass on the model's device."""
        return batch_tokens(self.model)

    @contextmanager
    def at_rest(self) -> Iterator[Any]:
        """The model in evaluation mode; its mode and all random states are as before when the block ends."""
        import random

        import torch

        model, training = self.model, self.model.training
        states = random.getstate(), np.random.get_state()  # noqa: NPY002
        devices = [model.device.index or 0] if model.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), torch.inference_mode(), precision(model):
                yield model.eval()
        finally:
            model.train(training)
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002

    def keep(self, task: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows that a value was computed from to `<task>.jsonl`, a JSON document a line."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_text(self.folder / f"{task}.jsonl", "".join(lines))


@dataclass(frozen=True)
class Measure(ABC):
    """How a task is measured: a plain value that travels to the workers as JSON."""

    kind: ClassVar[str]

    @abstractmethod
    def check(self) -> None:
        """Check that this can be measured here, before a model is trained for it.

        Raises:
            InputError: something is missing; the message says where to get it.
        """

    @abstractmethod
    def measure(self, task: str, subject: Subject) -> Measured:
        """Measure a model; the same model gives the same value, unless a judge or a time limit decides otherwise.

        Raises:
            InputError: as for `check`.
        """

    def as_json(self) -> dict[str, Any]:
        """Plain data: the kind, and the fields."""
        return {"kind": self.kind, **asdict(self)}


def mean(values: Sequence[float], details: Mapping[str, Any]) -> Measured:
    """Mean over independent items with its standard error, s / sqrt(n)."""
    array = np.asarray(values, dtype=float)
    error = float(array.std(ddof=1)) / math.sqrt(array.size) if array.size > 1 else None
    return Measured(float(array.mean()), error, array.size, details)
