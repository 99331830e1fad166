"""Adding or changing a domain leaves the runs of recipes that do not use it as they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mixlaw.recipe import Mixture, Phase, Recipe
from mixlaw.records import read_record
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.study import Study, open_study
from small_study import SETTINGS, prepare, train_here

RECIPE = '[[recipes]]\nsize = "0.025M"\nphases = { init = "text", continue = "text", cooldown = "text" }\n'
#: One recipe, on `text` alone; all tasks that the data measure.
PLAIN = (
    SETTINGS[: SETTINGS.index("[[recipes]]")]
    .replace("24_000", "4_000")
    .replace('[tasks]\ntext = "bits/byte"\ncode = "bits/byte"\n', "")
)
OTHER = '[domains.other]\nsource = "other.jsonl"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with one run, and a tokenizer of its own beside it."""
    folder = prepare(tmp_path_factory.mktemp("own") / "study", PLAIN + RECIPE)
    shutil.copytree(folder / "data" / "tokenizer", folder / "tokenizer")
    settings = (PLAIN + RECIPE).replace("vocabulary = 300", 'file = "tokenizer"')
    (folder / "study.toml").write_text(settings)
    study = open_study(folder)
    study.prepare()
    train_here(study)
    return study


def changed(study: Study, folder: Path, more: str = "") -> Study:
    """The study in another folder, with another domain if one is given."""
    shutil.copytree(study.path, folder)
    (folder / "other.jsonl").write_text(
        "".join(json.dumps({"text": f"and {n} more words " * 9}) + "\n" for n in range(80))
    )
    (folder / "study.toml").write_text(more + (folder / "study.toml").read_text())
    return open_study(folder)


def test_a_new_domain_is_measured_on_old_runs_and_trains_nothing(trained: Study, tmp_path: Path) -> None:
    study = changed(trained, tmp_path / "study", OTHER)
    (name,) = study.measured
    before = read_record(study.runs / name / "record.json")
    checkpoints = {path: path.stat().st_mtime_ns for path in study.runs.rglob("*.safetensors")}
    study.prepare()
    assert [recipe.lineage for recipe in study.recipes()] == [name], "the recipe does not use the new domain"
    assert study.measured == frozenset(), "its record lacks the new domain's held-out text"
    train_here(study)
    after = read_record(study.runs / name / "record.json")
    assert set(after.values) == {*before.values, "other"}
    assert before.values.items() <= after.values.items()
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == checkpoints
    assert study.measured == {name}


def test_more_documents_in_another_domain_change_what_is_measured_and_no_lineage(
    trained: Study, tmp_path: Path
) -> None:
    study = changed(trained, tmp_path / "study")
    with (study.path / "code.jsonl").open("a") as file:
        file.writelines(json.dumps({"text": f"def g(y): return {n} " * 12}) + "\n" for n in range(40))
    (name,) = study.measured
    study.prepare()
    assert [recipe.lineage for recipe in study.recipes()] == [name]
    assert study.measured == frozenset()
    with (study.path / "text.jsonl").open("a") as file:
        file.write(json.dumps({"text": "a word that was not there " * 9}) + "\n")
    study.prepare()
    assert [recipe.lineage for recipe in study.recipes()] != [name]


def test_recipes_share_a_trunk_though_their_cooldowns_use_different_domains() -> None:
    setup = Setup("data", "abc", 300, 32, (), batch=4, shards={"text": "1", "code": "2", "math": "3"})

    def adopted(cooldown: str, settings: Setup = setup) -> Recipe:
        ends = Phase("init", 4000, Mixture({"text": 1.0})), Phase("cooldown", 1000, Mixture({cooldown: 1.0}), 0.0)
        return settings.adopt(Recipe(26_000, ends))

    code, math = adopted("code"), adopted("math")
    assert (code.shards, math.shards) == ({"text": "1", "code": "2"}, {"text": "1", "math": "3"})
    assert len(plan([code, math]).segments) == 3
    assert code.shared_tokens(math) == code.phases[0].tokens
    other = adopted("code", replace(setup, shards={**setup.shards, "code": "4"}))
    assert code.shared_tokens(other) == code.phases[0].tokens
    assert other.lineage != code.lineage
    assert other.prefix(1) == code.prefix(1)
    assert Recipe.from_json(json.loads(json.dumps(code.as_json()))) == code
