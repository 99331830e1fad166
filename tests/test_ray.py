"""The Ray executor on a cluster of three nodes of this machine: the same results as here, whatever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.execute import queue
from mixlaw.runner.execute.cluster import held_by_others
from mixlaw.runner.execute.machines import Ray
from mixlaw.runner.execute.queue import RunOutcome, RunProgress
from mixlaw.runner.plan.devices import GPUS, Machine, Place
from mixlaw.runner.plan.tree import plan
from mixlaw.runner.train.store import Store
from mixlaw.study import Study, open_study
from processes import wait_until
from ray_nodes import NODE, Nodes, kill, started
from s3_server import serving
from small_study import SETTINGS, copy, prepare, results

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

#: Without the second recipe: nine segments, of which three begin at once and last for hundreds of steps.
STUDY = (
    SETTINGS.replace(SETTINGS.split("[[recipes]]")[2], "@")
    .replace("[[recipes]]@", "")
    .replace("24_000", "48_000")
    .replace("share = 0.5\n", "share = 0.6\n")
    .replace("share = 0.25", "share = 0.2")
    .replace("checkpoint_seconds = 0.1", "checkpoint_seconds = 0.2")
)
SEGMENTS = 9
H100 = "accelerator_type:H100"  # as Ray names it


@pytest.fixture(scope="module")
def nodes(bucket: str) -> Iterator[Nodes]:  # which reach the bucket by variables of the environment
    with started() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("ray") / "study", STUDY)


@pytest.fixture(scope="module")
def local(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Records and checkpoints of the study, trained by the local executor."""
    study = copy(prepared, tmp_path_factory.mktemp("local") / "study")
    assert len(study.run(workers=1).done) == SEGMENTS
    return results(study)


