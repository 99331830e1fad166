"""One dial, and what is derived from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from mixlaw.errors import InputError
from mixlaw.runner.models.ladder import (
    SIZES,
    Shape,
    _family,
    aspect,
    batch_rule,
    hyperparameters,
    main,
    parse_size,
    shape,
)
from mixlaw.runner.models.llama import config, initialise, optimizer

FAMILY = _family()
TIMED = ("1M", "5M", "30M")  # sizes that fit here


@pytest.mark.parametrize(
    ("written", "params"),
    [
        ("470M", 470_000_000),
        ("2.8B", 2_800_000_000),
        ("0.1M", 100_000),
        (".5m", 500_000),
        ("24 K", 24_000),
        ("1_000", 1000),
        (28_544, 28_544),
        (2.8e9, 2_800_000_000),
    ],
)
def test_sizes_are_numbers_with_k_m_or_b(written: str | float, params: int) -> None:
    assert parse_size(written) == params


@pytest.mark.parametrize("written", ["", "M", "-1M", "0", "0M", "1.2.3M", ".", "1T", "nan", "inf", 0.2, "1e6M"])
def test_what_is_no_size_is_refused_with_an_example(written: str | float) -> None:
    with pytest.raises(InputError, match="470M"):
        parse_size(written)


@settings(max_examples=100, deadline=None)
@given(st.floats(math.log(2.5e4), math.log(70e9)).map(lambda log: round(math.exp(log))))
@example(20_000)
@example(70_000_000_000)
def test_every_size_has_a_shape_near_it_that_is_its_own(params: int) -> None:
    found = shape(params)
    assert abs(found.params - params) <= params * (1 / 3 if params < 1e6 else 1 / 8 if params < 1e8 else 1 / 20)
    assert shape(found.params) == found
    assert found.heads * found.head == found.width
    assert found.head % 2 == 0, "rotary embeddings turn pairs"


@settings(max_examples=100, deadline=None)
@given(st.floats(math.log(1e6), math.log(70e9)).map(lambda log: round(math.exp(log))))
@example(2_400_000_000)
@example(2_800_000_000)
@example(3_200_000_000)
def test_width_over_depth_rises_slowly_and_heads_divide(params: int) -> None:
    found = shape(params)
    assert 1 / 1.5 < found.width / found.depth / aspect(params) < 1.5
    assert found.heads % (1 if params < 160e6 else 2 if params < 1e9 else 4) == 0


def test_widths_of_the_smallest_sizes_rise_step_by_step_at_one_depth() -> None:
    """What the ladder of the benchmarks and the demo extrapolate over: sizes alone, not shapes."""
    shapes = [shape(size) for size in ("0.025M", "0.05M", "0.1M", "0.15M", "0.22M")]
    assert [(s.width, s.depth) for s in shapes] == [(32, 2), (48, 2), (64, 2), (80, 2), (96, 2)]


def test_the_sizes_of_the_paper_are_on_the_ladder() -> None:
    assert abs(shape("470M").params / 470e6 - 1) < 0.01
    assert abs(shape("2.8B").params / 2.8e9 - 1) < 0.01


@pytest.mark.parametrize("size", ["5K", "1000B"])
def test_sizes_beyond_the_ladder_are_refused(size: str) -> None:
    with pytest.raises(InputError, match=r"no model on the ladder has about .*choose between"):
        shape(size)


@pytest.mark.parametrize("size", ["0.02M", "0.1M", "1M", "470M", "2.8B", "70B"])
def test_params_are_the_weights_of_the_model_without_its_embeddings(size: str) -> None:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config(shape(size), vocabulary=1000, sequence=64))
    weights = sum(weight.numel() for weight in model.parameters())  # input and output embeddings are one matrix
    assert weights - 1000 * shape(size).width == shape(size).params
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (shape(size).width, shape(size).width)
    assert model.config.head_dim == shape(size).head
    assert model.lm_head.weight is model.model.embed_tokens.weight


def on_meta(shape: Shape) -> Any:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(config(shape, vocabulary=32_768, sequence=2048))


def test_every_size_of_the_ladder_has_exactly_the_parameters_that_transformers_counts() -> None:
    """Models of one and two layers of every width tell a layer and the rest apart; deeper ones repeat the layer."""
    counted = {}
    for width in {size.width for size in FAMILY}:
        one, two = (on_meta(Shape(width, depth)).num_parameters() for depth in (1, 2))
        counted[width] = (2 * one - two - 32_768 * width, two - one)
    wrong = [s for s in FAMILY if s.params != counted[s.width][0] + s.depth * counted[s.width][1]]
    assert not wrong
    assert (len(FAMILY), len(counted)) == (380, 37), "sizes and widths"


@pytest.mark.parametrize("size", SIZES)
def test_a_size_that_the_table_names_is_built_whole_on_the_meta_device(size: str) -> None:
    model = on_meta(shape(size))
    assert model.num_parameters() == shape(size).params + 32_768 * shape(size).width
    assert model.num_parameters(exclude_embeddings=True) == shape(size).params
    assert model.config.num_hidden_layers == shape(size).depth


def test_the_table_is_printed_and_names_the_sizes_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    main("470M", "2.8B")
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["size", "parameters", "width", "depth", "heads", "rate", "batch", "warm-up"]
    assert [row.split()[:5] for row in rows] == [
        ["470M", "472,904,960", "1,280", "24", "20"],
        ["2.8B", "2,775,631,360", "2,560", "35", "20"],
    ]
    assert {"470M", "2.8B"} <= set(SIZES)


@pytest.mark.parametrize(("shape", "batch"), [(Shape(64, 2), 3), (Shape(96, 4), 2), *((shape(s), 1) for s in TIMED)])
def test_flops_are_those_that_torch_counts(shape: Shape, batch: int) -> None:
    # With attention written out as matrix products, torch counts the scores in full (no causal halving), nothing for
    # looking up embeddings, norms, rotation and softmax: the very terms of the formula, so they agree exactly. The
    # fused kernel would add one product, as its backward pass computes the scores again.
    vocabulary, sequence = 300, 32
    model: Any = initialise(shape, vocabulary, sequence, seed=0)
    model.set_attn_implementation("eager")
    tokens = torch.zeros(batch, sequence, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False).logits.sum().backward()
    assert counter.get_total_flops() == shape.flops_per_token(vocabulary, sequence) * batch * sequence


def test_batch_and_learning_rate_are_those_of_deepseek() -> None:
    # DeepSeek LLM (Bi et al. 2024), eq. 1, by hand at C = 1e20: 1e20^0.3271 = 10^6.542 = 3.48337e6, times 0.2920 is
    # 1.01714e6 tokens; 1e20^-0.1250 = 10^-2.5 = 3.16228e-3, times 0.3118 is 9.85998e-4. C = 6 N 20 N = 1e20 at
    # N = sqrt(1e20 / 120) = 912,870,929.
    params = 912_870_929
    assert math.isclose(batch_rule(params), 1.01714e6, rel_tol=1e-5)
    assert math.isclose(hyperparameters(params, round(batch_rule(params))).learning_rate, 9.85998e-4, rel_tol=1e-5)


def test_a_batch_other_than_the_rule_scales_the_rate_by_its_square_root() -> None:
    rule = hyperparameters(10**6, round(batch_rule(10**6)))
    quarter = hyperparameters(10**6, round(batch_rule(10**6) / 4))
    assert math.isclose(quarter.learning_rate, rule.learning_rate / 2, rel_tol=1e-4)
    assert quarter.warmup_tokens == 10**6


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    state = torch.random.get_rng_state()
    one, again, other = (initialise(Shape(32, 2), 300, 32, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"


def test_matrices_decay_and_norms_do_not() -> None:
    model = initialise(Shape(32, 2), 300, 32, seed=0)
    matrices, norms = optimizer(model, 1e-3, 0.95).param_groups
    assert (matrices["weight_decay"], norms["weight_decay"]) == (0.1, 0.0)
    assert len(norms["params"]) == 2 * 2 + 1
    assert len(matrices["params"]) + len(norms["params"]) == len(list(model.parameters()))
