"""What a GPU does against what a CPU does, with the same code on both: without a GPU the halves for it are skipped."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.evaluate.generate import generate
from mixlaw.runner.evaluate.measure import Subject
from mixlaw.runner.evaluate.run import evaluate
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.loop import Stopped, train_segment
from mixlaw.runner.train.parallel import Ranks, joined
from mixlaw.study import open_study
from small_study import prepare

HAS_GPU = torch.cuda.is_available()
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")])
DEVICES = pytest.mark.parametrize("device", ["cpu", GPU])
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
benchmark = importlib.import_module("gpu")

SETUP = Setup(data="", data_hash="", vocabulary=300, sequence=64, tasks=(), batch=8, warmup_tokens=2000)
PARAMS = shape("0.1M").params
STREAMS = {"text": np.tile(np.random.default_rng(0).integers(300, size=997), 60).astype(np.uint16)}
RECIPE = SETUP.adopt(Recipe(PARAMS, (Phase("init", 40 * SETUP.step_tokens(PARAMS), Mixture({"text": 1.0})),)))
(SEGMENT,) = plan([RECIPE]).segments


@pytest.fixture
def ranks(device: str) -> Iterator[Ranks]:
    if device == "cpu":
        yield Ranks()
        return
    with joined() as here:
        yield here


def train(ranks: Ranks, runs: Path, setup: Setup = SETUP, steps: int | None = None) -> float:
    """Loss of the segment, or nan where it is stopped after so many steps."""
    seen = iter(range(10**6))
    try:
        return train_segment(
            SEGMENT, setup, STREAMS, runs, stop=lambda: steps is not None and next(seen) + 1 >= steps, ranks=ranks
        ).loss
    except Stopped:
        return float("nan")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The loss on a CPU."""
    return train(Ranks(), tmp_path_factory.mktemp("cpu") / "runs")


@DEVICES
@pytest.mark.parametrize("recompute", [False, True])
def test_a_device_learns_as_a_cpu_does(expected: float, ranks: Ranks, tmp_path: Path, recompute: bool) -> None:
    loss = train(ranks, tmp_path / "runs", replace(SETUP, recompute=recompute, compile=False))
    assert loss == pytest.approx(expected, rel=0.02 if ranks.bf16 else 1e-4)
    read = checkpoint.load(tmp_path / "runs" / SEGMENT.lineage / "checkpoint")
    assert {weight.dtype for weight in read.model.parameters()} == {torch.float32}


@DEVICES
def test_a_stopped_segment_resumes_where_it_was(ranks: Ranks, tmp_path: Path) -> None:
    train(ranks, tmp_path / "runs", steps=17)
    train(ranks, tmp_path / "runs")
    train(ranks, tmp_path / "whole")
    one, two = (checkpoint.load(tmp_path / name / SEGMENT.lineage / "checkpoint") for name in ("runs", "whole"))
    for (name, weight), other in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-3 if ranks.bf16 else 0, rtol=0), name


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_compiled_layers_learn_the_same(expected: float, tmp_path: Path) -> None:
    with joined() as ranks:
        assert train(ranks, tmp_path / "runs", replace(SETUP, compile=True)) == pytest.approx(expected, rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_where_memory_ends_the_micro_batch_is_halved(expected: float, tmp_path: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    with joined() as ranks:
        torch.cuda.set_per_process_memory_fraction(min(1.0, 40e6 / total))  # less than the driver says is free
        try:
            loss = train(ranks, tmp_path / "runs", replace(SETUP, compile=False))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert loss == pytest.approx(expected, rel=0.02)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a model of another trainer, drawn at random."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = prepare(tmp_path_factory.mktemp("gpu") / "study")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.1, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    for path in (folder / "data" / "tokenizer").iterdir():
        (folder / "model" / path.name).write_bytes(path.read_bytes())
    return folder


@DEVICES
def test_values_are_those_of_a_cpu(study: Path, ranks: Ranks) -> None:
    here = evaluate(study / "model", study / "data", ["text", "code"], sequence=32, ranks=ranks)
    there = evaluate(study / "model", study / "data", ["text", "code"], sequence=32)
    for task in there:
        assert here[task].value == pytest.approx(there[task].value, rel=0.01 if ranks.bf16 else 1e-12)
    subject = Subject.load(study / "model", study, ranks)
    assert len(generate(subject, ["the cat", "def"], tokens=4)) == 2


@DEVICES
def test_the_command_evaluates_on_the_device(study: Path, device: str) -> None:
    measured = open_study(study).evaluate(study / "model", tasks=["text"], device=device)
    assert list(measured.values) == ["text"]


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_a_run_trains_on_the_gpu_and_its_record_says_how(tmp_path: Path) -> None:
    study = open_study(prepare(tmp_path / "study"))
    outcome = study.run()
    assert not outcome.failed
    bf16: Any = torch.cuda.is_bf16_supported(including_emulation=False)
    assert {record.details.get("precision") for record in study.records()} == {"bf16" if bf16 else None}


@DEVICES
def test_the_benchmark_prints_a_row_for_each_question(ranks: Ranks, tmp_path: Path) -> None:
    rows = list(benchmark.rows_of("30M" if ranks.device.type == "cuda" else "0.1M", ranks, tmp_path))
    assert [row[1] for row in rows] == ["step", "memory", "checkpoint", "evaluation"]
    assert rows[1][2].endswith("within 10 %")
    assert rows[2][2].endswith("the same")
