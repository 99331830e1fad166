"""Muon, CompleteP, fewer key heads, and the memory of AdamW at small batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.architecture import Architecture
from mixlaw.runner.models.ladder import SIZES, Shape, batch_rule, hyperparameters, shape
from mixlaw.runner.models.llama import initialise, optimizer_of
from mixlaw.runner.plan.setup import Overrides, Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.loop import Stopped, train_segment
from mixlaw.runner.train.parallel import Ranks
from mixlaw.settings import validate
from ranks import together

PARAMS = shape("0.025M").params
SETUP = Setup(
    data="", data_hash="", vocabulary=300, sequence=16, tasks=(), batch=4, tokenizer_hash="t", warmup_tokens=300
)
STREAMS = {"text": np.tile(np.random.default_rng(0).integers(300, size=97), 60).astype(np.uint16)}


def segment_of(setup: Setup) -> Any:
    (segment,) = plan(
        [setup.adopt(Recipe(PARAMS, (Phase("init", 16 * setup.step_tokens(PARAMS), Mixture({"text": 1.0})),)))]
    ).segments
    return segment


def train(ranks: Ranks, setup: Setup, runs: Path, stop_at: int | None = None) -> None:
    steps = iter(range(1, 100))
    try:
        train_segment(segment_of(setup), setup, STREAMS, runs, ranks=ranks, stop=lambda: next(steps) == stop_at)
    except Stopped:
        assert stop_at


# --- Muon -------------------------------------------------------------------------------------------------------------


def test_muon_has_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    model = initialise(shape(PARAMS), 300, 16, seed=0)
    both: Any = optimizer_of(model, hyperparameters(PARAMS, 64), muon=True)
    names = {id(weight): name for name, weight in model.named_parameters()}
    muon, adamw = ([names[id(w)] for group in part.param_groups for w in group["params"]] for part in both.parts)
    assert all(".layers." in name and name.endswith("proj.weight") for name in muon)
    assert set(adamw) == {name for name in names.values() if "norm" in name} | {"model.embed_tokens.weight"}
    assert sorted([*muon, *adamw]) == sorted(names.values())


@pytest.mark.parametrize("architecture", [Architecture(), Architecture(untied=True, gqa=2)])
def test_muon_learns_and_resumes_to_the_bit(tmp_path: Path, architecture: Architecture) -> None:
    setup = replace(SETUP, muon=True, architecture=architecture)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    trained = train_segment(segment_of(setup), setup, STREAMS, whole)
    assert trained.loss < np.log(300) - 0.2
    train(Ranks(), setup, pieces, stop_at=9)
    train(Ranks(), setup, pieces)
    one, other = (load_file(next(runs.rglob("checkpoint/model.safetensors"))) for runs in (whole, pieces))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "setup", [replace(SETUP, muon=True), replace(SETUP, architecture=Architecture(complete_p="0.05M"))]
)
def test_ranks_train_as_one_process_does(tmp_path: Path, setup: Setup) -> None:
    together(2, train, setup, tmp_path / "two", 6)
    together(2, train, setup, tmp_path / "two")
    train(Ranks(), setup, tmp_path / "one")
    one, two = (
        AutoModelForCausalLM.from_pretrained(next((tmp_path / name).rglob("checkpoint"))) for name in ("one", "two")
    )
    ids = torch.arange(16)[None]
    assert torch.allclose(one(input_ids=ids).logits, two(input_ids=ids).logits, atol=2e-2)


# --- CompleteP --------------------------------------------------------------------------------------------------------


def movement(shaped: Shape, complete_p: str | None) -> float:
    """Root mean square by which a few steps on noise change the logits."""
    architecture = Architecture(complete_p=complete_p, untied=True)
    model: Any = initialise(shaped, 64, 16, seed=0, architecture=architecture)
    rules = replace(hyperparameters(PARAMS, 64), learning_rate=4e-3, weight_decay=0.0)
    adamw = optimizer_of(model, rules, architecture=architecture)
    tokens = torch.randint(64, (8, 17), generator=torch.Generator().manual_seed(1))
    before = model(input_ids=tokens[:, :-1]).logits.detach()
    for _ in range(4):
        logits = model(input_ids=tokens[:, :-1]).logits
        loss: Any = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        for group in adamw.param_groups:
            group["lr"] = rules.learning_rate * group["factor"]
        adamw.step()
        adamw.zero_grad()
    return float((model(input_ids=tokens[:, :-1]).logits.detach() - before).square().mean().sqrt())


def test_steps_of_one_rate_move_wide_and_deep_models_as_much_as_small_ones() -> None:
    small, wide, wider, deep = Shape(32, 2), Shape(128, 2), Shape(256, 2), Shape(32, 16)
    base = "0.025M"
    assert shape(base) == small
    plain, scaled = ([movement(of, rule) for of in (small, wide, wider, deep)] for rule in (None, base))
    assert scaled[0] == pytest.approx(plain[0], rel=0.1), "the base is as it was, with other weights drawn"
    assert plain[2] > 1.9 * plain[0]
    assert plain[2] > 1.2 * plain[1], "and so on with every doubling"
    # What is not common to all tokens falls with the root of the width, to a limit.
    assert 0.45 < scaled[2] / scaled[0] < 1.1
    assert 0.75 < scaled[2] / scaled[1] < 1.1
    assert 0.8 < scaled[3] / scaled[0] < 1.25


def test_the_rate_of_the_base_holds_for_all_sizes_and_decay_is_that_of_the_base() -> None:
    setup = replace(SETUP, batch=None, sequence=128, architecture=Architecture(complete_p="1M"))
    rates = {size: setup.hyperparameters(shape(size).params) for size in ("1M", "30M")}
    one, other = (setup.step_tokens(shape(size).params) for size in rates)
    assert rates["30M"].learning_rate == pytest.approx(rates["1M"].learning_rate * (other / one) ** 0.5)
    given = replace(setup, learning_rate=3e-3)
    assert {given.hyperparameters(shape(size).params).learning_rate for size in rates} == {3e-3}
    architecture = Architecture(complete_p="0.025M")
    model = initialise(Shape(64, 4), 64, 16, seed=0, architecture=architecture)
    groups = optimizer_of(model, rates["1M"], architecture=architecture).param_groups
    assert {group["factor"] for group in groups} == {1.0, 0.5, 0.25}
    decays = {group["factor"] * group["weight_decay"] for group in groups if group["weight_decay"]}
    assert decays == {0.1}
    assert float(model.model.norm.weight.detach().mean()) == 0.5


# --- fewer key heads, beta2 -------------------------------------------------------------------------------------------


def test_fewer_key_heads_keep_the_parameters_of_a_size() -> None:
    for size in SIZES:
        shaped = shape(size)
        for gqa in (2, 4, 8):
            of = Architecture(gqa=gqa)
            heads = of.key_heads(shaped)
            assert shaped.heads % heads == 0
            assert heads * gqa >= shaped.heads
            saved = 2 * shaped.width**2 * (1 - heads / shaped.heads)
            more = 3 * shaped.width * (of.inner(shaped) - shaped.inner)
            assert abs(more - saved) * shaped.depth < 0.02 * shaped.params, size
    assert Architecture(gqa=4).key_heads(shape("470M")) * 4 == shape("470M").heads
    model: Any = initialise(shape("1M"), 300, 16, seed=0, architecture=Architecture(gqa=4))
    plain: Any = initialise(shape("1M"), 300, 16, seed=0)
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.num_parameters() == pytest.approx(plain.num_parameters(), rel=0.02)


def test_beta2_remembers_as_many_tokens_at_any_batch() -> None:
    params = shape("30M").params
    at_rule = batch_rule(params) / 16
    for share in (0.125, 0.5, 1.0):
        setup = replace(SETUP, batch=round(share * at_rule), beta2="half-life")
        beta2 = setup.hyperparameters(params).beta2
        tokens = np.log(0.5) / np.log(beta2) * setup.step_tokens(params)
        assert tokens == pytest.approx(np.log(0.5) / np.log(0.95) * batch_rule(params), rel=1e-3)
    own = replace(SETUP, sizes=(Overrides(params, beta2="half-life"),))
    assert own.hyperparameters(params).beta2 > 0.95 == own.hyperparameters(PARAMS).beta2
    assert Setup.from_json(own.as_json()) == own
    assert own.identity_of(params) != SETUP.identity_of(params)


def test_study_toml_says_what_does_not_go_together(tmp_path: Path) -> None:
    for written, said in (
        ({"muon": True, "complete_p": "1M"}, "training.complete_p is for AdamW; leave it out, or muon"),
        ({"muon": True, "optimizer": "loaded", "start": "x"}, 'momentum of its own; set optimizer = "fresh"'),
        ({"complete_p": "big"}, "training.complete_p: a size is a positive number"),
        ({"beta2": "long"}, "beta2"),
        ({"gqa": 0}, "gqa"),
    ):
        with pytest.raises(InputError, match=said):
            validate({"training": written}, tmp_path)
