"""Learning rates of exports, as the trainers' own schedulers read them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from mixlaw.export.schedule import schedule_of
from mixlaw.export.trainers import megatron_schedule, olmo_core_schedule
from mixlaw.recipe import Decay, Phase, Recipe, Schedule
from mixlaw.runner.train.step import rate
from test_export import TRAINERS as INSTALLED
from test_export import ask, needs_trainers
from test_export_roundtrip import CODE, TEXT, render

#: Schedules that studies have, by name.
RECIPES = {
    "linear": Recipe(10**6, (Phase("init", 96_000, TEXT), Phase("cooldown", 32_000, CODE, 0.0)), warmup=4_000),
    "cosine fall": Recipe(10**6, (Phase("a", 96_000, TEXT), Phase("b", 32_000, CODE, 0.1, Decay.COSINE)), warmup=4_000),
    "1-sqrt": Recipe(10**6, (Phase("a", 64_000, TEXT), Phase("b", 64_000, CODE, 0.2, Decay.ONE_SQRT)), warmup=4_000),
    "constant": Recipe(10**6, (Phase("a", 64_000, TEXT), Phase("b", 64_000, CODE)), warmup=4_000),
    "cosine": Recipe(10**6, (Phase("a", 64_000, TEXT), Phase("b", 64_000, CODE)), 0, {}, "", Schedule.COSINE, 1, 4_000),
    "two falls": Recipe(10**6, (Phase("a", 64_000, TEXT, 0.5), Phase("b", 64_000, CODE, 0.1)), warmup=4_000),
}
STEP = 400  # tokens


def curve(recipe: Recipe) -> list[float]:
    """The learning rate over its peak at every step."""
    return [rate(recipe, position, recipe.warmup or 0) for position in range(0, recipe.tokens, STEP)]


OLMO = """
import json, sys, yaml
from olmo_core.optim.scheduler import ComposableScheduler
scheduler = ComposableScheduler.from_dict(yaml.safe_load(open(sys.argv[1])))
step, total = int(sys.argv[2]), int(sys.argv[3])
print(json.dumps([float(scheduler.get_lr(1.0, position, total)) for position in range(0, total, step)]))
"""


@needs_trainers
@pytest.mark.parametrize("name", ["linear", "cosine fall", "constant", "cosine", "two falls"])
def test_olmo_core_has_the_recipe_s_learning_rate(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    text, said = olmo_core_schedule(recipe, 100)
    (tmp_path / "schedule.yaml").write_text(text)
    found = ask(OLMO, tmp_path / "schedule.yaml", STEP, recipe.tokens)
    assert isinstance(found, list)
    if said:  # the warm-up, which the user adds
        begin = (recipe.warmup or 0) // STEP + 1
        assert "add the warm-up" in said
        assert found[begin:] == pytest.approx(curve(recipe)[begin:], abs=1e-6)
    else:
        assert found == pytest.approx(curve(recipe), abs=1e-3)  # a step of the warm-up begins a token later here


MEGATRON = """
import argparse, json, sys, types
import torch
package = types.ModuleType("megatron.core")
package.__path__ = [sys.argv[2] + "/megatron/core"]
sys.modules["megatron.core"] = package
optimizer = types.ModuleType("megatron.core.optimizer")
optimizer.MegatronOptimizer = object
sys.modules["megatron.core.optimizer"] = optimizer
import megatron.core.parallel_state
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

read = argparse.ArgumentParser()
for name in ("--lr-decay-style", "--lr-wsd-decay-style"):
    read.add_argument(name)
for name in ("--lr-decay-samples", "--lr-wsd-decay-samples", "--lr-warmup-samples"):
    read.add_argument(name, type=int)
