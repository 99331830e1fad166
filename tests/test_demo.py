"""The demo at smoke size, as a user runs it: real corpora, real training, a proposal checked by training it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mixlaw.recipe import Recipe
from mixlaw.study import open_study

pytestmark = pytest.mark.slow


def demo(folder: Path) -> tuple[dict[str, Any], str]:
    """Run the demo to its end in one worker; its result and what it said on the way."""
    command = [sys.executable, "-m", "mixlaw", "demo", str(folder), "--smoke", "--workers", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The demo, interrupted once in the middle of training, then run to its end."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "mixlaw", "demo", str(folder), "--smoke", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("runs/*/record.json")) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert said.rstrip().endswith("repeat the command to continue")
    return (folder, *demo(folder))


def test_an_interrupted_demo_ends_where_it_should(first: tuple[Path, dict[str, Any], str]) -> None:
    folder, found, _ = first
    records = [json.loads(path.read_text()) for path in folder.glob("runs/*/record.json")]
    assert len(records) == found["plan"]["recipes"] == 19
    assert {record["recipe"]["params"] for record in records} == {25_248, 55_536, 100_672}
    assert found["plan"]["flops_shared"] < found["plan"]["flops_separate"]


def test_predictions_are_frozen_before_the_runs_they_foretell(first: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, said = first
    frozen = max(folder.glob("proposals/*.json"), key=lambda path: path.stat().st_mtime)
    large = [p for p in folder.glob("runs/*/record.json") if json.loads(p.read_text())["recipe"]["params"] == 100_672]
    assert len(large) == 4
    assert all(path.stat().st_mtime > frozen.stat().st_mtime for path in large)
    assert said.index("What is expected, before it is trained") < said.index("Now training it")


def test_every_proposal_but_the_last_was_checked_at_the_proxies_sizes(first: tuple[Path, dict[str, Any], str]) -> None:
    folder, found, _ = first
    study = open_study(folder)
    trained = {(r.recipe.params, tuple(phase.mixture for phase in r.recipe.phases)) for r in study.records()}
    proposals = study.proposals()
    assert len(proposals) == 3
    assert found["proposal"] == proposals[-1].as_json()
    for proposal in proposals:
        mixtures = tuple(phase.mixture for phase in proposal.recipe.phases)
        checked = {(size, mixtures) in trained for size in (25_248, 55_536)}
        assert checked == {proposal is not proposals[-1]}


def test_check_queues_what_the_demo_queues(first: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder, _, _ = first
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint"))
    copy = open_study(tmp_path / "copy")
    shutil.rmtree(copy.path / "recipes")
    command = [sys.executable, "-m", "mixlaw", "propose", str(copy.path), "--check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    proposal = copy.proposals()[-1]
    pair = [proposal.recipe, proposal.baselines[proposal.against]]
    wanted = {(size, tuple(phase.mixture for phase in recipe.phases)) for size in (25_248, 55_536) for recipe in pair}
    files = (copy.path / "recipes").glob("*.json")
    recipes = [Recipe.from_json(json.loads(path.read_text())) for path in files]
    assert {(recipe.params, tuple(phase.mixture for phase in recipe.phases)) for recipe in recipes} == wanted


def test_every_task_of_both_recipes_is_compared(first: tuple[Path, dict[str, Any], str]) -> None:
    _, found, _ = first
    checks = found["verification"]["checks"]
    tasks = {"prose", "markup", "synthetic", "humaneval", "capitals", "cloze", "agreement"}
    compared = {(check["forecast"]["recipe"], check["forecast"]["task"]) for check in checks}
    assert compared == {(r, task) for r in ("proposal", found["proposal"]["against"]) for task in tasks}
    for check in checks:
        inside = check["forecast"]["lo90"] <= check["measured"] <= check["forecast"]["hi90"]
        assert check["inside"] == inside


def test_a_repeat_trains_nothing_and_says_the_same(first: tuple[Path, dict[str, Any], str]) -> None:
    folder, found, _ = first
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/record.json")}
    again, _ = demo(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/record.json")} == before
    assert again["verification"] == found["verification"]
    assert again["proposal"] == found["proposal"]
