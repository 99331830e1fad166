"""Training through Slurm's queue: a job for every segment, which begins once its parent's has ended.

Slurm knows the tree by the jobs' dependencies, and places each job wherever as many GPUs are free for as long as it
takes: proxies fill the gaps of a busy cluster, and nothing is held between them.
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

from mixlaw.errors import InputError
from mixlaw.runner.execute.queue import RunOutcome
from mixlaw.runner.plan.devices import Needs
from mixlaw.runner.plan.price import Assumptions
from mixlaw.runner.plan.setup import Setup
from mixlaw.runner.plan.tree import Segment, Tree

MARGIN, STARTING = 1.5, 20  # of the estimated time, and minutes for start and evaluation, until a job is queued again
#: Near its time limit, and before a pre-emption that sends the signal, the segment saves a checkpoint and its job goes
#: back into the queue.
SCRIPT = """\
#!/bin/bash
requeue=false
stopping=false
driver=
stop() {{
    stopping=true
    [ -z "$driver" ] || kill -TERM "$driver"
}}
trap 'requeue=true; stop' USR1
trap stop TERM
{command} &
driver=$!
$stopping && stop # the signal came before there was a driver
status=0
wait "$driver" || status=$?
while kill -0 "$driver" 2>/dev/null; do # a signal has ended the wait, not the driver
    status=0
    wait "$driver" || status=$?
done
if $requeue && ((status != 0)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


class SlurmQueue:
    """Submits segments as jobs; they train after this process has ended.

    Args:
        setup: how they are trained.
        runs: folder of the study's runs, which every node sees at the same path.
        assumptions: GPUs of a node and their name, for what each size needs and how long it takes.
    """

    def __init__(self, setup: Setup, runs: Path, assumptions: Assumptions) -> None:
        self.setup, self.runs, self.assumptions = setup, runs.resolve(), assumptions

    def run(self, _: Tree, segments: list[Segment]) -> RunOutcome:
        """Submit those segments, parents first, that no job in the queue trains yet.

        Raises:
            InputError: there is no Slurm here, or it refuses a job; those before it stay submitted.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        listed = _call(["squeue", "--me", "--noheader", "--format=%i %j"], "").splitlines()
        there = {name: number for number, _, name in (line.strip().partition(" ") for line in listed)}
        queued: dict[str, str] = {}
        study = self.runs.parent
        of_path = hashlib.sha256(str(study).encode()).hexdigest()[:8]  # studies of one name have segments in common
        for segment in segments:
            name = f"mixlaw-{study.name}-{of_path}-{segment.lineage}"
            if name not in there:
                parent = queued.get(segment.parent or "")
                try:
                    there[name] = _call(["sbatch", *self._options(segment, name, parent)], self._script(segment))
                except InputError as error:
                    raise InputError(
                        f"{error}; {len(queued)} of {len(segments)} segments are in the queue, repeat the command to "
                        "submit the others"
                    ) from None
            queued[segment.lineage] = there[name]
        return RunOutcome((), {}, (), queued=queued)

    def _options(self, segment: Segment, name: str, parent: str | None) -> list[str]:
        """Of sbatch; the user's own, such as account and partition, come from its variables (SBATCH_ACCOUNT, ...)."""
        params, machines = segment.recipe.params, self.assumptions.machines()
        options = ["--parsable", f"--job-name={name}", "--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append"]
        options += [f"--output={self.runs / f'slurm-{segment.lineage}.log'}", "--signal=B:USR1@300"]
        if parent is not None:
            options += [f"--dependency=afterok:{parent}", "--kill-on-invalid-dep=yes"]
        if machines:
            devices = Needs.of(self.setup, params, machines).devices
            options.append(f"--gpus-per-node={devices}")
            if self.assumptions.gpu and "SBATCH_TIMELIMIT" not in os.environ:
                seconds = segment.tokens / self.assumptions.speed(self.setup, params) / devices
                options.append(f"--time={STARTING + math.ceil(MARGIN * seconds / 60)}")
        return options

    def _script(self, segment: Segment) -> str:
        command = [sys.executable, "-m", "mixlaw", "run", str(self.runs.parent), "--segment", segment.lineage]
        return SCRIPT.format(command=shlex.join(command))


def _call(command: list[str], script: str) -> str:
    """What a command of Slurm prints; of a job's `ID;CLUSTER` the ID."""
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(f"there is no `{command[0]}` on PATH; use the slurm executor where you submit jobs") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"`{command[0]}` refused: {reason}")
    return done.stdout.strip().partition(";")[0] if command[0] == "sbatch" else done.stdout
