"""Longer sequences from a phase on: positions that a model takes, and how its rotary embeddings are stretched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixlaw.errors import InputError
from mixlaw.recipe import Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def set_context(model: PreTrainedModel, context: Context, ratio: float) -> None:
    """Set a model's longest sequence and its rotary embeddings, which have no weights.

    A larger base turns slower (Xiong et al. 2023, arXiv:2309.16039); `linear` divides positions by the ratio (Chen et
    al. 2023, arXiv:2306.15595), `yarn` does so where a wave is longer than the old sequences (Peng et al. 2023,
    arXiv:2309.00071).

    Args:
        model: of rotary embeddings, whose configuration is changed with it; called again it changes nothing.
        context: what is set.
        ratio: of the sequences' length to what it was before.

    Raises:
        InputError: the model has no rotary embeddings.
    """
    config: Any = model.config
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    if rotary is None or not isinstance(getattr(config, "rope_parameters", None), dict):
        raise InputError(
            f"a phase sets longer sequences or rope, and {type(model).__name__} has no rotary embeddings to change: "
            "take sequence, rope_theta and rope_scaling out of the phase"
        )
    if context.sequence is not None:
        config.max_position_embeddings = max(context.sequence, config.max_position_embeddings)
    parameters = dict(config.rope_parameters)
    if context.rope_theta is not None:
        parameters["rope_theta"] = context.rope_theta
    if context.rope_scaling is not None and context.sequence is not None:
        before = round(context.sequence / ratio)
        parameters |= {"rope_type": context.rope_scaling, "factor": ratio}
        parameters |= {"original_max_position_embeddings": before} if context.rope_scaling == "yarn" else {}
    config.rope_parameters = parameters
    model.base_model.rotary_emb = type(rotary)(config=config)
