"""`mixlaw propose --queue --ladder`: what `mixlaw run` would train then, in a study that trains its own models."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlaw.recipe import Domain, Kind
from mixlaw.runner.models.ladder import shape
from mixlaw.study import open_study
from mixlaw.testing.worlds import random_recipes, random_world
from small_study import SETTINGS, prepare
from studies import quick_fit
from test_cli import document_here as document

TARGET = "\n[target]\nparams = 395904\ntokens = 400_000\nguard = false\nmax_epochs = 100\n"


def test_proposal_baseline_and_the_sizes_between_are_queued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepare(tmp_path / "study", SETTINGS + TARGET)
    study = open_study(folder)
    domains = [
        Domain("text", Kind.TEXT, int(study.unique["text"])),
        Domain("code", Kind.CODE, int(study.unique["code"])),
    ]
    world = random_world(domains, tuple(phase.name for phase in study.settings.phases), tasks=2, seed=3)
    runs = random_recipes([24_000, 48_000], 2, domains, world.phases, count=8, seed=1)
    quick_fit(world.measure(runs), world.units, study.unique).save(folder / "surfaces")
    before = {recipe.lineage for recipe in study.recipes()}
    assert not document(capsys, "propose", folder, "--draft")["number"]
    assert {recipe.lineage for recipe in study.recipes()} == before, "a draft queues nothing"
    found = document(capsys, "propose", folder, "--queue", "--ladder")
    study = open_study(folder)
    (proposal,) = study.proposals()
    queued = [recipe for recipe in study.recipes() if recipe.lineage not in before]
    at_target = [recipe for recipe in queued if recipe.params == proposal.target.params]
    for name in ("proposal", proposal.against):
        like = proposal.recipes[name]
        assert any([p.mixture for p in r.phases] == [p.mixture for p in like.phases] for r in at_target)
    # Between the largest run, 48,000 parameters, and the target, 395,904: models that exist, each with its baseline.
    rungs = [recipe.params for recipe in queued if recipe not in at_target]
    assert rungs
    assert all(
        1.2 * 48_000 < params < proposal.target.params / 1.2 and shape(params).params == params for params in rungs
    )
    assert sorted(rungs) == sorted(2 * [rung["recipe"]["params"] for rung in found["ladder"]])
    assert study.verify().pending == ((proposal.id, "proposal"), (proposal.id, proposal.against))
