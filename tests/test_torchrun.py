"""A worker of two processes under torchrun: stopped, then gone on from by one process; for a size too large for one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixlaw.errors import InputError
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.queue import RunProgress
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.memory import USABLE, training_bytes
from mixlaw.runner.plan.devices import Machine
from mixlaw.runner.plan.tree import plan
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


def check_record(study: Study, alone: Study) -> None:
    """The one record of a study is that of one process, within what the order of sums changes."""
    (found,), (expected,) = study.records(), alone.records()
    assert (found.run, found.tokens, found.values.keys()) == (expected.run, expected.tokens, expected.values.keys())
    for task, measured in found.values.items():
        assert measured.value == pytest.approx(expected.values[task].value, abs=1e-5)


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
    check_record(both, alone)


@pytest.mark.slow
def test_a_size_that_one_device_cannot_hold_takes_several_and_comes_to_what_one_process_does(tmp_path: Path) -> None:
    settings = SETTINGS.replace("0.025M", "0.08M").replace("24_000", "6_400")
    settings = settings.replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 300")
    prepared = prepare(tmp_path / "prepared", "[[recipes]]".join(settings.split("[[recipes]]")[:2]))
    study, alone = copy(prepared, tmp_path / "study"), copy(prepared, tmp_path / "alone")
    train_here(alone)
    tree, told = plan(study.recipes()), list[RunProgress]()
    size, setup = shape(tree.recipes[0].params), study.setup
    one, two = (training_bytes(size, 300, setup.sequence, 1, ranks=ranks, recompute=True) for ranks in (1, 2))
    assert two < one
    machine = Machine("local", 2, memory=round((one + two) / 2 / USABLE))
    outcome = LocalExecutor(setup, study.runs, machine, told.append).run(tree, list(tree.segments))
    assert (len(outcome.done), outcome.failed) == (3, {})
    assert max(len(progress.training) for progress in told) == 1, "both devices are taken"
    for segment in tree.segments:
        folders = (of.runs / segment.lineage / "checkpoint" for of in (study, alone))
        ours, theirs = (
            {k: v for part in f.glob("model*.safetensors") for k, v in load_file(part).items()} for f in folders
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-5) for name in ours)
    check_record(study, alone)

    small = Machine("local", 1, memory=machine.memory)
    with pytest.raises(InputError, match=r"need 2 devices of .* and there are 1; take more"):
        LocalExecutor(setup, study.runs, small).run(tree, list(tree.segments))