read.add_argument("--min-lr", type=float)
a = read.parse_args(open(sys.argv[1]).read().split())
groups = types.SimpleNamespace(param_groups=[])
scheduler = OptimizerParamScheduler(
    groups, 0.0, 1.0, float(sys.argv[3]) if a.min_lr is None else a.min_lr, a.lr_warmup_samples or 0,
    a.lr_decay_samples, a.lr_decay_style, 0.0, 0.0, 1, "constant",
    wsd_decay_steps=a.lr_wsd_decay_samples, lr_wsd_decay_style=a.lr_wsd_decay_style)
rates = []
for _ in range(int(sys.argv[5])):
    rates.append(scheduler.get_lr({}))
    scheduler.step(int(sys.argv[4]))
print(json.dumps(rates))
"""


@needs_trainers
@pytest.mark.parametrize("name", ["linear", "cosine fall", "1-sqrt", "constant", "cosine"])
def test_megatron_has_the_recipe_s_learning_rate(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    text, said = megatron_schedule(recipe, 100)
    (tmp_path / "schedule.args").write_text(text)
    end = recipe.cosine_end if recipe.schedule is Schedule.COSINE else recipe.phases[-1].lr_end or 0.0
    assert ("--min-lr" in said) is (0 < end < 1)
    steps = recipe.tokens // STEP
    found = ask(MEGATRON, tmp_path / "schedule.args", INSTALLED, end, STEP // 100, steps)
    assert found == pytest.approx(curve(recipe), abs=0.05 if name == "cosine" else 1e-3)


SCHEDULER = """
import json, runpy, sys
import torch
config = runpy.run_path(sys.argv[1])["lr_scheduler"]
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
container = config.build(optimizers=[optimizer], training_steps=1)
rates = []
for _ in range(config.total_steps):
    rates.append(container.schedulers[0].get_last_lr()[0])
    optimizer.step()
    container.step()
print(json.dumps([config.total_steps, rates]))
"""


@needs_trainers
@pytest.mark.parametrize("name", ["linear", "cosine fall", "1-sqrt", "constant", "cosine"])
def test_torchtitan_has_the_recipe_s_learning_rate(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    for text in render("torchtitan", recipe)[-1:]:
        module = text.replace("TOKENS_PER_STEP = ", f"TOKENS_PER_STEP = {STEP}  # ")
        (tmp_path / "phase.py").write_text(module)
        found = ask(SCHEDULER, tmp_path / "phase.py")
        assert isinstance(found, list)
        steps, rates = found
        assert steps == recipe.tokens // STEP
        warm = (recipe.warmup or 0) // STEP
        assert rates[warm + 1 :] == pytest.approx(curve(recipe)[warm + 1 :], abs=0.1 if name == "1-sqrt" else 0.05)


@pytest.mark.parametrize("name", ["linear", "cosine fall", "1-sqrt", "constant", "cosine"])
def test_transformers_has_the_recipe_s_learning_rate_in_every_phase(name: str) -> None:
    import torch
    from transformers import get_scheduler

    recipe = RECIPES[name]
    for text in render("datasets", recipe):
        values: dict[str, Any] = {}
        exec(
            text[text.index("TOKENS_PER_STEP") :].replace("TOKENS_PER_STEP = ", f"TOKENS_PER_STEP = {STEP}  # "), values
        )
        schedule = values["schedule"]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = get_scheduler(
            schedule["lr_scheduler_type"],
            optimizer,
            num_warmup_steps=schedule.get("warmup_steps", 0),
            num_training_steps=schedule["max_steps"],
            scheduler_specific_kwargs=schedule["lr_scheduler_kwargs"],
        )
        rates = []
        for _ in range(schedule["max_steps"]):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        warm = (recipe.warmup or 0) // STEP
        assert rates[warm:] == pytest.approx(curve(recipe)[warm:], abs=0.05 if name == "cosine" else 1e-3)


COMPOSER = """
import importlib, json, sys, types, yaml
for name in ("composer", "composer.core", "composer.utils"):  # their own __init__ want torchvision, schedulers do not
    package = types.ModuleType(name)
    package.__path__ = [sys.argv[2] + "/" + name.replace(".", "/")]
    sys.modules[name] = package
