"""Llama-architecture models of the ladder, as transformers builds them, and the optimizer that trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mixlaw.runner.models.ladder import Shape

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter


def config(shape: Shape, vocabulary: int, sequence: int, end: int = 0) -> LlamaConfig:
    """Hugging Face configuration of a shape; `end` is the token that ends a text, also used before the first one.

    Input and output embeddings are one matrix. Weights start with standard deviation sqrt(2 / (5 width)), the small
    initialisation of Nguyen and Salazar 2019 (arXiv:1910.05895): 0.11 at width 32, 0.018 at width 1,280.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.head,
        max_position_embeddings=sequence,
        tie_word_embeddings=True,
        initializer_range=(2 / (5 * shape.width)) ** 0.5,
        bos_token_id=end,
        eos_token_id=end,
    )


def initialise(shape: Shape, vocabulary: int, sequence: int, seed: int, end: int = 0) -> LlamaForCausalLM:
    """A fresh model; the same shape and seed give the same weights, whatever it will be trained on."""
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config(shape, vocabulary, sequence, end))


def optimizer(
    model: torch.nn.Module, learning_rate: float, beta2: float, weight_decay: float = 0.1
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and none on norms (GPT-3, Brown et al. 2020, appendix B)."""
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    rest = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, beta2), eps=1e-8, fused=True)
