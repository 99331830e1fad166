"""Options of model and optimizer: what each changes, and that studies without them keep their runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from mixlaw.errors import InputError
from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.architecture import Architecture
from mixlaw.runner.models.ladder import Shape, hyperparameters, shape
from mixlaw.runner.models.llama import initialise, optimizer_of
from mixlaw.runner.models.loss import IGNORED, LossModule
from mixlaw.runner.models.memory import training_bytes
from mixlaw.runner.plan.setup import Overrides, Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.loop import train_segment
from mixlaw.study import open_study
from small_study import SETTINGS, prepare

ALL = Architecture(qk_norm=True, untied=True, rope_theta=5e5, pad_vocabulary=64)
SETUP = Setup(
    data="", data_hash="", vocabulary=300, sequence=16, tasks=(), batch=6, tokenizer_hash="t", warmup_tokens=600
)
PARAMS = shape("0.025M").params


def test_studies_without_options_keep_their_lineages() -> None:
    before = replace(SETUP, warmup_tokens=None)
    assert before.identity == before.identity_of(100_672) == "7b3ce22bee75618a"
    some = replace(before, weight_decay=0.2, sizes=(Overrides(100_672, clip=0.5),))
    assert (some.identity, some.identity_of(100_672)) == ("3e6c1da711b177ab", "f00f79f38ae0994e")


def test_every_option_makes_lineages_of_its_own() -> None:
    others = [replace(SETUP, beta1=0.8), replace(SETUP, eps=1e-6), replace(SETUP, z_loss=1e-4)]
    for name, value in ALL.changed().items():
        others.append(replace(SETUP, architecture=Architecture(**{name: value})))
    assert len({SETUP.identity, *(setup.identity for setup in others)}) == 8
    assert all(Setup.from_json(setup.as_json()) == setup for setup in others)
    assert replace(SETUP, sizes=(Overrides(PARAMS, z_loss=1e-4),)).identity_of(PARAMS) != SETUP.identity_of(PARAMS)


def test_the_parameters_of_a_setup_are_those_of_the_model() -> None:
    for architecture in (Architecture(), Architecture(untied=True, pad_vocabulary=64)):
        setup = replace(SETUP, architecture=architecture)
        assert setup.embedded == (320 if architecture.untied else 300)
        model = initialise(shape(PARAMS), 300, 16, seed=0, architecture=architecture)
        assert model.num_parameters() == setup.weights(PARAMS)
    norms = initialise(shape(PARAMS), 300, 16, seed=0, architecture=Architecture(qk_norm=True))
    plain = initialise(shape(PARAMS), 300, 16, seed=0)
    size = shape(PARAMS)
    assert norms.num_parameters() - plain.num_parameters() == 2 * size.head * size.depth
    assert norms.num_parameters() < 1.01 * plain.num_parameters()
    table = 16 * 320 * size.width
    tied, untied = (training_bytes(size, 320, 16, 1, accumulate=True, untied=one) for one in (False, True))
    assert untied - tied == table


def test_a_trained_model_with_all_options_is_one_of_transformers(tmp_path: Path) -> None:
    setup = replace(SETUP, architecture=ALL, z_loss=1e-4, beta1=0.8, eps=1e-6)
    streams = {"text": np.tile(np.random.default_rng(0).integers(300, size=97), 60).astype(np.uint16)}
    recipe = setup.adopt(Recipe(PARAMS, (Phase("init", 30 * setup.step_tokens(PARAMS), Mixture({"text": 1.0})),)))
    (segment,) = plan([recipe]).segments
    trained = train_segment(segment, setup, streams, tmp_path / "runs")
    read: Any = AutoModelForCausalLM.from_pretrained(trained.checkpoint)
    assert type(read).__name__ == "Qwen3ForCausalLM"
    assert read.config.rope_parameters["rope_theta"] == 5e5
    assert read.lm_head.weight.shape[0] == 320
    assert not torch.equal(read.lm_head.weight, read.model.embed_tokens.weight)
    ids = torch.arange(16)[None]
    assert torch.allclose(read(input_ids=ids).logits, trained.model(input_ids=ids).logits, atol=1e-5)
    assert trained.loss < np.log(300) - 0.3


def test_betas_and_eps_reach_the_optimizer() -> None:
    rules = replace(hyperparameters(PARAMS, 96), beta1=0.8, eps=1e-6)
    adamw = optimizer_of(torch.nn.Linear(2, 2), rules)
    assert {(group["betas"], group["eps"]) for group in adamw.param_groups} == {((0.8, 0.95), 1e-6)}


def _gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=1, n_head=2, n_positions=16))


@pytest.mark.parametrize(
    "make",
    [
        lambda: initialise(Shape(32, 2), 61, 16, seed=0),
        lambda: initialise(Shape(32, 2), 61, 16, seed=0, architecture=ALL),
        _gpt2,
    ],
    ids=["llama", "all options", "gpt2"],
)
def test_the_z_loss_has_the_gradient_of_its_formula_and_the_loss_is_without_it(make: Any) -> None:
    model, weight = make().eval(), 0.05
    tokens = torch.randint(61, (3, 17), generator=torch.Generator().manual_seed(0))
    inputs, labels = tokens[:, :-1], tokens[:, 1:].clone()
    labels[0, :5] = IGNORED
    found = LossModule(model, z_loss=weight)(inputs, labels)
    found.backward()
    mine = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    logits = model(input_ids=inputs).logits.flatten(0, 1)
    counts = labels.flatten() != IGNORED
    loss = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=IGNORED)
    (loss + weight * (logits.logsumexp(1) ** 2)[counts].sum()).backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, value in model.named_parameters():
        assert torch.allclose(mine[name], value.grad, rtol=1e-3, atol=1e-4), name


def test_study_toml_sets_them_all_and_single_sizes(tmp_path: Path) -> None:
    keys = "qk_norm = true\nuntied = true\nrope_theta = 5e5\npad_vocabulary = 64\nbeta1 = 0.8\neps = 1e-6\n"
    sizes = '[training.sizes."0.025M"]\nz_loss = 1e-4\n'
    text = SETTINGS.replace("[training]\n", f"[training]\n{keys}").replace("[sizes]\n", f"{sizes}[sizes]\n", 1)
    setup = open_study(prepare(tmp_path / "study", text)).setup
    assert setup.architecture == ALL
    rules = setup.hyperparameters(PARAMS)
    assert (rules.beta1, rules.eps, rules.z_loss) == (0.8, 1e-6, 1e-4)
    assert setup.hyperparameters(shape("1M").params).z_loss == 0


def test_a_pretrained_model_has_an_architecture_of_its_own(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "study")
    model = initialise(shape(PARAMS), 300, 32, seed=0)
    model.save_pretrained(folder / "theirs")
    for path in (folder / "data" / "tokenizer").iterdir():
        (folder / "theirs" / path.name).write_bytes(path.read_bytes())
    (folder / "study.toml").write_text(
        SETTINGS.replace("[training]\n", '[training]\nstart = "theirs"\nqk_norm = true\n')
    )
    with pytest.raises(InputError, match=r"training\.qk_norm is for fresh models"):
        _ = open_study(folder).setup
