"""MixtureSampler on real storages: many processes on SQLite and PostgreSQL, a killed worker, optuna-dashboard."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import psycopg
import pytest
from optuna.trial import TrialState

import postgres as postgres_server
from mixlaw.optimizer.optuna.history import measured
from mixlaw.optimizer.optuna.sampler import mixtures
from sampler_worker import NAMES, load, loss, mix, work

WORKERS, EACH = 4, 4


def work_together(url: str) -> optuna.Study:
    """Four processes ask and tell at once; the storage must hold what they told, nothing lost, nothing twice."""
    optuna.create_study(study_name="mixtures", storage=url)
    script = str(Path(__file__).parent / "sampler_worker.py")
    command = [sys.executable, "-W", "ignore", script, url, str(WORKERS), str(EACH)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = [{int(number): value for number, value in part.items()} for part in json.loads(done.stdout)]
    study = load(url)
    assert sorted(number for part in told for number in part) == list(range(WORKERS * EACH))
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * (WORKERS * EACH)
    everything = {number: value for part in told for number, value in part.items()}
    for trial in study.trials:
        found = mixtures(trial)
        assert trial.value == everything[trial.number] == loss(found["init"], found["cooldown"])
        assert all(abs(sum(trial.params[f"{p}/{n}"] for n in NAMES) - 1) < 1e-9 for p in ("init", "cooldown"))
    points = np.array([[t.params[f"{p}/{n}"] for p in ("init", "cooldown") for n in NAMES] for t in study.trials])
    apart = np.abs(points[:, None] - points[None]).sum(-1)[np.triu_indices(len(points), 1)]
    assert apart.min() > 1e-3, "no two trials are the same"
    return study


def test_four_processes_share_a_sqlite_file(tmp_path: Path) -> None:
    study = work_together(f"sqlite:///{tmp_path / 'mix.db'}")
    assert study.best_trial.number >= 0


@pytest.fixture
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of this test's own."""
    programs = postgres_server.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed, and Debian's packages cannot be: apt-get install postgresql")
    with postgres_server.server(programs) as url:
        yield url


def test_four_processes_share_a_postgresql_server(postgres: str) -> None:
    work_together(postgres)
    with psycopg.connect(postgres.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*), max(number) FROM trials WHERE state = 'COMPLETE'").fetchone() == (
            WORKERS * EACH,
            WORKERS * EACH - 1,
        )


def test_a_killed_worker_leaves_a_trial_that_the_next_one_fails_and_learns_nothing_from(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    optuna.create_study(study_name="mixtures", storage=url)
    script = f"""
import time
from optuna.storages import RDBStorage
from sampler_worker import load, mix
study = load(RDBStorage({url!r}, heartbeat_interval=1))
study.optimize(lambda trial: (mix(trial), print("training", flush=True), time.sleep(600)), n_trials=1)
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "ignore"}
    victim = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=here)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "training\n"
    victim.kill()
    victim.wait(timeout=30)
    time.sleep(3)  # the heartbeat's grace period is twice its interval
    study = load(optuna.storages.RDBStorage(url, heartbeat_interval=1))
    study.optimize(lambda trial: loss(*mix(trial)), n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert set(mixtures(study.trials[0])) == {"init", "cooldown"}, "what it trained is still on record"
    assert measured(study) == 2


def _get(address: str) -> bytes:
    """A page of a server that may still be starting: on a busy machine, for a minute."""
    for _ in range(1500):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return bytes(answer.read())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


def test_optuna_dashboard_lists_the_study_its_trials_and_its_shares(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mix.db'}"
    optuna.create_study(study_name="mixtures", storage=url)
    told = work(url, 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    assert program, "optuna-dashboard comes with the dev extra"
    command = [program, url, "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert b"<html" in _get(f"http://127.0.0.1:{port}/dashboard").lower()
        (listed,) = json.loads(_get(f"http://127.0.0.1:{port}/api/studies"))["study_summaries"]
        assert listed["study_name"] == "mixtures"
        shown = json.loads(_get(f"http://127.0.0.1:{port}/api/studies/{listed['study_id']}"))
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert {trial["number"]: trial["values"] for trial in shown["trials"]} == {n: [v] for n, v in told.items()}
    study = load(url)
    for trial in shown["trials"]:
        values = {p["name"]: float(p["param_internal_value"]) for p in trial["params"]}
        found = mixtures(study.trials[trial["number"]])
        assert values == pytest.approx({f"{p}/{n}": found[p].share(n) for p in found for n in NAMES})
