"""Train one segment of the tree, from its parent's checkpoint to its own; killed at any moment, it resumes exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from mixlaw.runner import checkpoint
from mixlaw.runner.ladder import shape
from mixlaw.runner.loader import Batches, Tokens
from mixlaw.runner.model import initialise, optimizer
from mixlaw.runner.schedule import rate
from mixlaw.runner.setup import Setup
from mixlaw.runner.tree import Segment

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CLIP = 1.0  # norm of the gradient
REPORT_SECONDS = 0.5


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Stopped(RuntimeError):
    """Asked to stop; what was done is in a checkpoint."""


@dataclass(frozen=True)
class Trained:
    """What a finished segment leaves: the model, the mean loss of its last tenth (nats/token), and its speed."""

    model: LlamaForCausalLM
    loss: float
    seconds: float
    tokens_per_second: float


def train_segment(
    segment: Segment,
    setup: Setup,
    streams: Mapping[str, Tokens],
    runs: Path,
    report: Callable[[int], None] = lambda tokens: None,
    stop: Callable[[], bool] = lambda: False,
    saved: Callable[[Path], None] = lambda checkpoint: None,
) -> Trained:
    """Train a segment and leave `runs/<lineage>/checkpoint`.

    Args:
        segment: what to train; its parent's checkpoint lies under `runs`.
        setup: hyperparameters and data.
        streams: tokens per domain.
        runs: folder of the study's runs.
        report: told the tokens of the segment done so far, about twice a second.
        stop: asked after every step; True saves a checkpoint and raises Stopped.
        saved: told every checkpoint, partial or final, once it is whole on disk.

    Raises:
        InputError: a checkpoint is damaged, or a domain of the recipe has no tokens.
        Diverged: the loss became infinite or not a number.
        Stopped: `stop` said so.
    """
    params, step_tokens = segment.recipe.params, setup.step_tokens(segment.recipe.params)
    rules = setup.hyperparameters(params)
    batches = Batches(segment.recipe, streams, setup.sequence, setup.sequences(params))
    home = runs / segment.lineage
    model, adamw, first = _resume(segment, setup, runs)
    last = segment.stop // step_tokens
    began = kept = told = time.monotonic()
    tail: list[float] = []
    for step in range(first, last):
        factor = rate(segment.recipe, step * step_tokens, rules.warmup_tokens)
        loss = train_step(model, adamw, torch.from_numpy(batches.at(step)), rules.learning_rate * factor)
        if step >= last - max(1, (last - first) // 10):
            tail.append(loss)
        if not loss < float("inf"):
            raise Diverged(f"the loss is {loss} at step {step} of {segment.lineage}; lower training.learning_rate")
        now = time.monotonic()
        if now - told > REPORT_SECONDS:
            report((step + 1) * step_tokens - segment.start)
            told = now
        if step + 1 < last and (stop() or now - kept > setup.checkpoint_seconds):
            saved(_save_partial(home, model, adamw, step + 1, setup.tokenizer))
            kept = now
            if stop():
                raise Stopped(segment.lineage)
    seconds = time.monotonic() - began
    if not (home / "checkpoint").exists():
        checkpoint.save(home / "checkpoint", model, adamw, last, setup.tokenizer)
        saved(home / "checkpoint")
    for partial in home.glob("partial-*"):
        checkpoint.remove(partial)
    mean = sum(tail) / len(tail) if tail else float("nan")
    return Trained(model, mean, seconds, (last - first) * step_tokens / max(seconds, 1e-9))


def train_step(model: LlamaForCausalLM, adamw: torch.optim.AdamW, tokens: torch.Tensor, learning_rate: float) -> float:
    """One optimizer step on tokens (batch, sequence + 1); returns the loss in nats per token."""
    for group in adamw.param_groups:
        group["lr"] = learning_rate
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
    adamw.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    adamw.step()
    return float(loss.detach())


def origin(segment: Segment, setup: Setup, runs: Path) -> Path | None:
    """The checkpoint a segment goes on from: its own, else its newest partial one, else its parent's, else none."""
    home, begin = runs / segment.lineage, segment.start // setup.step_tokens(segment.recipe.params)
    if (home / "checkpoint").is_dir():
        return home / "checkpoint"
    # One that another plan left before this segment's beginning is behind the parent's.
    partial = [path for path in sorted(home.glob("partial-*")) if int(path.name.partition("-")[2]) > begin]
    if partial:
        return partial[-1]
    return None if segment.parent is None else runs / segment.parent / "checkpoint"


def _resume(segment: Segment, setup: Setup, runs: Path) -> tuple[LlamaForCausalLM, torch.optim.AdamW, int]:
    """Model, optimizer and step that a segment goes on from."""
    rules = setup.hyperparameters(segment.recipe.params)
    found = origin(segment, setup, runs)
    if found is None:
        size = shape(segment.recipe.params)
        model = initialise(size, setup.vocabulary, setup.sequence, segment.recipe.seed, setup.end)
        return model, optimizer(model, rules.learning_rate, rules.beta2), 0
    restored = checkpoint.load(found)
    adamw = optimizer(restored.model, rules.learning_rate, rules.beta2)
    checkpoint.restore_moments(adamw, restored)
    return restored.model.train(), adamw, restored.step


def _save_partial(home: Path, model: LlamaForCausalLM, adamw: torch.optim.AdamW, step: int, tokenizer: Path) -> Path:
    """Write a checkpoint inside the segment; the one before it goes only once the new one is whole."""
    older, newest = list(home.glob("partial-*")), home / f"partial-{step:012}"
    checkpoint.save(newest, model, adamw, step, tokenizer)
    for path in older:
        checkpoint.remove(path)
    return newest
