"""One optimizer step: its learning rate, forward and backward in micro-batches that fit, clipping, the update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from mixlaw.recipe import Decay, Recipe, Schedule
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise
from mixlaw.runner.models.loss import IGNORED, LossModule
from mixlaw.runner.models.memory import USABLE, largest_micro_batch, training_bytes
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.parallel import ALONE, Ranks, free_memory

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CPU_TOKENS = 2048  # of a micro-batch on a CPU: activations of more leave its caches


def rate(recipe: Recipe, position: int, warmup: int) -> float:
    """Learning rate over the peak for the step that begins after `position` tokens.

    Linear warm-up over `warmup` tokens, times the schedule: warmup-stable-decay goes through every phase from where the
    one before it ended (1 at first) to its `lr_end`, in the phase's shape; cosine is one half wave over all tokens, to
    the last phase's `lr_end`.
    """
    warm = min(1.0, (position + 1) / warmup) if warmup else 1.0
    if recipe.schedule is Schedule.COSINE:
        end = recipe.cosine_end
        return warm * (end + (1 - end) * fall(Decay.COSINE, position / recipe.tokens))
    level, begin = 1.0, 0
    for phase in recipe.phases:
        end = 1.0 if phase.lr_end is None else phase.lr_end
        if position < begin + phase.tokens:
            done = (position - begin) / phase.tokens
            if phase.decay is Decay.LINEAR:
                return warm * (level + (end - level) * done)
            return warm * (end + (level - end) * fall(phase.decay, done))
        level, begin = end, begin + phase.tokens
    return warm * level


def fall(decay: Decay, done: float) -> float:
    """The rest of a decay from 1 to 0 after the share `done` of it."""
    if decay is Decay.COSINE:
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - (math.sqrt(done) if decay is Decay.ONE_SQRT else done)


@dataclass(frozen=True)
class StepResult:
    """Mean loss of a step (nats per token), norm of its gradient before clipping, and whether it was skipped.

    `domains` holds the summed loss of the sequences of each domain and how many tokens they have, shape (domains, 2).
    """

    loss: float
    norm: float
    skipped: bool = False
    domains: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class StepPlan:
    """How a step is computed: sequences per device and forward pass, activation checkpointing, compiled layers."""

    micro_batch: int
    recompute: bool = False
    compiled: bool = False

    def smaller(self) -> StepPlan | None:
        """The plan to go on with where memory did not suffice for this one; None if there is none."""
        if self.micro_batch > 1:
            return replace(self, micro_batch=self.micro_batch // 2)
        return None if self.recompute else replace(self, recompute=True)


class OutOfMemory(RuntimeError):
    """Memory did not suffice; all ranks must begin again from the last checkpoint, with `plan`."""

    def __init__(self, plan: StepPlan) -> None:
        super().__init__(f"out of memory; to be continued with {plan}")
        self.plan = plan


def fresh_model(setup: Setup, params: int, seed: int) -> LlamaForCausalLM:
    """A fresh model of a size, as a study has it."""
    return initialise(shape(params), setup.vocabulary, setup.sequence, seed, setup.end, setup.architecture)


def step_plan(setup: Setup, params: int, ranks: Ranks) -> StepPlan:
    """The largest micro-batches that fit: the study's setting, the estimate of a GPU's memory, or a CPU's caches.

    All ranks call it: the one with the least free memory decides.
    """
    rows = -(-setup.sequences(params) // ranks.world)
    compiled = ranks.device.type != "cpu" if setup.compile is None else setup.compile
    if ranks.device.type == "cpu":
        most = setup.micro_batch or max(1, CPU_TOKENS // setup.sequence)
        return StepPlan(min(rows, most), bool(setup.recompute), compiled)
    size, memory = setup.built(params), ranks.least(free_memory(ranks.device))
    fixed, world, rule = min(rows, setup.micro_batch or 1), ranks.world, {"bf16": ranks.bf16, "untied": size.untied}
    needed = training_bytes(size, size.embedded, setup.sequence, fixed, ranks=world, accumulate=fixed < rows, **rule)
    recompute = needed > USABLE * memory if setup.recompute is None else setup.recompute
    if setup.micro_batch:
        return StepPlan(fixed, recompute, compiled)
    most = largest_micro_batch(
        size, size.embedded, setup.sequence, rows, memory, ranks=world, recompute=recompute, **rule
    )
    return StepPlan(most, recompute, compiled)


def train_step(
    losses: LossModule,
    adamw: torch.optim.Optimizer,
    tokens: torch.Tensor,
    learning_rate: float,
    *,
    sequences: int | None = None,
    micro_batch: int | None = None,
    clip: float = 1.0,
    ranks: Ranks = ALONE,
    accept: Callable[[float, float], bool] = lambda loss, norm: True,
    beat: Callable[[], None] = lambda: None,
    domains: tuple[torch.Tensor, int] | None = None,
) -> StepResult:
    """One step on the tokens of all ranks together; all ranks call it.

    Args:
        losses: the model, returning summed losses.
        adamw: its optimizer.
        tokens: this rank's sequences, shape (rows, sequence + 1).
        learning_rate: of this step.
        sequences: on all ranks together; by default those of this rank are all.
        micro_batch: sequences per forward and backward pass; all of them if None. Every rank makes the same number of
            passes, with sequences that do not count if it has fewer.
        clip: largest norm of the gradient.
        accept: whether to update the weights, given loss and gradient norm; False skips the step.
        beat: called after every pass.
        domains: the domain of each of this rank's sequences, shape (rows,), and how many domains there are; for losses
            by domain.
    """
    sequences = sequences or len(tokens)
    width = tokens.shape[1] - 1
    rows = -(-sequences // ranks.world)
    inputs, labels = _padded(tokens, rows)
    if ranks.device.type == "cuda":  # pinned memory is copied while the device computes
        inputs, labels = inputs.pin_memory(), labels.pin_memory()
    inputs, labels = (ids.to(ranks.device, non_blocking=True) for ids in (inputs, labels))
    kinds = domains[1] if domains else 0
    # The loss of all sequences, of those of each domain, and their tokens: one sum over ranks.
    total, by_domain = torch.zeros(1 + 2 * kinds, device=ranks.device), torch.zeros(rows, device=ranks.device)
    for start in range(0, rows, micro_batch or rows):
        here = slice(start, start + (micro_batch or rows))
        loss = losses(inputs[here], labels[here])
        # FSDP averages gradients over ranks, each of which has its share of the sum.
        (loss * (ranks.world / (sequences * width))).backward()
        total[0] += loss.detach()
        by_domain[here] = losses.sequence_losses
        beat()
    norm = torch.nn.utils.clip_grad_norm_(losses.parameters(), clip)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if domains is not None:
        _add_domains(total[1:], by_domain[: len(tokens)], *domains, width)
    loss_sum, *rest = ranks.total(total)
    mean, length = ranks.common(loss_sum / (sequences * width), float(norm))
    accepted = accept(mean, length)
    if accepted:
        _update(adamw, learning_rate)
    adamw.zero_grad(set_to_none=True)
    return StepResult(mean, length, not accepted, tuple(zip(rest[:kinds], rest[kinds:], strict=True)))


def _update(adamw: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in adamw.param_groups:
        group["lr"] = learning_rate * group.get("factor", 1.0)
    adamw.step()


def _add_domains(total: torch.Tensor, losses: torch.Tensor, codes: torch.Tensor, kinds: int, width: int) -> None:
    """Add to the first half of `total` the losses of each domain's sequences, and to the second their tokens."""
    codes = codes.to(losses.device)
    total[:kinds].index_add_(0, codes, losses)
    total[kinds:] += width * torch.bincount(codes, minlength=kinds)


def _padded(tokens: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of `rows` sequences; sequences added to fill up have no labels that count."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    missing = rows - len(tokens)
    if missing:
        inputs = torch.cat([inputs, inputs.new_zeros(missing, inputs.shape[1])])
        labels = torch.cat([labels, labels.new_full((missing, labels.shape[1]), IGNORED)])
    return inputs, labels
