"""A worker of two processes under torchrun, started by the command and stopped: one process goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixlaw.runner.train import checkpoint
from mixlaw.runner.train.store import verify
from mixlaw.study import Study
from processes import family, wait_until
from small_study import SETTINGS, copy, prepare, train_here

HEAD, _, _ = SETTINGS.partition("[[recipes]]")
PLAIN = f'{HEAD}[[recipes]]\nsize = "0.025M"\nphases = {{ init = "half", continue = "code", cooldown = "text" }}\n'
PLAIN = PLAIN.replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 0.3")
TORCHRUN = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=2"
COMMAND = [sys.executable, "-m", "mixlaw", "run", "--workers", "1", "--launch", TORCHRUN]


def losses(study: Study) -> list[list[float]]:
    """The last losses of every segment, in the order of steps."""
    folders = sorted(study.runs.glob("*/checkpoint"), key=verify)
    return [json.loads((folder / checkpoint.EXTRA).read_text())["losses"] for folder in folders]


def is_worker(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"mixlaw.runner.execute.worker" in command and b"torch.distributed.run" not in command


@pytest.mark.slow
def test_two_ranks_that_are_stopped_leave_what_one_process_goes_on_from(tmp_path: Path) -> None:
    alone = copy(prepare(tmp_path / "prepared", PLAIN), tmp_path / "alone")
    train_here(alone)
    both = copy(tmp_path / "prepared", tmp_path / "both")
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    driver = subprocess.Popen([*COMMAND, str(both.path)], stdout=pipe, stderr=pipe, text=True, env=environment)
    wait_until(lambda: list(both.runs.glob("*/partial-*")) or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()
    assert len([pid for pid in family(driver.pid) if is_worker(pid)]) == 2
    driver.send_signal(signal.SIGTERM)
    _, error = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert "repeat the command to continue" in error
    *_, partial = sorted(both.runs.glob("*/partial-*"), key=lambda path: path.stat().st_mtime)  # the last of those kept
    assert 0 < verify(partial) < 24_000 // 128
    assert not both.records()

    train_here(both)
    assert [len(kept) for kept in losses(both)] == [len(kept) for kept in losses(alone)]
    for one, two in zip(losses(alone), losses(both), strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    (expected,), (found,) = alone.records(), both.records()
    assert found.tokens == expected.tokens
    for task, measured in found.values.items():
        assert measured.value == pytest.approx(expected.values[task].value, abs=1e-5)
