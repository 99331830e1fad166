"""What this process may use of its machine: affinity, cgroups of both versions, and systems that lack either."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixlaw import machine
from mixlaw.machine import available_memory
from mixlaw.runner.execute.machines import this_machine
from mixlaw.runner.models.ladder import shape
from mixlaw.runner.models.memory import training_bytes
from mixlaw.runner.plan.devices import Machine
from mixlaw.runner.plan.price import Assumptions, assumed_speed
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.train import speed
from mixlaw.runner.train.speed import not_timed
from mixlaw.study import open_study
from small_study import SETTINGS, prepare


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores whose control groups are files of the test."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "self")
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"self": "0::/", "cgroup/cpu.max": "200000 100000"}, 2),
        ({"self": "0::/", "cgroup/cpu.max": "max 100000"}, 64),
        ({"self": "0::/", "cgroup/cpu.max": "50000 100000"}, 1),  # half a core is still one worker
        ({"self": "0::/", "cgroup/cpu.max": "350000 100000"}, 3),
        ({"self": "0::/job/step", "cgroup/job/cpu.max": "400000 100000", "cgroup/job/step/cpu.max": "max 100000"}, 4),
        ({"self": "0::/outside/the/container", "cgroup/cpu.max": "200000 100000"}, 2),
        ({"self": "2:cpu,cpuacct:/", "cgroup/cpu/cpu.cfs_quota_us": "300000", "cgroup/cpu/cpu.cfs_period_us": "1"}, 64),
        (
            {
                "self": "5:memory:/\n4:cpuset:/\n2:cpu,cpuacct:/docker/1\n0::/",
                "cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "300000",
                "cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ({"self": "2:cpu:/", "cgroup/cpu/cpu.cfs_quota_us": "-1", "cgroup/cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"self": "", "cgroup/cpu.max": ""}, 64),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(cgroups: Path, files: dict[str, str], cores: int) -> None:
    write(cgroups, files)
    assert machine.cores() == cores
    assert this_machine(gpus=0) == Machine("local", cores)


def test_macos_has_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "none")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert this_machine(gpus=0) == Machine("local", 3)
    plan = open_study(prepare(tmp_path / "study")).plan()
    assert plan.devices == 3
    assert plan.seconds > 0


def test_a_plan_trains_nothing_unless_asked_and_says_where_its_speeds_are_from(tmp_path: Path) -> None:
    study = open_study(prepare(tmp_path / "study"))
    (size,) = (recipe.params for recipe in study.recipes()[:1])
    by_formula = study.plan(workers=1)
    assert not (study.path / "calibration.json").exists()
    assert by_formula.speed == {size: pytest.approx(3e10 / study.setup.flops(size, 1))}
    assert "30 GFLOP/s a core; --measure times it" in str(by_formula)
    timed = study.plan(workers=1, measure=True)
    assert timed.speed != by_formula.speed
    assert study.plan(workers=1).speed == timed.speed, "kept"
    assert "(measured)" in str(timed)
    # A speed of this machine is not that of a GPU, nor that of other micro-batches.
    assert study.dry_run(assumptions=Assumptions(gpu="L4")).assumed == {size: "40 % of the peak of L4"}
    settings = study.path / "study.toml"
    settings.write_text(settings.read_text().replace("batch = 4", "batch = 4\nmicro_batch = 1"))
    assert open_study(study.path).plan(workers=1).speed == by_formula.speed


def test_what_does_not_fit_or_takes_too_long_is_not_timed_and_the_plan_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup("", "", vocabulary=32_768, sequence=2048, tasks=())
    monkeypatch.setattr(speed, "available_memory", lambda: 24 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not_timed(shape("0.1M").params, setup) is None
    needed = training_bytes(shape("2.8B"), 32_768, 2048, 1) / 1e9
    assert not_timed(shape("2.8B").params, setup) == f"not timed: it takes {needed:.0f} GB, 24 are free here"
    monkeypatch.setattr(speed, "available_memory", lambda: None)
    assert "one sequence takes about 22 min" in (not_timed(shape("2.8B").params, setup) or "")
    study = open_study(prepare(tmp_path / "study", SETTINGS.replace("0.025M", "70B")))
    monkeypatch.setattr(speed, "available_memory", available_memory)
    plan = study.plan(workers=1, measure=True)
    assert "; not timed: it takes" in str(plan)
    assert not (study.path / "calibration.json").exists()


@pytest.mark.parametrize(("device", "flops"), [("NVIDIA A100-SXM4-80GB", 0.4 * 312e12), ("Radeon", 4e13)])
def test_a_gpu_here_is_priced_by_its_data_sheet(device: str, flops: float) -> None:
    setup = Setup("", "", vocabulary=32_768, sequence=2048, tasks=())
    speed, _ = assumed_speed(setup, shape("470M").params, device)
    assert speed == pytest.approx(flops / setup.flops(shape("470M").params, 1))


def test_processes_of_this_machine() -> None:
    assert machine.is_alive(os.getpid())
    assert machine.is_alive(os.getppid())
    assert not machine.is_alive(2**22 + 1)  # beyond Linux' largest process id
    assert machine.peak_memory() > 10 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_threads_free_is_taken_again_without_fresh_pages() -> None:
    """Twenty tensors of 100 MB, one after the other: less than half of the fresh pages, whatever the size of a page."""
    code = (
        "import resource, threading, torch; from mixlaw.machine import keep_freed_memory\n"
        "if {}: keep_freed_memory()\n"
        "def work():\n    for _ in range(20): torch.zeros(25_000_000).add_(1)\n"
        "thread = threading.Thread(target=work)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "thread.start(); thread.join()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", code.format(k)], capture_output=True, text=True, check=True).stdout)
        for k in (True, False)
    )
    assert kept < returned / 2
