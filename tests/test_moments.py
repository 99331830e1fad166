"""Evaluation during training: rows of the table with progress below 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mixlaw import open_study
from mixlaw.analysis.data.design import Design
from mixlaw.recipe import Mixture, Phase, Recipe, Schedule
from mixlaw.runner.batches.shards import open_shards
from mixlaw.runner.evaluate.moments import Moments, trained_until
from mixlaw.runner.evaluate.run import evaluate
from mixlaw.runner.models.load import load_model
from mixlaw.runner.models.loss import LossModule
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.parallel import Ranks, shard_model
from ranks import together
from small_study import SETTINGS, copy, prepare, results, train_here

HEAD = SETTINGS[: SETTINGS.index("[[recipes]]")]
RECIPES = """
[[recipes]]
size = "0.025M"
tokens = {tokens}
phases = {{ init = {{ mixture = "text", share = 0.75, lr_end = 1.0 }}, cooldown = "code" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that evaluates at a half and at nine tenths."""
    keys = "[training]\nevaluate_at = [0.5, 0.9]\nheld_out_tokens = 2000"
    settings = HEAD.replace("[training]", keys) + RECIPES.format(tokens=16_000)
    return prepare(tmp_path_factory.mktemp("moments") / "study", settings)


def test_held_out_text_is_scored_while_a_recipe_trains_and_fit_reads_the_rows(folder: Path, tmp_path: Path) -> None:
    plain = copy(folder, tmp_path / "plain")
    settings = plain.path / "study.toml"
    settings.write_text(settings.read_text().replace("evaluate_at = [0.5, 0.9]\n", ""))
    study = open_study(folder)
    (recipe,) = study.recipes()
    study.run(workers=1)
    rows = study.table().sort("progress")
    assert rows["run"].unique().to_list() == [recipe.lineage]
    assert rows["progress"].to_list() == pytest.approx([0.5, 0.9, 1.0], abs=0.03)
    design = Design.from_table(rows, {}, study.phases)
    assert design.total.tolist() == pytest.approx([p * recipe.tokens for p in rows["progress"]])
    assert design.final_lr.tolist() == [1.0, 0.0, 0.0]
    losses = rows["metric:code"].to_numpy()
    assert losses[0] > losses[1] + 0.05 > losses[2], "the cooldown is on code"
    assert rows["metric:text"].null_count() == 0
    before = {path: path.stat().st_mtime_ns for path in study.runs.glob("*/record.json")}
    assert len(before) == 3
    study.run(workers=1)
    assert {path: path.stat().st_mtime_ns for path in study.runs.glob("*/record.json")} == before
    train_here(plain)
    name = f"runs/{plan([recipe]).segments[-1].lineage}/checkpoint/model.safetensors"
    assert results(study)[name] == results(plain)[name], "scoring changes no bit of training"


def _measure(ranks: Ranks, folder: Path, out: Path) -> None:
    study = open_study(folder)
    (segment, *_) = plan(study.recipes()).segments
    model: Any = load_model(out)
    seen: list[Any] = []
    moments = Moments(segment, study.setup, open_shards(study.data), ranks, seen.append)
    losses = shard_model(model, ranks) if ranks.world > 1 else LossModule(model)
    (step,) = moments.steps
    moments.measure(step, losses, 3, lambda: None)
    assert len(seen) == ranks.first
    for record in seen:
        expected = evaluate(load_model(out), study.data, ["text", "code"], sequence=32, held_out_tokens=2000)
        for task, value in expected.items():
            mine = record.values[task]
            assert mine.count == value.count
            assert [mine.value, mine.stderr] == pytest.approx([value.value, value.stderr], rel=1e-5)


@pytest.mark.parametrize("world", [1, 2])
def test_the_loss_is_that_of_evaluation_on_any_number_of_ranks(folder: Path, tmp_path: Path, world: int) -> None:
    from mixlaw.runner.train.step import fresh_model

    study = open_study(folder)
    torch.manual_seed(0)
    model = fresh_model(study.setup, study.recipes()[0].params, 1)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "model")
    together(world, _measure, folder, tmp_path / "model")


def test_what_was_trained_until_a_moment_is_cut_under_the_schedule_it_follows() -> None:
    text = Mixture({"text": 1.0})
    whole = Recipe(1000, (Phase("init", 600, text), Phase("cooldown", 400, text, 0.1)))
    assert trained_until(whole, 500).phases == (Phase("init", 500, text),)
    assert trained_until(whole, 800).phases == (Phase("init", 600, text), Phase("cooldown", 200, text, 0.1))
    cosine = Recipe(1000, whole.phases, schedule=Schedule.COSINE)
    assert trained_until(cosine, 500).cosine_end == 0.1
