"""A worker of two processes under torchrun, started by the command and stopped: one process goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixlaw.runner import checkpoint
from mixlaw.runner.tree import plan
from mixlaw.runner.worker import Worker
from mixlaw.study import Study
from small_study import SETTINGS, copy, prepare

HEAD, _, _ = SETTINGS.partition("[[recipes]]")
PLAIN = f'{HEAD}[[recipes]]\nsize = "0.025M"\nphases = {{ init = "half", continue = "code", cooldown = "text" }}\n'
PLAIN = PLAIN.replace("checkpoint_seconds = 0.05", "checkpoint_seconds = 0.3")
TORCHRUN = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=2"
COMMAND = [sys.executable, "-m", "mixlaw", "run", "--workers", "1", "--launch", TORCHRUN]


def train_here(study: Study) -> None:
    """What a worker of one process does, in this one."""
    tree, worker = plan(study.recipes()), Worker(study.setup, study.runs)
    for segment in tree.segments:
        worker.work(segment, segment.finished({recipe.lineage: recipe for recipe in tree.recipes}))


def losses(study: Study) -> list[list[float]]:
    """The last losses of every segment, in the order of steps."""
    folders = sorted(study.runs.glob("*/checkpoint"), key=checkpoint.verify)
    return [json.loads((folder / checkpoint.KEPT).read_text())["losses"] for folder in folders]


@pytest.mark.slow
def test_two_ranks_that_are_stopped_leave_what_one_process_goes_on_from(tmp_path: Path) -> None:
    alone = copy(prepare(tmp_path / "prepared", PLAIN), tmp_path / "alone")
    train_here(alone)
    both = copy(tmp_path / "prepared", tmp_path / "both")
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    driver = subprocess.Popen([*COMMAND, str(both.path)], stdout=pipe, stderr=pipe, text=True, env=environment)
    while not list(both.runs.glob("*/partial-*")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.01)
    driver.send_signal(signal.SIGTERM)
    _, error = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "repeat the command to continue" in error
    (partial,) = both.runs.glob("*/partial-*")
    assert 0 < checkpoint.verify(partial) < 24_000 // 128
    assert not both.records()

    train_here(both)
    assert [len(kept) for kept in losses(both)] == [len(kept) for kept in losses(alone)]
    for one, two in zip(losses(alone), losses(both), strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    (expected,), (found,) = alone.records(), both.records()
    assert found.tokens == expected.tokens
    for task, measured in found.values.items():
        assert measured.value == pytest.approx(expected.values[task].value, abs=1e-5)
