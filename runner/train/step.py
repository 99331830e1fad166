"""One optimizer step: forward and backward in as many passes as memory wants, clipped, judged, made or left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.loss import IGNORED, LossModule
from mixlaw.runner.models.memory import USABLE, sequences_at_once, training_bytes
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train.parallel import ALONE, Ranks

CLIP = 1.0  # norm of the gradient
CPU_TOKENS = 2048  # of one pass on a CPU: activations of more leave its caches


@dataclass(frozen=True)
class Step:
    """What a step saw: its mean loss (nats per token), the norm of its gradient, and whether it was made."""

    loss: float
    norm: float
    made: bool = True


@dataclass(frozen=True)
class Passes:
    """How a step is computed: sequences on a device at once, activations computed again or kept, layers compiled."""

    sequences: int
    recompute: bool = False
    compiled: bool = False


def passes(setup: Setup, params: int, ranks: Ranks) -> Passes:
    """The largest passes that fit: as the study says, or by the estimate of memory, or by the caches of a CPU."""
    rows = -(-setup.sequences(params) // ranks.world)
    compiled = ranks.device.type != "cpu" if setup.compile is None else setup.compile
    if setup.micro_batch or ranks.device.type == "cpu":
        most = setup.micro_batch or max(1, CPU_TOKENS // setup.sequence)
        return Passes(min(rows, most), bool(setup.recompute), compiled)
    size, memory = shape(params), torch.cuda.mem_get_info(ranks.device)[1]
    one = training_bytes(size, setup.vocabulary, setup.sequence, 1, ranks=ranks.world, bf16=True, accumulate=True)
    recompute = one > USABLE * memory if setup.recompute is None else setup.recompute
    most = sequences_at_once(
        size, setup.vocabulary, setup.sequence, rows, memory, ranks=ranks.world, bf16=True, recompute=recompute
    )
    return Passes(most, recompute, compiled)


def train_step(
    losses: LossModule,
    adamw: torch.optim.AdamW,
    tokens: torch.Tensor,
    learning_rate: float,
    *,
    sequences: int | None = None,
    at_once: int | None = None,
    ranks: Ranks = ALONE,
    judge: Callable[[float, float], bool] = lambda loss, norm: True,
) -> Step:
    """Make one step on the tokens of all ranks together.

    Args:
        losses: the model, answering with summed losses.
        adamw: its optimizer.
        tokens: this rank's sequences, shape (rows, sequence + 1).
        learning_rate: of this step.
        sequences: those of all ranks; by default this rank's rows are all.
        at_once: sequences of one pass; ranks make equally many passes, with sequences that do not count where a rank
            has fewer.
        judge: told loss and gradient norm; False leaves the step out.
    """
    sequences = sequences or len(tokens)
    width = tokens.shape[1] - 1
    rows = -(-sequences // ranks.world)
    inputs, labels = _padded(tokens, rows)
    inputs, labels = inputs.to(ranks.device), labels.to(ranks.device)
    total = torch.zeros((), device=ranks.device)
    for start in range(0, rows, at_once or rows):
        here = slice(start, start + (at_once or rows))
        loss = losses(inputs[here], labels[here])
        # FSDP takes the mean over ranks, each of which has its share of the sum.
        (loss * (ranks.world / (sequences * width))).backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(losses.parameters(), CLIP)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    mean, length = ranks.total(total) / (sequences * width), float(norm)
    made = judge(mean, length)
    if made:
        for group in adamw.param_groups:
            group["lr"] = learning_rate
        adamw.step()
    adamw.zero_grad(set_to_none=True)
    return Step(mean, length, made)


def _padded(tokens: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of `rows` sequences, those that are missing without labels."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    missing = rows - len(tokens)
    if missing:
        inputs = torch.cat([inputs, inputs.new_zeros(missing, inputs.shape[1])])
        labels = torch.cat([labels, labels.new_full((missing, labels.shape[1]), IGNORED)])
    return inputs, labels
