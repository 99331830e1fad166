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
{first}requeue=false
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


#: What a job of several nodes sets first: where ranks meet, and that each node's torchrun may use all of its cores.
MEETING = """\
MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER PORT=$((20000 + SLURM_JOB_ID % 10000)) SRUN_CPUS_PER_TASK="$SLURM_CPUS_ON_NODE"
"""
#: Node 0 has rank 0, which alone listens to the driver on stdin. Every node fills in its own number.
TORCHRUN = (
    'exec "$0" -m torch.distributed.run --nnodes="$SLURM_JOB_NUM_NODES" --node-rank="$SLURM_NODEID" '
    '--nproc-per-node="$SLURM_GPUS_ON_NODE" --master-addr="$MASTER" --master-port="$PORT" "$@"'
)


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
        params, (nodes, devices) = segment.recipe.params, self._nodes(segment)
        options = ["--parsable", f"--job-name={name}", f"--nodes={nodes}", "--ntasks-per-node=1"]
        options += ["--requeue", "--open-mode=append"]
        options += [f"--output={self.runs / f'slurm-{segment.lineage}.log'}", "--signal=B:USR1@300"]
        if parent is not None:
            options += [f"--dependency=afterok:{parent}", "--kill-on-invalid-dep=yes"]
        if devices:
            options.append(f"--gpus-per-node={devices}")
            if self.assumptions.gpu and "SBATCH_TIMELIMIT" not in os.environ:
                seconds = segment.tokens / self.assumptions.speed(self.setup, params) / (nodes * devices)
                options.append(f"--time={STARTING + math.ceil(MARGIN * seconds / 60)}")
        return options

    def _nodes(self, segment: Segment) -> tuple[int, int]:
        """Nodes that train a segment, as few as have its GPUs, and GPUs of each; none where jobs take cores."""
        machines = self.assumptions.machines()
        if not machines:
            return 1, 0
        wanted = Needs.of(self.setup, segment.recipe.params, machines).devices
        nodes = math.ceil(wanted / machines[0].devices)
        return nodes, math.ceil(wanted / nodes)

    def _script(self, segment: Segment) -> str:
        command = [sys.executable, "-m", "mixlaw", "run", str(self.runs.parent), "--segment", segment.lineage]
        if self._nodes(segment)[0] == 1:
            return SCRIPT.format(first="", command=shlex.join(command))
        launch = ["srun", "--input=0", "bash", "-c", TORCHRUN, sys.executable]
        return SCRIPT.format(first=MEETING, command=shlex.join([*command, "--launch", shlex.join(launch)]))


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
