"""Segments as jobs of Slurm: what is submitted, what its script does, and one segment beside others."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mixlaw.cli import app
from mixlaw.errors import InputError
from mixlaw.runner.execute.locks import exclusive
from mixlaw.runner.execute.machines import Local
from mixlaw.runner.execute.slurm import SCRIPT
from mixlaw.runner.plan.price import Assumptions
from mixlaw.runner.plan.tree import plan
from mixlaw.study import Study, open_study
from small_study import SEGMENTS, prepare

STUBS = {
    "squeue": '[ "$*" = "--me --noheader --format=%i %j" ] || exit 1; cat "$QUEUE/listed" 2>/dev/null; exit 0',
    "sbatch": """
        number=$(ls "$QUEUE" | grep -c options)
        [ "$number" = "${MOST:-100}" ] && { echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }
        printf "%s\\n" "$@" > "$QUEUE/$number.options"; cat > "$QUEUE/$number.script"; echo "$number;cluster" """,
    "scontrol": """
        if [ "$1" = show ]; then echo 127.0.0.1; echo 127.0.0.1; else echo "$*" >> "$QUEUE/scontrol"; fi""",
    # Two nodes, of which the first one has the input.
    "srun": """
        [ "$1" = --input=0 ] || exit 1; shift
        SLURM_NODEID=1 "$@" < /dev/null > /dev/null & SLURM_NODEID=0 "$@"; status=$?; wait; exit $status""",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return open_study(prepare(tmp_path_factory.mktemp("slurm") / "study"))


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands of Slurm write what they were asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "queue").mkdir()
    for name, body in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "queue"


def submitted(queue: Path) -> list[list[str]]:
    """Options of the jobs, in the order of their numbers."""
    paths = sorted(queue.glob("*.options"), key=lambda path: int(path.stem))
    return [path.read_text().splitlines() for path in paths]


def submit(study: Study) -> Result:
    return CliRunner().invoke(app, ["run", str(study.path), "--executor", "slurm", "--gpus", "8", "--gpu", "L4"])


def test_every_segment_is_a_job_that_waits_for_its_parent(
    study: Study, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOST", "3")
    limit = f"QOSMaxSubmitJobPerUserLimit; 3 of {SEGMENTS} segments are in the queue, repeat the command"
    assert limit in str(submit(study).exception)
    listed = [f"{n} {o[1].removeprefix('--job-name=')}" for n, o in enumerate(submitted(queue))]
    (queue / "listed").write_text("\n".join([*listed, "77 somebody-elses"]))
    monkeypatch.delenv("MOST")
    done = submit(study)
    assert done.exit_code == 0, done.output
    assert f"{SEGMENTS} segments are in Slurm's queue" in done.output
    jobs, tree = submitted(queue), plan(study.recipes())
    assert len(jobs) == SEGMENTS, "those three once"
    numbers = {options[1].rpartition("-")[2]: number for number, options in enumerate(jobs)}
    for segment in tree.segments:
        options = jobs[numbers[segment.lineage]]
        assert "--gpus-per-node=1" in options
        seconds = segment.tokens / Assumptions(gpu="L4").speed(study.setup, segment.recipe.params)
        assert f"--time={20 + math.ceil(1.5 * seconds / 60)}" in options
        waits = [option for option in options if option.startswith("--dependency=")]
        parent = segment.parent and f"--dependency=afterok:{numbers[segment.parent]}"
        assert waits == ([parent] if parent else [])
        script = (queue / f"{numbers[segment.lineage]}.script").read_text()
        assert f"-m mixlaw run {study.path.resolve()} --segment {segment.lineage} &" in script
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", queue / "0.script"], check=True)


def test_a_size_of_more_gpus_than_a_node_has_is_a_job_of_several_nodes(
    study: Study, queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = open_study(shutil.copytree(study.path, tmp_path / "wide"))
    settings = wide.path / "study.toml"
    settings.write_text(
        settings.read_text()
        .replace("24_000", "2_000")
        .replace("[sizes]", '[training.sizes."0.025M"]\ngpus = 2\n[sizes]')
    )
    command = ["run", str(wide.path), "--executor", "slurm", "--gpu", "L4", "--gpus"]
    assert "wants 2 GPUs for 25,248 parameters and there are 1" in str(
        CliRunner().invoke(app, [*command, "1"]).exception
    )
    assert CliRunner().invoke(app, [*command, "2x1"]).exit_code == 0
    first, (options, *_) = plan(open_study(wide.path).recipes()).segments[0], submitted(queue)
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1"} <= set(options)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--exclude=SC2016", queue / "0.script"], check=True)
    # The job itself, its GPUs being cores here.
    job = {"SLURM_JOB_ID": "31337", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    node = {"SLURM_GPUS_ON_NODE": "1", "SLURM_CPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(["bash", queue / "0.script"], env={**os.environ, **job, **node}, check=True, timeout=300)
    assert list((wide.runs / first.lineage / "checkpoint").glob("optimizer-*-of-00002.safetensors"))


def test_a_study_of_the_same_name_elsewhere_has_jobs_of_its_own(study: Study, queue: Path, tmp_path: Path) -> None:
    other = open_study(shutil.copytree(study.path, tmp_path / "elsewhere" / study.path.name))
    assert submit(study).exit_code == 0
    names = [options[1].removeprefix("--job-name=") for options in submitted(queue)]
    (queue / "listed").write_text("\n".join(f"{number} {name}" for number, name in enumerate(names)))
    assert submit(other).exit_code == 0
    jobs = submitted(queue)
    assert len(jobs) == 2 * SEGMENTS, "those of the other study are not taken for its own"
    assert len({options[1] for options in jobs}) == len(jobs)
    logs = {Path(option.removeprefix("--output=")).parent for job in jobs for option in job if "--output" in option}
    assert logs == {study.runs.resolve(), other.runs.resolve()}


def test_where_nobody_submits_jobs_is_said(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no `squeue` on PATH" in str(submit(study).exception)


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM, None])
def test_a_job_whose_time_is_up_saves_and_is_queued_again(
    sent: signal.Signals | None, queue: Path, tmp_path: Path
) -> None:
    began, program = tmp_path / "began", tmp_path / "program"
    waits = "while true; do sleep 0.02; done" if sent else "exit 3"
    program.write_text(f"#!/bin/bash\ntrap 'echo saved > {tmp_path}/saved; exit 1' TERM\ntouch {began}\n{waits}\n")
    script = SCRIPT.format(first="", command=f"bash {program}")
    job = subprocess.Popen(["bash", "-c", script], env={**os.environ, "SLURM_JOB_ID": "31337"})
    until = time.monotonic() + 60
    while not began.exists() and time.monotonic() < until:
        time.sleep(0.01)
    if sent:
        job.send_signal(sent)
    assert job.wait(timeout=60) == (1 if sent else 3)
    assert (tmp_path / "saved").exists() is (sent is not None)
    asked = (queue / "scontrol").read_text() if (queue / "scontrol").exists() else ""
    assert asked == ("requeue 31337\n" if sent is signal.SIGUSR1 else "")


def test_a_segment_is_trained_beside_others_and_not_beside_a_run_of_all(study: Study, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\n"
        "sys.stdin.readline()\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'event': 'done', 'loss': 1.0}), flush=True)\n"
    )
    first, *_, last = plan(study.recipes()).segments

    def run(segment: str) -> tuple[str, ...]:
        return study.run(backend=Local(launch=(sys.executable, str(script)), segment=segment)).done

    with exclusive(study.runs, last.lineage):
        assert run(first.lineage) == (first.lineage,)
        with pytest.raises(InputError, match="another `mixlaw run` is at work"):
            run(last.lineage)
        with pytest.raises(InputError, match="another `mixlaw run` is at work"):
            study.run(backend=Local(launch=(sys.executable, str(script))))
    with exclusive(study.runs), pytest.raises(InputError, match="another `mixlaw run` is at work"):
        run(first.lineage)
    with pytest.raises(InputError, match=f"{last.lineage} begins where {last.parent} ends; train that first"):
        run(last.lineage)
    assert run("of a recipe that is gone") == ()
