"""Llama-architecture models of the ladder, as transformers builds them, and the optimizer that trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mixlaw.runner.models.architecture import PLAIN, Architecture
from mixlaw.runner.models.complete_p import Scale, scale_of
from mixlaw.runner.models.ladder import Hyperparameters, Shape

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter
MOMENTUM = "momentum_buffer"  # and Muon


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
        intermediate_size=architecture.inner(shape),
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=architecture.key_heads(shape),
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
        if (scale := scale_of(architecture, shape.width, shape.depth)) is not None:
            scale.initialise(model)
        return model


def optimizer(
    model: torch.nn.Module,
    learning_rate: float,
    beta2: float,
    weight_decay: float = 0.1,
    beta1: float = 0.9,
    eps: float = 1e-8,
    scale: Scale | None = None,
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and none on norms (GPT-3, Brown et al. 2020, appendix B).

    Groups have the `factor` by which a scale multiplies their rate; it divides the decay, which is then the base's.
    """
    groups: list[dict[str, Any]] = []
    for matrix in (True, False):
        kinds: dict[float, list[torch.nn.Parameter]] = {}
        for name, weight in model.named_parameters():
            if (weight.ndim >= 2) == matrix:
                kinds.setdefault(1.0 if scale is None else scale.rate(name), []).append(weight)
        decay = weight_decay if matrix else 0.0
        groups += [{"params": of, "weight_decay": decay / f, "factor": f} for f, of in (kinds or {1.0: []}).items()]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(beta1, beta2), eps=eps, fused=True)


def optimizer_of(
    model: Any, rules: Hyperparameters, muon: bool = False, architecture: Architecture = PLAIN
) -> torch.optim.Optimizer:
    """The optimizer of a model under a study's rules."""
    scaled = architecture.complete_p is not None
    scale = scale_of(architecture, model.config.hidden_size, model.config.num_hidden_layers) if scaled else None
    adamw = optimizer(model, rules.learning_rate, rules.beta2, rules.weight_decay, rules.beta1, rules.eps, scale)
    return MuonAndAdamW(model, adamw, rules) if muon else adamw


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the matrices of the layers, AdamW for embeddings, head and norms (Jordan et al. 2024).

    Updates are as large as AdamW's, 0.2 sqrt(longer side), so that rate and weight decay are the same for both (Liu et
    al. 2025, arXiv:2502.16982). Both keep their state in one mapping, by parameter.
    """

    def __init__(self, model: Any, adamw: torch.optim.AdamW, rules: Hyperparameters) -> None:
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        outer = {id(end.weight) for end in ends if end is not None}
        inner = [weight for weight in model.parameters() if weight.ndim == 2 and id(weight) not in outer]
        taken = {id(weight) for weight in inner}
        for group in adamw.param_groups:
            group["params"] = [weight for weight in group["params"] if id(weight) not in taken]
        muon = torch.optim.Muon(
            inner, lr=rules.learning_rate, weight_decay=rules.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        muon.state = adamw.state
        self.parts, self.state = (muon, adamw), adamw.state
        self.param_groups = [*muon.param_groups, *adamw.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters."""
        for part in self.parts:
            part.step(closure)  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)
