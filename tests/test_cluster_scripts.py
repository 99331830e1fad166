"""The job scripts of docs/cluster, run by bash with commands that write down how they were called."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "docs" / "cluster"
NAMES = sorted(path.name for path in SCRIPTS.glob("*.sbatch"))

STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "%s\\n" $NODES; fi',
    # Runs the command that follows its options, as on one node.
    "srun": 'while [[ ${1:-} == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.7 fd00::7",
    "ray": """
        if [ "$1" = status ]; then [ -e "$RECORD.asked" ] || { touch "$RECORD.asked"; exit 1; }; exit 0; fi
        trap 'echo "ray ended" >> "$RECORD"; exit 0' TERM
        while true; do sleep 0.02; done""",
    "torchrun": "",
    "mixlaw": """
        [ "$3" = --launch ] && eval "$4 -m mixlaw.runner.execute.worker"
        # A driver lives longer than it takes nodes to join.
        case "$*" in *"--executor ray"*) if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
            until grep -q "^ray start --address" "$RECORD"; do /bin/sleep 0.05; done; fi;; esac
        [ "$MODE" = done ] && exit 0
        trap 'echo "mixlaw stops" >> "$RECORD"; exit 1' TERM
        echo "mixlaw listens" >> "$RECORD"
        while true; do sleep 0.02; done""",
    "sleep": 'exec /usr/bin/env -i /bin/sleep "$(case $1 in 2) echo 0.05;; *) echo "$1";; esac)"',
}


class Job:
    """A batch job: the script in bash, with the environment that Slurm gives it."""

    def __init__(self, folder: Path, script: str, nodes: int, mode: str, *arguments: str) -> None:
        self.record = folder / "record"
        for name, body in STUBS.items():
            note = "" if name == "sleep" else f'echo "{name} $*" >> "$RECORD"\n'
            (folder / name).write_text(f"#!/bin/bash\n{note}{body}\n")
            (folder / name).chmod(0o755)
        self.process = subprocess.Popen(
            ["bash", str(SCRIPTS / script), *arguments],
            env={
                "PATH": f"{folder}:{os.environ['PATH']}",
                "RECORD": str(self.record),
                "MODE": mode,
                "NODES": " ".join(f"gpu{index}" for index in range(1, nodes + 1)),
                "SLURM_JOB_ID": "31337",
                "SLURM_JOB_NODELIST": f"gpu[1-{nodes}]",
                "SLURM_JOB_NUM_NODES": str(nodes),
                "SLURM_CPUS_ON_NODE": "64",
                "SLURM_GPUS_ON_NODE": "8",
                "SLURM_NODEID": "0",
            },
        )

    @property
    def calls(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []

    def wait_for(self, call: str) -> None:
        until = time.monotonic() + 60
        while not any(line.startswith(call) for line in self.calls):
            assert time.monotonic() < until, (call, self.calls)
            time.sleep(0.02)

    def end(self) -> int:
        return self.process.wait(timeout=60)


def test_there_are_scripts() -> None:
    assert NAMES == ["mixlaw.sbatch", "torchrun.sbatch"]


@pytest.mark.parametrize("name", NAMES)
def test_bash_and_shellcheck_find_nothing_wrong(name: str) -> None:
    subprocess.run(["bash", "-n", SCRIPTS / name], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPTS / name], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_job_is_warned_before_its_time_is_up_and_may_go_back_into_the_queue(name: str) -> None:
    options = [line.split()[1] for line in (SCRIPTS / name).read_text().splitlines() if line.startswith("#SBATCH")]
    assert any(option.startswith("--signal=B:USR1@") for option in options)
    assert "--requeue" in options
    assert "--ntasks-per-node=1" in options


@pytest.mark.parametrize("name", NAMES)
def test_without_a_study_the_usage_is_told(name: str, tmp_path: Path) -> None:
    job = subprocess.run(["bash", SCRIPTS / name], capture_output=True, text=True)
    assert job.returncode != 0
    assert f"usage: sbatch {name} STUDY" in job.stderr


def test_head_then_nodes_then_driver_and_nothing_stays(tmp_path: Path) -> None:
    job = Job(tmp_path, "mixlaw.sbatch", 3, "done", "study", "--store", "s3://bucket/x y")
    assert job.end() == 0
    address = f"10.0.0.7:{20000 + 31337 % 10000}"
    ip, port = address.split(":")
    head = f"ray start --head --node-ip-address={ip} --port={port} --num-cpus=64 --block"
    node = f"ray start --address={address} --num-cpus=64 --block"
    driver = f"mixlaw run study --executor ray --address {address} --store s3://bucket/x y"
    wanted = [
        "scontrol show hostnames gpu[1-3]",
        "srun --nodes=1 --ntasks=1 --nodelist=gpu1 hostname --ip-address",
        f"srun --nodes=1 --ntasks=1 --cpus-per-task=64 --nodelist=gpu1 {head}",
        f"ray status --address={address}",
        f"srun --nodes=2 --ntasks=2 --cpus-per-task=64 --exclude=gpu1 {node}",
        driver,
    ]
    calls = job.calls
    assert set(wanted) <= set(calls)
    order = [calls.index(call) for call in wanted]
    assert order[:2] == sorted(order[:2])
    assert min(order[2:]) > order[1], "the head starts in the background while it is asked for: either may be first"
    assert calls.count(wanted[3]) == 2, "asked again until the head answered"
    assert min(order[4:]) > order[3], "nodes and driver come when the head is there"
    assert head in calls
    assert not any(call.startswith("scontrol requeue") for call in calls)
    assert calls.count("ray ended") == calls.count(head) + calls.count(node)


def test_a_job_on_one_node_starts_no_other(tmp_path: Path) -> None:
    job = Job(tmp_path, "mixlaw.sbatch", 1, "done", "study")
    assert job.end() == 0
    assert not any("--exclude" in call for call in job.calls)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_when_time_is_up_the_driver_checkpoints_and_the_job_is_queued_again(
    name: str, number: signal.Signals, requeued: bool, tmp_path: Path
) -> None:
    job = Job(tmp_path, name, 2, "wait", "study")
    job.wait_for("mixlaw listens")
    job.process.send_signal(number)
    assert job.end() == 1
    calls = job.calls
    assert calls.count("mixlaw stops") == 1
    assert ("scontrol requeue 31337" in calls) is requeued
    if requeued:
        assert calls.index("scontrol requeue 31337") > calls.index("mixlaw stops")


def test_one_worker_spans_all_nodes(tmp_path: Path) -> None:
    job = Job(tmp_path, "torchrun.sbatch", 4, "done", "study", "--workers", "1")
    assert job.end() == 0
    (driver,) = (call for call in job.calls if call.startswith("mixlaw run study --launch srun --input=0"))
    assert driver.endswith("--workers 1")
    port = 20000 + 31337 % 10000
    assert job.calls[-1] == (
        "torchrun --nnodes=4 --node-rank=0 --nproc-per-node=8 "
        f"--master-addr=gpu1 --master-port={port} -m mixlaw.runner.execute.worker"
    )


# --- Kubernetes -----------------------------------------------------------------------------------------------------

QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE])?$"}
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def table(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def several(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


NAMED = table(["name"], name=TEXT)
LIMITS = {"type": "object", "additionalProperties": QUANTITY}
CONTAINER = table(
    ["name", "image"],
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    image=TEXT,
    resources=table([], limits=LIMITS, requests=LIMITS),
    envFrom=several(table([], secretRef=NAMED, configMapRef=NAMED)),
    env=several(table(["name"], name=TEXT, value={"type": "string"})),
    volumeMounts=several(table(["name", "mountPath"], name=TEXT, mountPath=TEXT, readOnly={"type": "boolean"})),
)
POD = table(
    ["containers"],
    containers=several(CONTAINER),
    terminationGracePeriodSeconds=COUNT,
    volumes=several(table(["name"], name=TEXT, persistentVolumeClaim=table(["claimName"], claimName=TEXT))),
)
PARAMS = {"type": "object", "additionalProperties": {"type": "string"}}
TEMPLATE = table(["spec"], spec=POD, metadata={"type": "object"})
CLUSTER = table(
    ["headGroupSpec"],
    rayVersion=TEXT,
    enableInTreeAutoscaling={"type": "boolean"},
    headGroupSpec=table(["template", "rayStartParams"], template=TEMPLATE, rayStartParams=PARAMS, serviceType=TEXT),
    workerGroupSpecs=several(
        table(
            ["groupName", "template", "minReplicas", "maxReplicas", "rayStartParams"],
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            rayStartParams=PARAMS,
            template=TEMPLATE,
        )
    ),
)
#: What KubeRay's API reference says of a RayJob (ray.io/v1), for the fields that the manifest uses; others are refused.
RAY_JOB = table(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=table(["name"], name=TEXT, namespace=TEXT, labels={"type": "object"}),
    spec=table(
        ["entrypoint"],
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds=COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        runtimeEnvYAML=TEXT,
        rayClusterSpec=CLUSTER,
    ),
)


def manifest() -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    (found,) = yaml.safe_load_all((SCRIPTS / "kuberay.yaml").read_text())
    return dict(found)


def test_the_manifest_follows_the_schema_of_a_ray_job() -> None:
    import jsonschema  # type: ignore[import-untyped]

    jsonschema.Draft202012Validator.check_schema(RAY_JOB)
    jsonschema.validate(manifest(), RAY_JOB)
    wrong = manifest()
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["rayStartParams"] = {"num-cpus": 8}
    with pytest.raises(jsonschema.ValidationError, match="8 is not of type 'string'"):
        jsonschema.validate(wrong, RAY_JOB)


def test_every_pod_sees_the_study_where_the_command_looks_for_it() -> None:
    spec = manifest()["spec"]
    command = spec["entrypoint"].split()
    assert command[:5] == ["mixlaw", "run", "/study", "--executor", "ray"]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"study": "/study"}
        assert [volume["name"] for volume in pod["volumes"]] == ["study"]