def test_a_node_killed_in_mid_segment_costs_the_steps_since_its_last_checkpoint(
    nodes: Nodes, prepared: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    study = copy(prepared, tmp_path / "study")
    tree, steps = plan(study.recipes()), study.setup.step_tokens(study.recipes()[0].params)
    mortal, alive = nodes.cluster.worker_nodes
    trained_on: dict[str, list[str]] = {}  # lineage -> nodes that had it, in turn
    lost: list[tuple[str, int, int]] = []  # lineage, tokens in its partial checkpoint, entries in its log until then
    speeds: dict[int, float] = {}  # worker -> tokens per second

    def log(lineage: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (study.runs / f"{lineage}.training.jsonl").read_text().splitlines()]

    def watch(state: RunProgress) -> None:
        speeds.update(state.speeds)
        for hand in executor.workers:
            if hand.segment is None:
                continue
            lineage, node = hand.segment.lineage, hand.place.machine
            if trained_on.setdefault(lineage, [node])[-1] != node:
                trained_on[lineage].append(node)
            partial = list((study.runs / lineage).glob("partial-*"))
            if partial and hand.speed and node == mortal.node_id and not lost:  # at the first checkpoint: much is left
                lost.append((lineage, steps * int(partial[0].name[8:]), len(log(lineage))))
                kill(mortal)
                nodes.cluster.remove_node(mortal, allow_graceful=False)

    executor = Ray(nodes.address).executor(study.setup, study.runs, watch)
    outcome = executor.run(tree, list(tree.segments))
    assert (len(outcome.done), outcome.failed, outcome.blocked) == (SEGMENTS, {}, ())
    ((again, saved, told),) = lost
    assert [those for those in trained_on.values() if len(those) > 1] == [trained_on[again]]
    (first, second), others = trained_on[again], {nodes.cluster.head_node.node_id, alive.node_id}
    assert first == mortal.node_id
    assert {second} | {those[0] for lineage, those in trained_on.items() if lineage != again} == others
    since = [entry["tokens"] for entry in log(again)[told:]]
    assert min(since) > saved
    assert results(study) == local
    assert len(speeds) >= 3
    assert min(speeds.values()) > 0


def test_a_worker_whose_node_was_gone_before_it_ran_costs_its_segment_no_try(
    nodes: Nodes, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copy(prepared, tmp_path / "study")
    tree = plan(study.recipes())
    gone = nodes.cluster.add_node(**NODE)
    executor = Ray(nodes.address, workers=1).executor(study.setup, study.runs, lambda _: None)
    monkeypatch.setattr(queue, "TRIES", 1)
    there = executor.machines
    dead = Machine(gone.node_id, 1, "cpu")
    monkeypatch.setattr(executor, "machines", lambda: there() if executor.lost else [dead])
    kill(gone)  # Ray takes a quarter of a minute to notice
    outcome = executor.run(tree, list(tree.segments[:1]))
    nodes.cluster.remove_node(gone, allow_graceful=False)
    assert (outcome.done, outcome.failed) == ((tree.segments[0].lineage,), {})
    assert [*executor.lost] == [gone.node_id]


def test_a_driver_that_was_killed_goes_on_from_the_store(
    nodes: Nodes, bucket: str, prepared: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    study = copy(prepared, tmp_path / "study")
    settings = study.path / "study.toml"
    head = STUDY.rpartition("[[recipes]]")[0]
    settings.write_text(head.replace("[training]", '[training]\nsinks = ["tensorboard"]'))
    study = open_study(study.path)
    (recipe,) = study.recipes()
    store = Store(bucket)

    driver = drive(study, nodes.address, store.url)
    # The second segment has begun when it logs: the first one is in the store.
    wait_until(lambda: len(list(study.runs.glob("*.training.jsonl"))) == 2 or driver.poll() is not None)
    assert driver.poll() is None
    driver.kill()
    driver.communicate()
    assert 1 <= len(store.trained()) < 3

    driver = drive(study, nodes.client, store.url)
    output, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said
    done = json.loads(output)["done"]
    assert len(done) < 3
    for lineage in done:  # what was logged on the nodes is here
        last = (study.runs / f"{lineage}.training.jsonl").read_text().splitlines()[-1]
        assert json.loads(last)["eta_seconds"] == 0
        assert list((study.path / "tensorboard" / lineage).iterdir())
    assert [record.run for record in study.records()] == [recipe.lineage]
    assert len(store.trained()) == 3
    for name, content in local.items():
        _, lineage, rest = name.split("/", 2)
        if lineage in store.trained():
            there = store.fs.cat_file(f"{store.root}/{lineage}/{rest}") if rest.startswith("checkpoint") else None
            assert content == (there or (study.path / name).read_bytes())


def drive(study: Study, address: str, store: str) -> subprocess.Popen[str]:
    command = ["run", str(study.path), "--executor", "ray", "--address", address, "--store", store, "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "mixlaw", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_segment_that_always_fails_blocks_its_descendants_alone_and_is_named_with_its_log(
    nodes: Nodes, prepared: Path, tmp_path: Path
) -> None:
    study = copy(prepared, tmp_path / "study")
    (shard,) = study.data.glob("code/train-*.bin")
    shard.write_bytes(b"\xff" * shard.stat().st_size)  # token 65,535 of a vocabulary of 300
    (study.path / "study.toml").write_text(STUDY.replace("48_000", "6_000"))
    study = open_study(study.path)
    outcome = study.run(backend=Ray(nodes.address, workers=1))
    phases = {lineage: segment.phase for lineage, segment in plan(study.recipes()).by_lineage.items()}
    assert sorted(phases[lineage] for lineage in outcome.done) == ["init", "init"]
    assert sorted(phases[lineage] for lineage in outcome.failed) == ["continue", "continue", "init"]
    assert sorted(phases[lineage] for lineage in outcome.blocked) == ["continue", *["cooldown"] * 3]
    for why in outcome.failed.values():
        assert "IndexError" in why
        log = Path(why.rpartition("see ")[2])
        assert log.parent == study.runs.resolve()
        assert "Traceback" in log.read_text()


def test_a_node_that_sees_other_data_than_the_driver_is_refused(nodes: Nodes, prepared: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    tree = plan(study.recipes())
    for change, wrong in (({"data": "/nowhere"}, "there is no /nowhere"), ({"data_hash": "x"}, "holds other data")):
        executor = Ray(nodes.address, workers=1).executor(replace(study.setup, **change), study.runs, lambda _: None)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"node .*: .*{wrong}"):
            executor.run(tree, list(tree.segments))


def test_a_driver_that_cannot_write_stops_and_says_so(nodes: Nodes, prepared: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    (study.path / "study.toml").write_text(STUDY.replace("48_000", "2_000"))
    study = open_study(study.path)
    study.runs.mkdir(exist_ok=True)
    for segment in plan(study.recipes()).segments:
        (study.runs / f"{segment.lineage}.training.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match="runs cannot be read or written: No space left"):
        study.run(backend=Ray(nodes.address, workers=1))


def test_an_address_where_no_cluster_answers_is_refused() -> None:
    code = "from mixlaw.runner.execute.cluster import connect; connect('127.0.0.1:1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "InputError: no Ray cluster answers at '127.0.0.1:1'" in done.stderr


def test_samples_come_back_from_a_node_and_what_is_missing_is_measured_by_the_next_run(
    nodes: Nodes, prepared: Path, tmp_path: Path
) -> None:
    study = copy(prepared, tmp_path / "study")
    (study.path / "study.toml").write_text(STUDY.replace("48_000", "2_000"))
    study = open_study(study.path)
    tree, backend = plan(study.recipes()[:1]), Ray(nodes.address, workers=1)
    run = tree.recipes[0].lineage
    home = study.runs / run

    def outcome(reference: Path) -> RunOutcome:
        judge = {"kind": "judge", "url": "http://127.0.0.1:9/v1", "model": "judge", "reference": str(reference)}
        setup = replace(study.setup, tasks=("text", "win"), measures={"win": {**judge, "tokens": 4}})
        pending = tree.needed(study.measured, backend.trained(study.runs))
        return backend.executor(setup, study.runs, lambda _: None).run(tree, pending)

    assert list(outcome(tmp_path / "nowhere").unmeasured) == [run]
    assert "nowhere" in (home / "unmeasured.json").read_text()
    (before,) = study.records()
    assert outcome(home / "checkpoint").done == (run,)
    (after,) = study.records()
    assert after.values["win"].value == 0.5, "against itself"
    assert after.values["text"] == before.values["text"]
    assert len((home / "evaluation" / "win.jsonl").read_text().splitlines()) == 40
    assert not (home / "unmeasured.json").exists()


def test_workers_take_what_others_leave_them_and_share_a_gpu(
    nodes: Nodes, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.util import placement_group, remove_placement_group

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    study = copy(prepared, tmp_path / "study")
    # Ray does not look whether there are GPUs.
    node = nodes.cluster.add_node(num_cpus=8, num_gpus=2, object_store_memory=80 * 2**20, resources={H100: 1})
    try:
        executor = Ray(nodes.address).executor(study.setup, study.runs, lambda _: None)
        other = placement_group([{"GPU": 1}])  # of another program
        assert other.wait(60)
        (machine,) = executor.machines()
        assert (machine.devices, machine.share, machine.peak) == (2, 4, GPUS["H100"].peak)
        assert executor.taken() == [Place(node.node_id, (1,))]
        one = Ray(nodes.address, workers=1).executor(study.setup, study.runs, lambda _: None)
        assert one.machines() == Ray(nodes.address, workers=1).machines() == [replace(machine, devices=1)]
        assert one.taken() == [Place(node.node_id, ())], "the one that it may use is free"
        places = [Place(node.node_id, (0,), 4)] * 3
        workers: list[Any] = [executor.start_worker(n, place) for n, place in enumerate(places)]
        assert [json.loads(ray.get(worker.actor.poll.remote(), timeout=120)) for worker in workers] == [[]] * 3
        assert held_by_others("cuda", places) == {**dict.fromkeys(held_by_others("cuda", []), 0), node.node_id: 1}
        assert held_by_others("cuda", [])[node.node_id] == 2, "three quarters of a GPU leave no whole one"
        for worker in workers:
            ray.kill(worker.actor)
        remove_placement_group(other)
    finally:
        nodes.cluster.remove_node(node)
