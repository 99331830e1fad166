"""Models that files hold in other tensors than transformers: experts each by itself, one convolution as three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoHybridConfig,
    OlmoHybridForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from mixlaw.runner.models.llama import optimizer
from mixlaw.runner.models.load import load_model
from mixlaw.runner.models.pieces import pieces, rows_of
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.parallel import Ranks, shard_model
from mixlaw.runner.train.step import train_step
from ranks import together

TOKENS = torch.randint(97, (6, 17), generator=torch.Generator().manual_seed(0))
SIZE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
SIZE |= {"max_position_embeddings": 64, "num_key_value_heads": 2, "intermediate_size": 48}


def mixtral() -> PreTrainedModel:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**SIZE, num_local_experts=5))


def qwen() -> PreTrainedModel:
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZE, num_experts=4, moe_intermediate_size=16, num_experts_per_tok=2))


def olmo() -> PreTrainedModel:
    """The rows of one convolution are those of three tensors in the files."""
    torch.manual_seed(0)
    more: dict[str, Any] = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8}
    more |= {"linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "eos_token_id": 1}
    return OlmoHybridForCausalLM(OlmoHybridConfig(**SIZE, **more))


def phi() -> PreTrainedModel:
    return Phi3ForCausalLM(Phi3Config(**SIZE))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of the files of a model's weights."""
    found = dict[str, torch.Tensor]()
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it has no iterator
    return found


@pytest.mark.parametrize("make", [mixtral, qwen, phi, gpt2, olmo])
def test_the_pieces_of_a_model_are_the_tensors_that_transformers_writes(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    written, own = stored(tmp_path), model.state_dict()
    named = {part.name: part.of(rows_of(own[name])) for name, parts in pieces(model).items() for part in parts}
    assert set(named) - set(written) == {"lm_head.weight"} - set(written), "tied ones are written once"
    assert all(torch.equal(named[name], tensor) for name, tensor in written.items())


def _ranks(ranks: Ranks, theirs: Path, ours: Path, whole_on_first: bool) -> None:
    def whole(folder: Any) -> Any:
        assert may_read_whole, "a rank reads the whole model"
        return load_model(folder)

    may_read_whole = ranks.first and whole_on_first

    def fresh() -> Any:
        raise AssertionError("there is a checkpoint")

    expected: dict[str, Any] = load_model(theirs).state_dict()
    checkpoint.load_model = whole  # type: ignore[attr-defined]
    for folder in (theirs, ours):
        before = torch.get_rng_state()
        model, fill = checkpoint.source(folder, fresh, folder == ours, ranks)
        assert whole_on_first or torch.equal(torch.get_rng_state(), before), "no weight is drawn only to be read"
        losses, adamw = shard_model(model, ranks), optimizer(model, 1e-2, 0.95)
        fill(model, adamw)
        weights: dict[str, Any] = dict(model.named_parameters())
        mine = sum(weight.to_local().numel() for weight in weights.values())
        assert mine * ranks.world < 1.3 * sum(weight.numel() for weight in weights.values())
        for name, weight in weights.items():
            assert torch.equal(weight.full_tensor(), expected[name]), name
        if folder == theirs:
            train_step(losses, adamw, TOKENS[ranks.rank :: ranks.world], 1e-2, sequences=6, ranks=ranks)
            expected = {name: weight.full_tensor().detach() for name, weight in weights.items()}
            moments = {name: adamw.state[weight]["exp_avg"].full_tensor() for name, weight in weights.items()}
            checkpoint.save(ours, model, adamw, 1, theirs, ranks=ranks)
        else:
            for name, weight in weights.items():
                assert torch.equal(adamw.state[weight]["exp_avg"].full_tensor(), moments[name]), name
                assert adamw.state[weight]["step"] == 1


def test_what_lies_otherwise_in_files_is_read_by_the_first_rank_alone(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    olmo().save_pretrained(theirs)
    together(2, _ranks, theirs, ours, True)
    before, after = stored(theirs), stored(ours)
    assert {name: tensor.shape for name, tensor in after.items()} == {name: t.shape for name, t in before.items()}


def test_ranks_read_the_experts_that_they_hold_and_write_them_as_transformers_does(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    mixtral().save_pretrained(theirs)
    together(3, _ranks, theirs, ours, False)  # two experts, two and one
    before, after = stored(theirs), stored(ours)
    assert after.keys() == before.keys()
    assert all(after[name].shape == tensor.shape for name, tensor in before.items())
    state = load_model(ours).state_dict()
    assert not torch.equal(state["model.norm.weight"], load_model(theirs).state_dict()["model.norm.weight"])
    loaded = checkpoint.load(ours)
    assert loaded.moments.keys() >= {f"exp_avg.{name}" for name, _ in loaded.model.named_parameters()}
