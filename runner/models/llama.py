"""Llama-architecture models of the ladder, as transformers builds them, and the optimizer that trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mixlaw.runner.models.architecture import PLAIN, Architecture
from mixlaw.runner.models.ladder import Hyperparameters, Shape

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter


def config(
    shape: Shape, vocabulary: int, sequence: int, end: int = 0, architecture: Architecture = PLAIN
) -> LlamaConfig:
    """Hugging Face configuration of a shape, that of Qwen3 with `qk_norm`.

    `end` is the token that ends a text, also used before the first one.

    Input and output embeddings are one matrix unless they are untied. Weights start with standard deviation
    sqrt(2 / (5 width)), the small initialisation of Nguyen and Salazar 2019 (arXiv:1910.05895): 0.11 at width 32, 0.018
    at width 1,280.
    """
    from transformers import LlamaConfig, Qwen3Config

    family: Any = Qwen3Config if architecture.qk_norm else LlamaConfig
    made: LlamaConfig = family(
        vocab_size=architecture.vocabulary(vocabulary),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.head,
        max_position_embeddings=sequence,
        tie_word_embeddings=not architecture.untied,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
        initializer_range=(2 / (5 * shape.width)) ** 0.5,
        bos_token_id=end,
        eos_token_id=end,
    )
    return made


def initialise(
    shape: Shape, vocabulary: int, sequence: int, seed: int, end: int = 0, architecture: Architecture = PLAIN
) -> LlamaForCausalLM:
    """A fresh model; the same shape and seed give the same weights, whatever it will be trained on."""
    from transformers import LlamaForCausalLM, Qwen3ForCausalLM

    family: Any = Qwen3ForCausalLM if architecture.qk_norm else LlamaForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: LlamaForCausalLM = family(config(shape, vocabulary, sequence, end, architecture))
        return model


def optimizer(
    model: torch.nn.Module,
    learning_rate: float,
    beta2: float,
    weight_decay: float = 0.1,
    beta1: float = 0.9,
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and none on norms (GPT-3, Brown et al. 2020, appendix B)."""
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    rest = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(beta1, beta2), eps=eps, fused=True)


def optimizer_of(model: torch.nn.Module, rules: Hyperparameters) -> torch.optim.AdamW:
    """The optimizer of a model under a study's rules."""
    return optimizer(model, rules.learning_rate, rules.beta2, rules.weight_decay, rules.beta1, rules.eps)
