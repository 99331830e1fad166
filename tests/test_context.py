"""Document masks, and phases with longer sequences and other rotary embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from mixlaw.errors import InputError
from mixlaw.recipe import Context, Mixture, Phase, Recipe
from mixlaw.runner.batches.loader import Batches
from mixlaw.runner.models.architecture import Architecture
from mixlaw.runner.models.context import set_context
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.llama import initialise
from mixlaw.runner.models.loss import LossModule, positions
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.loop import Stopped, train_segment
from mixlaw.study import open_study
from small_study import SETTINGS, prepare

PARAMS = shape("0.025M").params
SETUP = Setup(
    data="", data_hash="", vocabulary=300, sequence=16, tasks=(), batch=8, tokenizer_hash="t", warmup_tokens=600
)
STREAMS = {
    "text": np.tile(np.random.default_rng(0).integers(1, 300, size=97), 80).astype(np.uint16),
    "code": (np.arange(6000) * 7 % 300).astype(np.uint16),
}
LONG = Context(64, 40_000.0, "yarn")


def recipe(setup: Setup, cooldown: dict[str, float]) -> Recipe:
    step = setup.step_tokens(PARAMS)
    phases = (
        Phase("init", 12 * step, Mixture({"text": 0.5, "code": 0.5})),
        Phase("cooldown", 6 * step, Mixture(cooldown), 0.0),
    )
    return setup.adopt(Recipe(PARAMS, phases))


# --- documents --------------------------------------------------------------------------------------------------------


def test_positions_begin_anew_at_every_end_of_text() -> None:
    tokens = torch.tensor([[5, 6, 0, 7, 8, 9, 0, 0, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
    assert positions(tokens, 0).tolist() == [[0, 1, 0, 1, 2, 3, 0, 0, 1], [*range(9)]]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_documents_of_a_sequence_have_the_losses_that_they_have_alone(kind: str) -> None:
    torch.manual_seed(0)
    model: Any = (
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2))
        if kind == "gpt2"
        else initialise(shape(PARAMS), 50, 32, seed=0, architecture=Architecture(qk_norm=kind == "qwen3"))
    )
    model.train(False)
    documents = [torch.randint(1, 50, (length,)) for length in (3, 9, 1, 13)]
    end = torch.zeros(1, dtype=torch.long)
    text = torch.cat([part for document in documents for part in (end, document)] + [end])[None]
    masked, open_ = LossModule(model, end=0), LossModule(model)
    with torch.no_grad():
        alone = sum(open_(one[None, :-1], one[None, 1:]) for one in (torch.cat([end, d, end]) for d in documents))
        assert float(masked(text[:, :-1], text[:, 1:])) == pytest.approx(float(alone), rel=1e-5)
        assert abs(float(open_(text[:, :-1], text[:, 1:])) - float(alone)) > 1e-3


# --- longer sequences -------------------------------------------------------------------------------------------------


def test_a_longer_cooldown_parts_no_trunk_and_plain_studies_keep_their_lineages() -> None:
    plain, long = SETUP, replace(SETUP, contexts={"cooldown": LONG})
    one, other = recipe(plain, {"text": 1.0}), recipe(long, {"text": 1.0})
    assert one.prefix(1) == other.prefix(1)
    assert one.lineage != other.lineage
    assert Recipe.from_json(other.as_json()) == other
    assert other.phases[1].context == LONG
    assert Setup.from_json(long.as_json()) == long
    assert replace(SETUP, document_masks=True).identity != SETUP.identity
    assert "context" not in one.as_json()["phases"][1]
    attention = 12 * shape(PARAMS).depth * shape(PARAMS).width
    more = attention * (64 - 16) * other.phases[1].tokens
    assert long.recipe_flops(other) - plain.recipe_flops(one) == pytest.approx(more)


def test_batches_of_a_longer_phase_have_the_same_tokens_in_fewer_rows() -> None:
    long = recipe(replace(SETUP, contexts={"cooldown": LONG}), {"text": 0.5, "code": 0.5})
    drawn, plain = (Batches(of, STREAMS, 16, 8) for of in (long, recipe(SETUP, {"text": 0.5, "code": 0.5})))
    assert [drawn.at(step).shape for step in (0, 11, 12, 17)] == [(8, 17), (8, 17), (2, 65), (2, 65)]
    assert all(np.array_equal(drawn.at(step), plain.at(step)) for step in range(12))
    assert drawn.achieved()["cooldown"] == {"text": 6 * 64, "code": 6 * 64} == plain.achieved()["cooldown"]
    assert drawn.epochs()["code"] == pytest.approx(12 * 4 / (5999 // 16) + 6 / (5999 // 64))
    rows = np.concatenate([drawn.at(step) for step in range(12, 18)])
    codes = np.concatenate([drawn.domains(step) for step in range(12, 18)])
    starts = [
        next(s for s in range(0, len(STREAMS[n]) - 64, 64) if np.array_equal(STREAMS[n][s : s + 65], row))
        for n, row in zip((("code", "text")[code] for code in codes), rows, strict=True)
    ]
    for code in (0, 1):
        own = [s for s, c in zip(starts, codes, strict=True) if c == code]
        assert len(own) == 6
    assert np.array_equal(np.concatenate([drawn.at(13, rank, 2) for rank in (0, 1)]), drawn.at(13))


@pytest.mark.parametrize("masks", [False, True])
def test_a_long_cooldown_trains_resumes_to_the_bit_and_is_a_model_of_transformers(tmp_path: Path, masks: bool) -> None:
    setup = replace(SETUP, contexts={"cooldown": LONG}, document_masks=masks)
    trunk, cooldown = plan([recipe(setup, {"text": 1.0})]).segments
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for runs in (whole, pieces):
        train_segment(trunk, setup, STREAMS, runs)
    trained = train_segment(cooldown, setup, STREAMS, whole)
    calls = iter([False, True])
    with pytest.raises(Stopped):
        train_segment(cooldown, setup, STREAMS, pieces, stop=lambda: next(calls))
    again = train_segment(cooldown, setup, STREAMS, pieces)
    one, other = (load_file(of.checkpoint / "model.safetensors") for of in (trained, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    read: Any = AutoModelForCausalLM.from_pretrained(again.checkpoint)
    rope = read.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("yarn", 4.0, 40_000.0)
    assert (rope["original_max_position_embeddings"], read.config.max_position_embeddings) == (16, 64)
    ids = torch.arange(64)[None]
    assert torch.allclose(read(input_ids=ids).logits, trained.model(input_ids=ids).logits, atol=1e-5)
    before: Any = AutoModelForCausalLM.from_pretrained(whole / trunk.lineage / "checkpoint")
    assert before.config.max_position_embeddings == 16


def test_a_linear_scale_divides_positions() -> None:
    stretched, plain = (initialise(shape(PARAMS), 50, 16, seed=0) for _ in range(2))
    set_context(stretched, Context(64, None, "linear"), 4.0)
    set_context(stretched, Context(64, None, "linear"), 4.0)
    near, far = torch.arange(16)[None], 4 * torch.arange(16)[None]
    ids = torch.randint(50, (1, 16))
    same = stretched(input_ids=ids, position_ids=far, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(plain(input_ids=ids, position_ids=near).logits, same, atol=1e-5)
    with pytest.raises(InputError, match="GPT2LMHeadModel has no rotary embeddings to change: take sequence"):
        set_context(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2)), Context(64), 4.0)


def test_study_toml_sets_them_and_says_what_does_not_fit(tmp_path: Path) -> None:
    settings = SETTINGS.replace("lr_end = 0.0", "lr_end = 0.0\nsequence = 64\nrope_theta = 40_000")
    folder = prepare(tmp_path / "study", settings.replace("[training]", "[training]\ndocument_masks = true"))
    study = open_study(folder)
    assert study.setup.document_masks
    assert {one.phases[-1].context for one in study.recipes()} == {Context(64, 40_000.0)}
    assert all(one.phases[0].context is None for one in study.recipes())
    (folder / "study.toml").write_text(settings.replace("sequence = 64", "sequence = 48"))
    with pytest.raises(InputError, match=r"sequences of 48 tokens and a step of [\d,]+ parameters has 128: choose"):
        open_study(folder).recipes()
    (folder / "study.toml").write_text(settings.replace("sequence = 64", 'rope_scaling = "yarn"'))
    with pytest.raises(
        InputError, match="rope_scaling is by the length of sequences: set sequence in phase 'cooldown'"
    ):
        open_study(folder).recipes()
