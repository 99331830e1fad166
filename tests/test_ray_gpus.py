"""Ray hands out GPUs that are not there, and ranks of CPUs train: on several nodes at once, and in parts of one GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from mixlaw.errors import InputError
from mixlaw.runner.execute import node
from mixlaw.runner.execute.cluster import _RayWorkerHandle
from mixlaw.runner.execute.executor import Executor
from mixlaw.runner.execute.local import LocalExecutor
from mixlaw.runner.execute.machines import Ray
from mixlaw.runner.execute.queue import RunOutcome, RunProgress
from mixlaw.runner.plan.devices import Machine, Place
from mixlaw.runner.plan.setup import Overrides, Setup
from mixlaw.runner.plan.tree import plan
from mixlaw.study import Study
from ray_nodes import Nodes, kill, started
from small_study import SETTINGS, copy, prepare, results

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

GPU = {
    "num_cpus": 8,
    "num_gpus": 1,
    "resources": {"accelerator_type:H100": 1},
}  # Ray does not look whether there is one


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        with started([GPU, GPU]) as nodes:
            yield nodes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("ray") / "study", SETTINGS.replace("24_000", "8_000"))


def on_two(study: Study) -> Setup:
    """Every segment takes two GPUs."""
    return replace(study.setup, sizes=(Overrides(study.recipes()[0].params, gpus=2),))


def train(study: Study, executor: Executor) -> RunOutcome:
    """The first recipe."""
    tree = plan(study.recipes()[:1])
    return executor.run(tree, list(tree.segments))


def test_a_segment_on_two_nodes_has_the_bits_of_two_ranks_of_one_also_when_a_node_is_killed(
    nodes: Nodes, prepared: Path, tmp_path: Path
) -> None:
    expected = copy(prepared, tmp_path / "expected")
    train(expected, LocalExecutor(on_two(expected), expected.runs, Machine("local", 2, "cuda")))

    study = copy(prepared, tmp_path / "study")
    lineage = plan(study.recipes()[:1]).segments[0].lineage
    spans: set[int] = set()
    lost: list[int] = []

    def watch(_: RunProgress) -> None:
        for worker in executor.workers:
            spans.add(len(worker.place.by_machine))
            if not lost and list((study.runs / lineage).glob("partial-*")):
                beside = worker.place.beside[0].machine
                (mortal,) = (node for node in nodes.cluster.worker_nodes if node.node_id == beside)
                lost.append(worker.tokens)
                kill(mortal)
                nodes.cluster.remove_node(mortal, allow_graceful=False)
                nodes.cluster.add_node(**GPU, object_store_memory=80 * 2**20, wait=False)

    executor = Ray(nodes.address).executor(on_two(study), study.runs, watch)
    outcome = train(study, executor)
    assert (len(outcome.done), outcome.failed) == (3, {})
    assert spans == {2}
    assert len(lost) == 1
    assert results(study) == results(expected)


def test_nodes_that_share_no_folder_train_no_segment_together(nodes: Nodes, prepared: Path, tmp_path: Path) -> None:
    study = copy(prepared, tmp_path / "study")
    executor = Ray(nodes.address, "memory://study").executor(on_two(study), study.runs, lambda _: None)
    with pytest.raises(
        InputError, match=r"25,248 parameters take the GPUs of several nodes, .* --store that is a folder"
    ):
        train(study, executor)


def test_segments_train_to_their_end_in_parts_of_one_gpu(nodes: Nodes, prepared: Path, tmp_path: Path) -> None:
    expected, study = (copy(prepared, tmp_path / name) for name in ("expected", "study"))
    expected.run(workers=1)
    together = 0

    def watch(_: RunProgress) -> None:
        nonlocal together
        busy = [worker.place for worker in executor.workers if worker.segment and worker.place.share > 1]
        together = max(together, *(busy.count(place) for place in busy), 0)

    executor = Ray(nodes.address).executor(study.setup, study.runs, watch)
    tree = plan(study.recipes())
    assert len(executor.run(tree, list(tree.segments)).done) == len(tree.segments)
    assert together >= 2
    assert results(study) == results(expected)


def test_memory_that_did_not_suffice_on_another_node_is_reported_before_the_end_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a rank there prints, through the actor that keeps it and the handle that asks it once the worker died."""
    import ray

    said = {"event": "memory", "plan": {"micro_batch": 2, "recompute": False, "compiled": False}}
    monkeypatch.setattr(node, "torchrun", lambda *_: [sys.executable, "-c", f"print({json.dumps(said)!r}); exit(1)"])
    peer = node.RayPeer(json.dumps(Setup("data", "", 300, 16, ()).as_json()), True)
    report = peer.run([1, 1], 1, ("127.0.0.1", 1))
    peer.close()

    ended: list[Any] = ["call"]
    monkeypatch.setattr(ray, "wait", lambda calls, **_: (ended, []))
    monkeypatch.setattr(ray, "get", lambda call: report)
    driver: Any = SimpleNamespace(events=Queue(), runs=tmp_path, log=lambda number: tmp_path / "log")
    handle = _RayWorkerHandle(0, Place("a", (0,), beside=(Place("b", (0,)),)), None, driver)
    handle.running = ["call"]
    for _ in range(2):
        assert not handle._receive({"event": "died", "how": "with code 1"})
        ended.clear()  # the second time the other node does not answer
    assert [event for _, event in driver.events.queue] == [said, None, None]
    assert "ended with code 1 on" in (tmp_path / "log").read_text()
    assert handle.ended == "with code 1"
