"""The loss of a language model from the logits of a few tokens at a time, never of all of them.

The gradient of cross-entropy with respect to the logits is softmax minus one-hot. It is known as soon as the logits
are, so that each block of rows yields its loss and its gradients at once and is then overwritten by the next (as in
Liger Kernel, Hsu et al. 2024, arXiv:2410.10989). The matrix products are those of the plain head; it saves the memory
and the traffic of a tokens x vocabulary matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from mixlaw.runner.models.memory import HEAD_ROWS

#: Whose logits are hidden @ lm_head.weight.T, neither scaled nor capped.
FAMILIES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Qwen3Moe", "Olmo2", "Olmo3", "Olmoe", "SmolLM3", "Gemma")
PLAIN_HEADS = tuple(f"{family}ForCausalLM" for family in (*FAMILIES, "Phi3", "Starcoder2"))
IGNORED = -100  # label of a token that does not count

Gradient = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def loss_of_logits(logits: torch.Tensor, labels: torch.Tensor, z_loss: float = 0.0) -> torch.Tensor:
    """Turn logits (tokens, vocabulary) in fp32 into the gradient of the summed loss, in place.

    With a z-loss the gradient is that of the loss plus `z_loss` times the squared log of the softmax's sum.

    Returns:
        The loss of each token, shape (tokens, 1), 0 for those that do not count.
    """
    counts = (labels != IGNORED)[:, None]
    label = labels.clamp_min(0)[:, None]
    top = logits.amax(1, keepdim=True)
    chosen = logits.gather(1, label) - top
    total = logits.sub_(top).exp_().sum(1, keepdim=True)
    if z_loss:
        counts_z = counts * (1 + 2 * z_loss * (total.log() + top))
        logits.mul_(counts_z / total)
    else:
        logits.mul_(counts / total)
    logits.scatter_add_(1, label, -counts.to(logits.dtype))
    return torch.where(counts, total.log() - chosen, 0.0)


def positions(tokens: torch.Tensor, end: int) -> torch.Tensor:
    """Positions of tokens within their documents, shape (batch, sequence); the end of a text begins the next one.

    Evaluation has it so, too. Where positions do not rise by one, transformers' masks begin another sequence.
    """
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    begin = torch.where(tokens == end, place, 0).cummax(1).values
    return place - begin


class _Head(torch.autograd.Function):
    """Summed cross-entropy of hidden @ weight.T; forward computes the gradients as well."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        rows: int,
        gradient: Gradient,
        each: torch.Tensor,
    ) -> torch.Tensor:
        """Loss of hidden (R, H) under weight (V, H), in blocks of `rows`; `each` receives that of every row, (R,)."""
        scratch = hidden.new_empty(min(rows, len(hidden)), len(weight))
        ctx.hidden = torch.empty_like(hidden)
        # Summed in fp32: in bf16 the error grows with the number of blocks, from 0.2 % of one to 1.3 % of 128.
        ctx.weight = torch.zeros_like(weight, dtype=torch.float32)
        loss = torch.zeros((), device=hidden.device)
        for start in range(0, len(hidden), rows):
            piece = hidden[start : start + rows]
            logits = torch.mm(piece, weight.t(), out=scratch[: len(piece)]).float()
            losses = gradient(logits, labels[start : start + rows])
            loss += losses.sum()
            each[start : start + rows] = losses[:, 0]
            slope = logits.to(hidden.dtype)
            torch.mm(slope, weight, out=ctx.hidden[start : start + rows])
            if weight.dtype == torch.float32:
                ctx.weight.addmm_(slope.t(), piece)
            else:
                ctx.weight += slope.t() @ piece
        ctx.dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients that forward computed, scaled in place."""
        (scale,) = gradients
        return ctx.hidden.mul_(scale), ctx.weight.mul_(scale).to(ctx.dtype), None, None, None, None


class LossModule(torch.nn.Module):
    """Wraps a causal language model; forward returns the summed cross-entropy (nats) over labels != IGNORED.

    Models of PLAIN_HEADS use the head above; other architectures, which may scale or cap their logits, use their own
    forward pass.

    Args:
        model: any Hugging Face causal language model.
        compiled: whether the head's elementwise part is compiled.
        z_loss: weight of the squared log of the softmax's sum, which has a gradient but is not in the loss returned.
        end: token between documents, which then do not see each other; None: sequences are one text.

    Attributes:
        sequence_losses: summed loss of each sequence of the last forward pass, shape (batch,), without gradient.
    """

    sequence_losses: torch.Tensor

    def __init__(self, model: Any, compiled: bool = False, z_loss: float = 0.0, end: int | None = None) -> None:
        super().__init__()
        self.end = end
        self.model = model
        self.plain = type(model).__name__ in PLAIN_HEADS and model.lm_head.bias is None
        self.z_loss = z_loss
        gradient: Gradient = (
            (lambda logits, labels: loss_of_logits(logits, labels, z_loss)) if z_loss else loss_of_logits
        )
        self.gradient: Gradient = torch.compile(gradient) if compiled else gradient

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Summed loss of labels after tokens, both of shape (batch, sequence)."""
        where = {} if self.end is None else {"position_ids": positions(tokens, self.end)}
        if not self.plain:
            logits = self.model(input_ids=tokens, use_cache=False, **where).logits.flatten(0, 1).float()
            each = functional.cross_entropy(logits, labels.flatten(), reduction="none", ignore_index=IGNORED)
            self.sequence_losses = each.detach().view(labels.shape).sum(1)
            if not self.z_loss:
                return each.sum()
            z = (logits.logsumexp(1).square() * (labels.flatten() != IGNORED)).sum() * self.z_loss
            steep: torch.Tensor = each.sum() + z - z.detach()
            return steep
        hidden = self.model.model(input_ids=tokens, use_cache=False, **where).last_hidden_state.flatten(0, 1)
        rows = HEAD_ROWS[hidden.device.type != "cpu"]  # on a CPU they stay in its caches
        each = torch.empty(labels.numel(), device=hidden.device)
        head: Any = self.model.lm_head.weight
        loss: torch.Tensor = _Head.apply(hidden, head, labels.flatten(), rows, self.gradient, each)  # type: ignore[no-untyped-call]
        self.sequence_losses = each.view(labels.shape).sum(1)
        return loss