sys.modules["composer.utils"].StringEnum = importlib.import_module("composer.utils.string_enum").StringEnum
times = importlib.import_module("composer.core.time")
core = sys.modules["composer.core"]
core.State, core.Time, core.TimeUnit = object, times.Time, times.TimeUnit
optim = importlib.util.spec_from_file_location("optim", sys.argv[2] + "/composer/optim/scheduler.py")
schedulers = importlib.util.module_from_spec(optim)
optim.loader.exec_module(schedulers)
NAMES = {  # by which llm-foundry registers them
    "constant_with_warmup": schedulers.ConstantWithWarmupScheduler,
    "cosine_with_warmup": schedulers.CosineAnnealingWithWarmupScheduler,
    "linear_decay_with_warmup": schedulers.LinearWithWarmupScheduler,
}
rates = []
for file, tokens in zip(sys.argv[3::2], map(int, sys.argv[4::2])):
    told = yaml.safe_load(open(file))["scheduler"]
    scheduler = NAMES[told.pop("name")](**told)
    length = times.Time(tokens, times.TimeUnit.TOKEN)
    for at in range(0, tokens, int(sys.argv[1])):
        at = times.Timestamp(token=at)
        rates.append(scheduler(types.SimpleNamespace(timestamp=at, max_duration=length, dataloader_len=None)))
print(json.dumps(rates))
"""


@needs_trainers
@pytest.mark.parametrize("name", ["linear", "cosine fall", "constant", "two falls"])
def test_composer_has_the_recipe_s_learning_rate(name: str, tmp_path: Path) -> None:
    recipe, phases = RECIPES[name], list[object]()
    for number, (phase, text) in enumerate(zip(recipe.phases, render("mosaic", recipe), strict=True)):
        (tmp_path / f"{number}.yaml").write_text(text)
        phases += [tmp_path / f"{number}.yaml", phase.tokens]
    found = ask(COMPOSER, STEP, INSTALLED, *phases)
    # Within the warm-up of a phase that falls Composer rises in a line, and the recipe in a line times its fall.
    assert found == pytest.approx(curve(recipe), abs=0.01 if name == "two falls" else 1e-3)


def test_llm_foundry_s_schedulers_are_those_of_each_phase() -> None:
    def scheduler(recipe: Recipe) -> list[Any]:
        return [yaml.safe_load(text).get("scheduler") for text in render("mosaic", recipe)]

    constant = {"name": "constant_with_warmup", "t_warmup": "4000tok"}
    fall = {"t_warmup": "0tok", "alpha_f": 0.1, "t_max": "32000tok"}
    assert scheduler(RECIPES["cosine fall"]) == [constant, {"name": "cosine_with_warmup", **fall}]
    fall = {"name": "linear_decay_with_warmup", "t_max": "64000tok"}
    assert scheduler(RECIPES["two falls"]) == [
        {
            "name": "linear_decay_with_warmup",
            "t_warmup": "4000tok",
            "alpha_i": 0.96875,
            "alpha_f": 0.5,
            "t_max": "64000tok",
        },
        {**fall, "t_warmup": "0tok", "alpha_i": 0.5, "alpha_f": 0.1},
    ]
    assert scheduler(RECIPES["1-sqrt"]) == [constant, None]


def test_what_has_no_such_form_is_said_and_never_guessed() -> None:
    unknown = replace(RECIPES["linear"], phases=(Phase("a", 1000, TEXT, None),))
    assert schedule_of(unknown) == "the learning rate of the recipe is not known"
    assert "falls in a and not only at the end" in str(schedule_of(RECIPES["two falls"]))
    assert megatron_schedule(RECIPES["two falls"], 100)[0] == ""
    assert olmo_core_schedule(RECIPES["1-sqrt"], 100)[0] == ""
    assert "# No lr_scheduler: the learning rate of the recipe is not known." in render("torchtitan", unknown)[0]
    assert math.isclose(schedule_of(RECIPES["linear"]).share, 0.25)  # type: ignore[union-attr]
