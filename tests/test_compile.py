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
from mixlaw.runner.models.llama import initialise, optimizer
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, plan
from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.loop import train_segment
from mixlaw.runner.train.parallel import ALONE, Ranks, shard_model
from mixlaw.runner.train.step import train_step
from ranks import together

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


def _steps(ranks: Ranks, recompute: bool, out: Path) -> None:
    """Losses of three steps, without and with compiled layers, and how many graphs were made for them."""
    from torch._dynamo.utils import counters

    torch.compile = partial(torch.compile, backend="aot_eager")  # traces forward and backward, and writes no C++
    tokens = torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(0))[ranks.rank :: ranks.world]
    seen = []
    for compiled in (False, True):
        counters.clear()
        model = initialise(Shape(32, 2), 300, 16, seed=0)
        wrapped = shard_model(model, ranks, recompute=recompute, compiled=compiled)
        adamw = optimizer(model, 1e-2, 0.95)
        seen += [train_step(wrapped, adamw, tokens, 1e-2, sequences=4, ranks=ranks).loss for _ in range(3)]
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    if ranks.first:
        out.write_text(json.dumps([seen[:3], seen[3:], graphs, breaks]))


@pytest.mark.parametrize(("world", "recompute"), [(1, True), (2, False), (2, True)])
def test_recomputed_and_sharded_layers_compile_too(world: int, recompute: bool, tmp_path: Path) -> None:
    together(world, _steps, recompute, tmp_path / "losses")
    eager, compiled, graphs, breaks = json.loads((tmp_path / "losses").read_text())
    assert compiled == pytest.approx(eager, abs=1e-4)
    assert eager[-1] < eager[0]
    assert (graphs, breaks) == (2, 0), "one graph for all layers, one for the head's loss"
