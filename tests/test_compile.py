"""Compiled training on this machine: the losses of eager training, and code that all segments of a process share."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.runner.models.ladder import Shape, shape
from mixlaw.runner.models.llama import initialise
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, plan
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.loop import train_segment
from mixlaw.runner.train.parallel import ALONE, shard_model

COMPILER = os.environ.get("CXX", "g++")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"torch compiles for CPUs with {COMPILER}"),
]
SETUP = Setup(data="no data", data_hash="", vocabulary=300, sequence=32, tasks=(), batch=4, warmup_tokens=1000)
PARAMS = shape("0.02M").params
STREAMS = {"text": np.tile(np.random.default_rng(0).integers(300, size=97), 60).astype(np.uint16)}


def segments(seed: int) -> tuple[Segment, ...]:
    """A trunk of twenty steps and a cooldown of ten."""
    text, step = Mixture({"text": 1.0}), SETUP.step_tokens(PARAMS)
    phases = (Phase("init", 20 * step, text), Phase("cooldown", 10 * step, text, lr_end=0.0))
    return tuple(plan([SETUP.adopt(Recipe(PARAMS, phases, seed=seed))]).segments)


def losses(segment: Segment, runs: Path, compiled: bool) -> list[float]:
    train_segment(segment, replace(SETUP, compile=compiled), STREAMS, runs)
    kept = json.loads((runs / segment.lineage / "checkpoint" / checkpoint.EXTRA).read_text())
    return [float(loss) for loss in kept["losses"]]


def test_compiled_segments_have_the_losses_of_eager_ones_and_share_their_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))  # nothing of an earlier test
    counters.clear()
    graphs = []
    for seed in (0, 1):  # another seed is another model of the same shape
        for segment in segments(seed):
            eager = losses(segment, tmp_path / "eager", compiled=False)
            compiled = losses(segment, tmp_path / "compiled runs", compiled=True)
            assert compiled == pytest.approx(eager, abs=1e-4)
            assert eager[-1] < eager[0], "it learns"
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [2] * 4, "one graph for all layers, one for the head's loss, made by the first segment"


def test_more_sizes_than_dynamo_keeps_by_itself_stay_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    torch._dynamo.reset()
    tokens = torch.zeros(1, 8, dtype=torch.long)
    for width in range(32, 32 * 11, 32):  # eight are kept by default
        model = initialise(Shape(width, 1), vocabulary=16, sequence=8, seed=0)
        shard_model(model, ALONE, compiled=True)(tokens, tokens).backward()
