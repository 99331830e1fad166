"""What a driver makes of its workers: scripts in their place hang, evaluate for long, lack memory, or share a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mixlaw.runner.execute import executor
from mixlaw.runner.execute.local import QUIET, LocalExecutor
from mixlaw.runner.execute.node import RayWorker
from mixlaw.runner.plan.devices import GPUS, Machine
from mixlaw.runner.plan.tree import plan
from mixlaw.study import open_study
from small_study import copy, prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its data, nothing trained."""
    return prepare(tmp_path_factory.mktemp("driver") / "study")


@pytest.mark.parametrize("alone", [True, False], ids=["itself", "by its launcher"])
def test_a_worker_that_falls_silent_is_replaced(
    alone: bool, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them hangs; the second reports at once that it is done."""
    script, been, late = tmp_path / "worker.sh", tmp_path / "been", tmp_path / "late"
    (tmp_path / "hang.py").write_text(f"import time, pathlib\ntime.sleep(60)\npathlib.Path({str(late)!r}).touch()\n")
    done = '{"event": "done", "loss": 1.0, "seconds": 1.0, "evaluation_seconds": 0.0}'
    script.write_text(
        f"#!/bin/sh\nif [ ! -e {been} ]; then touch {been}; exec {sys.executable} {tmp_path}/hang.py; fi\n"
        "read setup\n"
        f"while read order; do echo '{done}'; done\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(executor, "STALL_SECONDS", 3.0)
    monkeypatch.setattr(executor, "IDLE_SECONDS", 0.2)
    study = copy(prepared, tmp_path / "study")
    tree = plan(study.recipes()[:1])
    launch = [str(script)] if alone else ["sh", str(script)]
    outcome = LocalExecutor(study.setup, study.runs, Machine("launched", 1), launch=launch).run(
        tree, list(tree.segments)
    )
    assert been.exists()
    assert not late.exists(), "it did not end by itself"
    assert (len(outcome.done), outcome.failed) == (3, {})


def test_a_worker_that_evaluates_may_be_silent_for_long(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs and judges take what they take: the limit is that of training."""
    script, starts = tmp_path / "worker.py", tmp_path / "starts"
    script.write_text(
        "import json, sys, time\n"
        f"open({str(starts)!r}, 'a').write('.')\n"
        "sys.stdin.readline()\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'event': 'evaluating', 'tasks': 'win'}), flush=True)\n"
        "    time.sleep(6)\n"
        "    print(json.dumps({'event': 'done', 'loss': 1.0}), flush=True)\n"
    )
    monkeypatch.setattr(executor, "STALL_SECONDS", 3.0)
    monkeypatch.setattr(executor, "IDLE_SECONDS", 0.2)
    study = copy(prepared, tmp_path / "study")
    tree = plan(study.recipes()[:1])
    launch = [sys.executable, str(script)]
    outcome = LocalExecutor(study.setup, study.runs, Machine("launched", 1), launch=launch).run(
        tree, list(tree.segments[:1])
    )
    assert len(outcome.done) == 1
    assert starts.read_text() == "."


def test_memory_that_did_not_suffice_is_no_death_and_the_next_worker_is_told(prepared: Path, tmp_path: Path) -> None:
    """A worker that takes passes of one sequence alone, and asks for half of what it is given until then."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\n"
        "sys.stdin.readline()\n"
        "for line in sys.stdin:\n"
        "    plan = json.loads(line)['plan'] or {'micro_batch': 32}\n"
        "    if plan['micro_batch'] > 1:\n"
        "        half = {'micro_batch': plan['micro_batch'] // 2}\n"
        "        print(json.dumps({'event': 'memory', 'plan': half}), flush=True)\n"
        "        sys.exit(1)\n"
        "    print(json.dumps({'event': 'done', 'loss': 1.0}), flush=True)\n"
    )
    study = copy(prepared, tmp_path / "study")
    tree = plan(study.recipes()[:1])
    launch = [sys.executable, str(script)]
    driver = LocalExecutor(study.setup, study.runs, Machine("launched", 1), launch=launch)
    outcome = driver.run(tree, list(tree.segments[:1]))
    assert (len(outcome.done), outcome.failed) == (1, {}), "five halvings are more than three deaths"
    assert driver.plans == {tree.segments[0].lineage: {"micro_batch": 1}}


def test_small_segments_train_side_by_side_on_one_gpu(prepared: Path, tmp_path: Path) -> None:
    """Workers of a GPU that is not here: they are done as soon as three of them have begun."""
    begun, script = tmp_path / "begun", tmp_path / "worker.py"
    begun.mkdir()
    script.write_text(
        "import json, os, sys, time\n"
        "from pathlib import Path\n"
        "share, until = json.loads(sys.stdin.readline())['share'], time.monotonic() + 60\n"
        "for line in sys.stdin:\n"
        f"    Path({str(begun)!r}, f'{{os.getpid()}}-{{share}}').touch()\n"
        f"    while len(os.listdir({str(begun)!r})) < 3 and time.monotonic() < until:\n"
        "        time.sleep(0.01)\n"
        f"    together = len(os.listdir({str(begun)!r})) >= 3\n"
        "    alone = {'event': 'failed', 'error': 'alone', 'everywhere': True}\n"
        "    print(json.dumps({'event': 'done', 'loss': 1.0} if together else alone), flush=True)\n"
    )
    study = copy(prepared, tmp_path / "study")
    tree, gpu = plan(study.recipes()), GPUS["H100"]
    roots = [segment for segment in tree.segments if segment.parent is None]
    machine = Machine("local", 1, "cuda", gpu.memory, gpu.peak, 8)
    outcome = LocalExecutor(study.setup, study.runs, machine, launch=[sys.executable, str(script)]).run(tree, roots)
    assert len(roots) == len(outcome.done) == 3
    assert [path.name.rpartition("-")[2] for path in begun.iterdir()] == ["8"] * 3


@pytest.mark.parametrize("given", [None, "1"])
def test_workers_of_a_cluster_may_ask_the_hub_unless_their_node_says_no(
    given: str | None, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one machine may not: their driver has filled the cache that they share."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if given:
        monkeypatch.setenv("HF_HUB_OFFLINE", given)
    setup = json.dumps(open_study(prepared).setup.as_json())
    worker = RayWorker(setup, str(tmp_path), shared=False, devices=1, cpu=True)
    worker.close()
    assert {**QUIET, **worker.environment}["HF_HUB_OFFLINE"] == (given or "0")
